"""Seconds of what a run will do, from doing a little of it: calls, lines, arms, windows on a counting clock."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from adaptbench.adaptive import AdaptiveModel, Split
from adaptbench.adaptive.parts import TimedMode
from adaptbench.experiment.measuring import Windows
from adaptbench.experiment.timed import make_arm, make_static_arm
from adaptbench.meters.clock import ClockMeter, synchroniser
from adaptbench.meters.reading import Work
from adaptbench.meters.windows import Arm, measure

COMMIT_S = 0.004  # of a cell: two small files, synced
CLOSING_S = 0.5  # notes, tables, and what is written last
_BATCHES = 8  # of an arm that are timed
_LAID_OUT = 2  # blocks: the second tells what one takes


def seconds_of(call: Callable[[], object], device: str, times: int = 1) -> float:
    """Seconds of a call on the device, the middle one of some; a first one is not counted."""
    wait = synchroniser(device)
    laps = []
    for _ in range(times + 1):
        wait()
        began = time.perf_counter()
        call()
        wait()
        laps.append(time.perf_counter() - began)
    return sorted(laps[1:])[times // 2]


class _LateError(BaseException):
    """A call took too long; nothing that catches errors catches it."""


def limited(call: Callable[[], object], at_most_s: float) -> float | None:
    """Seconds of a call; None where it took longer than that, and was stopped.

    Calls outside of the main thread, and on systems without interval timers, are waited for.
    """
    began = time.perf_counter()
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        call()
        return time.perf_counter() - began

    def late(number: int, frame: object) -> None:
        raise _LateError

    handler = signal.signal(signal.SIGALRM, late)
    others = signal.setitimer(signal.ITIMER_REAL, at_most_s)
    try:
        try:
            call()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        return time.perf_counter() - began
    except _LateError:
        return None
    finally:
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, *others)


def line(short: tuple[float, float], longer: tuple[float, float], at: float) -> float:
    """A straight line through (length, seconds) twice, of no negative slope."""
    slope = max((longer[1] - short[1]) / (longer[0] - short[0]), 0.0)
    return max(short[1] - slope * short[0], 0.0) + slope * at


@dataclass(frozen=True, slots=True)
class ArmCost:
    """Seconds of one arm: made once, each path warmed once, and a call through all its inputs."""

    make_s: float
    warm_s: tuple[float, ...]
    call_s: float


@dataclass(frozen=True, slots=True)
class Session:
    """The windows of one batch size.

    Args:
        size: inputs handed over at once. cases: arms in order, `IDLE` last where there are idle windows.
        blocks: that are still to be measured. ready_s: arms made, warmed and calibrated. block_s: of one block.
    """

    size: int
    cases: tuple[str, ...]
    blocks: tuple[int, ...]
    ready_s: float
    block_s: float

    @property
    def windows(self) -> list[tuple[str, int]]:
        """(case, block) of all that are still to be measured."""
        return [(case, block) for block in self.blocks for case in self.cases]

    @property
    def total_s(self) -> float:
        """Nothing where all blocks are kept."""
        return self.ready_s + len(self.blocks) * self.block_s if self.blocks else 0.0


def probe_arm(
    model: AdaptiveModel, split: Split, size: int, samples: int, device: str, mode: TimedMode | None = "compacted"
) -> tuple[ArmCost, float]:
    """Time an arm on a few batches.

    Args:
        model: under its own policy. split: whose first inputs are run. size: of a batch.
        samples: inputs that a window goes through. mode: of a batch; None: the model's reference instead.

    Returns:
        Its seconds, and how many times as long as these inputs' own the longest path takes.
    """
    samples = min(samples, len(split))
    some = min(samples, size * _BATCHES)
    x = split.inputs(0, some).to(device)
    began = time.perf_counter()
    if mode is None:
        arm = make_static_arm("static", model, x, size)
    else:
        arm, _ = make_arm("timed", model, x, split.ids[:some], size, mode)
    made = time.perf_counter() - began
    batches = max(some // size, 1)
    more = max(samples // size, 1) / batches
    with torch.no_grad(), arm.ready():
        call = seconds_of(arm.run, device, times=3) * more
        warm = [seconds_of(way, device) for way in arm.warm[:-1]]
    dearest = max([1.0, *(way * batches / made for way in warm)])
    return ArmCost(made * more, (*warm, call), call), dearest


def session(
    size: int,
    cases: Sequence[str],
    blocks: Sequence[int],
    arms: Mapping[str, ArmCost],
    spec: Windows,
    window_s: float,
    *,
    idle: bool,
) -> Session:
    """One batch size, from nothing to its cells.

    Args:
        size: of a batch. cases: of a block, in order. blocks: that are not kept. arms: by case; none where all are.
        spec: how long. window_s: what the meters make of it. idle: whether there are idle windows.
    """
    began = time.perf_counter()
    ready_s, block_s = lay_out(arms, spec, window_s, idle=idle) if arms else (0.0, 0.0)
    beside = (time.perf_counter() - began) / _LAID_OUT  # collecting garbage before a window takes real time
    return Session(size, tuple(cases), tuple(blocks), ready_s, block_s + beside + COMMIT_S)


def lay_out(arms: Mapping[str, ArmCost], spec: Windows, window_s: float, *, idle: bool) -> tuple[float, float]:
    """The protocol itself, on a clock that only counts.

    Args:
        arms: by case. spec: how long. window_s: what the meters make of it. idle: whether there are idle windows.

    Returns:
        Seconds before the first block, and of one block.
    """
    now = sum(arm.make_s for arm in arms.values())
    ends: list[float] = []

    def spend(seconds: float) -> None:
        nonlocal now
        now += seconds

    clock = ClockMeter(clock=lambda: now)
    clock.open()
    measure(
        [
            Arm(case, partial(spend, arm.call_s), Work(0, 0, 1), [partial(spend, s) for s in arm.warm_s])
            for case, arm in arms.items()
        ],
        [clock],
        blocks=_LAID_OUT,
        window_s=window_s,
        warmup_s=spec.warmup_s,
        rng=np.random.default_rng(0),
        idle=idle,
        clock=lambda: now,
        pause=spend,
        on_block=lambda block, rows: ends.append(now),
    )
    block_s = ends[1] - ends[0]
    return ends[0] - block_s, block_s
