"""What a gated net is made of: gates that decide, and the blocks that they may skip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from adaptbench.errors import CapabilityError, GraphError


class Gates(nn.Module):
    """Decides for each block, from the features before it, whether it runs.

    A margin > 0 runs the block. State (a recurrent gate's, or a plan made from the image) travels by sample.

    Attributes:
        plans: margins hang on the state alone, whatever the features: who asks for margins only runs no block.
    """

    name: ClassVar[str] = "gates"
    plans: ClassVar[bool] = False

    def start(self, x: Tensor) -> Any:
        """State before the first block: None, or tensors with the batch first. x: (n, C, H, W)."""
        return None

    def margin(self, block: int, features: Tensor, state: Any) -> tuple[Tensor, Any]:
        """(n,) margin of one block and the state after it.

        Both may be views of the features; what a gate keeps of them anywhere else is a copy: the block behind it may
        add what it made into them.
        """
        raise CapabilityError(f"{type(self).__name__} gives no margin.", todo="Subclasses of Gates define margin().")


class FeedForwardGates(Gates):
    """SkipNet's feed-forward kind: one small module a block, features → (n, 1) or (n,) margin.

    Wang, Yu, Dou, Darrell, Gonzalez, "SkipNet: Learning Dynamic Routing in Convolutional Networks", ECCV 2018.
    """

    name = "feed-forward gates"

    def __init__(self, gates: Sequence[nn.Module]) -> None:
        super().__init__()
        self.gates = nn.ModuleList(gates)

    def margin(self, block: int, features: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The block's own module."""
        return self.gates[block](features).flatten(), state


@dataclass(frozen=True, slots=True)
class Block:
    """A block that a gate may skip, written as the net's own forward has it, in one of two forms.

    Residual: ``after(shortcut(h) + body(h))`` where it runs, ``after(shortcut(h))`` where it does not. Where the net's
    forward leaves `after` out for those who skip, take the other form.

    Whole: ``run(h)`` where it runs, ``skip(h)`` where it does not, each on its own samples only.

    Args:
        name: unique in the net.
        body: the part a gate may skip.
        shortcut: shape-keeping or shape-changing path that always runs (None: identity).
        after: applied to the sum, run or not (None: nothing).
        gated: False for a block that always runs.
        run, skip: of the second form, instead of body, shortcut and after; skip None: identity.
    """

    name: str
    body: nn.Module | None = None
    shortcut: nn.Module | None = None
    after: nn.Module | None = None
    gated: bool = True
    run: nn.Module | None = None
    skip: nn.Module | None = None

    @property
    def worker(self) -> nn.Module:
        """What a gate may skip: body, or run.

        Raises:
            GraphError: none of the two forms, or both.
        """
        residual = (self.body, self.shortcut, self.after)
        whole = self.run is not None
        if whole == (self.body is not None) or (whole and any(m is not None for m in residual)):
            raise GraphError(
                f"block '{self.name}' is given in no form, or in two.",
                todo="Give body (with shortcut and after), or run (with skip).",
            )
        if not whole and self.skip is not None:
            raise GraphError(f"block '{self.name}' has a skip without a run.", todo="Name the skip's path shortcut.")
        worker = self.run if self.body is None else self.body
        assert worker is not None
        return worker


def straight_through(margins: Tensor) -> Tensor:
    """1 where a margin is above 0, else 0; the gradient is that of σ(margin). Same shape."""
    soft = torch.sigmoid(margins)
    return (margins > 0).to(soft.dtype) + soft - soft.detach()
