from __future__ import annotations

import gc
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptbench.errors import MeterError
from adaptbench.meters.base import Meter
from adaptbench.meters.clock import ClockMeter
from adaptbench.meters.modelled import ModelledMeter
from adaptbench.meters.reading import Missing, Reading, Sensor, Work
from adaptbench.meters.rows import WindowRow
from adaptbench.meters.steadiness import Steadiness, flag_unsteady
from adaptbench.meters.windows import IDLE, Arm, measure
from adaptbench.results.schema import WINDOW_COLUMNS


class World:
    """A device on a clock of its own: calls take time and energy, which drift and scatter as told."""

    def __init__(self, *, drift=0.0, noise=0.0, seed=0):
        self.now = self.joules = 0.0
        self.drift, self.noise, self.rng = drift, noise, np.random.default_rng(seed)
        self.events = []

    def clock(self):
        return self.now

    def pass_time(self, seconds, watts=10.0):
        self.now += seconds
        self.joules += watts * seconds * (1 + self.drift * self.now) * math.exp(self.noise * self.rng.normal())

    def arm(self, case, seconds=0.01, watts=100.0, *, work=None, paths=1):
        def run():
            self.events.append(("run", case))
            self.pass_time(seconds, watts)

        def warm(path):
            self.events.append(("warm", f"{case}:{path}"))
            self.pass_time(seconds, watts)

        warms = [lambda path=path: warm(path) for path in range(paths)]
        return Arm(case, run, work or Work(1000, None, 2), warms)


class WorldMeter(Meter):
    """Reads the world's joules without error."""

    name = "world"

    def __init__(self, world, *, least=0.0, missing=False, name="world", waits=False):
        super().__init__(clock=world.clock)
        self.world, self.least, self.missing = world, least, missing
        self.name, self.waits = name, waits

    @property
    def min_window_s(self):
        return self.least

    def probe(self):
        return Sensor({})

    def describe(self):
        return {"found": True, "reason": None}

    def begin(self):
        self.world.events.append(("begin", self.name))
        return self.world.now, self.world.joules

    def end(self, mark, work):
        self.world.events.append(("end", self.name))
        energy = Missing("no sensor") if self.missing else self.world.joules - mark[1]
        return [Reading("gpu0", energy, self.world.now - mark[0], "measured: world", "device")]


def run(world, arms, meters=None, **options):
    plan = {"blocks": 6, "window_s": 1.0, "warmup_s": 0.0, "rng": np.random.default_rng(0)}
    plan |= {"clock": world.clock, "pause": world.pass_time} | options
    return measure(arms, meters if meters is not None else [WorldMeter(world)], **plan)


def joules(rows, case):
    return np.array([row.energy_j / row.n_samples for row in rows if row.case == case])


@pytest.mark.parametrize("seed", range(5))
def test_a_planted_difference_is_recovered(seed):
    world = World(noise=0.02, seed=seed)
    rows = run(world, [world.arm("a", watts=100), world.arm("b", watts=110)], blocks=12)
    ratio = np.exp(np.median(np.log(joules(rows, "b") / joules(rows, "a"))))
    assert ratio == pytest.approx(1.1, rel=0.01)


@settings(max_examples=20, deadline=None)
@given(st.floats(0, 0.005), st.integers(0, 100), st.integers(2, 5))
def test_a_linear_drift_cancels_over_each_pair_of_blocks(drift, seed, arms):
    world = World(drift=drift)
    names = [f"arm{i}" for i in range(arms)]
    rows = run(world, [world.arm(name) for name in names], rng=np.random.default_rng(seed), blocks=2)
    means = [joules(rows, name).mean() for name in names]
    assert np.ptp(means) / np.mean(means) < 1e-9
    if drift > 1e-3:  # the second arm of one block alone does look dearer
        assert np.ptp([joules(rows, name)[0] for name in names]) / np.mean(means) > 1e-4


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5), st.integers(1, 7), st.booleans(), st.integers(0, 2**32 - 1))
def test_every_block_has_every_arm_once(arms, blocks, idle, seed):
    world = World()
    cases = [f"case{i}" for i in range(arms)]
    rows = run(world, [world.arm(c) for c in cases], blocks=blocks, idle=idle, rng=np.random.default_rng(seed))
    orders = []
    for block in range(blocks):
        inside = [row for row in rows if row.block == block]
        assert sorted(row.case for row in inside) == sorted([*cases, *([IDLE] if idle else [])])
        assert [row.order for row in inside] == list(range(len(inside)))
        orders.append([row.case for row in inside])
    assert all(orders[i] == orders[i - 1][::-1] for i in range(1, blocks, 2))


