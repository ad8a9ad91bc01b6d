"""Thresholds whose ε is a promise: the cascade loses at most ε against the whole net, with probability 1 − β."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from torch import Tensor

from adaptbench.adaptive.log import CalibrationLog
from adaptbench.errors import CalibrationError
from adaptbench.policies.thresholds.joint_threshold import JointThreshold, ThresholdPath, first_exit, threshold_path
from adaptbench.policies.thresholds.risk_bounds import Bound, upper_bound

_PATH_SHARE = 0.4
_MIN_TESTED = 100


class RiskControlled(JointThreshold):
    """Jointly chosen thresholds; ε bounds the true paired loss E[1(full right) − 1(exit right)].

    One part of the calibration log chooses the path of thresholds, dear to cheap. On the other part each point of the
    path gets an upper confidence bound on its loss. The path is walked from its dear end and stops at the first point
    whose bound exceeds ε: fixed-sequence testing (Angelopoulos et al., "Learn then Test", 2021), so that the walk costs
    no correction. The bounds are a table: another ε is a look-up, and its promise holds too (each ε on its own).

    Args:
        path, costs, epsilon, cost_unit: as of `JointThreshold`.
        drops: (J,) upper bounds, made monotone along the path; what ε is compared with.
        beta: chance that the promise fails, over the draw of the calibration split.
    """

    name = "risk-controlled"

    def __init__(
        self,
        path: Tensor,
        drops: Tensor,
        costs: Tensor,
        epsilon: float = 0.01,
        *,
        cost_unit: str = "macs",
        beta: float = 0.05,
    ) -> None:
        self.beta = float(beta)
        super().__init__(path, drops, costs, epsilon, cost_unit=cost_unit)

    @classmethod
    def fit(
        cls,
        log: CalibrationLog,
        *,
        epsilon: float = 0.01,
        beta: float = 0.05,
        bound: Bound = "betting",
        prices: int = 40,
        seed: int = 0,
    ) -> Self:
        """Choose the path on 40 % of the log, bound its losses on the rest.

        Raises:
            CalibrationError: fewer than 100 samples would be left for the bounds.
            UsageError: β or the bound's name.
        """
        if len(log) * (1 - _PATH_SHARE) < _MIN_TESTED:
            raise CalibrationError(
                f"{len(log)} calibration samples cannot carry a promise.",
                why=f"{1 - _PATH_SHARE:.0%} of them stand behind the bound, and it needs {_MIN_TESTED}.",
                todo="Give more calibration samples.",
            )
        choosing, testing = log.halves(_PATH_SHARE, seed)
        walk = threshold_path(choosing, prices)
        losses = paired_losses(testing, walk.thresholds)
        bounds = np.maximum.accumulate(upper_bound(losses, beta, bound))
        # the first point never leaves early: it loses nothing, which is no estimate
        bounds[0] = 0.0 if not losses[:, 0].any() else bounds[0]
        leave = _exits(testing, walk.thresholds)
        costs = testing.exit_costs.numpy()[leave].mean(0)
        path = ThresholdPath(walk.thresholds, bounds, costs).tensors()
        return cls(*path, epsilon, cost_unit=log.cost_unit, beta=beta)

    def _place(self) -> int:
        """The last row of the walk from the dear end; bounds rise along it, so a prefix passes."""
        return max(0, int((self.drops <= self.epsilon + 1e-9).sum()) - 1)

    @classmethod
    def family(cls, log: CalibrationLog, *, seed: int = 0) -> list[Self]:
        """One member a point of the path; the promise belongs to ε, not to a member of the family."""
        fitted = cls.fit(log, seed=seed)
        return [fitted.fixed(j) for j in reversed(range(len(fitted.path)))]

    def fixed(self, row: int) -> Self:
        """The policy at one point of its path, whatever ε."""
        kept = slice(row, row + 1)
        return self._with(self.path[kept], self.drops[kept], self.costs[kept], self.epsilon)

    def _with(self, path: Tensor, drops: Tensor, costs: Tensor, epsilon: float) -> Self:
        return type(self)(path, drops, costs, epsilon, cost_unit=self.cost_unit, beta=self.beta)

    @classmethod
    def from_state(cls, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Rebuild from a checkpoint."""
        return cls(
            tensors["path"],
            tensors["drops"],
            tensors["costs"],
            settings["epsilon"],
            cost_unit=settings["cost_unit"],
            beta=settings["beta"],
        )

    def describe(self) -> dict[str, Any]:
        """The promise, ε and β, and the thresholds that keep it."""
        return {**super().describe(), "beta": self.beta}


def _exits(log: CalibrationLog, thresholds: np.ndarray) -> np.ndarray:
    """(N, J) exit of each sample under each row of thresholds."""
    confidence = log.confidence[:, :-1].float().numpy()
    return np.stack([first_exit(confidence, row) for row in thresholds], axis=1)


def paired_losses(log: CalibrationLog, thresholds: np.ndarray) -> np.ndarray:
    """(N, J) in {−1, 0, 1}: 1 where the last exit is right and the exit taken is wrong. thresholds: (J, K−1)."""
    correct = log.correct.numpy().astype(np.int8)
    taken = np.take_along_axis(correct, _exits(log, thresholds), axis=1)
    return np.asarray(correct[:, -1:] - taken, dtype=np.float64)
