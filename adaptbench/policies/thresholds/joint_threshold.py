"""Confidence thresholds chosen together, for the cascade's own loss rather than for each exit's residual accuracy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from adaptbench.adaptive.log import CalibrationLog
from adaptbench.adaptive.outcome import Signals
from adaptbench.adaptive.policy import ChainPolicy
from adaptbench.adaptive.structure import Structure
from adaptbench.errors import PolicyError, UsageError

NEVER = 2.0  # above every confidence; finite, as checkpoints want it
_SWEEPS = 20


class JointThreshold(ChainPolicy):
    """Leave at the first exit whose top probability reaches δ_k, all δ chosen jointly; ε is looked up at run time.

    Ours (science of Berestizshevsky & Even 2019, whose rule bounds each exit's residual accuracy, not the cascade's
    loss): along a path of prices μ the thresholds maximise accuracy − μ · cost by exact coordinate ascent. ε picks the
    cheapest point of the path whose accuracy on the calibration split is at most ε below the last exit's.

    Args:
        path: (J, K−1) thresholds, dear to cheap. drops: (J,) accuracy lost against the last exit on the fitting log,
            negative where the cascade is better. costs: (J,) mean cost there, in `cost_unit`.
        epsilon: accuracy that may be lost, a fraction.
        cost_unit: what costs were counted in.
    """

    name = "joint-threshold"
    knob = "epsilon"
    path: Tensor
    drops: Tensor
    costs: Tensor
    thresholds: Tensor

    def __init__(
        self, path: Tensor, drops: Tensor, costs: Tensor, epsilon: float = 0.01, *, cost_unit: str = "macs"
    ) -> None:
        super().__init__()
        if not 0.0 <= epsilon <= 1.0:
            raise UsageError(
                f"ε = {epsilon} is no accuracy fraction.", todo="Give a value in [0, 1]; 0.01 is one point."
            )
        self.register_buffer("path", path)
        self.register_buffer("drops", drops)
        self.register_buffer("costs", costs)
        self.epsilon, self.cost_unit = float(epsilon), cost_unit
        self.register_buffer("thresholds", path[self._place()].clone(), persistent=False)

    def _place(self) -> int:
        """Row of the path in force: the cheapest that keeps ε; the first (all the way) where none does."""
        allowed = (self.drops <= self.epsilon + 1e-9).nonzero().squeeze(1)
        return int(allowed[self.costs[allowed].argmin()]) if len(allowed) else 0

    def bind(self, structure: Structure) -> None:
        """A chain with one threshold an exit but the last."""
        super().bind(structure)
        if self.path.shape[1] != len(structure.names) - 1:
            raise PolicyError(
                f"{self.path.shape[1]} thresholds were given to {len(structure.names)} exits.",
                why="Every exit but the last has a threshold; the last accepts everything.",
                todo="Fit the policy on this model's own log.",
            )

    def check_costs(self, node_macs: tuple[int, ...]) -> None:
        """The dearest point of the path runs every exit; a single point is not chosen by its cost."""
        now, fitted = sum(node_macs), float(self.costs[0])
        if self.cost_unit == "macs" and len(self.costs) > 1 and not math.isclose(now, fitted, rel_tol=1e-5):
            raise PolicyError(
                f"'{self.name}' was fitted on exits that cost {fitted:.6g} MACs together; these cost {now}.",
                why="The cheapest point of another net's path need not be the cheapest of this one's.",
                todo="Fit it on this net's log, or take policy.recosted(net.log(split)).",
            )

    def recosted(self, log: CalibrationLog) -> Self:
        """The same path and ε, with mean costs of this log; its labels are not read."""
        if len(self.costs) == 1:
            return self
        confidence, paid = log.confidence[:, :-1].float().cpu().numpy(), log.exit_costs.numpy()
        costs = [paid[first_exit(confidence, row)].mean() for row in self.path.cpu().numpy()]
        told = torch.tensor(costs, dtype=self.costs.dtype, device=self.costs.device)
        tensors = {"path": self.path.clone(), "drops": self.drops.clone(), "costs": told}
        return self.from_state({**self.describe(), "cost_unit": log.cost_unit}, tensors)

    def margin(self, node: int, signals: Signals) -> Tensor:
        """Threshold minus confidence: > 0 goes on, equal leaves."""
        return self.thresholds[node] - signals.confidence

    @classmethod
    def fit(cls, log: CalibrationLog, *, epsilon: float = 0.01, prices: int = 40, seed: int = 0) -> Self:
        """The path of thresholds over a log grid of `prices` prices.

        Raises:
            CalibrationError: fewer than 50 samples.
        """
        path = threshold_path(log, prices)
        return cls(*path.tensors(), epsilon, cost_unit=log.cost_unit)

    @classmethod
    def family(cls, log: CalibrationLog, *, seed: int = 0) -> list[Self]:
        """One member a point of the path, dear ones included."""
        fitted = cls.fit(log, seed=seed)
        return [fitted.fixed(j) for j in reversed(range(len(fitted.path)))]

    def fixed(self, row: int) -> Self:
        """The policy at one point of its path, whatever ε."""
        kept = slice(row, row + 1)
        return type(self)(self.path[kept], self.drops[kept], self.costs[kept], self.epsilon, cost_unit=self.cost_unit)

    @classmethod
    def from_state(cls, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Rebuild from a checkpoint."""
        return cls(
            tensors["path"],
            tensors["drops"],
            tensors["costs"],
            settings["epsilon"],
            cost_unit=settings["cost_unit"],
        )

    def describe(self) -> dict[str, Any]:
        """ε, the thresholds that follow from it, and the unit of cost."""
        return {
            "epsilon": self.epsilon,
            "thresholds": [round(t, 6) for t in self.thresholds.tolist()],
            "cost_unit": self.cost_unit,
        }


