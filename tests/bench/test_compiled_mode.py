"""Compiled parts as a mode of timings: made before any window, a plan a net and size, beside a plain net made alike."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from small_study import STUDY

from adaptbench.adaptive import compilers, compiling
from adaptbench.bench.estimate import estimate
from adaptbench.bench.notes import _compiled, _realised
from adaptbench.bench.plan import make_plan
from adaptbench.bench.runner import run_suite
from adaptbench.bench.suite import load_suite
from adaptbench.errors import RunError, SuiteError
from adaptbench.experiment import compiled
from adaptbench.experiment.options import Options
from adaptbench.meters import windows as protocol
from adaptbench.report.page import run_page
from adaptbench.results import timing
from adaptbench.results.baseline import Baseline, write_baseline
from adaptbench.results.gate import compare
from adaptbench.results.gate_rules import Rule
from adaptbench.results.identity import static_id
from adaptbench.results.store import Run
from adaptbench.study.spec import load_study

NONE_HERE = compilers.why_no_compiler(torch.device("cpu"))
SUITE = """
title: compiled parts
data: digits
models: [softmax-threshold, skipnet]
conditions: [clean, noise: {eps: 60/255}]
limit: 24
measure:
  {batch_sizes: [4, 8], meters: [clock, modelled], modes: [compacted, compiled], blocks: 6, window_s: 0.002,
   warmup_s: 0, samples: 24}
"""
ONE = ("models=[softmax-threshold]", "measure.batch_sizes=[8]", "conditions=[clean]")
QUICK = {"stages.0", "heads.0", "bodies.1"}
"""Parts that are told to be faster compiled."""


def suite_at(folder: Path, *overrides: str):
    (folder / "compiled.yaml").write_text(SUITE, encoding="utf-8")
    return load_suite(str(folder / "compiled.yaml"), overrides)


class Told:
    """A compiler that changes nothing, seconds that are told instead of read, and what happened in order."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.events: list[str] = []
        self.quick, self.timed = set(QUICK), 0
        patch.setattr(compiled, "compile_parts", partial(compiling.compile_parts, compiler=self.compiler))
        patch.setattr(compiled, "compile_again", partial(compiling.compile_again, compiler=self.compiler))
        patch.setattr(compiling, "parts_of", self._named(compiling.parts_of))
        patch.setattr(compiling, "_timed", self._seconds)
        for whole in ("_whole", "_whole_reference"):
            patch.setattr(compiling, whole, lambda plan, batches: (1.0, 0.5))
        window = protocol._window
        patch.setattr(protocol, "_window", lambda *given: (self.events.append("window"), window(*given))[1])

    def _named(self, parts_of):
        self.names: dict[int, str] = {}

        def named(model):
            found = parts_of(model)
            self.names |= {id(part): name for name, part in found.items()}
            return found

        return named

    def compiler(self, part):
        self.events.append(f"compile {self.names[id(part)]}")

        def call(given):
            return part(given)

        call.named = self.names[id(part)]
        return call

    def _seconds(self, part, call, seen):
        self.timed += 1
        return 1.0, 0.5 if call.named in self.quick and seen.calls else 1.0

    @property
    def compiles(self) -> list[str]:
        return [event for event in self.events if event != "window"]


@pytest.fixture
def told(monkeypatch) -> Told:
    return Told(monkeypatch)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Run, Told]:
    folder = tmp_path_factory.mktemp("compiled")
    with pytest.MonkeyPatch.context() as patch:
        told = Told(patch)
        return run_suite(suite_at(folder), out=folder / "run"), told


def by_mode(run: Run) -> dict[tuple, dict]:
    return {(c["model"], c["condition"], c["batch_size"], c["mode"]): c for c in run.cases}


def test_compiled_cases_have_rows_and_windows_of_their_own_and_the_macs_of_the_net(made) -> None:
    run, _ = made
    found = by_mode(run)
    assert len(found) == 2 * 2 * 2 * 2
    for key, record in found.items():
        assert record["failed"] is None
        other = found[(*key[:3], "compacted")]
        assert record["macs_mean"] == other["macs_mean"]
        assert record["saving_macs"] == other["saving_macs"]
        assert set(run.windows([record["case"]])["mode"]) == {key[3]}
    assert len({c["latency_s_per_sample"] for c in run.cases}) == len(run.cases), "each was timed for itself"


