"""The estimate of --dry-run: its windows are the run's, and each part costs what it was timed at. No clock is read."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from adaptbench.attacks import engine
from adaptbench.bench import estimate as module
from adaptbench.bench import probing
from adaptbench.bench.estimate import Estimate, estimate
from adaptbench.bench.plan import make_plan
from adaptbench.bench.probing import Craft, extrapolate, probe_craft
from adaptbench.bench.runner import run_suite
from adaptbench.bench.suite import load_suite
from adaptbench.errors import RecipeError
from adaptbench.experiment import estimating
from adaptbench.experiment.estimating import ArmCost, Session, lay_out
from adaptbench.experiment.measuring import Windows
from adaptbench.experiment.options import Options
from adaptbench.meters.windows import IDLE
from adaptbench.results.store import Run

SMALL = str(Path(__file__).parent / "small.yaml")
CRAFT_S = 1000.0


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_suite(SMALL, out=tmp_path_factory.mktemp("run") / "small")


@pytest.fixture(autouse=True)
def timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call is said to take a tenth of a second, every craft a thousand."""
    for place in (module, estimating):
        monkeypatch.setattr(place, "seconds_of", lambda call, device, times=1: 0.1)
    monkeypatch.setattr(module, "probe_craft", lambda *_: Craft(CRAFT_S))


def guess(*overrides: str, out: Path | str = "nowhere", fresh: bool = False) -> Estimate:
    options = Options(out=out, fresh=fresh)
    return estimate(make_plan(load_suite(SMALL, overrides), options), options, "small", 5.0)


def contents(folder: Path) -> dict[str, str]:
    return {str(f): hashlib.sha256(f.read_bytes()).hexdigest() for f in folder.rglob("*") if f.is_file()}


@pytest.mark.slow
def test_its_windows_are_those_that_a_run_measures(finished: Run) -> None:
    windows = finished.windows()
    clock = windows[(windows["meter"] == "clock") & (windows["component"] == "clock")]
    measured = Counter(zip(clock["case"], clock["block"], strict=True))
    assert Counter(w for session in guess().sessions for w in session.windows) == measured
    assert {s.cases[-1] for s in guess().sessions} == {IDLE}


def test_no_energy_meter_no_idle_window() -> None:
    assert all(IDLE not in session.cases for session in guess("measure.meters=[clock]").sessions)


@pytest.mark.slow
def test_what_is_kept_costs_nothing_and_nothing_is_touched(finished: Run) -> None:
    before = contents(finished.path)
    guessed = guess(out=finished.path)
    assert guessed.kept == set(guessed.evaluations)
    assert guessed.measuring_s == 0
    assert guessed.total_s == 5.0
    anew = guess(out=finished.path, fresh=True)
    assert not anew.kept
    assert anew.total_s > 2 * CRAFT_S
    assert contents(finished.path) == before


@pytest.mark.slow
def test_a_new_setting_costs_only_what_it_changes(finished: Run) -> None:
    longer = guess("measure.blocks=4", out=finished.path)
    assert not any(longer.evaluations.values())
    assert [session.blocks for session in longer.sessions] == [(0, 1, 2, 3)] * 2
    again = guess("conditions=[clean, {noise: {eps: 8/255}}, {ilfo: {eps: 16/255, steps: 7}}]", out=finished.path)
    assert {id_ for id_, seconds in again.evaluations.items() if seconds} == {
        "digits/softmax-threshold/ilfo",
        "digits/skipnet/ilfo",
    }


