"""Networks whose blocks gates skip: SkipNet (a gate a block), BlockDrop (one look at the image), recurrent gates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from adaptbench.adaptive.cost_tables import CostTables
from adaptbench.adaptive.counting import counting
from adaptbench.adaptive.domain import ImageDomain
from adaptbench.adaptive.log import CalibrationLog
from adaptbench.adaptive.model import AdaptiveModel, frozen, runs
from adaptbench.adaptive.outcome import TIE_MARGIN, Inference, Relaxation
from adaptbench.adaptive.splits import Split
from adaptbench.errors import CapabilityError, GraphError


class Gates(nn.Module):
    """Decides for each block, from the features before it, whether it runs.

    A margin > 0 runs the block. State (a recurrent gate's, or a plan made from the image) travels by sample.
    """

    name: ClassVar[str] = "gates"

    def start(self, x: Tensor) -> Any:
        """State before the first block: None, or tensors with the batch first. x: (n, C, H, W)."""
        return None

    def margin(self, block: int, features: Tensor, state: Any) -> tuple[Tensor, Any]:
        """(n,) margin of one block and the state after it."""
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
    """A residual block: ``shortcut(h) + body(h)`` where it runs, ``shortcut(h)`` where it does not.

    Args:
        name: unique in the net.
        body: the part a gate may skip.
        shortcut: shape-keeping or shape-changing path that always runs (None: identity).
        after: applied to the sum, run or not (None: nothing).
        gated: False for a block that always runs.
    """

    name: str
    body: nn.Module
    shortcut: nn.Module | None = None
    after: nn.Module | None = None
    gated: bool = True


@dataclass(frozen=True, slots=True)
class _Costs:
    always: int
    gates: int
    bodies: tuple[int, ...]
    stem: int
    head: int
    plain: int
    uncounted: tuple[str, ...]


def straight_through(margins: Tensor) -> Tensor:
    """1 where a margin is above 0, else 0; the gradient is that of σ(margin). Same shape."""
    soft = torch.sigmoid(margins)
    return (margins > 0).to(soft.dtype) + soft - soft.detach()


class GatedNetwork(AdaptiveModel):
    """Stem, gated residual blocks, head. Only the rows that a gate lets through reach a block's body.

    Args:
        stem: (n, C, H, W) → features; it always runs.
        blocks: in order.
        head: features → (n, C) logits.
        gates: one margin a gated block.
        domain, n_classes: what it takes and gives.

    Raises:
        GraphError: no blocks, or a block name twice.
    """

    shape = "gated"
    _costs: CostTables[_Costs]

    def __init__(
        self,
        *,
        stem: nn.Module,
        blocks: Sequence[Block],
        head: nn.Module,
        gates: Gates,
        domain: ImageDomain,
        n_classes: int,
    ) -> None:
        super().__init__()
        names = [b.name for b in blocks]
        if not blocks or len(set(names)) < len(names):
            raise GraphError(f"a gated network needs blocks with names of their own; seen: {names}.")
        self.stem, self.head, self.gates = stem, head, gates
        self.bodies = nn.ModuleList(b.body for b in blocks)
        self.shortcuts = nn.ModuleList(b.shortcut or nn.Identity() for b in blocks)
        self.afters = nn.ModuleList(b.after or nn.Identity() for b in blocks)
        self.gated = tuple(b.gated for b in blocks)
        self.domain, self.n_classes = domain, n_classes
        self.node_names = ("stem", *names, "head")
        self.exit_names = ("head",)

    def _run(self, x: Tensor, *, seeds: Tensor | None, labels: Tensor | None, force: Tensor | None) -> Inference:
        n, device = len(x), x.device
        costs = self._cost_table(x)
        path = torch.ones(n, len(self.node_names), dtype=torch.bool, device=device)
        tie = torch.zeros(n, dtype=torch.bool, device=device)
        if force is not None:
            force = self._check_force(force.to(device), n)
        state = self.gates.start(x)
        h = self.stem(x)
        for b, body in enumerate(self.bodies):
            run = None
            if self.gated[b]:
                margin, state = self.gates.margin(b, h, state)
                run = margin > 0
                if force is not None:
                    run = force[:, b + 1]
                else:
                    tie |= margin.abs() <= TIE_MARGIN
                path[:, b + 1] = run
            base = self.shortcuts[b](h)
            if run is None or run.all():
                h = base + body(h)
            elif run.any():
                rows = run.nonzero().squeeze(1)
                h = base.index_add(0, rows, body(h[rows]))
            else:
                h = base
            h = self.afters[b](h)
        per_node = torch.tensor([costs.always, *costs.bodies, 0], device=device)
        macs = (path * per_node).sum(1) + costs.gates
        return Inference(self.head(h), macs, torch.zeros(n, dtype=torch.int64, device=device), path, tie)

    def _check_force(self, force: Tensor, n: int) -> Tensor:
        if force.ndim == 1:
            force = force.expand(n, -1)
        always = [0, len(self.node_names) - 1, *(b + 1 for b, gated in enumerate(self.gated) if not gated)]
        if tuple(force.shape) != (n, len(self.node_names)) or not force[:, always].all():
            raise CapabilityError(
                f"a forced path of shape {tuple(force.shape)} does not fit a net of {len(self.node_names)} nodes.",
                todo="Give (V,) or (N, V) bool with stem, head and ungated blocks set; model.paths() lists some.",
            )
        return force

    def _relax(self, x: Tensor, *, temperature: float, seeds: Tensor | None) -> Relaxation:
        """Hard decisions forward, sigmoid gradients backward (straight-through): features are the hard path's."""
        costs = self._cost_table(x)
        logits, margins = self.gated_forward(x, temperature=temperature)
        reach, column = [x.new_ones(len(x))], 0
        for gated in self.gated:
            reach.append(torch.sigmoid(margins[:, column] / temperature) if gated else x.new_ones(len(x)))
            column += gated
        reach.append(x.new_ones(len(x)))
        arrived = torch.stack(reach, 1)
        expected = costs.gates + arrived @ x.new_tensor([costs.always, *costs.bodies, 0])
        return Relaxation(expected, margins, logits[:, None], arrived)

    def gated_forward(self, x: Tensor, *, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        """Every body on every sample, straight-through gates; in the caller's train or eval mode, for training too.

        Returns:
            logits (N, C) of the hard path, and margins (N, D) of the gated blocks.
        """
        state = self.gates.start(x)
        h = self.stem(x)
        margins: list[Tensor] = []
        for b, body in enumerate(self.bodies):
            base = self.shortcuts[b](h)
            if self.gated[b]:
                margin, state = self.gates.margin(b, h, state)
                margins.append(margin)
                gate = straight_through(margin / temperature)
                h = base + gate.view(-1, *[1] * (base.ndim - 1)) * body(h)
            else:
                h = base + body(h)
            h = self.afters[b](h)
        return self.head(h), torch.stack(margins, 1) if margins else x.new_zeros(len(x), 0)

    def plain_forward(self, x: Tensor) -> Tensor:
        """(N, C): every block runs, no gate is asked; the backbone that the gates were added to."""
        h = self.stem(x)
        for b, body in enumerate(self.bodies):
            h = self.afters[b](self.shortcuts[b](h) + body(h))
        return self.head(h)  # type: ignore[no-any-return]

    def dense_logits(self, x: Tensor) -> Tensor:
        """(N, 1, C) of the ungated backbone."""
        return self.plain_forward(x)[:, None]

    def run_reference(self, x: Tensor) -> Tensor:
        """(N, C) of the ungated backbone."""
        with frozen(self), torch.no_grad():
            return self.plain_forward(x)

    def _cost_table(self, x: Tensor) -> _Costs:
        key = (id(self.gates), *x.shape[1:], x.dtype, x.device)
        return self._costs.of(key, self, lambda: self._count(x[:1].detach()))

    def _count(self, x: Tensor) -> _Costs:
        uncounted: set[str] = set()
        bodies: list[int] = []

        def cost(call: Any, *args: Any) -> tuple[Any, int]:
            with counting() as counter:
                out = call(*args)
            uncounted.update(counter.uncounted)
            return out, counter.macs

        with frozen(self), runs("the gated network"):
            state, gates = cost(self.gates.start, x)
            h, stem = cost(self.stem, x)
            around = 0
            for b, body in enumerate(self.bodies):
                if self.gated[b]:
                    (_, state), macs = cost(self.gates.margin, b, h, state)
                    gates += macs
                base, macs = cost(self.shortcuts[b], h)
                around += macs
                added, macs = cost(body, h)
                bodies.append(macs)
                h, macs = cost(self.afters[b], base + added)
                around += macs
            _, head = cost(self.head, h)
        always = stem + around + head
        return _Costs(always, gates, tuple(bodies), stem, head, always + sum(bodies), tuple(sorted(uncounted)))

    @property
    def _table(self) -> _Costs:
        with frozen(self):
            self._costs.check(self)
            return self._cost_table(self._blank())

    @property
    def node_macs(self) -> tuple[int, ...]:
        """Stem (with shortcuts and head, which always run), each block's body, and 0 for the head's column."""
        return (self._table.always, *self._table.bodies, 0)

    @property
    def gate_macs(self) -> int:
        """All gates together; every sample pays them."""
        return self._table.gates

    @property
    def min_macs(self) -> int:
        """Every gated block skipped."""
        table = self._table
        return (
            table.always + table.gates + sum(m for m, gated in zip(table.bodies, self.gated, strict=True) if not gated)
        )

    @property
    def max_macs(self) -> int:
        """Every block run, gates paid."""
        return self._table.plain + self._table.gates

    @property
    def macs_full(self) -> int:
        """The backbone without gates."""
        return self._table.plain

    @property
    def uncounted(self) -> tuple[str, ...]:
        """Operators without a MAC formula."""
        return self._table.uncounted

    @property
    def policy_name(self) -> str:
        """The kind of gates."""
        return self.gates.name

    def paths(self) -> list[Tensor]:
        """Everything skipped, everything run, and each block alone."""
        size = len(self.node_names)
        least = torch.tensor([True, *(not gated for gated in self.gated), True])
        alone = [least.index_fill(0, torch.tensor([b + 1]), True) for b, gated in enumerate(self.gated) if gated]
        return [least, torch.ones(size, dtype=torch.bool), *alone]

    @property
    def dearest_decisions(self) -> Tensor:
        """(D,) bool: every gate open."""
        return torch.ones(sum(self.gated), dtype=torch.bool)

    def log(self, split: Split, *, chunk: int = 1000) -> CalibrationLog:
        """A gated net is trained, not fitted on a log.

        Raises:
            CapabilityError: always.
        """
        raise CapabilityError(
            "a gated network has no exits to log.",
            why="Its gates are weights.",
            todo="Train them: `adaptbench train skipnet`.",
        )
