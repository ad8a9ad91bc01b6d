"""What a model's inputs cost where nobody counts: a meter reads it, noisily, in seconds or joules."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from adaptbench.adaptive.outcome import Inference
from adaptbench.errors import CapabilityError, GraphError

Unit = Literal["seconds", "joules"]
READINGS = 5
# of a normal distribution: the standard error of a median over that of a mean, and the deviation over the median one
MEDIAN, DEVIATION = 1.2533, 1.4826


@dataclass(frozen=True, slots=True)
class CostMeter:
    """Reads what one inference took.

    Args:
        unit: of what it reads.
        read: (model, (n, …) inputs, k) → (n, k) float64, read k times, one inference at a time.
        readings: k, two at least; a cost is the median of so many.
    """

    unit: Unit
    read: Callable[[Any, Tensor, int], Tensor]
    readings: int = READINGS

    def __post_init__(self) -> None:
        if isinstance(self.readings, bool) or not isinstance(self.readings, int) or self.readings < 2:
            raise GraphError(
                f"readings={self.readings!r}: a cost is the median of two at least.",
                why="One reading says nothing of its own noise.",
                todo="Write a whole number such as 5.",
            )

    def readings_of(self, model: Any, x: Tensor) -> Tensor:
        """(n, k) float64, checked.

        Raises:
            GraphError: the meter gave another shape, or what is no cost.
        """
        found = torch.as_tensor(self.read(model, x, self.readings)).double().cpu()
        if tuple(found.shape) != (len(x), self.readings):
            raise GraphError(
                f"the meter gave {tuple(found.shape)}, not ({len(x)}, {self.readings}): a row an input.",
                todo="Let it return (n, k) numbers for n inputs and k readings.",
            )
        if not (torch.isfinite(found).all() and (found > 0).all()):
            raise GraphError(
                f"the meter read {float(found.min()):g} to {float(found.max()):g} {self.unit} of an inference.",
                why="Every answer costs something; a meter that shows none is too coarse or stands still.",
                todo="Take a finer clock, or let fn do more a call.",
            )
        return found


def median_and_noise(readings: Tensor) -> tuple[Tensor, Tensor]:
    """(n,) medians of (n, k) readings, and (n,) standard errors of them, by the median deviation.

    >>> median_and_noise(torch.tensor([[1.0, 3.0, 2.0]]))
    (tensor([2.]), tensor([1.0728]))
    """
    middle = readings.quantile(0.5, dim=1)
    spread = (readings - middle[:, None]).abs().quantile(0.5, dim=1) * DEVIATION
    return middle, spread * MEDIAN / math.sqrt(readings.shape[1])


class MeteredInference(Inference):
    """The hard pass of a model that tells no MACs.

    Args:
        logits, exit, path, tie: as of `Inference`.
        cost: (N,) float64 in `unit`, a median of readings. noise: (N,) float64, its standard error.
        unit: "seconds" or "joules".
    """

    __slots__ = ("cost", "noise", "unit")
    cost: Tensor
    noise: Tensor
    unit: Unit

    def __init__(
        self, logits: Tensor, exit: Tensor, path: Tensor, tie: Tensor, *, cost: Tensor, noise: Tensor, unit: Unit
    ) -> None:
        told = {"logits": logits, "exit": exit, "path": path, "tie": tie, "cost": cost, "noise": noise, "unit": unit}
        for name, value in told.items():
            object.__setattr__(self, name, value)

    @property
    def macs(self) -> Tensor:
        """Nobody counted.

        Raises:
            CapabilityError: always.
        """
        raise no_macs(self.unit)

    def __repr__(self) -> str:
        return f"MeteredInference({len(self)} inputs, cost={self.cost} {self.unit})"


def no_macs(unit: str) -> CapabilityError:
    """What is said where MACs are asked of a model whose cost is metered."""
    return CapabilityError(
        f"this black box tells no MACs: what its inputs cost is metered in {unit}.",
        why="Seconds and joules are no MACs, and a count of zero would be a lie.",
        todo="Read `cost` of what infer returns, take an attack that only asks for costs, or let fn tell MACs.",
    )
