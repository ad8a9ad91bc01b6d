"""What stands in front of a net: counted once for every sample, and held to giving pictures back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from adaptbench.adaptive.counting import MacCounter
from adaptbench.adaptive.foreign import runs
from adaptbench.adaptive.writes import Lent
from adaptbench.errors import GraphError

if TYPE_CHECKING:
    from adaptbench.adaptive.model import AdaptiveModel


def count_front(model: AdaptiveModel, x: Tensor, counter: MacCounter) -> tuple[Tensor, int]:
    """Pictures as the net gets to see them, and what that costs.

    Args:
        x: (1, C, H, W); it is not written into.

    Raises:
        GraphError: the front cannot be run, writes into what it is given, or gives no pictures of the same shape.
    """
    if model.front is None:
        return x, 0
    before, lent = counter.macs, Lent(x)
    what = f"what stands in front of the net ({type(model.front).__name__})"
    with runs(what), counter:
        seen = model.entered(lent.value)
    if lent.is_written:
        raise GraphError(
            f"{what} works in place on the pictures it is given.",
            why="They are the caller's.",
            todo="Write x * a instead of x.mul_(a), and the like.",
        )
    if not isinstance(seen, Tensor) or seen.shape != x.shape or seen.dtype != x.dtype:
        given = f"{seen.dtype} {tuple(seen.shape)}" if isinstance(seen, Tensor) else type(seen).__name__
        raise GraphError(
            f"{what} gave {given} for pictures {x.dtype} {tuple(x.shape)}.",
            why="The net was made for the pictures that its domain declares.",
            todo="Give pictures of the same shape and type back.",
        )
    return seen, counter.macs - before
