"""The interleaved protocol: every arm once a block, blocks in random order, in one process.

Drift (temperature, clocks, other tenants) then hits all arms alike: consecutive blocks run in mirrored order, so that
a linear drift cancels within each pair of blocks. After Yang, Adámek, Armour, SC 2024, and Kalibera & Jones, 2013.
"""

from __future__ import annotations

import gc
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from adaptbench.errors import AdaptBenchError, MeterError
from adaptbench.meters.base import Clock, Meter
from adaptbench.meters.clock import ClockMeter
from adaptbench.meters.reading import NO_WORK, Work
from adaptbench.meters.rows import WindowRow, part_rows, to_rows
from adaptbench.meters.steadiness import STEADINESS, Steadiness, flag_unsteady
from adaptbench.meters.stopwatch import Stopwatch

if TYPE_CHECKING:
    import numpy as np

_log = logging.getLogger(__name__)

IDLE = "idle"
"""The case of windows in which nothing runs."""

_MARGIN = 1.1  # windows are planned 10 % longer, so that a faster block is not a short one
_MOST_CALLS = 1 << 24


def _nothing() -> None:
    """Nothing takes long beforehand."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One thing to measure.

    Args:
        case: its case id.
        run: one call of the work, on inputs that are on the device already.
        work: what one call executes.
        warm: calls that touch every path (every exit, every kernel shape); each is run before the first window.
        ready: entered once around all windows: what is set up for any number of calls.
        watch: told by `run` which part of the work each stretch was; None where it does not tell.
        mode: how an adaptive net executes its batches, for the rows; None of a plain net as it is.
        prepare: called once before any arm is ready or warmed, where there are windows left to measure.
    """

    case: str
    run: Callable[[], None]
    work: Work
    warm: Sequence[Callable[[], None]] = ()
    ready: Callable[[], AbstractContextManager[None]] = nullcontext
    watch: Stopwatch | None = None
    mode: str | None = None
    prepare: Callable[[], None] = _nothing


def measure(
    arms: Sequence[Arm],
    meters: Sequence[Meter],
    *,
    blocks: int,
    window_s: float,
    warmup_s: float,
    rng: np.random.Generator,
    idle: bool = True,
    synchronise: Callable[[], None] = lambda: None,
    clock: Clock = time.perf_counter,
    pause: Callable[[float], None] = time.sleep,
    on_block: Callable[[int, list[WindowRow]], None] = lambda block, rows: None,
    already: Sequence[WindowRow] = (),
    steadiness: Steadiness = STEADINESS,
) -> list[WindowRow]:
    """Measure arms against each other.

    Every arm is prepared and every path of it warmed, each arm's calls a window are fixed from a timed estimate, then
    each block runs every arm once, and an idle window. Takes about (arms + 1) · blocks · window_s.

    Args:
        arms: at least one; case ids all different.
        meters: open, at least one for windows; those for whole runs are left out.
        blocks: ≥ 1; six are the least that can show a difference at the 5 % level (Wilcoxon).
        window_s: length to aim at, seconds.
        warmup_s: how long each arm runs before the first window; ≥ 1 s for averaging power sensors.
        rng: draws the order of all blocks at the start, so that a resumed run has the same plan.
        idle: one window a block in which nothing runs.
        synchronise: waits for the device.
        clock: monotonic seconds, for the estimates.
        pause: waits so many seconds, in idle windows.
        on_block: told (block, its rows) after each block: the place to save them.
        already: rows of an interrupted run; whole blocks among them are kept and not measured again.
        steadiness: limits of the pass that flags cases which scatter over blocks.

    Returns:
        rows of all blocks, by block and order.

    Raises:
        MeterError: no arms, no meter, doubled case ids, a length that cannot be, or calls too short to be timed.
    """
    _check(arms, meters, blocks, window_s, warmup_s)
    clocks = {meter.name for meter in meters if meter.quantity == "time"}
    used = sorted((meter for meter in meters if not meter.whole_run), key=lambda meter: not meter.waits)
    plan = _orders([arm.case for arm in arms] + ([IDLE] if idle else []), blocks, rng)
    kept = _whole_blocks(already, plan, {meter.name for meter in used})
    rows = [row for block in sorted(kept) for row in kept[block]]
    if len(kept) == blocks:
        return flag_unsteady(rows, steadiness, clocks=clocks)
    by_case = {arm.case: arm for arm in arms}
    for arm in arms:
        arm.prepare()
    with _frozen(), ExitStack() as stack:
        for arm in arms:
            stack.enter_context(arm.ready())
        calls = _warm_up(arms, window_s, warmup_s, synchronise, clock) | _calls_of(rows, by_case)
        for block, order in enumerate(plan):
            if block in kept:
                continue
            fresh: list[WindowRow] = []
            for place, case in enumerate(order):
                watch = mode = None
                if case == IDLE:
                    body, work = (lambda: pause(window_s)), NO_WORK
                else:
                    body, work = _repeat(by_case[case].run, calls[case], synchronise), by_case[case].work * calls[case]
                    watch, mode = by_case[case].watch, by_case[case].mode
                rows_here = _window(case, block, place, body, work, used, synchronise, watch)
                fresh += [replace(row, mode=mode) for row in rows_here]
            on_block(block, fresh)
            rows += fresh
    rows.sort(key=lambda row: (row.block, row.order))
    return flag_unsteady(rows, steadiness, clocks=clocks)


