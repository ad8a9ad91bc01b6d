"""Arms that take turns: seconds of each in each block, by the process's clock and by the one on the wall."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

Arms = dict[str, Callable[[], object]]
LEAST_S = 0.1
"""What an arm is repeated for in a block."""


class Blocks:
    """Seconds of each arm in each block, by two clocks."""

    def __init__(self, arms: Arms, blocks: int, least_s: float = LEAST_S) -> None:
        repeats: dict[str, int] = {}
        for name, run in arms.items():
            run()
            began = time.perf_counter()
            run()
            repeats[name] = max(1, round(least_s / max(time.perf_counter() - began, 1e-6)))
        self.cpu: dict[str, list[float]] = {name: [] for name in arms}
        self.wall: dict[str, list[float]] = {name: [] for name in arms}
        for block in range(blocks):
            for name in list(arms) if block % 2 == 0 else list(reversed(arms)):
                cpu, wall = time.process_time(), time.perf_counter()
                for _ in range(repeats[name]):
                    arms[name]()
                self.cpu[name].append((time.process_time() - cpu) / repeats[name])
                self.wall[name].append((time.perf_counter() - wall) / repeats[name])

    def ratio(self, top: str, bottom: str) -> dict[str, float]:
        """CPU time of one arm over another's: median, extremes, and the median by the wall's clock."""
        cpu = [a / b for a, b in zip(self.cpu[top], self.cpu[bottom], strict=True)]
        wall = [a / b for a, b in zip(self.wall[top], self.wall[bottom], strict=True)]
        return {"cpu": statistics.median(cpu), "min": min(cpu), "max": max(cpu), "wall": statistics.median(wall)}
