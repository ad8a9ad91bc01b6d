"""Who waits where, and what a replica does next; the simulation and the real driver decide by this very code."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Mode = Literal["batches", "queues"]
"""A batch stays together until its last request has left; or whoever goes on waits at the next node for others."""
_SLACK_S = 1e-9
"""Clocks round: a deadline this near has come."""


@dataclass(frozen=True, slots=True)
class Batching:
    """How requests are put together.

    Args:
        max_batch: at most so many run at once. wait_s: the oldest of a line waits so long at most for others to come.
        mode: what becomes of those who go on behind an exit.
    """

    max_batch: int
    wait_s: float
    mode: Mode = "batches"


class Line:
    """Requests before one node, first come, first served."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, float]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def since_s(self) -> float:
        """When the oldest came; inf where nobody waits."""
        return self._waiting[0][1] if self._waiting else math.inf

    def put(self, requests: Iterable[int], now_s: float) -> None:
        """They wait from now on."""
        self._waiting.extend((request, now_s) for request in requests)

    def take(self, most: int) -> list[int]:
        """The first of them."""
        return [self._waiting.popleft()[0] for _ in range(min(most, len(self._waiting)))]


def next_work(lines: Sequence[Line], now_s: float, batching: Batching) -> tuple[int | None, float]:
    """Which line is due, the deepest first; where none is, None and when one will be (inf: when somebody comes).

    A line is due where it fills a batch, or its oldest has waited long enough.
    """
    for v in range(len(lines) - 1, -1, -1):
        line = lines[v]
        if len(line) >= batching.max_batch or line.since_s + batching.wait_s <= now_s + _SLACK_S:
            return v, now_s
    return None, min(line.since_s for line in lines) + batching.wait_s
