"""One confidence threshold for every node: the baseline that any learned policy has to beat."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor

from adaptbench.adaptive.log import CalibrationLog
from adaptbench.adaptive.outcome import Signals
from adaptbench.adaptive.policy import Policy
from adaptbench.adaptive.replay import cheapest_within, evaluate_on
from adaptbench.adaptive.structure import Structure
from adaptbench.errors import PolicyError


class UniformThreshold(Policy):
    """Stop where the top softmax probability reaches δ, else go to the next node, whatever other ways there are.

    Args:
        threshold: δ.
    """

    name = "uniform"
    per_pixel = True
    knob = "threshold"

    def __init__(self, threshold: float = 0.9) -> None:
        super().__init__()
        self.threshold = float(threshold)

    def bind(self, structure: Structure) -> None:
        """Each node but the last hands over to the next one, other ways may exist."""
        last = len(structure.names) - 1
        if any(v + 1 not in ways for v, ways in enumerate(structure.successors) if v < last):
            raise PolicyError(
                "a uniform threshold walks the nodes in order; this graph has no such way.",
                todo="Add the edges from each node to the next.",
            )

    def scores(self, node: int, signals: Signals) -> Tensor:
        """Confidence for stopping, δ for the next node, −1 (never) for the others."""
        confidence = signals.confidence
        others = [torch.full_like(confidence, -1.0)] * len(signals.ways)
        others[signals.ways.index(node + 1)] = torch.full_like(confidence, self.threshold)
        return torch.stack([confidence, *others], 1)

    @classmethod
    def fit(cls, log: CalibrationLog, *, drop: float = 0.005, grid: int = 200, seed: int = 0) -> Self:
        """The cheapest δ, of quantiles of the logged confidences, within `drop` of the most accurate node."""
        quantiles = torch.quantile(log.confidence.flatten(), torch.linspace(0, 1, grid)).tolist()
        floor = log.best_accuracy - drop
        points = [evaluate_on(cls(t), log, t) for t in sorted({*quantiles, 1.1})]
        return cls(cheapest_within(points, floor).setting)

    @classmethod
    def family(cls, log: CalibrationLog, *, seed: int = 0) -> list[Self]:
        """41 thresholds at quantiles of the logged confidences."""
        quantiles = torch.quantile(log.confidence.flatten().double(), torch.linspace(0, 1, 41).double()).tolist()
        return [cls(threshold) for threshold in sorted({*quantiles, 1.1})]

    def describe(self) -> dict[str, Any]:
        """δ."""
        return {"threshold": self.threshold}