def test_what_a_killed_run_left_is_counted_by_chunk_and_by_block(finished: Run, tmp_path: Path) -> None:
    shutil.copytree(finished.path, tmp_path, dirs_exist_ok=True)
    run = Run.open(tmp_path)
    plan = make_plan(load_suite(SMALL), Options())
    clean = next(e for e in plan.evaluations if e.kind == "clean")
    whole = guess().evaluations[clean.id]
    for key in (clean.key, plan.chunk_keys(clean)[1]):
        (run.path / "cells" / f"{key}.json").unlink()
    key = [key for key in run.manifest["cells"] if not key.startswith("suite-")][-1]  # the second batch size's
    for gone in (key, f"{key}-1"):
        (run.path / "cells" / f"{gone}.json").unlink()
    guessed = guess(out=tmp_path)
    assert guessed.evaluations[clean.id] == pytest.approx(whole * 14 / 30)  # chunks of 16 and 14
    assert [session.blocks for session in guessed.sessions] == [(), (1,)]


def test_an_attack_costs_its_craft_more_than_a_clean_case() -> None:
    seconds = guess().evaluations
    chunks = 2
    more = CRAFT_S + 2 * chunks * module.COMMIT_S
    assert seconds["digits/skipnet/ilfo"] - seconds["digits/skipnet/clean"] == pytest.approx(more)
    assert seconds["digits/skipnet/clean"] == pytest.approx(0.1 / 16 * 30 + (chunks + 1) * module.COMMIT_S)


def test_the_total_is_the_sum_of_its_parts() -> None:
    session = Session(1, ("a", IDLE), (0, 1, 2), ready_s=10.0, block_s=2.0)
    guessed = Estimate({"x": 100.0}, (session,), preparing_s=0.5, closing_s=0.25)
    assert guessed.measuring_s == 16.0
    assert guessed.total_s == 116.75


def test_each_part_of_a_session_moves_it_by_what_it_costs() -> None:
    spec = Windows(window_s=1.0, warmup_s=0.0)

    def laid(*arms: ArmCost, window_s: float = 1.0, idle: bool = False) -> tuple[float, float]:
        return lay_out({str(i): arm for i, arm in enumerate(arms)}, spec, window_s, idle=idle)

    slow = ArmCost(make_s=7.0, warm_s=(3.0, 4.0), call_s=4.0)
    assert laid(slow) == (7 + 3 + 4 + 4, 4)  # made, warmed by path, one call to calibrate; a call is a window
    assert laid(slow, slow) == (36, 8)  # such as a static arm
    assert laid(slow, idle=True) == (18, 5)
    assert laid(slow, window_s=30.0)[1] == 36  # what a sensor asks for, and a tenth: nine calls
    fast = ArmCost(0.0, (), 0.25)
    assert laid(fast) == (0.25, 1.25)  # five calls
    warm = lay_out({"a": fast}, Windows(window_s=1.0, warmup_s=2.0), 1.0, idle=False)
    assert warm == (2.0, 1.25)


@pytest.mark.parametrize("key", ["queries", "steps", "n_queries"])
def test_a_craft_is_a_line_in_its_length(key: str) -> None:
    asked: list[int] = []

    def seconds(settings: dict[str, int]) -> float:
        asked.append(settings[key])
        return 3.0 + 0.5 * settings[key]

    assert extrapolate({key: 300, "eps": 0.1}, seconds) == pytest.approx(153)
    assert max(asked) <= 6


def test_an_attack_without_a_length_is_called_whole_and_within_a_deadline() -> None:
    asked: list[dict[str, float]] = []

    def seconds(settings: dict[str, float]) -> float:
        asked.append(settings)
        return 9.0

    assert extrapolate({"eps": 0.1, "deadline_s": 600.0}, seconds, limited=True) == 9.0
    assert asked == [{"deadline_s": 2.0}]


def test_a_length_that_cannot_be_shortened_is_run_whole() -> None:
    def seconds(settings: dict[str, int]) -> float:
        if settings:
            raise RecipeError("max_iterations: at least 10.")
        return 8.0

    assert extrapolate({"max_iterations": 100}, seconds) == 8.0


def test_an_attack_in_rounds_fits_once_more_at_the_end() -> None:
    def seconds(settings: dict[str, int]) -> float:
        assert settings["queries"] <= 20
        return (settings["rounds"] + 1) * settings["fit_steps"] * 0.01 + settings["rounds"] * 2.0

    settings = {"queries": 100, "rounds": 5, "fit_steps": 100, "probes": 8}
    assert extrapolate(settings, seconds) == pytest.approx(6 * 1.0 + 5 * 2.0)


