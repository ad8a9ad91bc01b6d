"""One entropy threshold for every exit of a chain."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor

from adaptbench.adaptive.log import CalibrationLog
from adaptbench.adaptive.outcome import Signals
from adaptbench.adaptive.policy import ChainPolicy
from adaptbench.adaptive.replay import cheapest_within, evaluate_on


class EntropyThreshold(ChainPolicy):
    """Leave at the first exit whose entropy is at most T.

    Teerapittayanon, McDanel, Kung, "BranchyNet: Fast Inference via Early Exiting from Deep Neural Networks", ICPR 2016.

    Deviates: the entropy is divided by log C, one T serves every exit (the paper has one each, found by screening a
    grid), and equal leaves.

    Args:
        threshold: T, on [0, 1]; 0 certain, 1 uniform.
    """

    name = "entropy"
    knob = "threshold"

    def __init__(self, threshold: float = 0.1) -> None:
        super().__init__()
        self.threshold = float(threshold)

    def margin(self, node: int, signals: Signals) -> Tensor:
        """Entropy minus T: > 0 goes on."""
        return signals.entropy - self.threshold

    @classmethod
    def fit(cls, log: CalibrationLog, *, drop: float = 0.005, grid: int = 200, seed: int = 0) -> Self:
        """The cheapest T, of quantiles of the logged entropies, within `drop` of the most accurate exit.

        Raises:
            PolicyError: the graph is no chain.
        """
        cls().bind(log.structure)
        floor = log.best_accuracy - drop
        points = [evaluate_on(cls(t), log, t) for t in _levels(log, grid)]
        return cls(cheapest_within(points, floor).setting)

    @classmethod
    def family(cls, log: CalibrationLog, *, seed: int = 0) -> list[Self]:
        """25 thresholds from "everybody leaves at once" to "nobody leaves early"."""
        return [cls(t) for t in reversed(_levels(log, 24))]

    def describe(self) -> dict[str, Any]:
        """T."""
        return {"threshold": self.threshold}


def _levels(log: CalibrationLog, number: int) -> list[float]:
    """T rising: one below every entropy, then quantiles of them; evenly spaced in the samples, not in T."""
    entropies = Signals(log.logits[:, :-1].flatten(0, 1)).entropy
    return sorted({-0.1, *torch.quantile(entropies, torch.linspace(0, 1, number)).tolist()})
