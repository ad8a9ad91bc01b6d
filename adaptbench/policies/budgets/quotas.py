"""Exit quotas: what share of the samples leaves where, the thresholds that bring it about, the search for both."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from adaptbench.errors import UsageError

Acceptance = Literal["released", "within"]
Ties = Literal["together", "released"]

RELEASED_RATIOS = tuple(float(r) / 15 for r in np.linspace(1, 81, 80))
"""ρ = i/15 as the code of EENet walks them: 80 steps from 1/15 to 81/15, which makes each a little more than 1/15."""

NEVER = 2.0
"""A threshold above every score in [0, 1]; finite, as checkpoints want it."""


def geometric_quotas(ratio: float, exits: int, base: Tensor | None = None) -> Tensor:
    """p_k ∝ base_k · ρ^k (MSDNet, Huang et al., ICLR 2018, section 4; base = 1 there).

    Args:
        ratio: ρ > 0; small leaves early, large leaves late.
        exits: K.
        base: (K,) quotas to tilt.

    Returns:
        (K,) float64, sums to 1.
    """
    exponents = math.log(ratio) * torch.arange(1, exits + 1, dtype=torch.float64)
    if base is not None:
        exponents = exponents + base.double().clamp_min(1e-12).log()
    return exponents.softmax(0)


def quota_thresholds(scores: Tensor, quotas: Tensor, *, never: float = NEVER, ties: Ties = "together") -> Tensor:
    """Greedy quantiles: exit k takes the N_k best of those that no earlier exit took.

    N_k = ⌊p_k · N⌋ for k < K; t_k is the N_k-th largest score left, so that a sample leaves where score ≥ t_k.

    Deviates: t_k = `never` where N_k = 0 (released: 1, which a score may reach), and t_K = −∞ (released: 0, below which
    a score may fall). Samples that tie with t_k leave together, as they do when deployed; `ties="released"` takes
    exactly N_k of them out before the next exit is looked at.

    Args:
        scores: (N, K), high leaves. quotas: (K,) fractions, or assignment fractions. never: where N_k = 0.

    Returns:
        (K,) thresholds of the scores' type.
    """
    rows, exits = scores.shape
    counts = torch.floor(quotas.double() * rows + 1e-9).to(torch.int64).tolist()
    thresholds = scores.new_full((exits,), never)
    left = torch.arange(rows, device=scores.device)
    for k in range(exits - 1):
        count = min(counts[k], len(left))
        if count == 0:
            continue
        ranked, order = scores[left, k].sort(descending=True, stable=True)
        thresholds[k] = ranked[count - 1]
        left = left[order[count:]] if ties == "released" else left[scores[left, k] < thresholds[k]]
    thresholds[-1] = -torch.inf
    return thresholds


def exits_taken(scores: Tensor, thresholds: Tensor) -> Tensor:
    """(N,) int64: the first exit whose score reaches its threshold. scores: (N, K); thresholds: (K,)."""
    return (scores >= thresholds).to(torch.int8).argmax(1)


def check_budget(budget: float, exit_costs: Tensor, unit: str, *, slack: float = 1e-9) -> None:
    """A mean cost that some mixture of exits can have.

    Args:
        budget: B. exit_costs: (K,) c_k, rising. unit: of both. slack: relative, for what rounding did to either.

    Raises:
        UsageError: outside [c_1, c_K].
    """
    low, high = float(exit_costs[0]), float(exit_costs[-1])
    if not low * (1 - slack) <= budget <= high * (1 + slack):
        raise UsageError(
            f"a budget of {budget:g} {unit} a sample cannot be met.",
            why="A budget is a mean cost; nobody leaves before the first exit or after the last.",
            todo=f"Give a value in [{low:g}, {high:g}].",
        )


@dataclass(frozen=True, slots=True)
class QuotaSearch:
    """What a search over ρ settled on: the ratio, its thresholds (K,), and the mean cost they have on the log."""

    ratio: float
    thresholds: Tensor
    cost: float


def search_quotas(
    scores: Tensor,
    exit_costs: Tensor,
    budget: float,
    *,
    acceptance: Acceptance = "within",
    base: Tensor | None = None,
    never: float = NEVER,
) -> QuotaSearch:
    """Geometric quotas for a budget.

    Args:
        scores: (N, K), high leaves.
        exit_costs: (K,) c_k.
        budget: B, a mean cost.
        acceptance: "released": the first of `RELEASED_RATIOS` whose Σ p_k c_k exceeds B, the last if none does, so it
            overspends; "within": the largest mean cost on these scores that is at most B.
        base: (K,) quotas to tilt instead of level ones.
        never: threshold of an exit that nobody is to take.

    Raises:
        UsageError: another word for `acceptance`.
    """
    exits = scores.shape[1]
    costs = exit_costs.double()

    def look(ratio: float) -> QuotaSearch:
        quotas = geometric_quotas(ratio, exits, base)
        released = acceptance == "released"
        thresholds = quota_thresholds(scores, quotas, never=never, ties="released" if released else "together")
        return QuotaSearch(ratio, thresholds, float(costs[exits_taken(scores, thresholds)].mean()))

    if acceptance == "released":
        above = (r for r in RELEASED_RATIOS if float(geometric_quotas(r, exits, base) @ costs) > budget)
        return look(next(above, RELEASED_RATIOS[-1]))
    if acceptance != "within":
        raise UsageError(f"no acceptance is called '{acceptance}'.", todo="Use 'within' or 'released'.")
    low, high = -40.0, 40.0
    everyone_early, everyone_late = look(math.exp(low)), look(math.exp(high))
    best = everyone_late if everyone_late.cost <= budget else everyone_early
    # the mean cost rises with ρ but for the rounding of N_k: bisect, and keep the dearest that was affordable
    for _ in range(36):
        middle = (low + high) / 2
        tried = look(math.exp(middle))
        low, high = (middle, high) if tried.cost <= budget else (low, middle)
        if best.cost < tried.cost <= budget:
            best = tried
    return best
