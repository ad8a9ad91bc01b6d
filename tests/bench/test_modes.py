"""How batches are executed is a field of every timing: rows, windows, baselines, pages; none are averaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import adaptbench as ab
from adaptbench.bench.plan import make_plan
from adaptbench.bench.runner import run_suite
from adaptbench.bench.suite import load_suite
from adaptbench.errors import CapabilityError, SuiteError
from adaptbench.experiment.timed import make_arm
from adaptbench.report.difference import Difference
from adaptbench.report.page import run_page
from adaptbench.results import schema
from adaptbench.results.baseline import Baseline, write_baseline
from adaptbench.results.gate import compare
from adaptbench.results.gate_rows import RowVerdict
from adaptbench.results.gate_rules import Rule
from adaptbench.results.store import Run

SUITE = """
title: modes
data: digits
models: [softmax-threshold, skipnet]
limit: 24
measure:
  {batch_sizes: [4, 8], meters: [clock, modelled], modes: [compacted, queues, per-sample], blocks: 6, window_s: 0.002,
   warmup_s: 0, samples: 24}
"""
MODES = ["compacted", "queues", "per-sample"]


def suite_at(folder: Path, *overrides: str):
    (folder / "modes.yaml").write_text(SUITE, encoding="utf-8")
    return load_suite(str(folder / "modes.yaml"), overrides)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp("modes")
    return run_suite(suite_at(folder), out=folder / "run")


def test_each_mode_has_rows_and_windows_of_its_own(run: Run) -> None:
    timed = {(c["model"], c["batch_size"], c["mode"]): c["case"] for c in run.cases}
    assert set(timed) == {
        (m, size, mode) for m in ("softmax-threshold", "skipnet") for size in (4, 8) for mode in MODES
    }
    assert timed["skipnet", 8, "compacted"] == "digits/skipnet/clean/b8"
    assert timed["skipnet", 8, "queues"] == "digits/skipnet/clean/b8/queues"
    windows = run.windows()
    for (_, _, mode), case in timed.items():
        own = windows[windows["case"] == case]
        assert len(own)
        assert set(own["mode"]) == {mode}
    apart = windows[windows["case"].str.startswith("static:") | (windows["case"] == "idle")]
    assert len(apart)
    assert apart["mode"].isna().all(), "a plain net is executed in one way"
    by_mode = {c["mode"]: c for c in run.cases if c["model"] == "skipnet" and c["batch_size"] == 8}
    assert len({c["latency_s_per_sample"] for c in by_mode.values()}) == 3, "three timings, none averaged"
    assert len({c["macs_mean"] for c in by_mode.values()}) == 1
    assert len({c["inputs_sha256"] for c in by_mode.values()}) == 1


def test_modelled_traffic_loads_weights_as_often_as_a_node_runs() -> None:
    model, split = ab.load_model("softmax-threshold", "digits"), ab.load_data("digits").split("test").first(32)
    made = {mode: make_arm("a", model, split.images(), split.ids, 8, mode)[0].work for mode in MODES}
    assert len({work.macs for work in made.values()}) == 1
    assert made["per-sample"].bytes > made["compacted"].bytes > made["queues"].bytes


def test_ways_are_walked_before_the_first_window_once_a_net() -> None:
    model, split = ab.load_model("softmax-threshold", "digits"), ab.load_data("digits").split("test").first(16)
    first, second = (
        make_arm("a", model, split.images(), split.ids, 8, "compacted", None, ways)[0] for ways in (True, False)
    )
    assert len(first.warm) == len(model.paths()) + 1
    assert list(second.warm) == [second.run]


def test_pages_show_the_mode_where_a_run_has_several(run: Run, tmp_path: Path) -> None:
    page = run_page(run)
    regimes = page[page.index('id="table-regimes"') :]
    assert all(mode in regimes[: regimes.index("</table>")] for mode in MODES)
    assert page.count(">mode<") >= 3, "cases, savings and the clock have a column of it"
    plain = run_suite(suite_at(tmp_path, "measure.modes=[compacted]", "measure.batch_sizes=[4]"), out=tmp_path / "one")
    assert ">mode<" not in run_page(plain)


def test_a_baseline_keeps_the_mode_and_the_gate_compares_within_it(run: Run, tmp_path: Path) -> None:
    kept = Baseline.load(write_baseline(run, tmp_path / "kept.json"))
    assert {c["case"]: c["mode"] for c in kept.cases} == {c["case"]: c["mode"] for c in run.cases}
    assert set(kept.windows()["mode"].dropna()) == set(MODES)
    kept = kept.changed(manifest={**kept.manifest, "id": "another"})
    here = Baseline.of(run)
    rows = compare(here, kept, [Rule("latency_s_per_sample", "increase", 0.5, relative=True)]).rows
    assert {row.case for row in rows} == {c["case"] for c in run.cases}
    assert {row.verdict for row in rows} <= {RowVerdict.PASS, RowVerdict.INCONCLUSIVE}
    assert all(row.seen == row.baseline for row in rows), "each mode meets itself"
    assert {row.case: row.mode for row in rows} == {c["case"]: c["mode"] for c in run.cases}
    without = here.changed(cases=[c for c in here.cases if c["mode"] != "queues"])
    seen = compare(without, kept, [Rule("latency_s_per_sample", "increase", 0.5, relative=True)]).rows
    assert {row.case for row in seen if row.verdict is RowVerdict.MISSING} == {
        c["case"] for c in run.cases if c["mode"] == "queues"
    }


def test_two_runs_differ_mode_by_mode(run: Run) -> None:
    told = Difference.of(run, run)
    assert len(told.pairs) == len(run.cases)
    assert all(pair.old["case"] == pair.new["case"] for pair in told.pairs)
    assert {one.name.rpartition(", batch ")[2] for one in told.sensed} == {
        f"{size}{mode}" for size in (4, 8) for mode in ("", ", queues", ", per-sample")
    }


def test_documents_from_before_read_as_compacted(run: Run, tmp_path: Path) -> None:
    old = json.loads(write_baseline(run, tmp_path / "kept.json").read_text())
    old["schema"] = 2
    old["cases"] = [{k: v for k, v in c.items() if k != "mode"} for c in old["cases"] if c["mode"] == "compacted"]
    names = {c["case"] for c in old["cases"]}
    old["windows"] = [
        {k: v for k, v in w.items() if k != "mode"}
        for w in old["windows"]
        if w["case"] in names or w["case"].startswith(("static:", "idle"))
    ]
    before = json.dumps(old)
    (tmp_path / "old.json").write_text(before, encoding="utf-8")
    kept = Baseline.load(tmp_path / "old.json")
    assert {c["mode"] for c in kept.cases} == {"compacted"}
    windows = kept.windows()
    assert set(windows[windows["case"].isin(names)]["mode"]) == {"compacted"}
    assert windows[windows["case"].str.startswith("static:")]["mode"].isna().all()
    untimed = {**run.cases[0], "batch_size": None, "mode": None, "case": "a"}
    (record,) = schema.migrate({"schema": 2, "cases": [untimed]}, "a file")["cases"]
    assert record["mode"] is None
    assert json.dumps(old) == before, "the document read is left alone"


def test_a_suite_that_names_no_mode_keeps_its_hash_and_its_windows(tmp_path: Path) -> None:
    said = suite_at(tmp_path, "measure.modes=[compacted]")
    (tmp_path / "modes.yaml").write_text(SUITE.replace("modes: [compacted, queues, per-sample], ", ""))
    assert load_suite(str(tmp_path / "modes.yaml")).suite.model_dump() == said.suite.model_dump()
    assert "modes" not in said.suite.measure.model_dump()


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("measure.modes=[queues, queues]", "queues stands twice"),
        ("measure.modes=[fast]", "'compacted', 'per-sample', 'queues' or 'compiled'"),
        ("measure.modes=[]", "at least 1 item"),
        ("measure.samples=8", "8 samples are one batch of 8"),
    ],
)
def test_modes_that_mean_nothing_are_refused(override: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="modes") as caught:
        suite_at(tmp_path, override)
    assert says in str(caught.value)


def test_neighbours_are_of_batches_that_stay_together(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="no batch stays together"):
        suite_at(tmp_path, "measure.modes=[queues]", "measure.neighbours=[1]")


def test_a_net_without_the_mode_is_refused_before_anything_runs(tmp_path: Path, monkeypatch) -> None:
    model = ab.load_model("skipnet", "digits")
    monkeypatch.setattr(type(model), "modes", ("compacted", "per-sample"))
    with pytest.raises(SuiteError, match=r"models\[1\].*'skipnet' cannot be run in queues"):
        make_plan(suite_at(tmp_path))
    with pytest.raises(CapabilityError, match="has compacted, per-sample"):
        make_arm("a", model, torch.rand(16, 1, 8, 8), torch.arange(16), 4, "queues")


def test_a_run_from_before_goes_on_from_its_cells(run: Run, tmp_path: Path, monkeypatch) -> None:
    """Cells of schema 2 hold windows without a mode; they count, and the run says how they were made."""
    one = ("measure.modes=[compacted]", "measure.batch_sizes=[4]")
    monkeypatch.setattr("adaptbench.results.writer.SCHEMA_VERSION", 2)
    first = run_suite(suite_at(tmp_path, *one), out=tmp_path / "run")
    cells = cells_of(tmp_path / "run")
    monkeypatch.undo()
    (tmp_path / "run" / "manifest.json").unlink()
    again = run_suite(suite_at(tmp_path, *one), out=tmp_path / "run")
    assert cells_of(tmp_path / "run") == cells
    assert [c["latency_s_per_sample"] for c in again.cases] == [c["latency_s_per_sample"] for c in first.cases]
    assert {c["mode"] for c in again.cases} == {"compacted"}


def cells_of(run: Path) -> dict[str, int]:
    """Name → when it was written, of all but those of the whole run's stretches."""
    return {f.name: f.stat().st_mtime_ns for f in (run / "cells").iterdir() if not f.name.startswith("suite-")}