def _check(arms: Sequence[Arm], meters: Sequence[Meter], blocks: int, window_s: float, warmup_s: float) -> None:
    cases = [arm.case for arm in arms]
    if not cases:
        raise MeterError("there is nothing to measure.", todo="Give at least one arm.")
    if all(meter.whole_run for meter in meters):
        whole = (
            f"only whole runs are read by {', '.join(meter.name for meter in meters)}"
            if meters
            else "no meter was given"
        )
        raise MeterError(
            f"there is nothing to measure with: {whole}.",
            why="Windows without a reading would say nothing.",
            todo="Give a meter for windows, such as adaptbench.meters.clock.ClockMeter, open.",
        )
    if len(set(cases)) != len(cases) or IDLE in cases:
        raise MeterError(
            f"the case ids of the arms must differ, and none may be '{IDLE}': {', '.join(cases)}.",
            why="Rows of two arms could not be told apart.",
        )
    if blocks < 1 or not (math.isfinite(window_s) and window_s > 0) or not (math.isfinite(warmup_s) and warmup_s >= 0):
        raise MeterError(f"cannot measure {blocks} blocks of {window_s} s after {warmup_s} s of warm-up.")
    idle_arms = [arm.case for arm in arms if arm.work.samples == 0]
    if idle_arms:
        raise MeterError(
            f"a call of {', '.join(idle_arms)} answers no sample.", why="Joules a sample would be infinite."
        )


def _orders(cases: Sequence[str], blocks: int, rng: np.random.Generator) -> list[list[str]]:
    """Every second block mirrors the one before it: ABBA, over any number of arms."""
    orders: list[list[str]] = []
    for block in range(blocks):
        if block % 2:
            orders.append(orders[-1][::-1])
        else:
            orders.append([cases[i] for i in rng.permutation(len(cases))])
    return orders


def _whole_blocks(
    rows: Sequence[WindowRow], plan: Sequence[Sequence[str]], meters: set[str]
) -> dict[int, list[WindowRow]]:
    by_block: dict[int, list[WindowRow]] = {}
    for row in rows:
        by_block.setdefault(row.block, []).append(row)
    return {
        block: sorted(by_block[block], key=lambda row: row.order)
        for block, order in enumerate(plan)
        if {(row.case, row.meter) for row in by_block.get(block, [])}
        == {(case, name) for case in order for name in meters}
    }


def _calls_of(rows: Sequence[WindowRow], arms: dict[str, Arm]) -> dict[str, int]:
    """Calls a window of an interrupted run, so that the rest of its blocks do the same work."""
    return {
        row.case: row.n_samples // arms[row.case].work.samples
        for row in rows
        if row.case in arms and row.n_samples >= arms[row.case].work.samples
    }


def _warm_up(
    arms: Sequence[Arm], window_s: float, warmup_s: float, synchronise: Callable[[], None], clock: Clock
) -> dict[str, int]:
    """Run every path once, then each arm for a while; how many calls of each fill a window."""
    for arm in arms:
        for warm in arm.warm:
            warm()
    synchronise()
    return {arm.case: _calls(arm, window_s, warmup_s, synchronise, clock) for arm in arms}


def _calls(arm: Arm, window_s: float, warmup_s: float, synchronise: Callable[[], None], clock: Clock) -> int:
    calls, total = 1, 0.0
    while True:
        start = clock()
        _repeat(arm.run, calls, synchronise)()
        took = clock() - start
        total += took
        # A tenth of a window is long enough to time a call by; the last, warmest stretch counts.
        if total >= warmup_s and took >= window_s / 10:
            break
        if took < window_s / 10:
            calls *= 2
        if calls > _MOST_CALLS:
            raise MeterError(
                f"{arm.case}: {_MOST_CALLS} calls take less than {window_s / 10:g} s.",
                why="A window cannot be filled with work that short; does the call do anything?",
            )
    return max(1, math.ceil(_MARGIN * window_s * calls / took))


def _repeat(run: Callable[[], None], calls: int, synchronise: Callable[[], None]) -> Callable[[], None]:
    def body() -> None:
        for _ in range(calls):
            run()
        synchronise()

    return body


def _window(
    case: str,
    block: int,
    place: int,
    body: Callable[[], None],
    work: Work,
    meters: Sequence[Meter],
    synchronise: Callable[[], None],
    watch: Stopwatch | None,
) -> list[WindowRow]:
    synchronise()
    with _no_collection():
        marks = [(meter, _asked(meter, meter.begin)) for meter in meters]
        if watch is not None:
            watch.start()
        body()
        readings = [(meter, _asked(meter, meter.end, mark, work)) for meter, mark in reversed(marks)]
    _log.debug("block %d, window %d, %s", block, place, case)
    rows = [row for meter, told in reversed(readings) for row in to_rows(case, block, place, meter, told, work.samples)]
    if watch is not None:
        rows += [part for row in rows if row.meter == ClockMeter.name for part in part_rows(row, watch.stop())]
    return rows


def _asked(meter: Meter, call: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return call(*arguments)
    except AdaptBenchError:
        raise
    except Exception as error:  # of a plug-in: named, so that it is not taken for the work's
        raise meter.failure(error) from error


@contextmanager
def _frozen() -> Iterator[None]:
    """Leave what exists already out of the collections between windows: with torch loaded, each would take long."""
    mine = gc.get_freeze_count() == 0
    if mine:
        gc.freeze()
    try:
        yield
    finally:
        if mine:
            gc.unfreeze()


@contextmanager
def _no_collection() -> Iterator[None]:
    """No garbage collection inside a window; what is due is collected before it."""
    gc.collect()
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