def test_an_attack_that_fails_leaves_a_doubt_and_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(load_suite(SMALL, ("conditions=[clean, {ilfo: {eps: 16/255, steps: 60}}]",)), Options())
    attacked = next(e for e in plan.evaluations if e.attack)

    def broken(*_: object) -> None:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(probing, "load_attack", broken)
    craft = probe_craft(attacked, "cpu", plan.surrogates.__getitem__, 16, 0.001)
    assert craft.total_s == 0
    assert "no such kernel" in craft.doubt


def test_an_attack_in_members_is_not_run_whole_to_say_how_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(load_suite(SMALL, ("conditions=[clean, {exhaustive: {eps: 16/255}}]",)), Options())
    attacked = next(e for e in plan.evaluations if e.attack)
    monkeypatch.setattr(probing, "_MOST_S", 0.02)
    ticks = count()  # a look at the clock is a millisecond: what this machine is busy with decides nothing
    monkeypatch.setattr(engine, "time", SimpleNamespace(monotonic=lambda: next(ticks) / 1000))
    steps: list[int] = []
    load = probing.load_attack

    def watched(ref: str, settings: dict[str, Any]) -> Any:
        attack = load(ref, settings)
        craft = attack.craft

        def counting(*args: Any, **more: Any) -> Any:
            made = craft(*args, **more)
            steps.append(made.details["steps_run"])
            return made

        attack.craft = counting
        return attack

    monkeypatch.setattr(probing, "load_attack", watched)
    craft = probe_craft(attacked, "cpu", plan.surrogates.__getitem__, 16, 0.001)
    whole = 16 * sum(stage.parts.search.steps for stage in attacked.attack.stages_for(attacked.model).values())
    assert len(steps) == 1
    assert 0 < steps[0] < whole / 10
    assert "at most so long" in craft.doubt
    assert craft.total_s > 0.02 * 10


@pytest.mark.parametrize(("inputs", "longest"), [(8, 80.0), (24, 240.0)])
def test_an_attack_that_nothing_shortens_is_tried_on_one_input(inputs, longest, monkeypatch) -> None:
    """Ten seconds an input would make a dry run of eight wait for eighty."""
    asked: list[int] = []

    def seconds(self: Any, settings: dict[str, Any], on: int) -> float:
        asked.append(on)
        return 10.0 * on

    monkeypatch.setattr(probing._Probe, "_seconds", seconds)
    plan = make_plan(load_suite(SMALL, (f"conditions=[clean, {{noise: {{limit: {inputs}}}}}]",)), Options())
    attacked = next(e for e in plan.evaluations if e.attack)
    craft = probe_craft(attacked, "cpu", plan.surrogates.__getitem__, 16, 0.001)
    assert (craft.total_s, asked) == (longest, [1])
    assert "on one input" in craft.doubt


def test_a_lesson_is_counted_once_and_its_crafts_by_the_input(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = "conditions=[clean, {black-box-2: {candidates: 100, queries: 30}}]"
    plan = make_plan(load_suite(SMALL, (asked,)), Options())
    attacked = next(e for e in plan.evaluations if e.attack)
    learned: list[int] = []

    def lesson(self: Any, settings: dict[str, Any]) -> float:
        learned.append(settings["candidates"])
        return 2.0 + 0.5 * settings["candidates"]

    monkeypatch.setattr(probing._Probe, "_learned", lesson)
    monkeypatch.setattr(probing._Probe, "_seconds", lambda self, settings, on: 1.0 + on * 0.1 * settings["queries"])
    craft = probe_craft(attacked, "cpu", plan.surrogates.__getitem__, 16, 0.001, plan.crafting)
    assert max(learned) <= 6
    assert craft.total_s == pytest.approx((2 + 50) + (1 + 3 * len(attacked.split)))
