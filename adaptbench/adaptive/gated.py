"""Networks whose blocks gates skip: SkipNet (a gate a block), BlockDrop (one look at the image), recurrent gates."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from adaptbench.adaptive.backbone import OnABackbone
from adaptbench.adaptive.block_counting import BlockCosts, count_blocks
from adaptbench.adaptive.block_queues import BlockQueues
from adaptbench.adaptive.block_steps import BlockStep, block_steps, lies_in
from adaptbench.adaptive.cost_tables import CostTables
from adaptbench.adaptive.domain import Domain
from adaptbench.adaptive.gates import Block, Gates, straight_through
from adaptbench.adaptive.log import CalibrationLog
from adaptbench.adaptive.model import AdaptiveModel
from adaptbench.adaptive.outcome import Inference, Relaxation, tie_margin
from adaptbench.adaptive.parts import EVERYONE, EXECUTOR, NODES, POLICY, Decided, Lap, Mode, no_lap
from adaptbench.adaptive.reaching import reaches_pictures
from adaptbench.adaptive.splits import Split
from adaptbench.adaptive.writes import apart
from adaptbench.errors import CapabilityError, GraphError


class GatedNetwork(OnABackbone):
    """Stem, gated residual blocks, head. Only the rows that a gate lets through reach a block's body.

    Args:
        stem: (n, C, H, W) → features; it always runs.
        blocks: in order.
        head: features → (n, C) logits.
        gates: one margin a gated block.
        domain, n_classes: what it takes and gives.

    Raises:
        GraphError: no blocks, a block name twice, or parts that do not fit or write into each other's features.
    """

    shape = "gated"
    _costs: CostTables[BlockCosts]

    def __init__(
        self,
        *,
        stem: nn.Module,
        blocks: Sequence[Block],
        head: nn.Module,
        gates: Gates,
        domain: Domain,
        n_classes: int,
    ) -> None:
        super().__init__()
        names = [b.name for b in blocks]
        if not blocks or len(set(names)) < len(names):
            raise GraphError(f"a gated network needs blocks with names of their own; seen: {names}.")
        self.stem, self.head, self.gates = stem, head, gates
        self.bodies = nn.ModuleList(b.worker for b in blocks)
        self.shortcuts = nn.ModuleList(b.skip or b.shortcut or nn.Identity() for b in blocks)
        self.afters = nn.ModuleList(b.after or nn.Identity() for b in blocks)
        self.gated = tuple(b.gated for b in blocks)
        self.whole = tuple(b.run is not None for b in blocks)
        self.domain, self.n_classes = domain, n_classes
        self.node_names = ("stem", *names, "head")
        self.exit_names = ("head",)
        _ = self._table  # parts that do not fit together are refused here

    def _run(self, x: Tensor, *, seeds: Tensor | None, labels: Tensor | None, force: Tensor | None) -> Inference:
        return self._recorded(x, None, force)

    @property
    def modes(self) -> tuple[Mode, ...]:
        """With block queues; what a subclass does instead of the pass has none."""
        return (*super().modes, "queues") if type(self)._run is GatedNetwork._run else super().modes

    def _run_queued(
        self, x: Tensor, full: int, *, seeds: Tensor | None, labels: Tensor | None, force: Tensor | None
    ) -> Inference:
        return self._recorded(x, full, force)

    def _recorded(self, x: Tensor, full: int | None, force: Tensor | None) -> Inference:
        n, device = len(x), x.device
        costs = self._counted(x)
        if force is not None:
            force = self._check_force(force.to(device), n)
        out, decided = self._hard_pass(x, costs, force, no_lap, full)
        path = torch.ones(n, len(self.node_names), dtype=torch.bool, device=device)
        path[:, [b + 1 for b, gated in enumerate(self.gated) if gated]] = False
        tie = torch.zeros(n, dtype=torch.bool, device=device)
        for v, run in decided.ran:
            path[run, v] = True
        for rows, margin in decided.best:
            tie[rows] |= margin.abs() <= tie_margin(x.dtype)
        per_node = torch.tensor([costs.entry, *costs.bodies, 0], device=device)
        macs = (path * per_node).sum(1) + costs.gates
        return Inference(out, macs, torch.zeros(n, dtype=torch.int64, device=device), path, tie)

    def serve(self, x: Tensor, *, seeds: Tensor | None = None, lap: Lap = no_lap, full: int | None = None) -> Tensor:
        """The hard pass and nothing beside it. full: through block queues, so many rows at once."""
        if type(self)._run is not GatedNetwork._run:  # what a subclass does instead is what is deployed
            return super().serve(x, seeds=seeds, lap=lap, full=full)
        x = self.taken(x)
        return self._hard_pass(x, self._counted(x), None, lap, full)[0]

    def _hard_pass(
        self, x: Tensor, costs: BlockCosts, force: Tensor | None, lap: Lap, full: int | None = None
    ) -> tuple[Tensor, Decided]:
        """(n, C) answers, and what each gate decided; through block queues where `full` is said.

        `ran` holds whom a gate let through, `best` whom it asked. It waits for the device once a gate.
        """
        steps = self._steps(x, costs)
        if full is not None:
            return BlockQueues(self, steps, costs, force, lap, full).run(x)
        n, gates, decided = len(x), self.gates, Decided([], [], [])
        lap(EXECUTOR)
        x = self.entered(x, lap)
        state = gates.start(apart(x) if costs.start_writes else x)
        lap(POLICY)
        h = self.stem(apart(x) if costs.stem_writes else x)
        lap(NODES)
        free = not torch.is_grad_enabled()
        is_ours = False  # h is a tensor that the pass made and nobody else holds: what a block adds is written into it
        for step in steps:
            took, rows, over = n, None, False
            if step.gated:
                margin, state = gates.margin(step.b, h, state)
                if force is None:
                    decided.best.append((EVERYONE, margin))
                lap(POLICY)
                if n == 1:
                    took = int(margin.item() > 0 if force is None else force[0, step.b + 1])
                else:
                    rows = (margin > 0 if force is None else force[:, step.b + 1]).nonzero().squeeze(1)
                    took = rows.shape[0]
                if took:
                    decided.ran.append((step.b + 1, EVERYONE if took == n or rows is None else rows))
                if is_ours and took < n and rows is not None and lies_in(h, margin, state):
                    is_ours = False  # from here on: nobody may run this block, and h go on as it is
                over = free and is_ours and 0 < took < n and h.is_contiguous()
            lap(EXECUTOR)
            if took == n or rows is None:
                h = step.ran(h) if took else step.skipped(h)
            else:
                h = step.parted(h, rows, over, lap) if took else step.skipped(h)
            is_ours = step.makes_ours(took, n, is_ours)
            lap(NODES)
        logits = self.head(apart(h) if costs.head_writes else h)
        lap(NODES)
        return logits, decided

    def _steps(self, x: Tensor, costs: BlockCosts) -> tuple[BlockStep, ...]:
        """The blocks for such inputs; made once inside `serving`."""
        key = ("steps", id(self), x.shape[1:], x.dtype, x.device)  # a twin with compiled parts shares these tables

        def made() -> tuple[BlockStep, ...]:
            return block_steps(self.bodies, self.shortcuts, self.afters, self.gated, self.whole, costs)

        return self._costs.kept(key, made)

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
        """Hard decisions forward, sigmoid gradients backward (straight-through): features are the hard path's.

        `expected_macs` takes each gate's probability at the features of the hard path, as if gates were independent.
        That is exact for gates that look at the picture once; where a gate sees what earlier blocks did, it is an
        approximation: the exact sum runs over 2^D states of the net.
        """
        return self._relaxed(x, *self.gated_forward(x, temperature=temperature), temperature)

    def _relax_decisions(self, x: Tensor, *, temperature: float, seeds: Tensor | None) -> Relaxation:
        if not self._own_relaxation:
            return self._relax(x, temperature=temperature, seeds=seeds)
        return self._relaxed(x, *self.gated_forward(x, temperature=temperature, last=False), temperature)

    @property
    def _own_relaxation(self) -> bool:
        """False where a subclass has a pass of its own."""
        return (type(self)._relax, type(self).gated_forward) == (GatedNetwork._relax, GatedNetwork.gated_forward)

    def _relaxed(self, x: Tensor, logits: Tensor, margins: Tensor, temperature: float) -> Relaxation:
        costs = self._counted(x)
        margins = margins.to(torch.promote_types(margins.dtype, torch.float32))  # MACs are beyond half's range
        sure = margins.new_ones(len(x))
        reach, column = [sure], 0
        for gated in self.gated:
            reach.append(torch.sigmoid(margins[:, column] / temperature) if gated else sure)
            column += gated
        reach.append(sure)
        arrived = torch.stack(reach, 1)
        expected = costs.gates + arrived @ sure.new_tensor([costs.entry, *costs.bodies, 0])
        return Relaxation(expected, margins, logits[:, None], arrived)

    def gated_forward(self, x: Tensor, *, temperature: float = 1.0, last: bool = True) -> tuple[Tensor, Tensor]:
        """Every body on every sample, straight-through gates; in the caller's train or eval mode, for training too.

        Args:
            last: False stops at the last gate, before the stem where gates plan; the logits are zero then.

        Returns:
            logits (N, C) of the hard path, and margins (N, D) of the gated blocks.
        """
        x = self.taken(x)
        costs = self._counted(x)
        x = self.entered(x)
        state = self.gates.start(apart(x) if costs.start_writes else x)
        margins: list[Tensor] = []
        if not last and self.gates.plans and any(self.gated):
            for b in (b for b, gated in enumerate(self.gated) if gated):
                margin, state = self.gates.margin(b, x, state)
                margins.append(margin)
            return x.new_zeros(len(x), self.n_classes), torch.stack(margins, 1)
        h = self.stem(apart(x) if costs.stem_writes else x)
        for step in self._steps(x, costs):
            if not step.gated:
                h = step.ran(h)
                continue
            margin, state = self.gates.margin(step.b, h, state)
            margins.append(margin)
            if not last and not any(self.gated[step.b + 1 :]):
                return x.new_zeros(len(x), self.n_classes), torch.stack(margins, 1)
            base, added = step.aside(h), step.body(apart(h) if step.body_writes else h)
            gate = straight_through(margin / temperature).view(-1, *[1] * (base.ndim - 1))
            h = gate * added + (1 - gate) * base if step.whole else step.after(base + gate * added)
        return self.head(apart(h) if costs.head_writes else h), torch.stack(margins, 1) if margins else x.new_zeros(
            len(x), 0
        )

    def _has_gradients(self) -> bool:
        return reaches_pictures(self, lambda x: self.gated_forward(x)[0][:, None])

    def plain_forward(self, x: Tensor) -> Tensor:
        """(N, C): every block runs, no gate is asked; the backbone that the gates were added to."""
        x = self.taken(x)
        costs = self._counted(x)
        h = self.stem(apart(x) if costs.stem_writes else x)
        for step in self._steps(x, costs):
            h = step.ran(h)
        return self.head(apart(h) if costs.head_writes else h)  # type: ignore[no-any-return]

    def _counted(self, x: Tensor) -> BlockCosts:
        key = (id(self.gates), *x.shape[1:], x.dtype, x.device)
        return self._costs.of(key, self, lambda: count_blocks(self, x[:1].detach()))

    @property
    def _table(self) -> BlockCosts:
        return self._costs.noted(self, lambda: self._counted(self._blank()))

    @property
    def node_macs(self) -> tuple[int, ...]:
        """Stem (with a defence, shortcuts and head, which always run), each block's body, 0 for the head's column."""
        return (self._table.entry, *self._table.bodies, 0)

    @property
    def gate_macs(self) -> int:
        """All gates together; every sample pays them."""
        return self._table.gates

    def macs_of(self, on: Tensor) -> Tensor:
        """As the hard pass counts them."""
        gated = [b for b, gated in enumerate(self.gated) if gated]
        return self.min_macs + (on * on.new_tensor([self._table.bodies[b] for b in gated], dtype=torch.int64)).sum(1)

    @property
    def min_macs(self) -> int:
        """Every gated block skipped."""
        table = self._table
        return table.entry + table.gates + sum(table.bodies[b] for b, gated in enumerate(self.gated) if not gated)

    @property
    def max_macs(self) -> int:
        """Every block run, gates paid."""
        return self._table.front + self._table.plain + self._table.gates

    @property
    def macs_full(self) -> int:
        """The backbone without gates and without a defence."""
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


def decides_ahead(model: AdaptiveModel) -> bool:
    """Every decision is made from the picture, before a node has run: decisions alone take less than the hard pass."""
    return isinstance(model, GatedNetwork) and model.gates.plans and model._own_relaxation
