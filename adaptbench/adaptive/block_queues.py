"""Block queues: rows of several batches that a gate let through wait at a block until its body can run full.

In a gated net nobody leaves: every row passes every gate, and a gate splits each batch in two. Two lines stand before
each gated block: those whom its gate has not seen yet, and those whom it let through. Whatever is run (gate, body,
shortcut, head) is run on `full` rows, of however many batches; only a shortcut alone is run on as many as a gate turned
away. The deepest line that is full is worked first, so that no line holds two batches, and what waits is bounded by the
number of blocks. At the end the lines are emptied in order. Decisions, answers and costs are those of the compacted
pass, in the order of the samples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from adaptbench.adaptive.block_counting import BlockCosts
from adaptbench.adaptive.block_steps import BlockStep
from adaptbench.adaptive.parts import EXECUTOR, NODES, POLICY, Decided, Lap
from adaptbench.adaptive.queues import Parcel, Queue
from adaptbench.adaptive.rows import parted
from adaptbench.adaptive.writes import apart

if TYPE_CHECKING:
    from adaptbench.adaptive.gated import GatedNetwork

_FEATURES, _STATE = 0, 1
"""What a parcel carries: features, and the state of gates that have one."""


class BlockQueues:
    """The lines of one pass.

    Args:
        net: in eval mode. steps, costs: of these inputs. force: (n, V) bool or None.
        lap: told which part of the work each stretch was. full: rows that anything is run on at once, at most.
    """

    def __init__(
        self,
        net: GatedNetwork,
        steps: tuple[BlockStep, ...],
        costs: BlockCosts,
        force: Tensor | None,
        lap: Lap,
        full: int,
    ) -> None:
        self.net, self.steps, self.costs, self.force, self.lap, self.full = net, steps, costs, force, lap, full
        self.gates, self.head = net.gates, net.head
        self.lines = [Queue() for _ in range(2 * len(steps) + 1)]  # before gate b: 2b, before body b: 2b + 1; head
        self.decided = Decided([], [], [])
        self.answers: list[Tensor] = []

    def run(self, x: Tensor) -> tuple[Tensor, Decided]:
        """(n, C) answers in the order of x; `ran` holds (block + 1, rows let through), `best` (rows, their margins).

        Args:
            x: (n, C, H, W) all that will come, of the type of the weights.
        """
        everyone = torch.arange(len(x), device=x.device)
        for part, rows in zip(torch.split(x, self.full), torch.split(everyone, self.full), strict=True):
            self._enter(part, rows)
            self._run_full()
        for v, line in enumerate(self.lines):
            while line.length:
                self._work(v)
                self._run_full()
        out = torch.cat(self.answers)
        out = torch.empty_like(out).index_copy(0, torch.cat([rows for _, rows in self.decided.left]), out)
        self.lap(EXECUTOR)
        return out, self.decided

    def _enter(self, x: Tensor, rows: Tensor) -> None:
        net, costs = self.net, self.costs
        self.lap(EXECUTOR)
        x = net.entered(x, self.lap)
        state = net.gates.start(apart(x) if costs.start_writes else x)
        self.lap(POLICY)
        h = net.stem(apart(x) if costs.stem_writes else x)
        self.lap(NODES)
        self.lines[0].put(Parcel(rows, {_FEATURES: h, **({} if state is None else {_STATE: state})}))

    def _run_full(self) -> None:
        while True:
            v = max((v for v, line in enumerate(self.lines) if line.length >= self.full), default=-1)
            if v < 0:
                return
            self._work(v)

    def _work(self, v: int) -> None:
        parcel = self.lines[v].take(self.full)
        b, behind = divmod(v, 2)
        self.lap(EXECUTOR)
        h = parcel.features[_FEATURES]
        if b == len(self.steps):
            self.answers.append(self.head(apart(h) if self.costs.head_writes else h))
            self.decided.left.append((b + 1, parcel.rows))
            self.lap(NODES)
        elif behind or not self.steps[b].gated:
            self._onward(b, parcel, self.steps[b].ran(h))
        else:
            self._ask(b, parcel)

    def _ask(self, b: int, parcel: Parcel) -> None:
        """The gate of a block: whoever it lets through waits for its body, the others go past it at once."""
        margin, state = self.gates.margin(b, parcel.features[_FEATURES], parcel.features.get(_STATE))
        if state is not None:
            parcel.features[_STATE] = state
        run = margin > 0 if self.force is None else self.force[parcel.rows, b + 1]
        if self.force is None:
            self.decided.best.append((parcel.rows, margin))
        groups = parted(run, 1, len(parcel.rows))
        self.lap(POLICY)
        for through, places in groups:
            part = parcel if places is None else parcel.at(places)
            if through:
                self.decided.ran.append((b + 1, part.rows))
                self.lines[2 * b + 1].put(part)
            else:
                self.lap(EXECUTOR)
                self._onward(b, part, self.steps[b].skipped(part.features[_FEATURES]))

    def _onward(self, b: int, parcel: Parcel, h: Tensor) -> None:
        self.lap(NODES)
        self.lines[2 * b + 2].put(Parcel(parcel.rows, {**parcel.features, _FEATURES: h}))
        self.lap(EXECUTOR)
