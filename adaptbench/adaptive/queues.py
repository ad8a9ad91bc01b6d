"""Stage queues: survivors of several batches wait at a node until it can run full.

A batch that leaves early behind it runs its last nodes in crumbs. Here the samples come in batches of `full`, and
whoever goes on joins a queue at the next node; the deepest node with a full queue runs first, so that no queue holds
two batches and what waits is bounded by the number of nodes, not of samples. At the end the queues are emptied in
order. Decisions, answers and costs are those of the compacted pass, in the order of the samples. A service that gets
its samples one by one works the same queues at its own times (`Stages`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map, tree_map_only

from adaptbench.adaptive.outcome import Signals
from adaptbench.adaptive.parts import EXECUTOR, NODES, POLICY, Decided, Lap
from adaptbench.adaptive.plans import GraphPlan
from adaptbench.adaptive.rows import laid_alike, parted, picked, some
from adaptbench.adaptive.writes import apart

_INPUT = -1
"""In a parcel, the part of the input that its rows are, where they came together."""


class Parcel(NamedTuple):
    """Samples on their way: which they are, and the features that later nodes may read, by the node that made them."""

    rows: Tensor
    features: dict[int, Any]

    def at(self, places: Tensor) -> Parcel:
        """Some of them. places: (m,)."""
        return Parcel(self.rows.index_select(0, places), {u: picked(of, places) for u, of in self.features.items()})

    def cut(self, first: int) -> tuple[Parcel, Parcel]:
        """The first of them, and the rest."""
        return self._between(0, first), self._between(first, len(self.rows))

    def _between(self, start: int, end: int) -> Parcel:
        return Parcel(
            self.rows[start:end],
            {
                u: of[start:end] if isinstance(of, Tensor) else tree_map_only(Tensor, lambda t: t[start:end], of)
                for u, of in self.features.items()
            },
        )


class Queue:
    """What waits at one node."""

    def __init__(self) -> None:
        self.parcels: list[Parcel] = []
        self.length = 0

    def put(self, parcel: Parcel) -> None:
        """They wait from now on."""
        self.parcels.append(parcel)
        self.length += len(parcel.rows)

    def take(self, full: int) -> Parcel:
        """The first `full` of them, or all."""
        taken: list[Parcel] = []
        missing = min(full, self.length)
        self.length -= missing
        while missing:
            parcel = self.parcels.pop(0)
            if len(parcel.rows) > missing:
                parcel, rest = parcel.cut(missing)
                self.parcels.insert(0, rest)
            taken.append(parcel)
            missing -= len(parcel.rows)
        return taken[0] if len(taken) == 1 else _joined(taken)


def _joined(parcels: list[Parcel]) -> Parcel:
    """One of many; what not all of them carry, nobody reads from here on."""
    shared = set.intersection(*(set(parcel.features) for parcel in parcels))
    return Parcel(
        torch.cat([parcel.rows for parcel in parcels]),
        {u: _in_a_row([parcel.features[u] for parcel in parcels]) for u in sorted(shared)},
    )


def _in_a_row(parts: list[Any]) -> Any:
    if isinstance(parts[0], Tensor):
        return torch.cat(parts)
    return tree_map(_leaves_in_a_row, *parts)


def _leaves_in_a_row(*parts: Any) -> Any:
    return torch.cat(parts) if isinstance(parts[0], Tensor) else parts[0]


def queued_pass(
    plan: GraphPlan, x: Tensor, seeds: Tensor | None, force: Tensor | None, lap: Lap, full: int
) -> tuple[Tensor, Decided]:
    """(n, C) answers in the order of x, and the way of each row.

    Args:
        x: (n, C, H, W) all that will come, of the type of the weights. seeds: (n,) or None. force: (n, V) or None.
        full: samples that a node runs on at once, at most; fewer only when nothing more will come.
    """
    if plan.graph.front is not None:
        x = torch.cat([plan.graph.entered(part, lap) for part in torch.split(x, full)])
    return Stages(plan, x, seeds, force, lap, full).run()


class Moved(NamedTuple):
    """What a step did with the rows that it ran on.

    Args:
        left: answered there. onward: (node, rows that wait there now).
    """

    left: Tensor
    onward: list[tuple[int, Tensor]]


class Stages:
    """The queues of one pass. Arguments as of `queued_pass`; x is what the first node sees.

    `run` takes the samples in batches and empties all queues; `arrive`, `length` and `work` are for whoever decides
    himself what runs when.
    """

    def __init__(
        self, plan: GraphPlan, x: Tensor, seeds: Tensor | None, force: Tensor | None, lap: Lap, full: int
    ) -> None:
        self.plan, self.x, self.seeds, self.force, self.lap = plan, x, seeds, force, lap
        self.full, size = full, len(plan.steps)
        self.queues = [Queue() for _ in range(size)]
        self.decided = Decided([], [], [])
        self.answers: list[Tensor] = []
        self._out: Tensor | None = None
        self.history = self.visited = None
        if plan.policy.uses_history:
            self.history = x.new_zeros(len(x), size, plan.graph.n_classes, dtype=plan.costs.decides_in)
            self.visited = torch.zeros(len(x), size, dtype=torch.bool, device=x.device)

    def arrive(self, rows: Tensor) -> None:
        """Rows of x wait at the entry."""
        self.queues[0].put(Parcel(rows, {}))

    def length(self, v: int) -> int:
        """How many wait at a node."""
        return self.queues[v].length

    def run(self) -> tuple[Tensor, Decided]:
        """(n, C) answers in the order of x, and the way of each row."""
        over = self.plan.answers_itself and not torch.is_grad_enabled()
        everyone = torch.arange(len(self.x), device=self.x.device)
        for part, rows in zip(torch.split(self.x, self.full), torch.split(everyone, self.full), strict=True):
            self.queues[0].put(Parcel(rows, {_INPUT: part}))
            self._run_full(over)
        for v, queue in enumerate(self.queues):
            while queue.length:
                self._work(v, over)
                self._run_full(over)
        out = self._out
        if out is None:
            out = torch.cat(self.answers)
            out = torch.empty_like(out).index_copy(0, torch.cat([rows for _, rows in self.decided.left]), out)
        self.lap(EXECUTOR)
        return out, self.decided

    def _run_full(self, over: bool) -> None:
        """Until no queue is full, the deepest first: what is nearest to its answer frees its place."""
        while True:
            v = max((v for v, queue in enumerate(self.queues) if queue.length >= self.full), default=-1)
            if v < 0:
                return
            self._work(v, over)

    def work(self, v: int) -> Moved:
        """Run a node on the first that wait there, `full` at most."""
        return self._work(v, False)

    def _work(self, v: int, over: bool) -> Moved:
        """The same. over: answers are written over earlier ones, and nobody is told who has left."""
        _, stage, head, ways, source, stage_writes, head_writes, _, _ = self.plan.steps[v]
        parcel = self.queues[v].take(self.full)
        rows = parcel.rows
        given = parcel.features.get(source, self.x) if source < 0 else parcel.features[source]
        if given is self.x:
            given = laid_alike(given, rows)
        self.lap(EXECUTOR)
        features = stage(apart(given) if stage_writes else given)
        answer = head(apart(features) if head_writes else features).to(self.plan.costs.decides_in)
        self.lap(NODES)
        self.decided.ran.append((v, rows))
        signals = self._signals(v, rows, answer)
        onward: list[tuple[int, Tensor]] = []
        stopping: tuple[Tensor, Signals] | None = (rows, signals)
        if ways:
            action, best = self.plan.graph._decide(v, signals, some(self.force, rows))
            self.lap(POLICY)
            if best is not None:
                self.decided.best.append((rows, best))
            stopping = None
            made = parcel.features | {v: features}
            for taken, places in parted(action, len(ways), len(rows), stopping=not over):
                if taken:
                    onward.append((ways[taken - 1], self._hand_over(rows, made, ways[taken - 1], places)))
                elif places is None:
                    stopping = rows, signals
                else:  # an aggregating predict() costs: for those who leave only
                    stopping = rows.index_select(0, places), signals.rows(places)
        if over:
            if self._out is None:
                self._out = answer.new_empty(len(self.x), *answer.shape[1:])
            self._out.index_copy_(0, rows, answer)
        self.lap(EXECUTOR)
        if over or stopping is None:
            return Moved(rows[:0], onward)
        left, signals = stopping
        self.answers.append(self.plan.policy.predict(v, signals))
        self.decided.left.append((v, left))
        self.lap(POLICY)
        return Moved(left, onward)

    def at(self, v: int) -> Parcel:
        """All that wait at a node; they wait no longer."""
        return self.queues[v].take(self.queues[v].length)

    def forget(self) -> None:
        """As before anybody came, the memory of policies that look back apart."""
        self.queues = [Queue() for _ in self.queues]
        self.decided, self.answers = Decided([], [], []), []

    def _signals(self, v: int, rows: Tensor, answer: Tensor) -> Signals:
        logits = answer if self.plan.shows_itself else self.plan.graph.shown(answer)
        if self.history is not None and self.visited is not None:
            self.history[rows, v], self.visited[rows, v] = logits, True
        return Signals(
            logits,
            ways=self.plan.steps[v].ways,
            history=some(self.history, rows),
            visited=some(self.visited, rows),
            seeds=some(self.seeds, rows),
            answer=answer,
        )

    def _hand_over(self, rows: Tensor, made: dict[int, Any], w: int, places: Tensor | None) -> Tensor:
        last = self.plan.graph.last_reader
        parcel = Parcel(rows, {u: features for u, features in made.items() if u >= 0 and last[u] >= w})
        parcel = parcel if places is None else parcel.at(places)
        self.queues[w].put(parcel)
        return parcel.rows
