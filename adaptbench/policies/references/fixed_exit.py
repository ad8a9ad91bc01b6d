"""Always the same exit: the arms of a bandit over exits, and the baseline of every policy that looks at the input."""

from __future__ import annotations

from typing import Any, Self

from torch import Tensor

from adaptbench.adaptive.log import CalibrationLog
from adaptbench.adaptive.outcome import Signals
from adaptbench.adaptive.policy import ChainPolicy
from adaptbench.adaptive.structure import Structure
from adaptbench.errors import PolicyError, UsageError


class FixedExit(ChainPolicy):
    """Leave at one exit of a chain, whatever the input.

    Args:
        exit: index of the exit, from 0.

    Raises:
        UsageError: the index is no whole number from 0 on.
    """

    name = "fixed-exit"
    per_pixel = True
    knob = "exit"

    def __init__(self, exit: int = 0) -> None:
        super().__init__()
        if exit < 0 or exit != int(exit):
            raise UsageError(f"exit {exit} was asked for.", todo="Exits count from 0: give a whole number.")
        self.exit = int(exit)

    def bind(self, structure: Structure) -> None:
        """A chain that has this exit."""
        super().bind(structure)
        if self.exit >= len(structure.names):
            raise PolicyError(
                f"exit {self.exit} was asked of a chain of {len(structure.names)}.",
                todo=f"Give 0 to {len(structure.names) - 1}.",
            )

    def margin(self, node: int, signals: Signals) -> Tensor:
        """Exits still to go, less a half; the logits stay in the graph with weight 0."""
        return self.exit - node - 0.5 + 0 * signals.logits[:, 0]

    @classmethod
    def fit(cls, log: CalibrationLog, *, exit: int | None = None, drop: float = 0.005, seed: int = 0) -> Self:
        """The exit asked for, or the first within `drop` of the most accurate one on the log."""
        if exit is not None:
            return cls(exit)
        return cls(int((log.correct.float().mean(0) >= log.best_accuracy - drop).float().argmax()))

    @classmethod
    def family(cls, log: CalibrationLog, *, seed: int = 0) -> list[Self]:
        """One a node."""
        return [cls(k) for k in range(len(log.structure.names))]

    def describe(self) -> dict[str, Any]:
        """The exit."""
        return {"exit": self.exit}
