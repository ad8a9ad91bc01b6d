"""The simulation: requests come, wait in lines, run in batches on replicas, and leave where their sample leaves.

Discrete events by SimPy. What a step takes is told from outside (measured node times, or a law that a test knows the
answer of); which way a request takes is that of its sample, as executed; a hard budget may cut it short.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from adaptbench.errors import UsageError
from adaptbench.serving.lines import Batching, Line, next_work
from adaptbench.serving.traffic import Traffic

if TYPE_CHECKING:
    import simpy

_SLACK = 1e-9
"""Of a cost: sums of refills round."""


class Times(Protocol):
    """What things take, in seconds."""

    def call_s(self, n: int) -> float:
        """Around a batch of n that is run as a whole, beside its steps."""

    def step_s(self, node: int, n: int) -> float:
        """A node with its decision on n requests."""


class Bucket:
    """A hard budget of work that all requests share, as `policies.online.ComputeBudget` with windows of one.

    It begins full; each request brings `rate` and pays for the entry node; whoever wants to go on to a node that the
    rest does not cover leaves with the answer of the exit it stands at.

    Args:
        rate: MACs a request; at least what the entry node costs. capacity: at least the same.

    Raises:
        UsageError: it could not pay for the entry node of every request.
    """

    def __init__(self, rate: float, capacity: float, entry: float) -> None:
        if min(rate, capacity) < entry * (1 - _SLACK):
            raise UsageError(
                f"the entry node costs {entry:g} MACs; the bucket adds {rate:g} a request and holds {capacity:g}.",
                why="Every request has to be answered, and the entry node is the least that answers.",
                todo="Give a headroom and a burst that cover it.",
            )
        self.rate, self.capacity, self.level = rate, capacity, capacity

    def enter(self, cost: float) -> None:
        """A request comes and pays for its entry node."""
        self.level = max(0.0, min(self.capacity, self.level + self.rate) - cost)

    def grants(self, cost: float) -> bool:
        """Pay for a further node; False where the rest does not cover it."""
        if cost > self.level * (1 + _SLACK):
            return False
        self.level = max(0.0, self.level - cost)
        return True


@dataclass(frozen=True, slots=True)
class Served:
    """What became of n requests; every figure is simulated.

    Args:
        latency_s: (n,) from arrival to answer. place: (n,) of the way, where each left.
        forced: (n,) left earlier than its sample wanted. order: (n,) requests in the order in which they left.
        calls: (m, 3) node (−1: a whole batch), requests in it, seconds. busy_s: of all replicas together.
        steps: (node, requests in it) → how often, of whole batches too.
        until_s: when the last left. area_s: integral over time of the number of requests in the system.
    """

    latency_s: NDArray[np.float64]
    place: NDArray[np.int64]
    forced: NDArray[np.bool_]
    order: NDArray[np.int64]
    calls: NDArray[np.float64]
    steps: Counter[tuple[int, int]]
    busy_s: float
    until_s: float
    area_s: float


def simulate(
    traffic: Traffic,
    times: Times,
    batching: Batching,
    *,
    nodes: int,
    replicas: int = 1,
    bucket: Bucket | None = None,
) -> Served:
    """Run a stream of requests to its end.

    Args:
        traffic: at least one request. times: of steps and calls. batching: how requests are put together.
        nodes: of the net. replicas: copies of the net, each on a device of its own; they share the line of arrivals.
        bucket: a hard budget, full; None: everybody goes the way that its sample wants.

    Raises:
        UsageError: SimPy is not installed, or there is nothing to simulate.
    """
    if not len(traffic) or replicas < 1:
        raise UsageError(f"{len(traffic)} requests on {replicas} replicas: nothing would be simulated.")
    return _World(traffic, times, batching, nodes, replicas, bucket).run()


def load_simpy() -> Any:
    """The library, which is an extra.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import simpy
    except ImportError:
        raise UsageError(
            "SimPy is not installed, and serving is simulated with it.",
            todo="Install it: pip install 'adaptbench[serving]'.",
        ) from None
    return simpy


