"""The same arrivals against a clock: a bounded real run of the executor, held against its simulation."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from adaptbench.serving.executor import server_for
from adaptbench.serving.lines import Batching, next_work
from adaptbench.serving.ways import Servable

Clock = Literal["wall", "cpu"]
"""Seconds on the wall; or those that this process had a core, idle waits skipped: a shared machine does not disturb."""
_SPIN_S = 0.002
"""Sleeping is no finer than this on a busy machine: the rest of a wait is spent looking at the clock."""


class WallTime:
    """Seconds on the wall."""

    def now(self) -> float:
        """Monotonic."""
        return time.perf_counter()

    def wait(self, seconds: float) -> None:
        """Sleep most of it; whoever asks again soon spins through the rest."""
        if seconds > _SPIN_S:
            time.sleep(seconds - _SPIN_S)


class CpuTime:
    """Seconds that this process had a core; waiting for an arrival moves the clock on at once."""

    def __init__(self) -> None:
        self._skipped = 0.0

    def now(self) -> float:
        """Monotonic."""
        return time.process_time() + self._skipped

    def wait(self, seconds: float) -> None:
        """Skip it."""
        self._skipped += max(seconds, 0.0)


@dataclass(slots=True)
class Replayed:
    """A real run; every figure is measured.

    Args:
        latency_s: (n,) from arrival, as planned, to answer. exits: (n,) node at which each left.
        calls: node (−1: a whole batch), its requests, seconds from the decision to run it until all is handed out.
        late_s: how much too late the process woke each time that it had waited for an arrival or a deadline.
    """

    latency_s: NDArray[np.float64]
    exits: NDArray[np.int64]
    calls: list[tuple[int, list[int], float]] = field(default_factory=list)
    late_s: list[float] = field(default_factory=list)


def replay(
    model: Servable,
    x: Tensor,
    seeds: Tensor,
    arrival_s: NDArray[np.float64],
    batching: Batching,
    clock: WallTime | CpuTime,
    synchronise: Callable[[], None] = lambda: None,
) -> Replayed:
    """Serve requests as they come, on one replica, by the very rule of the simulation.

    Whole batches run through `infer`; in mode "queues" the steps are those of `infer(x, mode="queues")`, worked one by
    one as lines fall due. A request counts from when it was to come, so that a late server is not flattered.

    Args:
        model: under its policy. x: (n, …) inputs on the device, in order of arrival. seeds: (n,) on the device.
        arrival_s: (n,) rising. clock: that is read and waited by. synchronise: waits for the device.
    """
    n, planned = len(arrival_s), arrival_s.tolist()
    out = Replayed(np.full(n, math.nan), np.zeros(n, np.int64))
    with model.serving(), _undisturbed():
        server = server_for(model, x, seeds, batching)
        server.warm(batching.max_batch)
        came = gone = 0
        start = clock.now()

        def since() -> float:
            return clock.now() - start

        while gone < n:
            now = since()
            while came < n and planned[came] <= now:
                server.lines[0].put([came], planned[came])
                came += 1
            v, due = next_work(server.lines, now, batching)
            if v is None:
                wake = min(due, planned[came] if came < n else math.inf)
                clock.wait(wake - since())
                if (late := since() - wake) > 0:
                    out.late_s.append(late)
                continue
            here = server.lines[v].take(batching.max_batch)
            answered = server.work(v, here, since)
            synchronise()
            done = since()
            for request, node in answered:
                out.latency_s[request], out.exits[request] = done - planned[request], node
            gone += len(answered)
            out.calls.append((v if batching.mode == "queues" else -1, here, since() - now))
    return out


@contextmanager
def _undisturbed() -> Iterator[None]:
    """No garbage collection between requests, and what exists already is left out of the next one."""
    was, mine = gc.isenabled(), gc.get_freeze_count() == 0
    if mine:
        gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        if mine:
            gc.unfreeze()
        if was:
            gc.enable()