def test_a_saving_of_compiled_parts_is_one_over_a_compiled_plain_net(made) -> None:
    run, _ = made
    windows = run.windows()
    for (model, _, size, mode), record in by_mode(run).items():
        static = static_id(model, size, mode)
        assert static.endswith("/compiled") == (mode == "compiled")
        own = timing.part_blocks(windows, record["case"], *timing.NET)
        plain = timing.part_blocks(windows, static, "nodes")
        assert own is not None
        assert plain is not None
        assert record["saving_time"] == pytest.approx(timing.saving(own, plain).value)
    names = {name for name in windows["case"] if name.startswith("static:")}
    assert len(names) == 8, "each net's plain one at each size, as it is and compiled"


def test_nothing_is_compiled_once_a_session_measures_and_a_plan_serves_all_conditions(made) -> None:
    _, told = made
    events, blocks, arms = told.events, 6, 2 * 2 * 2 + 2 * 2
    windows = [i for i, event in enumerate(events) if event == "window"]
    assert len(windows) == 2 * blocks * (arms + 1), "two sessions, idle among their arms"
    first, second = windows[: len(windows) // 2], windows[len(windows) // 2 :]
    for session in (first, second):
        assert session[-1] - session[0] + 1 == len(session), "a compilation stands between windows"
    before = [events[: first[0]], events[first[-1] + 1 : second[0]]]
    assert before[0] == before[1]
    assert len(set(before[0])) >= 6
    assert not events[second[-1] + 1 :]


def test_the_manifest_and_the_notes_say_what_became_of_the_parts(made) -> None:
    run, _ = made
    plans = run.manifest["compiled"]
    assert set(plans) == {f"{m}/b{size}" for m in ("softmax-threshold", "skipnet") for size in (4, 8)}
    for name, plan in plans.items():
        kept = {part["name"] for part in plan["parts"] if part["kept"]}
        assert kept == {part["name"] for part in plan["parts"]} & QUICK
        assert plan["batch_size"] == int(name.rpartition("/b")[2])
        assert plan["made_s"] > 0
        assert plan["agreement"] == {"rows": 24, "other_ways": 0, "other_answers": 0}
    first = next(p for p in plans["softmax-threshold/b8"]["parts"] if p["name"] == "stages.0")
    assert first["calls"] == {"8": 3}, "batches of the windows' own size"
    (note,) = [note for note in run.manifest["notes"] if note.startswith("compiled before the first window")]
    assert "softmax-threshold/b4: 2 of" in note
    assert "graphs" not in note
    padded = json.loads(json.dumps(plans))
    next(part for part in padded["skipnet/b8"]["parts"] if part["kept"])["padding"] = 0.25
    (note,) = _compiled(padded)
    assert note.count("run up to 25 % more rows than arrive, which no MACs count") == 1


def test_pages_baselines_and_gates_take_the_mode(made, tmp_path: Path) -> None:
    run, _ = made
    page = run_page(run)
    regimes = page[page.index('id="table-regimes"') :]
    assert "compiled" in regimes[: regimes.index("</table>")]
    kept = Baseline.load(write_baseline(run, tmp_path / "kept.json"))
    kept = kept.changed(manifest={**kept.manifest, "id": "another"})
    rule = Rule("realised_saving_time", "decrease", 5.0, relative=False)
    rows = compare(Baseline.of(run), kept, [rule]).rows
    assert {row.mode for row in rows} == {"compacted", "compiled"}
    assert all(row.seen == row.baseline for row in rows), "each mode meets itself"


def test_a_gate_says_where_the_baseline_compiled_other_parts(made, tmp_path: Path) -> None:
    """Which parts stay is found by timing, so that two runs of one net may keep others: a change may be that."""
    run, _ = made
    kept = Baseline.load(write_baseline(run, tmp_path / "kept.json"))
    rule = [Rule("latency_s_per_sample", "increase", 50.0, relative=True)]

    def notes(change) -> list[str]:
        manifest = json.loads(json.dumps(kept.manifest)) | {"id": "another"}
        change(manifest["compiled"])
        return [n for n in compare(Baseline.of(run), kept.changed(manifest=manifest), rule).notes if "compiled" in n]

    def other(plans) -> None:
        for part in plans["softmax-threshold/b8"]["parts"]:
            part["kept"] = part["name"] in {"stages.0", "stages.1"}

    assert notes(lambda plans: None) == []
    assert notes(lambda plans: plans.pop("skipnet/b4")) == [], "nothing to hold it against"
    (said,) = notes(other)
    assert said.endswith("may move their seconds: softmax-threshold/b8 + heads.0 − stages.1")
    spoilt = tmp_path / "spoilt.json"
    spoilt.write_text((tmp_path / "kept.json").read_text().replace('"kept":true', '"kept":1'))
    with pytest.raises(RunError, match=r"compiled.*kept"):
        Baseline.load(spoilt)


def test_a_run_that_goes_on_compiles_the_same_parts_and_times_none(told: Told, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run_suite(suite_at(tmp_path, *ONE), out=out)
    first = told.compiles
    told.events.clear()
    told.timed, told.quick = 0, {"stages.1"}  # what would be found now is another plan
    (out / "manifest.json").unlink()
    run_suite(suite_at(tmp_path, *ONE), out=out)
    assert not told.events, "all windows are kept: there is nothing to compile for"
    (block,) = out.glob("cells/*-5.json")
    block.unlink()  # the last block, and the session as a whole
    block.with_name(block.name.replace("-5.json", ".json")).unlink()
    (out / "manifest.json").unlink()
    again = run_suite(suite_at(tmp_path, *ONE), out=out)
    assert told.timed == 0
    assert set(told.compiles) == {"compile stages.0", "compile heads.0"} < set(first)
    assert told.events.index("window") == len(told.compiles)
    (plan,) = again.manifest["compiled"].values()
    assert {part["name"] for part in plan["parts"] if part["kept"]} == {"stages.0", "heads.0"}


def test_where_nothing_stays_compiled_the_case_says_so_and_is_not_tried_again(told: Told, tmp_path: Path) -> None:
    told.quick = set()
    run = run_suite(suite_at(tmp_path, *ONE), out=tmp_path / "run")
    plain, refused = run.cases
    assert (plain["mode"], plain["failed"]) == ("compacted", None)
    assert "parts that run at batch 8 none stays compiled" in refused["failed"]
    for name in ("latency_s_per_sample", "saving_time", "realised_saving_time"):
        assert refused[name] is None
        assert refused[f"{name}_missing"] == refused["failed"]
    assert refused["macs_mean"] == plain["macs_mean"]
    assert static_id("softmax-threshold", 8, "compiled") not in set(run.windows()["case"])
    assert any("none stays compiled" in note for note in run.manifest["notes"])
    told.events.clear()
    again = run_suite(suite_at(tmp_path, *ONE), out=tmp_path / "run")
    assert not told.compiles
    assert again.cases[1]["failed"] == refused["failed"]


def test_without_a_compiler_or_parts_the_reason_stands_in_the_place_of_the_seconds(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(compilers.shutil, "which", lambda name: None)
    run = run_suite(suite_at(tmp_path, *ONE), out=tmp_path / "a")
    assert "C++ compiler" in run.cases[1]["failed"]
    assert run.cases[0]["latency_s_per_sample"] > 0
    assert run.cases[1]["latency_s_per_sample"] is None
    assert "compiled" not in run.manifest
    monkeypatch.setattr(compiling, "has_parts", lambda model: False)
    run = run_suite(suite_at(tmp_path, *ONE), out=tmp_path / "b")
    assert "no parts that can be compiled" in run.cases[1]["failed"]


def test_a_net_that_decides_otherwise_when_compiled_is_not_timed(told: Told, tmp_path: Path, monkeypatch) -> None:
    """A planted fault: an answer far from rounding."""
    whole = told.compiler

    def spoilt(part):
        call = whole(part)

        def made(given):
            return call(given) + torch.linspace(0, 9, 10)

        made.named = call.named
        return made if call.named == "heads.0" else call

    monkeypatch.setattr(compiled, "compile_parts", partial(compiling.compile_parts, compiler=spoilt))
    run = run_suite(suite_at(tmp_path, *ONE), out=tmp_path / "run")
    assert "none of them is a tie" in run.cases[1]["failed"]


def test_a_dry_run_compiles_nothing_and_says_what_compiling_may_take(tmp_path: Path, monkeypatch) -> None:
    def never(*given, **named):
        raise AssertionError("a dry run compiles nothing")

    monkeypatch.setattr(compiled, "compile_parts", never)
    monkeypatch.setattr(torch, "compile", never)
    monkeypatch.setattr("adaptbench.experiment.compiled.why_no_compiler", lambda device: None)
    options = Options(device="cpu", out=tmp_path / "run")
    found = {}
    for modes in ("compacted", "compacted, compiled"):
        suite = suite_at(tmp_path, *ONE, f"measure.modes=[{modes}]")
        (found[modes],) = estimate(make_plan(suite, options), options, "compiled", 0.0).sessions
    plain, both = found.values()
    assert [case for case in both.cases if case not in plain.cases] == [
        "digits/softmax-threshold/clean/b8/compiled",
        "static:softmax-threshold/b8/compiled",
    ]
    assert both.ready_s - plain.ready_s > 10


def test_its_windows_are_those_that_a_run_measures(told: Told, tmp_path: Path) -> None:
    options = Options(device="cpu", out=tmp_path / "run")
    plan = make_plan(suite_at(tmp_path, *ONE), options)
    (ahead,) = estimate(plan, options, "compiled", 0.0).sessions
    clock = run_suite(suite_at(tmp_path, *ONE), out=tmp_path / "run").windows()
    assert set(ahead.cases) == set(clock["case"]) - {"suite"}
    (after,) = estimate(plan, options, "compiled", 0.0).sessions
    assert after.blocks == ()


def test_a_study_refuses_the_mode(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY.replace("samples: 16}", "samples: 16, modes: [compiled]}"))
    with pytest.raises(SuiteError, match=r"modes.*not timed with compiled parts"):
        load_study(str(tmp_path / "study.yaml"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # torch's own, of its compiler
@pytest.mark.skipif(NONE_HERE is not None, reason=str(NONE_HERE))
def test_torch_itself_compiles_before_the_first_window_and_never_after(tmp_path: Path, monkeypatch) -> None:
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    whole = compiling.parts_of  # compiling one takes seconds
    monkeypatch.setattr(compiling, "parts_of", lambda net: {name: whole(net)[name] for name in ("stages.0", "heads.0")})
    monkeypatch.setattr(compiled, "compile_parts", partial(compiling.compile_parts, gain=1e9))
    graphs: list[int] = []
    window = protocol._window
    monkeypatch.setattr(
        protocol,
        "_window",
        lambda *given: (window(*given), graphs.append(counters["stats"]["unique_graphs"]))[0],
    )
    before = counters["stats"]["unique_graphs"]
    run = run_suite(suite_at(tmp_path, *ONE), out=tmp_path / "run")
    assert [c["failed"] for c in run.cases] == [None] * 2
    assert set(graphs) == {counters["stats"]["unique_graphs"]}
    assert graphs[0] > before
    assert np.isfinite([c["latency_s_per_sample"] for c in run.cases]).all()


def test_a_mean_over_fewer_models_says_so():
    """A net that is refused compiled would leave the means of two modes side by side, each of other nets."""
    case = {"kind": "clean", "batch_size": 8, "saving_macs": 0.5, "saving_time": 0.2, "executor_share": 0.1}
    two = [case | {"mode": "compacted"}, case | {"mode": "compacted", "saving_time": 0.4}]
    (told,) = _realised([*two, case | {"mode": "compiled"}])
    assert "batch 8: 30 % of the time" in told
    assert "batch 8, compiled, 1 of 2 models: 20 % of the time" in told
