"""How far single calls are from what their windows say: a stream is served for real once, before anything is simulated.

Windows repeat a call until it is hot and quiet; between requests of others, on a machine with other work, a call takes
longer and scatters, and the scatter makes the tail of the latency. Each call of the simulation takes its table's time
times a ratio drawn from those seen.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adaptbench.serving.driver import Replayed
from adaptbench.serving.lines import Mode
from adaptbench.serving.simulate import Times
from adaptbench.serving.traffic import Way


def ratios_of(run: Replayed, ways: Sequence[Way], times: Times) -> list[float]:
    """Seconds of each call of a real run over those that its table says. ways: of the run's requests."""
    return [took / expected(node, here, ways, times) for node, here, took in run.calls]


def expected(node: int, here: Sequence[int], ways: Sequence[Way], times: Times) -> float:
    """What the table says of a call. node: −1 for a whole batch. here: its requests."""
    if node >= 0:
        return times.step_s(node, len(here))
    reached: dict[int, int] = {}
    for request in here:
        for v in ways[request].nodes:
            reached[v] = reached.get(v, 0) + 1
    return times.call_s(len(here)) + sum(times.step_s(v, n) for v, n in reached.items())


class Spread:
    """A table whose calls scatter as they were seen to; a `simulate.Times`.

    Args:
        times: the table. ratios: of calls seen; or, in turn, those of a very run. mode: in batches a call's steps share
            one ratio. rng: draws; None: one after the other, from the first again after the last.
    """

    def __init__(
        self, times: Times, ratios: Sequence[float], mode: Mode, rng: np.random.Generator | None = None
    ) -> None:
        self._times, self._ratios, self._mode, self._rng = times, list(ratios), mode, rng
        self._next, self._now = 0, 1.0

    def call_s(self, n: int) -> float:
        """Around a whole batch; its steps follow."""
        self._now = self._draw()
        return self._now * self._times.call_s(n)

    def step_s(self, node: int, n: int) -> float:
        """A step: of the batch that is on, or by itself."""
        ratio = self._draw() if self._mode == "queues" else self._now
        return ratio * self._times.step_s(node, n)

    def _draw(self) -> float:
        if self._rng is not None:
            return self._ratios[int(self._rng.integers(len(self._ratios)))]
        self._next += 1
        return self._ratios[(self._next - 1) % len(self._ratios)]
