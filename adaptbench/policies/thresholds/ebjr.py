"""Routing by free energy: the shallow net keeps what its logits take for familiar."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from torch import Tensor

from adaptbench.adaptive.log import CalibrationLog
from adaptbench.adaptive.outcome import Signals
from adaptbench.errors import UsageError
from adaptbench.policies.thresholds.score_thresholds import ScoreThresholds


class EnergyRouting(ScoreThresholds):
    """Stop where the free energy E(x) = −T·log Σ_c exp(z_c / T) of the logits is at or below a threshold.

    "Energy-Based Joint Reasoning" (EBJR), BMVC 2021: low energy keeps the shallow answer, high energy calls the deep
    net. Thresholds are on −E, so that a high score stops.

    Deviates: chains longer than two apply the rule at each net, with thresholds searched jointly (`ScoreThresholds`);
    the variant that trains the shallow net on part of the classes concerns the net and is not here.

    Args:
        thresholds, prices, price, cost_unit: as of `ScoreThresholds`.
        temperature: T > 0.

    Raises:
        UsageError: T is not positive.
    """

    name = "ebjr"
    limits = (-1e4, 1e4)

    def __init__(
        self,
        thresholds: Tensor,
        prices: Sequence[float],
        price: float | None = None,
        *,
        cost_unit: str = "macs",
        temperature: float = 1.0,
    ) -> None:
        super().__init__(thresholds, prices, price, cost_unit=cost_unit)
        if not temperature > 0:
            raise UsageError(f"T = {temperature} is no temperature.", todo="Give a value above 0; 1 is usual.")
        self.temperature = float(temperature)

    @classmethod
    def fit(
        cls,
        log: CalibrationLog,
        *,
        drop: float = 0.005,
        budget: float | None = None,
        quantiles: int = 200,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> Self:
        """As of `ScoreThresholds`. temperature: T > 0."""
        return cls._search(log, drop, budget, quantiles, temperature=temperature)

    def score(self, node: int, signals: Signals) -> Tensor:
        """−E: the soft maximum of the logits."""
        return self.temperature * (signals.logits / self.temperature).logsumexp(-1)

    def describe(self) -> dict[str, Any]:
        """The path and T."""
        return {**super().describe(), "temperature": self.temperature}
