"""MACs of each part of a gated network, and which parts write into what they read: one picture through all of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from adaptbench.adaptive.counting import MacCounter
from adaptbench.adaptive.foreign import runs
from adaptbench.adaptive.fronts import count_front
from adaptbench.adaptive.model import frozen
from adaptbench.adaptive.writes import Lent
from adaptbench.errors import GraphError

if TYPE_CHECKING:
    from adaptbench.adaptive.gated import GatedNetwork


@dataclass(frozen=True, slots=True)
class BlockCosts:
    """Of one sample.

    Args:
        front: MACs of what stands in front of the net; every sample pays them.
        always: MACs of stem, head and all that is run around the blocks. gates: of all gates.
        bodies: what each block adds where it runs. plain: everything run, no gate asked.
        start_writes, stem_writes, head_writes: the part works in place on what it is given and must be given a copy.
        body_writes, after_writes: the same, one a block.
        uncounted: operators without a formula.
    """

    front: int
    always: int
    gates: int
    bodies: tuple[int, ...]
    plain: int
    start_writes: bool
    stem_writes: bool
    head_writes: bool
    body_writes: tuple[bool, ...]
    after_writes: tuple[bool, ...]
    uncounted: tuple[str, ...]

    @property
    def entry(self) -> int:
        """What every sample pays beside gates and bodies."""
        return self.front + self.always


@torch.no_grad()
def count_blocks(net: GatedNetwork, x: Tensor) -> BlockCosts:
    """Run every block and gate on one picture.

    Args:
        x: (1, C, H, W); it is not written into.

    Raises:
        GraphError: a part cannot be run, works in place on features that another part reads, or a block's two ways do
            not fit together.
    """
    counter = MacCounter()

    def cost(what: str, call: Any, given: Any, *more: Any) -> tuple[Any, int, Lent]:
        before, lent = counter.macs, Lent(given)
        with runs(what), counter:
            out = call(lent.value, *more)
        return out, counter.macs - before, lent

    names = net.node_names[1:-1]
    with frozen(net):
        x, front = count_front(net, x, counter)
        state, gates, start = cost("the gates' start", net.gates.start, x)
        h, always, stem = cost("the stem", net.stem, x)
        bodies: list[int] = []
        body_writes: list[bool] = []
        after_writes: list[bool] = []
        for b, name in enumerate(names):
            what = f"block '{name}'"
            if net.gated[b]:
                (_, state), macs, lent = cost(f"the gate of {what}", partial(_margin, net, b), h, state)
                gates += macs
                _refuse_writes(f"the gate of {what}", lent.is_written)
            added, macs, lent = cost(what, net.bodies[b], h)
            body_writes.append(lent.is_written)
            aside = 0
            if net.gated[b] or not net.whole[b]:
                base, aside, beside = cost(f"what {what} skips to", net.shortcuts[b], h)
                _refuse_writes(f"what {what} skips to", beside.is_written)
                _check_ways(what, added, base)
                if lent.is_written and not net.whole[b] and _shares(base, beside.value):
                    _refuse_writes(f"the body of {what}", True)
            if net.whole[b]:
                macs -= aside
                if macs < 0:
                    raise GraphError(
                        f"{what} costs {-macs} MACs more where it is skipped than where it runs.",
                        why="The cheapest path would be the one that skips nothing.",
                        todo="Exchange run and skip, and turn the gate's margin round.",
                    )
                h = added
                after_writes.append(False)
            else:
                h, after, lent = cost(f"what comes after {what}", net.afters[b], base + added)
                after_writes.append(lent.is_written)
                aside += after
            always += aside
            bodies.append(macs)
        logits, macs, head = cost("the head", net.head, h)
    if not isinstance(logits, Tensor) or tuple(logits.shape) != (1, net.n_classes):
        seen = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise GraphError(
            f"the head returned {seen} for one picture, not logits (1, {net.n_classes}).",
            todo="End it with a linear layer over the classes.",
        )
    always += macs
    return BlockCosts(
        front,
        always,
        gates,
        tuple(bodies),
        always + sum(bodies),
        start.is_written,
        stem.is_written,
        head.is_written,
        tuple(body_writes),
        tuple(after_writes),
        tuple(sorted(counter.uncounted)),
    )


def _margin(net: GatedNetwork, b: int, h: Tensor, state: Any) -> tuple[Tensor, Any]:
    return net.gates.margin(b, h, state)


def _refuse_writes(what: str, writes: bool) -> None:
    if writes:
        raise GraphError(
            f"{what} works in place on features that other parts of the block read too.",
            why="Where all samples run and where some do, something else would be computed.",
            todo="Give its first layer inplace=False.",
        )


def _check_ways(what: str, run: Any, skip: Any) -> None:
    if not isinstance(run, Tensor) or not isinstance(skip, Tensor) or run.shape != skip.shape:
        seen = [tuple(w.shape) if isinstance(w, Tensor) else type(w).__name__ for w in (run, skip)]
        raise GraphError(
            f"{what} gives {seen[0]} where it runs and {seen[1]} where it is skipped.",
            todo="Give it a shortcut (or skip) that brings the features to the same shape.",
        )


def _shares(a: Any, b: Any) -> bool:
    """Some memory of the one is the other's."""
    places = [{t.untyped_storage().data_ptr() for t in tree_leaves(v) if isinstance(t, Tensor)} for v in (a, b)]
    return bool(places[0] & places[1])