@dataclass(frozen=True, slots=True)
class ThresholdPath:
    """Jointly chosen thresholds from dear to cheap, and where they land on the log that they were fitted on.

    Args:
        thresholds: (J, K−1) float32. drops: (J,) fractions. costs: (J,) mean cost.
    """

    thresholds: np.ndarray
    drops: np.ndarray
    costs: np.ndarray

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """As float32 tensors."""
        path, drops, costs = (torch.from_numpy(a.astype(np.float32)) for a in (self.thresholds, self.drops, self.costs))
        return path, drops, costs


def threshold_path(log: CalibrationLog, prices: int = 40) -> ThresholdPath:
    """Thresholds that maximise accuracy − μ · cost for `prices` values of μ, warm-started from dear to cheap.

    The path begins with "never leave early": it keeps every promise.

    Raises:
        CalibrationError: fewer than 50 samples.
    """
    log.require(50, "choose thresholds together")
    # float32 as at inference: a sample must stand on the same side of a threshold in both
    confidence = log.confidence[:, :-1].float().numpy()
    correct = log.correct.double().numpy()
    paid = log.exit_costs.numpy()
    share = paid / paid[-1]
    exits = confidence.shape[1]
    never = np.full(exits, NEVER, dtype=np.float32)
    rows = [never]
    thresholds = never
    # μ in accuracy per full cost; from 1e-3 (a point saved for a tenth of the cost is refused) to 3 (always leave)
    for price in np.geomspace(1e-3, 3.0, prices):
        thresholds = ascend(confidence, correct - price * share, thresholds)
        rows.append(thresholds)
    table = np.unique(np.stack(rows), axis=0)
    leave = np.stack([first_exit(confidence, row) for row in table])
    costs = paid[leave].mean(1)
    drops = (correct[:, -1] - np.take_along_axis(correct[None], leave[..., None], 2)[..., 0]).mean(1)
    order = np.lexsort((drops, -costs))
    keep = order[np.concatenate([[True], np.diff(costs[order]) < 0])]
    return ThresholdPath(table[keep], drops[keep], costs[keep])


def first_exit(confidence: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """(N,) exit of each sample. confidence: (N, K−1). thresholds: (K−1,)."""
    last = np.ones((len(confidence), 1), dtype=bool)
    return np.asarray(np.concatenate([confidence >= thresholds, last], axis=1).argmax(1))


def ascend(confidence: np.ndarray, worth: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Coordinate ascent on the mean worth of where samples leave; each threshold's own optimum is exact.

    Args:
        confidence: (N, K−1). worth: (N, K) of leaving at each exit. start: (K−1,).

    Returns:
        (K−1,) thresholds; each a logged confidence, or `NEVER`.
    """
    thresholds = start.copy()
    best = -np.inf
    for _ in range(_SWEEPS):
        for k in reversed(range(len(thresholds))):
            reached = (confidence[:, :k] < thresholds[:k]).all(1)
            if not reached.any():
                continue
            later = k + 1 + first_exit(confidence[reached, k + 1 :], thresholds[k + 1 :])
            onward = worth[reached][np.arange(int(reached.sum())), later]
            thresholds[k] = _cut(confidence[reached, k], worth[reached, k] - onward)
        leave = first_exit(confidence, thresholds)
        now = float(worth[np.arange(len(worth)), leave].mean())
        if now <= best + 1e-12:
            break
        best = now
    return thresholds


def _cut(confidence: np.ndarray, gain: np.ndarray) -> np.float32:
    """The threshold at which Σ gain of all samples at or above is greatest; equal confidences leave together."""
    levels, group = np.unique(confidence, return_inverse=True)
    total = np.zeros(len(levels))
    np.add.at(total, group, gain)
    above = total[::-1].cumsum()[::-1]
    top = int(above.argmax())
    return np.float32(levels[top]) if above[top] > 0 else np.float32(NEVER)
