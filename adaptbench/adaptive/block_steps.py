"""A block of a gated net as a pass runs it: on everybody, on nobody, or on the rows that its gate let through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from adaptbench.adaptive.block_counting import BlockCosts
from adaptbench.adaptive.parts import EXECUTOR, NODES, Lap
from adaptbench.adaptive.rows import laid_alike
from adaptbench.adaptive.writes import apart

Part = Callable[[Tensor], Tensor]


class BlockStep(NamedTuple):
    """A block.

    Args:
        b: its place. body, aside, after: its parts; aside is the shortcut, or what those who skip run instead.
        gated: a gate is asked. whole: of the second form (see `Block`).
        body_writes, after_writes: the part works in place and is given a copy.
    """

    b: int
    body: Part
    aside: Part
    after: Part
    gated: bool
    whole: bool
    body_writes: bool
    after_writes: bool

    def ran(self, h: Tensor) -> Tensor:
        """Its body run on all of some rows."""
        given = apart(h) if self.body_writes else h
        if self.whole:
            return self.body(given)
        base = self.aside(h)
        return self.after(base + self.body(given))

    def skipped(self, h: Tensor) -> Tensor:
        """None of some rows runs its body."""
        base = self.aside(h)
        return base if self.whole else self.after(apart(base) if self.after_writes else base)

    def parted(self, h: Tensor, rows: Tensor, over: bool, lap: Lap) -> Tensor:
        """Its body run on some rows only.

        Args:
            rows: rising, some of h's and not all. over: h may be written into, if nothing but the block takes it.
        """
        if self.whole:
            going = torch.zeros(len(h), dtype=torch.bool, device=h.device).index_fill_(0, rows, True)
            order = going.logical_not_().argsort(stable=True)  # whoever goes on first; it waits for nobody
            split = h.index_select(0, order)
            some, others = split[: len(rows)], split[len(rows) :]
            lap(EXECUTOR)
            made = [self.body(some), self.aside(others)]
            lap(NODES)
            out = torch.cat(made).index_select(0, order.argsort())
            lap(EXECUTOR)
            return out
        some = laid_alike(h, rows)
        lap(EXECUTOR)
        base, added = self.aside(h), self.body(some)
        lap(NODES)
        if over and base is h and _keeps_nothing(self.aside):
            h = h.index_add_(0, rows, added)
        else:
            h = base.index_add(0, rows, added)
        lap(EXECUTOR)
        return self.after(h)

    def makes_ours(self, took: int, n: int, was_ours: bool) -> bool:
        """Whether what it made is the pass's own, for it to write into: the sum of a block, through what keeps nothing.

        Args:
            took: rows of n that ran its body. was_ours: what it was given.
        """
        if self.whole:
            return 0 < took < n or (not took and was_ours and type(self.aside) is nn.Identity)
        if not _keeps_nothing(self.after):
            return False
        return took > 0 or type(self.after) is nn.ReLU or (was_ours and type(self.aside) is nn.Identity)


def _keeps_nothing(part: Part) -> bool:
    """One of torch's own that holds no reference to what went through it, with nobody listening."""
    return (
        isinstance(part, nn.Module)
        and type(part) in (nn.Identity, nn.ReLU)
        and not (part._forward_hooks or part._forward_pre_hooks)
    )


def lies_in(memory: Tensor, *held: Any) -> bool:
    """Whether one of some tensors, in trees or not, lies in the memory of another."""
    place = memory.untyped_storage().data_ptr()
    return any(
        isinstance(leaf, Tensor) and leaf.untyped_storage().data_ptr() == place
        for of in held
        for leaf in ((of,) if isinstance(of, Tensor) else tree_leaves(of))
    )


def block_steps(
    bodies: Any, shortcuts: Any, afters: Any, gated: tuple[bool, ...], whole: tuple[bool, ...], costs: BlockCosts
) -> tuple[BlockStep, ...]:
    """The blocks of a net, for inputs of such costs."""
    columns = (range(len(gated)), bodies, shortcuts, afters, gated, whole, costs.body_writes, costs.after_writes)
    return tuple(BlockStep(*row) for row in zip(*columns, strict=True))
