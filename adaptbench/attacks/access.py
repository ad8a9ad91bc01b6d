"""What the attacker may do: look inside, ask a limited number of times, or work on another model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from adaptbench.adaptive import AdaptiveModel, ImageDomain, Inference
from adaptbench.attacks.ranges import UNSAID, Queries, count
from adaptbench.errors import CapabilityError

CHUNK = 256
READINGS = 5


@dataclass(frozen=True, slots=True)
class BlackBox:
    """The cost of an input; the logits of its answer, where the threat is one that sees them.

    Args:
        queries: an input, all included. returns: what comes back of each.
        cost: counted "macs", or "seconds" or "joules" that a meter reads, one inference at a time.
        readings: of the meter, a query; the picture counts once, however often it is read.
    """

    name: ClassVar[str] = "black-box"
    queries: Queries = 500
    returns: Literal["cost", "cost+logits"] = "cost"
    cost: Literal["macs", "seconds", "joules"] = field(default="macs", metadata=UNSAID)
    readings: Annotated[int, count(2, 1000)] = field(default=READINGS, metadata=UNSAID)


@dataclass(frozen=True, slots=True)
class Transfer:
    """Another model, wholly; the target is never asked.

    Args:
        surrogate: name in the model registry, ``sdn``; or ``DATA/NAME``, ``cifar100/sdn``, of one that was trained on
            another data set than the target's.
    """

    name: ClassVar[str] = "transfer"
    surrogate: str

    @property
    def data(self) -> str | None:
        """What the surrogate was trained on, where it is named; else what the target was."""
        return foreign(self.surrogate)[0]


def foreign(surrogate: str) -> tuple[str | None, str]:
    """Data set, where one is named, and net of a surrogate's name.

    >>> foreign("cifar100/sdn"), foreign("sdn"), foreign("./nets.py:build")
    (('cifar100', 'sdn'), (None, 'sdn'), (None, './nets.py:build'))
    """
    data, _, net = surrogate.rpartition("/") if ":" not in surrogate else ("", "", surrogate)  # a factory's is a path
    return data or None, net


def unlike(other: AdaptiveModel, model: AdaptiveModel) -> str | None:
    """None, or how the inputs of another model differ from those of this one, in words."""
    one, two = other.domain, model.domain
    if one == two:
        return None
    if not (isinstance(one, ImageDomain) and isinstance(two, ImageDomain)):
        return f"it takes {one}, the target {two}"
    (channels, *sides), (own, *own_sides) = one.shape, two.shape
    if channels != own:
        return f"its pictures have {channels} channels of {_sides(sides)}, the target's {own} of {_sides(own_sides)}"
    if sides != own_sides:
        return f"its pictures are {_sides(sides)}, the target's {_sides(own_sides)}"
    return f"its values span [{one.low:g}, {one.high:g}], the target's [{two.low:g}, {two.high:g}]"


def _sides(sides: list[int]) -> str:
    return "×".join(map(str, sides))


class QueriedModel:
    """All that a black-box attacker sees: executed MACs of 8-bit pictures, counted an input.

    Args:
        model: the target. n: inputs of this craft. budget: queries an input may cost.
    """

    def __init__(self, model: AdaptiveModel, n: int, budget: int) -> None:
        self._model, self.budget = model, budget
        self.used = torch.zeros(n, dtype=torch.int64)

    def left(self, rows: Tensor) -> Tensor:
        """(n,) queries that inputs still have."""
        return self.budget - self.used[rows.cpu()]

    def query(self, rows: Tensor, pictures: Tensor) -> Tensor:
        """Ask for the cost of pictures.

        Args:
            rows: (n,) int64, the input that each picture belongs to; repeats count.
            pictures: (n, C, H, W) uint8.

        Returns:
            (n,) int64 executed MACs.

        Raises:
            CapabilityError: the budget of an input is spent; nothing was asked then.
        """
        asked = torch.bincount(rows.cpu(), minlength=len(self.used))
        if (over := self.used + asked > self.budget).any():
            row = int(over.nonzero()[0])
            raise CapabilityError(
                f"input {row} was asked {int(self.used[row] + asked[row])} times; its budget is {self.budget} queries.",
                why="A black-box attack is only as strong as its budget is honest.",
                todo="Plan within queried.left(rows), or give more: {queries: …}.",
            )
        self.used += asked
        return self._costs(pictures)

    def _costs(self, pictures: Tensor) -> Tensor:
        costs = [inference.macs for inference in self._infer(pictures)]
        return torch.cat(costs) if costs else torch.zeros(0, dtype=torch.int64)

    def _infer(self, pictures: Tensor) -> list[Inference]:
        return [self._model.infer(part.float() / 255.0) for part in torch.split(pictures, CHUNK)]


class AnsweringModel(QueriedModel):
    """The same, and the logits of the answer that is returned: one exit's, never those on the way.

    Attributes:
        logits: (n, C) of the last query, on the model's device; None before the first.
    """

    logits: Tensor | None = None

    def _infer(self, pictures: Tensor) -> list[Inference]:
        inferences = super()._infer(pictures)
        self.logits = torch.cat([inference.logits for inference in inferences]) if inferences else None
        return inferences
