"""The best accuracy that any choice of ways could have at every mean cost: the roof over all policies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from adaptbench.adaptive.log import CalibrationLog
from adaptbench.adaptive.topology import cheapest_ways
from adaptbench.errors import UsageError


@dataclass(frozen=True, slots=True)
class OracleCurve:
    """Corners of a concave, rising line.

    Args:
        cost: (M,) mean cost, rising. accuracy: (M,) the best mean gain at that mean cost, rising.
    """

    cost: np.ndarray
    accuracy: np.ndarray

    def at(self, budget: float) -> float:
        """The best mean gain within a mean cost; past the last corner more money buys nothing.

        Raises:
            UsageError: less than the cheapest way costs.
        """
        if budget < self.cost[0] * (1 - 1e-9):
            raise UsageError(
                f"no choice costs {budget:g} a sample.", todo=f"The cheapest way costs {self.cost[0]:g} already."
            )
        return float(np.interp(budget, self.cost, self.accuracy))


def oracle_curve(gains: Tensor, costs: Tensor) -> OracleCurve:
    """The linear relaxation of the multiple-choice knapsack, solved exactly for every budget at once.

    Of each sample only the upper hull of its (cost, gain) options matters; the steps of all hulls are bought in
    falling order of gain per cost (Dantzig 1957; Sinha and Zoltners 1979). A mean budget may split the last step
    between two options, as a policy that draws could.

    Args:
        gains: (N, P) what each sample gets from each option: right or wrong, or minus a loss.
        costs: (P,) what each option costs as a whole.

    Returns:
        The curve, corners merged where the slope stays.
    """
    worth = np.asarray(gains, dtype=np.float64)
    price = np.asarray(costs, dtype=np.float64)
    cheapest = np.flatnonzero(price == price.min())
    here = cheapest[worth[:, cheapest].argmax(1)]
    rows = np.arange(len(worth))
    base_cost, base_gain = price[here].mean(), worth[rows, here].mean()
    slopes, dearer, better = [], [], []
    while True:
        step = price[None, :] - price[here][:, None]
        gain = worth - worth[rows, here][:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = np.where((step > 0) & (gain > 0), gain / step, 0.0)
        steepest = slope.max(1)
        if not (steepest > 0).any():
            break
        # of equally steep options the farthest: one step along the hull
        reach = np.where(slope >= steepest[:, None] * (1 - 1e-12), step, -1.0)
        there = np.where(steepest > 0, reach.argmax(1), here)
        moved = steepest > 0
        slopes.append(steepest[moved])
        dearer.append((price[there] - price[here])[moved])
        better.append((worth[rows, there] - worth[rows, here])[moved])
        here = there
    if not slopes:
        return OracleCurve(np.array([base_cost]), np.array([base_gain]))
    slope, cost, gain = (np.concatenate(part) for part in (slopes, dearer, better))
    order = np.argsort(-slope, kind="stable")
    slope, cost, gain = slope[order], cost[order], gain[order]
    corner = np.append(slope[1:] < slope[:-1] * (1 - 1e-9), True)
    return OracleCurve(
        np.append(base_cost, base_cost + cost.cumsum()[corner] / len(worth)),
        np.append(base_gain, base_gain + gain.cumsum()[corner] / len(worth)),
    )


def oracle_curve_of(log: CalibrationLog) -> OracleCurve:
    """The roof of a logged graph: stopping at any node, having come the cheapest way to it.

    On a chain the ways are the exits; in the log's cost unit, and with its top-k rule for right and wrong.
    """
    increments = log.node_costs.tolist()
    ways = cheapest_ways(log.structure.successors, increments)
    costs = torch.tensor([sum(increments[v] for v in way) for way in ways], dtype=torch.float64)
    return oracle_curve(log.correct, costs)
