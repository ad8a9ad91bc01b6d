"""Wall time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, ClassVar, Literal

from adaptbench.meters.base import Clock, Mark, Meter
from adaptbench.meters.reading import Missing, Reading, Sensor, Work

_NO_ENERGY = Missing("the clock measures time")


def synchroniser(device: str) -> Callable[[], None]:
    """A call that returns when the device has finished all that was queued; nothing to wait for on a CPU."""
    kind = str(device).partition(":")[0]
    if kind == "cpu":
        return _nothing
    import torch

    if kind == "cuda":
        return lambda: torch.cuda.synchronize(device)
    if kind == "mps":
        return torch.mps.synchronize
    return lambda: torch.accelerator.synchronize(device)


def _nothing() -> None:
    """A CPU has no queue."""


class ClockMeter(Meter):
    """Seconds between two readings of a monotonic clock, the device synchronised before both.

    Args:
        clock: monotonic seconds.
        synchronise: waits for the device; taken from the device that is opened where it is not given.
    """

    name: ClassVar[str] = "clock"
    quantity: ClassVar[Literal["energy", "time"]] = "time"

    def __init__(self, *, clock: Clock = time.perf_counter, synchronise: Callable[[], None] | None = None) -> None:
        super().__init__(clock=clock)
        self._given = synchronise
        self._synchronise: Callable[[], None] = synchronise or _nothing

    @property
    def min_window_s(self) -> float:
        """0.1 s: what one time slice of another process (some ms) adds stays below 5 %."""
        return 0.1

    def probe(self) -> Sensor:
        """There is always a clock."""
        return Sensor(self._details())

    def describe(self) -> dict[str, Any]:
        """Which clock, and its resolution."""
        return {"found": True, "reason": None, **self._details()}

    def _details(self) -> dict[str, Any]:
        info = time.get_clock_info("perf_counter")
        return {"sensor": info.implementation, "resolution_s": info.resolution, "monotonic": info.monotonic}

    def _open(self, device: str) -> None:
        self._synchronise = self._given or synchroniser(device)

    def begin(self) -> Mark:
        """Synchronise, then read."""
        self._need_open()
        self._synchronise()
        return self._clock()

    def end(self, mark: Mark, work: Work) -> list[Reading]:
        """One reading, component "clock", its energy missing."""
        self._need_open()
        self._synchronise()
        seconds = self._clock() - float(mark)
        if seconds <= 0:
            return [Reading("clock", Missing(f"the clock did not go on: {seconds:g} s in the window"), 0.0)]
        return [Reading("clock", _NO_ENERGY, seconds)]
