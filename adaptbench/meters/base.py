"""The meter protocol: an accumulator that is read at both ends of a window."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Self

from adaptbench.errors import MeterError
from adaptbench.meters.reading import NO_WORK, Missing, Reading, Sensor, Work

Clock = Callable[[], float]
"""Seconds on a clock that never goes back."""

Mark = Any
"""What `Meter.begin` returns and `Meter.end` takes back; private to the meter."""


class Window:
    """One stretch of work; `readings` is filled when it closes, `work` may be set inside it."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.readings: list[Reading] = []


class Meter(ABC):
    """A source of time or energy.

    A sensor that is not there is no error: `open` takes note, and each window gives `Missing` with the reason. Using a
    meter out of order is one. Windows do not overlap on one meter, unless it says so.

    Args:
        clock: monotonic seconds; tests give their own.

    Attributes:
        name: as suites and tables call it.
        quantity: what its readings are about; a time meter's value is the window's length.
        scope: what its joules are of: the accelerator, this process' work, the whole machine; "" for a time meter.
        whole_run: the meter is meant for one window over everything, not for short ones.
        settings: keys of a suite's `measure` that the constructor takes → its parameter.
        waits: `begin` and `end` wait for the sensor's next edge, so it is started first and stopped last.
    """

    name: ClassVar[str]
    quantity: ClassVar[Literal["energy", "time"]] = "energy"
    scope: ClassVar[Literal["device", "process", "machine", ""]] = ""
    whole_run: ClassVar[bool] = False
    settings: ClassVar[Mapping[str, str]] = MappingProxyType({})
    waits: ClassVar[bool] = False

    def __init__(self, *, clock: Clock = time.perf_counter) -> None:
        self._clock = clock
        self._opened = False

    @property
    def min_window_s(self) -> float:
        """The shortest window, in seconds, that needs no flag; 0: any length will do. Known after `open`."""
        return 0.0

    @abstractmethod
    def probe(self) -> Sensor | Missing:
        """Look for the sensor without opening it; never raises. Doctor shows the result."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """For the manifest, JSON-able: ``found``, ``reason`` (null where found), and the sensor's details."""

    def declared(self) -> dict[str, Any]:
        """What `describe` says, after what the meter measures: ``quantity``, ``scope``, ``whole_run``."""
        what = {"quantity": self.quantity, "scope": self.scope, "whole_run": self.whole_run}
        try:
            told = dict(self.describe())
            told["found"] = bool(told.get("found"))
            told |= {key: str(told[key]) for key in ("reason", "sensor") if told.get(key) is not None}
            json.dumps(told, allow_nan=False)
        except Exception as error:  # of a plug-in: it comes after the last window, and must not cost the run
            told = {"found": True, "reason": None, "undescribed": f"{type(error).__name__}: {error}"}
        return {**what, **told}

    @abstractmethod
    def begin(self) -> Mark:
        """Start a window. The caller has synchronised the device.

        Raises:
            MeterError: the meter is not open.
        """

    @abstractmethod
    def end(self, mark: Mark, work: Work) -> list[Reading]:
        """Close a window, a reading a component. The caller has synchronised the device.

        Args:
            mark: what `begin` returned.
            work: all that the window executed.
        """

    def check(self) -> None:  # noqa: B027  # most have nothing to check
        """Look at the settings without opening anything; a suite is checked by it before anything is spent.

        Raises:
            UsageError: a setting that cannot be, such as a place that does not exist.
        """

    def open(self, device: str = "cpu") -> None:
        """Get ready to read windows on a device ("cpu", "cuda:1").

        Raises:
            MeterError: the meter is open already.
        """
        if self._opened:
            raise MeterError(
                f"the meter '{self.name}' is open already.", todo="Close it first, or use it in one `with`."
            )
        self._opened = True
        try:
            self._open(str(device))
        except BaseException:
            self._opened = False
            raise

    def failure(self, error: Exception) -> MeterError:
        """What is said of an error that a meter let through, so that nobody looks for it in the work it measured."""
        return MeterError(
            f"the meter '{self.name}' failed: {type(error).__name__}: {error}.",
            why="A meter without a reading returns Missing(reason); an error of its own is a fault of its author.",
            todo="Leave it out of the suite's `meters`, or mend it with `adaptbench.testing.MeterConformance`.",
        )

    def close(self) -> None:
        """Let the sensor go; a second call does nothing."""
        if self._opened:
            self._opened = False
            self._close()

    def _open(self, device: str) -> None:  # noqa: B027  # a clock has nothing to open
        """What a subclass does to open."""

    def _close(self) -> None:  # noqa: B027
        """What a subclass does to close."""

    def _need_open(self) -> None:
        if not self._opened:
            raise MeterError(
                f"the meter '{self.name}' is not open.",
                todo="Call meter.open(device), or use `with meter.on(device):`.",
            )

    @contextmanager
    def on(self, device: str = "cpu") -> Iterator[Self]:
        """Open for the length of a `with`."""
        self.open(device)
        try:
            yield self
        finally:
            self.close()

    @contextmanager
    def window(self, work: Work = NO_WORK) -> Iterator[Window]:
        """One window for the length of a `with`; nothing is read where its body raises.

        >>> from adaptbench.meters.clock import ClockMeter
        >>> with ClockMeter().on("cpu") as meter, meter.window() as window:
        ...     _ = sum(range(1000))
        >>> window.readings[0].duration_s > 0
        True
        """
        window, mark = Window(work), self.begin()
        yield window
        window.readings = self.end(mark, window.work)
