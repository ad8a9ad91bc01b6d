"""Stopping by chance: the straight line between two fixed exits, which any policy must beat."""

from __future__ import annotations

from typing import Any, Self

from torch import Tensor

from adaptbench.adaptive.log import CalibrationLog
from adaptbench.adaptive.outcome import Signals
from adaptbench.adaptive.policy import ChainPolicy


class RandomMix(ChainPolicy):
    """Go on with a fixed probability, drawn from the sample's own seed: no batch and no order changes a draw.

    Args:
        going: probability of going on at each node.
    """

    name = "random"
    per_pixel = True
    draws = True
    knob = "going"

    def __init__(self, going: float = 0.5) -> None:
        super().__init__()
        self.going = float(going)

    def margin(self, node: int, signals: Signals) -> Tensor:
        """Probability minus the draw."""
        return (self.going - signals.uniform(node)).to(signals.logits.dtype) + 0 * signals.logits[:, 0]

    @classmethod
    def fit(cls, log: CalibrationLog, *, going: float = 0.5, seed: int = 0) -> Self:
        """The probability asked for; the log is not read."""
        return cls(going)

    @classmethod
    def family(cls, log: CalibrationLog, *, seed: int = 0) -> list[Self]:
        """From always stopping to never, in 21 steps."""
        return [cls(i / 20) for i in range(21)]

    def describe(self) -> dict[str, Any]:
        """The probability."""
        return {"going": self.going}
