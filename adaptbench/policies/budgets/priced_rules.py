"""Rules for a row of prices, by dynamic programming from the last exit of a chain back to its first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from adaptbench.adaptive.log import CalibrationLog
from adaptbench.adaptive.outcome import signals_at
from adaptbench.policies.budgets.value_of_going_on import (
    Crossfit,
    foretell,
    history_features,
    outcomes_foreseen,
    ridge,
    soft_correct,
    value_basis,
)

_PRICES = 64
_BETWEEN = 4


@dataclass(frozen=True, slots=True)
class Rules:
    """What a fit leaves behind.

    Args:
        positions: (Q,) rising, on a line where whole numbers are rules and what lies between mixes two neighbours.
        costs: (Q,) mean cost at each, falling. spreads: (Q,) standard deviation of a sample's cost.
        foretellers: a layer an exit. values: a (1 + F, P) array an exit: bias, then weights, of the worth of going on.
    """

    positions: np.ndarray
    costs: np.ndarray
    spreads: np.ndarray
    foretellers: list[nn.Linear]
    values: list[np.ndarray]


def learn_rules(log: CalibrationLog, folds: Crossfit, strength: float, penalty: float) -> Rules:
    """Rules for a row of prices, dear to cheap, and what each costs.

    What is foretold, and what lies ahead of an exit, enters the regressions cross-fitted only. Costs are those of the
    final rules: labels have next to no hold on them (they shape a few dozen weights), and rules of other folds would
    cost something else where scores tie or samples are few. The first and the last rule send everybody on and
    out, so that the whole range of budgets is covered.

    Args:
        strength: C of the logistic regressions. penalty: of the ridge regressions.
    """
    exit_costs = log.exit_costs.numpy()
    nodes = len(exit_costs)
    gains = soft_correct(log)
    foretellers, aside, deployed = [], [], []
    for k in range(nodes - 1):
        history = signals_at(log.logits, k).history
        assert history is not None
        features = history_features(history, k)
        odds, layer = foretell(features, gains[:, list(outcomes_foreseen(k, nodes))], folds, strength=strength)
        foretellers.append(layer)
        aside.append(value_basis(odds).numpy())
        with torch.no_grad():
            deployed.append(value_basis(layer(features)).double().numpy())
    steps = np.diff(exit_costs) / exit_costs[-1]
    worth = gains.numpy()
    # prices that surely send everybody out at once, or on to the end, and between them ever finer towards none
    steep = np.geomspace(1e-4, 2.0 / steps.min(), 40)
    prices = np.concatenate([-steep[::-1], [0.0], steep])
    weights = _backward(aside, worth, steps, prices, folds, penalty)
    coarse, _ = _costs_of([w[0] + x @ w[1:] for w, x in zip(weights, deployed, strict=True)], exit_costs)
    # then once more, at prices whose costs are about evenly spaced
    falling = np.minimum.accumulate(coarse) - np.arange(len(coarse)) * 1e-9 * exit_costs[-1]
    even = np.linspace(falling[0], falling[-1], _PRICES)
    prices = np.unique(np.interp(-even, -falling, prices))
    weights = _backward(aside, worth, steps, prices, folds, penalty)
    spread = [(w[0] + x @ w[1:]).std(0) + 1e-9 for w, x in zip(weights, deployed, strict=True)]
    values = [
        np.concatenate([_constant(w, +1.0), w / s, _constant(w, -1.0)], 1) for w, s in zip(weights, spread, strict=True)
    ]
    margins = [w[0] + x @ w[1:] for w, x in zip(values, deployed, strict=True)]
    return Rules(*cost_table(margins, exit_costs), foretellers, values)


def cost_table(margins: list[np.ndarray], exit_costs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What following each rule, and mixtures of neighbours, costs.

    Args:
        margins: K−1 of (N, P), dear rules first. exit_costs: (K,).

    Returns:
        Positions (Q,) between the rules, mean costs, strictly falling, and standard deviations of a sample's.
    """
    positions = np.arange((margins[0].shape[1] - 1) * _BETWEEN + 1) / _BETWEEN
    costs, spreads = _costs_of([_mixed(m, positions) for m in margins], exit_costs)
    keep = _falling(costs, 1e-5 * (exit_costs[-1] - exit_costs[0]))
    return positions[keep], costs[keep], spreads[keep]


def _mixed(margins: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """(N, Q) margins at positions between rules. margins: (N, P)."""
    left = np.minimum(positions.astype(int), margins.shape[1] - 2)
    share = positions - left
    between: np.ndarray = margins[:, left] * (1 - share) + margins[:, left + 1] * share
    return between


def _falling(costs: np.ndarray, step: float) -> list[int]:
    """Which entries to keep so that costs fall strictly, by more than float32 rounds off; both ends always."""
    kept = [0]
    for i in range(1, len(costs) - 1):
        if costs[-1] + step < costs[i] < costs[kept[-1]] - step:
            kept.append(i)
    return [*kept, len(costs) - 1]


def _constant(like: np.ndarray, margin: float) -> np.ndarray:
    """(1 + F, 1) weights of a rule that is the same for everybody: all go on, or all leave."""
    column = np.zeros((len(like), 1))
    column[0] = margin
    return column


def _backward(
    bases: list[np.ndarray], gains: np.ndarray, steps: np.ndarray, prices: np.ndarray, folds: Crossfit, penalty: float
) -> list[np.ndarray]:
    """Dynamic programming for all prices at once.

    Args:
        bases: K−1 of (N, F), cross-fitted. gains: (N, K) chances of being right. steps: (K−1,) cost of going on from
            each exit. prices: (P,).

    Returns:
        By exit (1 + F, P): bias and weights of what going on brings more than leaving, its price paid.
    """
    weights: list[np.ndarray] = []
    ahead = np.repeat(gains[:, -1:], len(prices), 1)  # what following the rules from the next exit on brings
    for k in reversed(range(len(bases))):
        centre, spread = bases[k].mean(0), bases[k].std(0) + 1e-6
        x = (bases[k] - centre) / spread
        paid = ahead - prices * steps[k]
        target = paid - gains[:, [k]]
        for fold in range(folds.number):
            inside = folds.of == fold
            fitted = ridge(x[~inside], target[~inside], penalty)
            going = fitted[0] + x[inside] @ fitted[1:] > 0
            ahead[inside] = np.where(going, paid[inside], gains[inside][:, [k]])
        whole = ridge(x, target, penalty)
        whole[1:] /= spread[:, None]
        whole[0] -= centre @ whole[1:]
        weights.insert(0, whole)
    return weights


def _costs_of(margins: list[np.ndarray], exit_costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (Q,) of a sample's cost, from the margins (N, Q) of each exit."""
    paid = np.full(margins[0].shape, exit_costs[-1])
    for k in reversed(range(len(margins))):
        paid = np.where(margins[k] > 0, paid, exit_costs[k])
    return paid.mean(0), paid.std(0)
