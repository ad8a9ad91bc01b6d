"""Comparison at equal realised cost: curves through corners chosen on calibration, paired over test samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from adaptbench.results.statistics import Estimate, mean

if TYPE_CHECKING:
    from adaptbench.study.members import Outcome

POINTS = 200


@dataclass(frozen=True, slots=True)
class Curve:
    """The operating points that randomising between neighbouring corners can reach.

    Which members are corners was decided on the choosing part; test labels are only read off along it. Costs are test
    costs, which need no labels.

    Args:
        macs: (J,) mean MACs of the corners, rising. correct: (J, N) bool.
    """

    macs: np.ndarray
    correct: np.ndarray

    @classmethod
    def through(cls, corners: Sequence[Outcome], start: Curve | None = None) -> Curve:
        """From the corners' outcomes; a corner that costs more than the next one is left out.

        Args:
            corners: cheapest on the choosing part first; later ones were more accurate there.
            start: a point that every policy can reach, such as always stopping at the first node, so that all curves
                begin at the same cost.
        """
        kept = [] if start is None else [(float(start.macs[0]), start.correct[0])]
        for corner in corners:
            while kept and kept[-1][0] >= corner.macs_mean and (start is None or len(kept) > 1):
                kept.pop()
            if not kept or corner.macs_mean > kept[-1][0]:
                kept.append((corner.macs_mean, corner.correct))
        return cls(np.array([macs for macs, _ in kept]), np.stack([correct for _, correct in kept]))

    def at(self, macs: float) -> np.ndarray | None:
        """(N,) expected correctness at a mean cost of exactly `macs`; None below the cheapest corner.

        Above the dearest corner: that corner, which spends less (a hard cap).
        """
        if macs < self.macs[0]:
            return None
        right = int(np.searchsorted(self.macs, macs))
        if right >= len(self.macs):
            return np.asarray(self.correct[-1], dtype=np.float64)
        if right == 0:
            return np.asarray(self.correct[0], dtype=np.float64)
        share = (macs - self.macs[right - 1]) / (self.macs[right] - self.macs[right - 1])
        return np.asarray((1 - share) * self.correct[right - 1] + share * self.correct[right])

    def accuracy(self, macs: np.ndarray) -> np.ndarray:
        """Accuracy at each mean cost; NaN below the cheapest corner."""
        return np.asarray(np.interp(macs, self.macs, self.correct.mean(1), left=np.nan))

    def area(self, low: float, high: float) -> float | None:
        """Mean accuracy over mean costs from low to high; None where the curve does not reach down to low."""
        if low < self.macs[0] - 1e-9:
            return None
        grid = np.linspace(low, high, POINTS)
        return float(self.accuracy(np.maximum(grid, self.macs[0])).mean())

    def cost_at(self, accuracy: float) -> float | None:
        """The least mean cost at which the curve reaches an accuracy: read off, not chosen; None where never."""
        heights = self.correct.mean(1)
        for i, height in enumerate(heights):
            if height >= accuracy:
                if i == 0:
                    return float(self.macs[0])
                low = heights[:i].max()
                share = (accuracy - low) / (height - low) if height > low else 1.0
                return float(self.macs[i - 1] + share * (self.macs[i] - self.macs[i - 1]))
        return None


def mixed_cost(corners: Sequence[tuple[float, float]], budget: float) -> float | None:
    """Mean cost on test of the mixture that meets a budget on the choosing part.

    Args:
        corners: (cost on the choosing part, cost on test), cheapest first. budget: in the same unit.

    Returns:
        None where the budget lies outside of what the corners cost on the choosing part.
    """
    for (low, low_test), (high, high_test) in pairwise(corners):
        if low <= budget <= high:
            share = (budget - low) / (high - low) if high > low else 1.0
            return (1 - share) * low_test + share * high_test
    return None


def gain(ours: Curve, theirs: Curve, macs: float) -> Estimate | None:
    """Accuracy of one curve minus another's at the same mean cost, paired over samples; None where either stops."""
    a, b = ours.at(macs), theirs.at(macs)
    return None if a is None or b is None else mean(a - b)


def drop(reference: np.ndarray, correct: np.ndarray) -> Estimate:
    """Accuracy lost against the reference, paired over samples. Both (N,) bool."""
    return mean(reference.astype(np.float64) - correct.astype(np.float64))


def loss_bound(reference: np.ndarray, correct: np.ndarray, *, level: float = 0.95) -> float:
    """Upper bound, one-sided, of the accuracy lost against the reference, paired over samples. Both (N,) bool.

    Adjusted Wald for paired proportions (Agresti & Min, Statistics in Medicine 24, 2005): half a sample is added to
    each kind of disagreement, so that a loss of nothing on few samples is not taken for certainty.
    """
    from scipy.stats import norm

    lost, won = int((reference & ~correct).sum()) + 0.5, int((~reference & correct).sum()) + 0.5
    n = len(reference) + 2
    value = (lost - won) / n
    return float(value + norm.ppf(level) * np.sqrt((lost + won) / n - value**2) / np.sqrt(n))


def oracle_macs(correct: np.ndarray, path_macs: Sequence[int]) -> tuple[float, float]:
    """Mean MACs and accuracy of looking at the label: the cheapest right answer, the cheapest way where none is right.

    No policy that answers with one node's logits does better; one that aggregates heads can, where they are right
    together and none is alone.

    Args:
        correct: (N, P) of leaving at the end of each way. path_macs: P costs of the ways.
    """
    costs = np.asarray(path_macs, dtype=np.float64)
    hopeless = ~correct.any(1, keepdims=True)
    best = np.where(correct | hopeless, costs, np.inf).min(1)
    return float(best.mean()), float(correct.any(1).mean())


def oracle_share(macs: float, reference_macs: float, oracle: float) -> float | None:
    """Share of the oracle's saving that was realised; None where the oracle saves nothing."""
    room = reference_macs - oracle
    return (reference_macs - macs) / room if room > 0 else None


def overthinking(correct: np.ndarray) -> float:
    """Share of samples that an earlier node gets right and the last one wrong: strong dominance is violated."""
    return float((correct[:, :-1].any(1) & ~correct[:, -1]).mean())
