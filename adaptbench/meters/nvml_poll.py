"""Power polled in a process of its own: a thread would share the interpreter lock with the work it measures.

Stamps are ``time.perf_counter``'s: one system-wide monotonic clock on Linux, macOS and Windows, so the parent's and the
child's agree.
"""

from __future__ import annotations

import itertools
import logging
import os
import random
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from adaptbench.errors import MeterError
from adaptbench.meters.nvml_device import Driver, Gpu
from adaptbench.meters.reading import Missing

_log = logging.getLogger(__name__)
_RECORD = struct.Struct("<dqqq")
_NONE = -1


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at the board.

    Args:
        at_s: when.
        power_mw: milliwatts; None where the query failed.
        reasons: throttle bits.
        sm_mhz: SM clock.
    """

    at_s: float
    power_mw: int | None
    reasons: int | None = None
    sm_mhz: int | None = None

    def pack(self) -> bytes:
        """As the child writes it."""
        return _RECORD.pack(self.at_s, *(_NONE if one is None else one for one in self._numbers()))

    def _numbers(self) -> tuple[int | None, ...]:
        return self.power_mw, self.reasons, self.sm_mhz

    @classmethod
    def unpack(cls, data: bytes) -> list[Sample]:
        """All whole records of some bytes."""
        whole = len(data) - len(data) % _RECORD.size
        return [
            cls(at_s, *(None if one == _NONE else one for one in numbers))
            for at_s, *numbers in _RECORD.iter_unpack(data[:whole])
        ]


def look(driver: Driver, gpu: Gpu, clock: Callable[[], float]) -> Sample:
    """Ask once; the stamp lies in the middle of the power query."""
    before = clock()
    power = driver.power_mw(gpu)
    at_s = (before + clock()) / 2
    milliwatts = None if isinstance(power, Missing) else power[0]
    return Sample(at_s, milliwatts, driver.reasons(gpu), driver.clock_mhz(gpu, "SM"))


def integrate(samples: Sequence[Sample], start_s: float, end_s: float, *, most_gap_s: float) -> float | Missing:
    """Joules between two times: the trapezoid rule over the samples, held constant beyond the outermost ones.

    Args:
        samples: by time.
        start_s, end_s: of the window.
        most_gap_s: the longest stretch without a sample that is still believed.
    """
    known = [(one.at_s, one.power_mw / 1000) for one in samples if one.power_mw is not None]
    before = [one for one in known if one[0] <= start_s][-1:]
    inside = [one for one in known if start_s < one[0] < end_s]
    after = [one for one in known if one[0] >= end_s][:1]
    chain = [*before, *inside, *after]
    if len(chain) < 2:
        return Missing("lost: the power polling gave no samples in this window", kind="lost")
    stamps = [start_s if not before else chain[0][0], *(at for at, _ in chain), end_s if not after else chain[-1][0]]
    if max(b - a for a, b in itertools.pairwise(stamps)) > most_gap_s:
        return Missing(f"lost: the power polling paused for more than {most_gap_s:g} s", kind="lost")
    points = [(start_s, _at(chain, start_s)), *inside, (end_s, _at(chain, end_s))]
    return sum((b - a) * (p + q) / 2 for (a, p), (b, q) in itertools.pairwise(points))


def _at(chain: Sequence[tuple[float, float]], when_s: float) -> float:
    for (a, p), (b, q) in itertools.pairwise(chain):
        if a <= when_s <= b:
            return p if b == a else p + (q - p) * (when_s - a) / (b - a)
    return chain[0][1] if when_s < chain[0][0] else chain[-1][1]


class Poller(Protocol):
    """Where samples come from."""

    period_s: float

    def start(self, gpu: Gpu, clock: Callable[[], float]) -> None:
        """Begin to look at a board."""

    def between(self, start_s: float, end_s: float) -> list[Sample]:
        """Samples around a window, one beyond each end where there is one; waits for the last one, not for ever."""

    def stop(self) -> None:
        """End; a second call does nothing."""


class ProcessPoller:
    """Polls in a child process, which writes records to a file and ends when its standard input is closed.

    Args:
        period_s: between looks; each is drawn within ± 20 %, so that no phase of the work is always missed.
    """

    def __init__(self, period_s: float = 0.05) -> None:
        self.period_s = period_s
        self._child: subprocess.Popen[bytes] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._samples: list[Sample] = []
        self._read = 0

    def start(self, gpu: Gpu, clock: Callable[[], float]) -> None:
        """Start the child and wait for its first sample."""
        self._folder = tempfile.TemporaryDirectory(prefix="adaptbench-power-")
        # -P: modules of the working directory are none of ours
        command = [sys.executable, "-P", "-m", __name__, gpu.uuid, repr(self.period_s), str(self._file())]
        home = str(Path(__file__).parents[2])
        paths = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": paths}
        )
        self._wait(lambda: bool(self._samples), limit_s=30.0)

    def between(self, start_s: float, end_s: float) -> list[Sample]:
        """See `Poller.between`. Older samples are forgotten: windows do not go back."""
        self._wait(lambda: bool(self._samples) and self._samples[-1].at_s >= end_s, limit_s=20 * self.period_s + 1.0)
        earlier = [i for i, one in enumerate(self._samples) if one.at_s <= start_s]
        later = [i for i, one in enumerate(self._samples) if one.at_s >= end_s]
        first = earlier[-1] if earlier else 0
        window = self._samples[first : later[0] + 1 if later else None]
        self._samples = self._samples[first:]
        return window

    def stop(self) -> None:
        """Close the child's input, wait for it, drop its file."""
        child, self._child = self._child, None
        if child is not None:
            if child.stdin is not None:
                child.stdin.close()
            try:
                child.wait(timeout=5)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None
        self._samples, self._read = [], 0

    def _file(self) -> Path:
        if self._folder is None:
            raise MeterError("the power poller is not running.", todo="Start it first.")
        return Path(self._folder.name) / "samples"

    def _wait(self, done: Callable[[], bool], *, limit_s: float) -> None:
        deadline = time.perf_counter() + limit_s
        while True:
            self._fetch()
            if done() or self._child is None or self._child.poll() is not None or time.perf_counter() > deadline:
                return
            time.sleep(self.period_s / 4)

    def _fetch(self) -> None:
        if self._folder is None:
            return
        try:
            with self._file().open("rb") as file:
                file.seek(self._read)
                data = file.read()
        except FileNotFoundError:
            return
        fresh = Sample.unpack(data)
        self._read += len(fresh) * _RECORD.size
        self._samples += fresh


def main(uuid: str, period_s: float, path: Path) -> int:
    """The child: write a sample each period until standard input ends."""
    driver = Driver.connect()
    if isinstance(driver, Missing):
        return 1
    gpu = driver.find(uuid)
    if isinstance(gpu, Missing):
        return 1
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    with path.open("ab", buffering=0) as file:
        while True:
            file.write(look(driver, gpu, time.perf_counter).pack())
            time.sleep(period_s * random.uniform(0.8, 1.2))


def _leave_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], float(sys.argv[2]), Path(sys.argv[3])))
