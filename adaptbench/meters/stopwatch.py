"""Seconds by part, inside one window: who spent them, told by laps of the work itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from adaptbench.meters.base import Clock


class Stopwatch:
    """Laps on the host's clock; for devices without a queue, or with `synchronise` before each reading.

    Args:
        clock: monotonic seconds.
        synchronise: waits for the device.
    """

    def __init__(self, *, clock: Clock = time.perf_counter, synchronise: Callable[[], None] | None = None) -> None:
        self._clock = clock
        self._synchronise = synchronise
        self._seconds: dict[str, float] = {}
        self._last = 0.0

    def start(self) -> None:
        """A new window; the caller has synchronised the device."""
        self._seconds = {}
        self._last = self._clock()

    def lap(self, part: str) -> None:
        """What ran since the last lap was this part."""
        if self._synchronise is not None:
            self._synchronise()
        now = self._clock()
        self._seconds[part] = self._seconds.get(part, 0.0) + now - self._last
        self._last = now

    def stop(self) -> dict[str, float]:
        """Part → seconds, of the parts that had laps; the caller has synchronised the device."""
        return self._seconds


class CudaStopwatch(Stopwatch):
    """Laps as events in the device's queue: the host runs ahead, so that its clock would blame whoever waits.

    A stretch in which the device idles, because the host has not queued the next kernel yet, belongs to the part that
    was being queued. Events are kept from window to window.
    """

    def __init__(self, device: str) -> None:
        import torch

        super().__init__()
        cuda: Any = torch.cuda  # its events have no types
        self._make: Callable[[], Any] = lambda: cuda.Event(enable_timing=True)
        self._stream: Callable[[], Any] = lambda: cuda.current_stream(device)
        self._events = [self._make()]
        self._parts: list[str] = []

    def start(self) -> None:
        """The first event; later ones are measured from it."""
        self._parts.clear()
        self._events[0].record(self._stream())

    def lap(self, part: str) -> None:
        """An event behind what is queued."""
        self._parts.append(part)
        if len(self._events) <= len(self._parts):
            self._events.append(self._make())
        self._events[len(self._parts)].record(self._stream())

    def stop(self) -> dict[str, float]:
        """Differences of neighbouring events."""
        seconds: dict[str, float] = {}
        for before, after, part in zip(self._events, self._events[1:], self._parts, strict=False):
            seconds[part] = seconds.get(part, 0.0) + before.elapsed_time(after) / 1000
        return seconds


def stopwatch(device: str) -> Stopwatch:
    """The one that is right on a device ("cpu", "cuda:1")."""
    from adaptbench.meters.clock import synchroniser

    kind = str(device).partition(":")[0]
    if kind == "cpu":
        return Stopwatch()
    if kind == "cuda":
        return CudaStopwatch(device)
    return Stopwatch(synchronise=synchroniser(device))
