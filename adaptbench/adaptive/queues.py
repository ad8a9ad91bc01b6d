"""Stage queues: survivors of several batches wait at a node until it can run full.

A batch that leaves early behind it runs its last nodes in crumbs. Here the samples come in batches of `full`, and
whoever goes on joins a queue at the next node; the deepest node with a full queue runs first, so that no queue holds
two batches and what waits is bounded by the number of nodes, not of samples. At the end the queues are emptied in
order. Decisions, answers and costs are those of the compacted pass, in the order of the samples. A service that gets
its samples one by one works the same queues at its own times (`Stages`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map, tree_map_only

from adaptbench.adaptive.node_counting import NodeCosts
from adaptbench.adaptive.outcome import Signals
from adaptbench.adaptive.parts import EXECUTOR, NODES, POLICY, Decided, Lap

if TYPE_CHECKING:
    from adaptbench.adaptive.graph import DecisionGraph


class Parcel(NamedTuple):
    """Samples on their way: which they are, and the features that later nodes may read, by the node that made them."""

    rows: Tensor
    features: dict[int, Any]

    def at(self, chosen: Any) -> Parcel:
        """Some of them. chosen: a slice, or (n,) places."""
        return Parcel(
            self.rows[chosen],
            {u: tree_map_only(Tensor, lambda t: t[chosen], features) for u, features in self.features.items()},
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
                self.parcels.insert(0, parcel.at(slice(missing, None)))
                parcel = parcel.at(slice(0, missing))
            taken.append(parcel)
            missing -= len(parcel.rows)
        return taken[0] if len(taken) == 1 else _joined(taken)


def _joined(parcels: list[Parcel]) -> Parcel:
    """One of many; what not all of them carry, nobody reads from here on."""
    shared = set.intersection(*(set(parcel.features) for parcel in parcels))
    return Parcel(
        torch.cat([parcel.rows for parcel in parcels]),
        {u: tree_map(_in_a_row, *(parcel.features[u] for parcel in parcels)) for u in sorted(shared)},
    )


def _in_a_row(*parts: Any) -> Any:
    return torch.cat(parts) if isinstance(parts[0], Tensor) else parts[0]


def queued_pass(
    graph: DecisionGraph,
    x: Tensor,
    costs: NodeCosts,
    seeds: Tensor | None,
    force: Tensor | None,
    lap: Lap,
    full: int,
) -> tuple[Tensor, Decided]:
    """(n, C) answers in the order of x, and the way of each row.

    Args:
        x: (n, C, H, W) all that will come, of the type of the weights. seeds: (n,) or None. force: (n, V) or None.
        full: samples that a node runs on at once, at most; fewer only when nothing more will come.
    """
    if graph.front is not None:
        x = torch.cat([graph.entered(part, lap) for part in torch.split(x, full)])
    return Stages(graph, x, costs, seeds, force, lap, full).run()


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
        self,
        graph: DecisionGraph,
        x: Tensor,
        costs: NodeCosts,
        seeds: Tensor | None,
        force: Tensor | None,
        lap: Lap,
        full: int,
    ) -> None:
        self.graph, self.x, self.costs, self.seeds, self.force, self.lap = graph, x, costs, seeds, force, lap
        self.full, size = full, len(graph.node_names)
        self.queues = [Queue() for _ in range(size)]
        self.decided = Decided([], [], [])
        self.answers: list[Tensor] = []
        self.history = self.visited = None
        if graph.policy.uses_history:
            self.history = x.new_zeros(len(x), size, graph.n_classes, dtype=costs.decides_in)
            self.visited = torch.zeros(len(x), size, dtype=torch.bool, device=x.device)

    def arrive(self, rows: Tensor) -> None:
        """Rows of x wait at the entry."""
        self.queues[0].put(Parcel(rows, {}))

    def length(self, v: int) -> int:
        """How many wait at a node."""
        return self.queues[v].length

    def run(self) -> tuple[Tensor, Decided]:
        """(n, C) answers in the order of x, and the way of each row."""
        for arriving in torch.split(torch.arange(len(self.x), device=self.x.device), self.full):
            self.arrive(arriving)
            self._run_full()
        for v, queue in enumerate(self.queues):
            while queue.length:
                self.work(v)
                self._run_full()
        out = torch.cat(self.answers)
        out = torch.empty_like(out).index_copy(0, torch.cat([rows for _, rows in self.decided.left]), out)
        self.lap(EXECUTOR)
        return out, self.decided

    def _run_full(self) -> None:
        """Until no queue is full, the deepest first: what is nearest to its answer frees its place."""
        while full := [v for v, queue in enumerate(self.queues) if queue.length >= self.full]:
            self.work(full[-1])

    def work(self, v: int) -> Moved:
        """Run a node on the first that wait there, `full` at most."""
        return self.step(v, self.queues[v].take(self.full))

    def step(self, v: int, parcel: Parcel) -> Moved:
        """Run a node on some. parcel: of `at`."""
        source = self.graph.reads[v]
        rows = parcel.rows
        given = self.x[rows] if source < 0 else parcel.features[source]
        self.lap(EXECUTOR)
        features, answer = self.graph._node(v, given, self.costs)
        answer = answer.to(self.costs.decides_in)
        self.lap(NODES)
        self.decided.ran.append((v, rows))
        signals = self._signals(v, rows, answer)
        if not signals.ways:
            self._leave(v, rows, signals)
            return Moved(rows, [])
        action, best = self.graph._decide(v, signals, None if self.force is None else self.force[rows])
        self.lap(POLICY)
        if best is not None:
            self.decided.best.append((rows, best))
        made = Parcel(rows, {**parcel.features, v: features})
        onward = []
        staying = len(rows)
        for a, w in enumerate(signals.ways, start=1):
            going = (action == a).nonzero().squeeze(1)
            if len(going):
                onward.append((w, self._hand_over(made, w, going)))
                staying -= len(going)
        stop = (action == 0).nonzero().squeeze(1) if staying else action[:0]
        self.lap(EXECUTOR)
        if len(stop):  # an aggregating predict() costs: for those who leave only
            everyone = len(stop) == len(rows)
            rows, signals = (rows, signals) if everyone else (rows[stop], signals.rows(stop))
            self._leave(v, rows, signals)
            return Moved(rows, onward)
        return Moved(stop, onward)

    def at(self, v: int) -> Parcel:
        """All that wait at a node; they wait no longer."""
        return self.queues[v].take(self.queues[v].length)

    def forget(self) -> None:
        """As before anybody came, the memory of policies that look back apart."""
        self.queues = [Queue() for _ in self.queues]
        self.decided, self.answers = Decided([], [], []), []

    def _signals(self, v: int, rows: Tensor, answer: Tensor) -> Signals:
        logits = self.graph.shown(answer)
        if self.history is not None and self.visited is not None:
            self.history[rows, v], self.visited[rows, v] = logits, True
        history, visited, seeds = (None if t is None else t[rows] for t in (self.history, self.visited, self.seeds))
        ways = self.graph.structure.successors[v]
        return Signals(logits, ways=ways, history=history, visited=visited, seeds=seeds, answer=answer)

    def _hand_over(self, made: Parcel, w: int, going: Tensor) -> Tensor:
        needed = {u: features for u, features in made.features.items() if self.graph.last_reader[u] >= w}
        parcel = Parcel(made.rows, needed)
        parcel = parcel if len(going) == len(made.rows) else parcel.at(going)
        self.queues[w].put(parcel)
        return parcel.rows

    def _leave(self, v: int, rows: Tensor, signals: Signals) -> None:
        self.answers.append(self.graph.policy.predict(v, signals))
        self.decided.left.append((v, rows))
        self.lap(POLICY)
