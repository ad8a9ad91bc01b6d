"""What a stretch of work spends: seconds by two clocks, and the peak of memory."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MIB = 2**20


@contextmanager
def spent(into: dict[str, Any], name: str) -> Iterator[None]:
    """Seconds by both clocks, this process and its children."""
    cpu, wall = cpu_s(), time.perf_counter()
    yield
    into[f"{name}_cpu_s"], into[f"{name}_wall_s"] = cpu_s() - cpu, time.perf_counter() - wall


def cpu_s() -> float:
    """Seconds of this process and its children so far."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def peak_bytes() -> int:
    """Of this process so far; `getrusage` would tell the parent's where that had more when it forked."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
