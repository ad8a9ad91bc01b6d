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
    draws = True
    knob = "going"

    def __init__(self, going: float = 0.5) -> None:
        super().__init__()
        self.going = float(going)

    def margin(self, node: int, signals: Signals) -> Tensor:
        """Probability minus the draw."""
        return (self.going - signals.uniform(node)).to(signals.logits.dtype) + 0 * signals.logits[:, 0]

    @classmethod
    def family(cls, log: CalibrationLog, *, seed: int = 0) -> list[Self]:
        """From always stopping to never, in 21 steps."""
        return [cls(i / 20) for i in range(21)]

    @classmethod
    def from_state(cls, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Rebuild from a checkpoint."""
        return cls(settings["going"])

    @property
    def knob_value(self) -> float:
        """Probability of going on."""
        return self.going

    def at(self, value: float) -> Self:
        """Another probability."""
        return type(self)(value)

    def describe(self) -> dict[str, Any]:
        """The probability."""
        return {"going": self.going}