def test_blocks_differ_and_a_seed_repeats():
    def orders(seed):
        world = World()
        rows = run(world, [world.arm(c) for c in "abcd"], rng=np.random.default_rng(seed), blocks=8)
        return [row.case for row in rows]

    assert orders(0) == orders(0) != orders(1)
    blocks = np.array(orders(0)).reshape(8, 5)
    assert len({tuple(block) for block in blocks}) > 2


def test_every_path_is_warm_before_the_first_window():
    world = World()
    run(world, [world.arm("a", paths=3), world.arm("b", paths=2)])
    kinds = [kind for kind, _ in world.events]
    warm = [what for kind, what in world.events if kind == "warm"]
    assert warm == ["a:0", "a:1", "a:2", "b:0", "b:1"]
    assert "warm" not in kinds[kinds.index("run") :]
    assert {what for kind, what in world.events[: kinds.index("begin")] if kind == "run"} == {"a", "b"}


def test_warming_up_lasts_as_long_as_asked():
    world = World()
    starts = []

    class First(WorldMeter):
        def begin(self):
            starts.append(self.world.now)
            return super().begin()

    run(world, [world.arm("a"), world.arm("b")], [First(world)], warmup_s=3.0)
    assert starts[0] >= 6.0


def test_each_arm_does_the_same_work_in_every_block():
    world = World()
    rows = run(world, [world.arm("fast", seconds=0.001), world.arm("slow", seconds=0.3)])
    for case, seconds in (("fast", 0.001), ("slow", 0.3)):
        samples = {row.n_samples for row in rows if row.case == case}
        assert len(samples) == 1
        planned = samples.pop() / 2 * seconds
        assert 1.0 <= planned <= 1.1 + seconds
    assert {row.n_samples for row in rows if row.case == IDLE} == {0}


def test_a_call_longer_than_the_window_runs_once():
    world = World()
    rows = run(world, [world.arm("slow", seconds=7.0)], blocks=1, idle=False)
    assert [(row.n_samples, row.duration_s) for row in rows] == [(2, 7.0)]


def test_modelled_joules_are_those_of_the_work():
    world = World()
    meter = ModelledMeter(clock=world.clock)
    meter.open()
    rows = run(world, [world.arm("a", work=Work(1_000_000, None, 4))], [meter])
    busy = [row for row in rows if row.case == "a"]
    assert all(row.energy_j / row.n_samples == pytest.approx(1_000_000 * 4.6e-12 / 4) for row in busy)
    assert all(row.missing for row in rows if row.case == IDLE)


def test_short_windows_are_flagged_where_a_sensor_answered():
    world = World()
    meters = [
        WorldMeter(world, least=5.0, name="coarse"),
        WorldMeter(world, least=0.5, name="fine"),
        WorldMeter(world, least=5.0, name="absent", missing=True),
    ]
    flags = {row.meter: row.flags for row in run(world, [world.arm("a")], meters)}
    assert flags == {"coarse": "short", "fine": "", "absent": ""}


def test_the_clock_flags_short_windows_without_having_joules():
    world = World()
    clock = ClockMeter(clock=world.clock)
    clock.open()
    rows = run(world, [world.arm("a", seconds=0.001)], [clock], window_s=0.05)
    assert {row.flags for row in rows} == {"short"}
    assert {row.missing for row in rows} == {"the clock measures time"}


def test_meters_that_wait_enclose_the_others_and_whole_run_meters_stay_out():
    world = World()

    class Whole(WorldMeter):
        whole_run = True

    meters = [WorldMeter(world, name="clock"), WorldMeter(world, name="nvml", waits=True), Whole(world, name="whole")]
    rows = run(world, [world.arm("a")], meters, blocks=1, idle=False)
    inside = [event for event in world.events if event[0] in ("begin", "end")]
    assert inside == [("begin", "nvml"), ("begin", "clock"), ("end", "clock"), ("end", "nvml")]
    assert {row.meter for row in rows} == {"clock", "nvml"}


def test_the_device_is_synchronised_inside_the_window():
    world = World()
    queue = []

    def synchronise():
        while queue:
            world.pass_time(queue.pop(), 100)

    arm = Arm("a", lambda: queue.append(0.01), Work(1, None, 1))
    rows = run(world, [arm], synchronise=synchronise, idle=False)
    assert all(row.energy_j == pytest.approx(100 * 0.01 * row.n_samples) for row in rows)


def test_no_garbage_is_collected_in_a_window():
    world, seen = World(), []
    arm = world.arm("a", seconds=0.5)
    watched = Arm("a", lambda: (seen.append(gc.isenabled()), arm.run()), arm.work)
    run(world, [watched], idle=False)
    assert seen[-1] is False
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_a_failing_call_switches_collection_on_again():
    world = World()
    calls = iter(range(1000))

    def run_out():
        world.pass_time(0.5)
        if next(calls) > 3:
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        run(world, [Arm("a", run_out, Work(1, None, 1))])
    assert gc.isenabled()


