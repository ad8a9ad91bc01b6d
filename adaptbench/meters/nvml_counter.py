"""A board's total-energy counter, read on the edges where it changes."""

from __future__ import annotations

import itertools
import statistics

from adaptbench.meters.base import Clock
from adaptbench.meters.nvml_device import Driver, Gpu
from adaptbench.meters.reading import Missing

_STUCK_S = 2.0
_TICKS_SEEN = 12


class Counter:
    """The counter of one board.

    Args:
        driver: initialised.
        gpu: the board.
        clock: monotonic seconds.
    """

    def __init__(self, driver: Driver, gpu: Gpu, clock: Clock) -> None:
        self._driver, self._gpu, self._clock = driver, gpu, clock
        self.tick_s = 0.0

    def measure_tick(self) -> tuple[float, float] | Missing:
        """Median (seconds, joules) between two values, over 12 changes or 2 s."""
        edge = self.edge()
        if isinstance(edge, Missing):
            return edge
        edges = [edge]
        while len(edges) <= _TICKS_SEEN and (len(edges) < 3 or edges[-1][0] - edges[0][0] < _STUCK_S):
            edge = self.edge()
            if isinstance(edge, Missing):
                return edge
            edges.append(edge)
        pairs = list(itertools.pairwise(edges))
        self.tick_s = statistics.median(b[0] - a[0] for a, b in pairs)
        return self.tick_s, statistics.median(b[1] - a[1] for a, b in pairs) / 1000

    def edge(self) -> tuple[float, int] | Missing:
        """Wait until the counter changes; when that was seen, and its new value in millijoules."""
        first = self._driver.energy_mj(self._gpu)
        if isinstance(first, Missing):
            return first
        start = self._clock()
        while True:
            value = self._driver.energy_mj(self._gpu)
            now = self._clock()
            if isinstance(value, Missing):
                return value
            if value != first:
                return now, value
            if now - start > max(_STUCK_S, 10 * self.tick_s):
                return Missing(f"lost: the energy counter stood still for {now - start:.1f} s", kind="lost")


def joules(start_mj: int, end_mj: int) -> float | Missing:
    """Energy between two values; missing where the counter did not rise, as after a reset of the driver."""
    if end_mj <= start_mj:
        return Missing(f"lost: the energy counter went from {start_mj} to {end_mj} mJ, it was reset", kind="lost")
    return (end_mj - start_mj) / 1000