class _World:
    """One simulation."""

    def __init__(
        self,
        traffic: Traffic,
        times: Times,
        batching: Batching,
        nodes: int,
        replicas: int,
        bucket: Bucket | None,
    ) -> None:
        n = len(traffic)
        self.traffic, self.times, self.batching, self.nodes, self.bucket = traffic, times, batching, nodes, bucket
        self.env: simpy.Environment = load_simpy().Environment()
        self.entry, self.replicas = Line(), replicas
        self.sleepers: list[simpy.Event] = []
        self.over = self.env.event()
        self.at = [0] * n  # place of each request on its way
        self.left_s = np.full(n, np.nan)
        self.forced = np.zeros(n, bool)
        self.order: list[int] = []
        self.calls: list[tuple[float, float, float]] = []
        self.steps: Counter[tuple[int, int]] = Counter()
        self.inside, self.area_s, self.seen_s = 0, 0.0, 0.0

    def run(self) -> Served:
        self.env.process(self._arrivals())
        for _ in range(self.replicas):
            self.env.process(self._batches() if self.batching.mode == "batches" else self._queues())
        self.env.run(until=self.over)
        calls = np.array(self.calls)
        return Served(
            self.left_s - self.traffic.arrival_s,
            np.array(self.at),
            self.forced,
            np.array(self.order),
            calls,
            self.steps,
            float(calls[:, 2].sum()),
            float(self.env.now),
            self.area_s,
        )

    def _arrivals(self) -> Generator[simpy.Event, Any, None]:
        for request, at in enumerate(self.traffic.arrival_s.tolist()):
            if at > self.env.now:
                yield self.env.timeout(at - self.env.now)
            if self.bucket is not None:
                self.bucket.enter(self.traffic.ways[request].macs[0])
            self._count(1)
            self.entry.put([request], self.env.now)
            if len(self.entry) == 1 or len(self.entry) >= self.batching.max_batch:  # else no deadline has changed
                for sleeper in self.sleepers:
                    if not sleeper.triggered:
                        sleeper.succeed()

    def _batches(self) -> Generator[simpy.Event, Any, None]:
        """A replica that runs each batch to its end: its answers are there when all of them are."""
        while True:
            yield from self._until_due([self.entry])
            batch = self.entry.take(self.batching.max_batch)
            took = self.times.call_s(len(batch))
            waiting: list[list[int]] = [[] for _ in range(self.nodes)]
            waiting[0] = list(batch)
            for v, here in enumerate(waiting):
                if here:
                    took += self.times.step_s(v, len(here))
                    self.steps[v, len(here)] += 1
                    for request in here:
                        if (onward := self._onward(request)) is not None:
                            waiting[onward].append(request)
            self.calls.append((-1, len(batch), took))
            yield self.env.timeout(took)
            self._leave(batch)

    def _queues(self) -> Generator[simpy.Event, Any, None]:
        """A replica that pools whoever goes on at the next node; its lines behind the entry are its own."""
        lines = [self.entry, *(Line() for _ in range(self.nodes - 1))]
        while True:
            v = yield from self._until_due(lines)
            here = lines[v].take(self.batching.max_batch)
            took = self.times.step_s(v, len(here))
            self.steps[v, len(here)] += 1
            self.calls.append((v, len(here), took))
            yield self.env.timeout(took)
            gone = []
            for request in here:
                onward = self._onward(request)
                if onward is None:
                    gone.append(request)
                else:
                    lines[onward].put([request], self.env.now)
            self._leave(gone)

    def _until_due(self, lines: list[Line]) -> Any:
        """Sleep until a line is due; which one."""
        while True:
            v, at = next_work(lines, self.env.now, self.batching)
            if v is not None:
                return v
            woken = self.env.event()
            self.sleepers.append(woken)
            yield woken if at == float("inf") else woken | self.env.timeout(max(at - self.env.now, 0.0))
            self.sleepers.remove(woken)

    def _onward(self, request: int) -> int | None:
        """The node that a request goes on to, its place moved; None where it leaves."""
        way, place = self.traffic.ways[request], self.at[request]
        if place + 1 == len(way.nodes):
            return None
        if self.bucket is not None and not self.bucket.grants(way.macs[place + 1] - way.macs[place]):
            self.forced[request] = True
            return None
        self.at[request] = place + 1
        return way.nodes[place + 1]

    def _leave(self, requests: list[int]) -> None:
        if not requests:
            return
        self.left_s[requests] = self.env.now
        self.order += requests
        self._count(-len(requests))
        if len(self.order) == len(self.traffic):
            self.over.succeed()

    def _count(self, change: int) -> None:
        self.area_s += self.inside * (self.env.now - self.seen_s)
        self.seen_s, self.inside = self.env.now, self.inside + change