def test_a_resumed_run_keeps_its_blocks_its_plan_and_its_work():
    world = World()
    saved = {}
    whole = run(world, [world.arm("a"), world.arm("b")], blocks=5, on_block=saved.__setitem__)
    assert sorted(saved) == [0, 1, 2, 3, 4]
    half_a_block = saved[2][:1]
    fresh, told = World(), []
    rows = run(
        fresh,
        [fresh.arm("a", seconds=0.02), fresh.arm("b", seconds=0.02)],
        blocks=5,
        already=[*saved[0], *saved[1], *half_a_block],
        on_block=lambda block, rows: told.append(block),
    )
    assert told == [2, 3, 4]
    assert [replace(one, flags="") for one in rows[:6]] == whole[:6]
    key = [(row.block, row.order, row.case, row.n_samples) for row in whole]
    assert [(row.block, row.order, row.case, row.n_samples) for row in rows] == key


def test_a_finished_run_measures_nothing():
    world = World()
    rows = run(world, [world.arm("a")])
    events = len(world.events)
    assert run(world, [world.arm("a")], already=rows) == rows
    assert len(world.events) == events


def test_rows_of_another_plan_are_not_taken_over():
    world = World()
    rows = run(world, [world.arm("a"), world.arm("old")], blocks=2)
    again = run(world, [world.arm("a"), world.arm("new")], blocks=2, already=rows)
    assert {row.case for row in again} == {"a", "new", IDLE}


def test_cases_that_scatter_are_flagged():
    world = World(noise=0.5)
    quiet = World()
    assert {row.flags for row in run(world, [world.arm("a", seconds=0.9)]) if row.case == "a"} == {"unsteady"}
    assert {row.flags for row in run(quiet, [quiet.arm("a", seconds=0.9)])} == {""}


def row(**changes):
    base = WindowRow("a", 0, 0, "nvml", "gpu0", 100.0, 5.0, 10, "measured: NVML", "device", "", None)
    return replace(base, **changes)


def test_scatter_is_judged_by_case_meter_and_component():
    steady = [row(block=i, energy_j=100 + i) for i in range(4)]
    wild = [row(block=i, energy_j=100 * (1 + i), flags="short", component="gpu1") for i in range(4)]
    modelled = [row(block=i, energy_j=100 * (1 + i), meter="m", provenance="modelled: x") for i in range(4)]
    few = [row(block=i, energy_j=100 * (1 + i), case="b") for i in range(2)]
    flags = [one.flags for one in flag_unsteady([*steady, *wild, *modelled, *few])]
    assert flags == [""] * 4 + ["short,unsteady"] * 4 + [""] * 6


def test_the_clock_has_a_wider_limit():
    times = [row(block=i, meter="clock", component="clock", energy_j=None, duration_s=5 + i * 0.3) for i in range(4)]
    assert {one.flags for one in flag_unsteady(times)} == {""}
    assert {one.flags for one in flag_unsteady(times, Steadiness(time=0.01))} == {"unsteady"}


def test_flagging_twice_is_flagging_once():
    wild = [row(block=i, energy_j=100.0 * (1 + i)) for i in range(4)]
    once = flag_unsteady(wild)
    assert flag_unsteady(once) == once
    assert {one.flags for one in flag_unsteady(once, Steadiness(energy=9))} == {""}


def test_rows_are_the_columns_of_the_table():
    assert list(asdict(row())) == list(WINDOW_COLUMNS)


@pytest.mark.parametrize(
    ("arms", "options"),
    [
        ([], {}),
        (["a", "a"], {}),
        ([IDLE], {}),
        (["a"], {"blocks": 0}),
        (["a"], {"window_s": 0.0}),
        (["a"], {"window_s": math.nan}),
        (["a"], {"warmup_s": -1.0}),
    ],
)
def test_what_cannot_be_measured_is_refused(arms, options):
    world = World()
    with pytest.raises(MeterError):
        run(world, [world.arm(case) for case in arms], **options)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("idle", [False, True])
def test_measuring_with_nothing_is_refused(whole, idle):
    """Without a meter every block was taken for whole already, and the first was a KeyError."""
    world = World()
    meter = WorldMeter(world, name="carbon")
    meter.whole_run = True
    with pytest.raises(MeterError, match="only whole runs are read by carbon" if whole else "no meter was given"):
        run(world, [world.arm("a")], [meter] if whole else [], idle=idle)


def test_a_call_that_answers_nothing_is_refused():
    world = World()
    with pytest.raises(MeterError, match="no sample"):
        run(world, [world.arm("a", work=Work(1, None, 0))])


def test_a_call_that_takes_no_time_is_refused(monkeypatch):
    monkeypatch.setattr("adaptbench.meters.windows._MOST_CALLS", 1 << 10)
    with pytest.raises(MeterError, match="does the call do anything"):
        run(World(), [Arm("a", lambda: None, Work(1, None, 1))])
