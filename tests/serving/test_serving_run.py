"""A whole run of kind serving on digits, from the command line to page and gate; and what must never happen in one."""

from __future__ import annotations

import copy
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import adaptbench as ab
from adaptbench.errors import AdaptBenchError, RunError, Stopped, SuiteError
from adaptbench.experiment.options import Options
from adaptbench.meters.clock import ClockMeter
from adaptbench.report.serving_page import limits, sentences, serving_page
from adaptbench.results import serving as results
from adaptbench.results.gate_rows import RowVerdict
from adaptbench.results.gate_serving import ServingSide
from adaptbench.results.record_runs import first_fault
from adaptbench.results.serving import ServingRun
from adaptbench.results.writer import RunWriter
from adaptbench.serving import runner
from adaptbench.serving.runner import run_serving
from adaptbench.serving.spec import load_serving

sys.path.append(str(Path(__file__).resolve().parents[1]))

from small_serving import SERVING, TRACE


@pytest.fixture(scope="module", autouse=True)
def short_windows() -> Iterator[None]:
    """Of some milliseconds: nothing here believes what they say."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ClockMeter, "min_window_s", 0.0)
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serving")
    (folder / "small.yaml").write_text(SERVING, encoding="utf-8")
    (folder / "seen.csv").write_text(TRACE, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def run(place: Path) -> ServingRun:
    torch.set_num_threads(1)
    return run_serving(str(place / "small.yaml"), out=place / "run")


@pytest.fixture
def record(run: ServingRun) -> dict:
    return copy.deepcopy(run.record)


def rows(record: dict, **wanted) -> list[dict]:
    return [row for row in record["streams"] if all(row[name] == value for name, value in wanted.items())]


# ---------------------------------------------------------------------- what is in it


@pytest.mark.slow
def test_every_part_is_there_and_nothing_failed(record, run) -> None:
    assert record["failed"] == {}
    assert first_fault(ServingRun.parts(record)) == ""
    assert len(rows(record, model="softmax-threshold")) == 2 * 2 * 4
    assert len(rows(record, model="static")) == 2 * 2, "nobody attacks a net of one path"
    assert "one path" in record["models"]["static"]["hostile_macs_mean_missing"]
    assert (
        record["models"]["softmax-threshold"]["hostile_macs_mean"] > record["models"]["softmax-threshold"]["macs_mean"]
    )
    assert (run.path / "windows.parquet").is_file()
    timed = {(r["node"], r["size"]) for r in record["models"]["softmax-threshold"]["times"]}
    assert timed == {(n, s) for n in (*record["models"]["softmax-threshold"]["nodes"], "call") for s in (1, 4)}


@pytest.mark.slow
def test_figures_of_a_stream_belong_together(record) -> None:
    for row in record["streams"]:
        assert 0 < row["simulated_p50_s"] <= row["simulated_p99_s"]
        assert 0 <= row["simulated_goodput"] <= 1
        assert row["simulated_busy"] <= 1 + 1e-9
        assert row["simulated_energy_j"] is None
        assert "no energy meter" in row["simulated_energy_j_missing"]
    for row in rows(record, share=0.0, defence="none"):
        assert row["simulated_benign_p99_ratio"] == 1.0
        assert row["simulated_benign_accuracy_lost"] == 0.0
        assert row["simulated_hostile_macs"] is None
        assert row["simulated_benign_p99_s"] == row["simulated_p99_s"]
    (alone,) = rows(record, model="softmax-threshold", arrivals="poisson", mode="queues", share=0.0, defence="none")
    (harmed,) = rows(record, model="softmax-threshold", arrivals="poisson", mode="queues", share=0.3, defence="none")
    (kept,) = rows(record, model="softmax-threshold", arrivals="poisson", mode="queues", share=0.3, defence="budget")
    assert harmed["simulated_macs"] > alone["simulated_macs"]
    assert kept["simulated_macs"] < harmed["simulated_macs"]
    assert harmed["simulated_benign_forced"] == 0.0
    assert harmed["simulated_benign_accuracy_lost"] == 0.0, "without a budget nobody's answer changes"
    assert kept["simulated_macs"] <= 1.1 * record["models"]["softmax-threshold"]["macs_mean"] * (1 + 5 / 108) + 1


def test_simulated_and_measured_never_share_a_name() -> None:
    told = {"share", "rate_rps", "load", "call_ratio", "spread_ratio"}
    for fields in (results.STREAM, results.PROVISIONED, results.TIME, results.CHECK):
        numbers = {name for name, field in fields.items() if field.form == "number"} - told
        assert all(name.startswith(("simulated_", "measured_")) for name in numbers), numbers
    assert not [name for name in results.STREAM if name.startswith("measured_")]
    assert not [name for name in results.TIME if name.startswith("simulated_")]


@pytest.mark.slow
def test_the_simulation_with_the_run_s_own_calls_is_the_run(record) -> None:
    """What is left once every call takes what it really took is the error of the queueing alone."""
    assert len(record["checks"]) == 2 * 2 + 2
    for row in record["checks"]:
        for name in ("mean_s", "p99_s"):
            told, real = row[f"simulated_with_its_calls_{name}"], row[f"measured_{name}"]
            assert told == pytest.approx(real, rel=0.15), row
        assert row["within"] or row["reason"]


@pytest.mark.slow
def test_provisions_are_the_cheapest_that_hold(record) -> None:
    for row in record["provisions"]:
        held = [one for one in row["looked_at"] if one["holds"]]
        if row["replicas"] is None:
            assert not held
            continue
        assert row["replicas"] == min(one["replicas"] for one in held)
        assert all(not one["holds"] for one in row["looked_at"] if one["replicas"] < row["replicas"])
        assert all(one["simulated_p99_s_ci"][1] <= record["objective_p99_s"] for one in held)


# ---------------------------------------------------------------------- again, and after a kill


@pytest.mark.slow
def test_a_finished_run_is_not_touched(place, run) -> None:
    def times() -> dict[Path, int]:
        return {f: f.stat().st_mtime_ns for f in run.path.rglob("*") if f.is_file() and f.name != ".lock"}

    before = times()
    again = run_serving(str(place / "small.yaml"), out=place / "run")
    assert again.record == run.record
    assert times() == before


@pytest.mark.slow
def test_a_killed_run_goes_on_and_measures_nothing_twice(place, tmp_path, monkeypatch) -> None:
    kept = runner.scenes
    calls = []

    def killed(*given):
        calls.append(given)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return kept(*given)

    monkeypatch.setattr(runner, "scenes", killed)
    out = tmp_path / "killed"
    with pytest.raises(Stopped, match="cells are kept"):
        run_serving(str(place / "small.yaml"), out=out)
    with pytest.raises(RunError, match="goes on where it stopped"):
        ServingRun.open(out)
    windows = {file.name: file.read_bytes() for file in (out / "cells").glob("*.windows.parquet")}
    assert windows
    monkeypatch.setattr(runner, "scenes", kept)
    done = run_serving(str(place / "small.yaml"), out=out)
    assert done.record["failed"] == {}
    assert {name: (out / "cells" / name).read_bytes() for name in windows} == windows
    assert len(done.record["streams"]) == 20


@pytest.mark.slow
def test_the_same_times_give_the_same_streams(place, run, monkeypatch) -> None:
    """All that is drawn comes from the file's seed: simulating again from kept cells changes no bit."""
    writer = RunWriter(run.path, "serving")
    found = {key: writer.record(key).get("found") for key in run.manifest["cells"]}
    streams = [key for key, value in found.items() if isinstance(value, list) and "simulated_busy" in str(value)]
    assert streams
    before = {key: writer.record(key) for key in streams}
    writer.discard(streams)
    run_serving(str(place / "small.yaml"), out=run.path)
    assert {key: RunWriter(run.path, "serving").record(key) for key in streams} == before


# ---------------------------------------------------------------------- hostile inputs of a run


@pytest.mark.slow
def test_attacked_inputs_come_from_a_run_that_crafted_them(place, tmp_path) -> None:
    crafted = place / "run" / "attacked"
    text = SERVING.replace("attack: {ilfo: {eps: 32/255, steps: 4}}", f"run: {crafted}\n  condition: hostile")
    small = "requests: 60\nrepeats: 2"
    text = text.replace("requests: 120\nrepeats: 3", small).replace("check: {requests: 60, repeats: 1}\n", "")
    text = text.replace("planner: {loads: [0.5], max_batch: [1, 4], replicas: 2}\n", "").replace(
        "  replicas: exact\n", ""
    )
    (tmp_path / "again.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "seen.csv").write_text(TRACE, encoding="utf-8")
    run_serving(str(place / "small.yaml"), out=place / "run")  # there is one
    done = run_serving(str(tmp_path / "again.yaml"), out=tmp_path / "run").record
    assert done["crafted_by"]["condition"] == "hostile"
    first = ServingRun.read(place / "run")
    label = "softmax-threshold"
    assert done["models"][label]["hostile_macs_mean"] == first["models"][label]["hostile_macs_mean"]
    with pytest.raises(SuiteError, match="nothing in it was crafted by 'nope'"):
        run_serving(str(tmp_path / "again.yaml"), out=tmp_path / "other", overrides=["hostile.condition=nope"])
    another = "models=[{multi-exit: {fixed-exit: {id: softmax-threshold}}}]"
    with pytest.raises(SuiteError, match="other MACs than this net spends"):
        run_serving(
            str(tmp_path / "again.yaml"), out=tmp_path / "other", overrides=[another, "arrivals=[poisson: {load: 0.5}]"]
        )


# ---------------------------------------------------------------------- the gate


@pytest.fixture
def side(run: ServingRun, record: dict) -> ServingSide:
    return ServingSide(run.path, record | {"id": "another"})


@pytest.mark.slow
def test_a_run_against_itself_gives_no_alarm_and_a_copy_is_refused(run, side) -> None:
    report = ServingSide.compare(run, side)
    assert not [row for row in report.rows if row.verdict in (RowVerdict.REGRESSION, RowVerdict.MISSING)]
    assert report.comparisons > 20
    same = ServingSide.compare(run, ServingSide(run.path, dict(run.record)))
    assert same.exit_code == 3
    assert "this very run" in same.rows[0].reason


@pytest.mark.slow
def test_planted_faults_are_found(run, side) -> None:
    planted = list(side.planted_faults())
    assert [caught for _, caught, _ in planted] == [True, True, True, True], planted


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda r: r | {"device": r["device"] | {"cpu": "another", "fingerprint": "0"}}, "another device"),
        (lambda r: r | {"clock": "wall"}, "by the wall's"),
        (lambda r: r | {"text": r["text"].replace("0.6", "0.7"), "sha256": "0"}, "says something else"),
        (lambda r: r | {"data": {"digits": r["data"]["digits"] | {"sha256": "0"}}}, "other data"),
    ],
)
def test_what_cannot_be_compared_is_said(run, side, change, reason) -> None:
    report = ServingSide.compare(run, ServingSide(run.path, change(side.record)))
    assert report.exit_code == 3
    assert reason in report.rows[0].reason


@pytest.mark.slow
def test_more_replicas_are_a_regression(run, side) -> None:
    side.record["provisions"][0]["replicas"] = 1
    worse = copy.deepcopy(dict(side.record)) | {"id": "third"}
    worse["provisions"][0]["replicas"] = 2
    report = ServingSide.compare(ServingSide(run.path, worse), side)
    (row,) = [row for row in report.rows if row.case == worse["provisions"][0]["case"]]
    assert row.verdict is RowVerdict.REGRESSION
    back = ServingSide.compare(side, ServingSide(run.path, worse))
    assert [r.verdict for r in back.rows if r.case == row.case] == [RowVerdict.IMPROVEMENT]


@pytest.mark.slow
def test_where_replicas_have_no_head_room_nobody_can_tell(run, record) -> None:
    """Two runs of one commit differed by 3.3 times in p99 where replicas were busy 99 % of the time."""

    def side(factor: float, busy: float, identity: str) -> ServingSide:
        made = copy.deepcopy(record) | {"id": identity}
        row = made["streams"][0]
        row["simulated_p99_s"], row["simulated_p99_s_ci"] = factor, [0.99 * factor, 1.01 * factor]
        row["simulated_busy"] = busy
        return ServingSide(run.path, made)

    def verdict(busy: float) -> RowVerdict:
        rule = {"simulated_p99_s": {"increase": "50 %", "cases": [record["streams"][0]["case"]]}}
        report = ServingSide.compare(side(3.3, busy, "new"), side(1.0, 0.5, "old"), rule)
        (row,) = [r for r in report.rows if r.metric == "simulated_p99_s"]
        return row.verdict

    assert verdict(0.8) is RowVerdict.REGRESSION
    assert verdict(0.99) is RowVerdict.INCONCLUSIVE


@pytest.mark.slow
def test_ceilings_need_no_baseline(run) -> None:
    assert ServingSide.compare(run, None, {"simulated_p99_s": {"max": 1e-9}}).exit_code == 1
    assert ServingSide.compare(run, None, {"simulated_p99_s": {"max": 1e9}}).exit_code == 0


# ---------------------------------------------------------------------- the page


@pytest.mark.slow
def test_the_page_says_what_the_record_says(place, tmp_path) -> None:
    record = ServingRun.read(place / "run")
    page = serving_page(record)
    assert page == serving_page(record)
    sections = (
        "What hostile requests cost the others",
        "Every stream",
        "The cheapest provision",
        "Is the simulation right?",
    )
    assert all(words in page for words in sections)
    assert not re.search(r">[^<a-z]*nan\b", page)
    lead, rest = sentences(record)[0]
    (harmed,) = rows(record, model="softmax-threshold", arrivals="poisson", mode="batches", share=0.3, defence="none")
    assert f"{harmed['simulated_benign_p99_ratio']:.1f} times" in lead
    assert "hard budget" in rest
    assert any("CPU seconds" in note for note in limits(record))
    columns = [c for c in page.split("<th") if "measured" in c.split(">")[1] and "simulated" in c.split(">")[1]]
    assert not columns, "one column holds both"
    out = ab.write_report([place / "run"], tmp_path / "page.html")
    assert out.read_text(encoding="utf-8") == page


@pytest.mark.slow
def test_a_page_without_hostile_requests_or_a_check_says_so(record) -> None:
    record["streams"], record["checks"], record["provisions"] = rows(record, share=0.0, defence="none"), [], []
    page = serving_page(record)
    assert "No request of this run is hostile" in page
    assert "Nothing was served for real" in page
    assert 'id="checks"' not in page


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage",
    [
        lambda r: r.pop("streams"),
        lambda r: r["streams"][0].pop("simulated_goodput"),
        lambda r: r["streams"][0].update(simulated_p99_s="fast"),
        lambda r: r["streams"][0].update(simulated_p99_s_ci=[2, 1]),
        lambda r: r["checks"][0].pop("measured_mean_s"),
        lambda r: r["streams"][0].pop("simulated_energy_j_missing"),
        lambda r: r.update(schema=99),
    ],
)
def test_a_damaged_record_is_refused(record, damage, tmp_path) -> None:
    damage(record)
    file = tmp_path / "kept.json"
    file.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises((RunError, KeyError)) as refused:
        ServingRun.read(file)
    assert isinstance(refused.value, RunError)


@pytest.mark.slow
def test_a_kept_summary_is_read_back(run, tmp_path) -> None:
    kept = ServingRun.read(ServingRun.keep(run.path, tmp_path / "kept.json"))
    assert kept["streams"][0]["simulated_p99_s"] == pytest.approx(run.record["streams"][0]["simulated_p99_s"], rel=1e-5)
    assert serving_page(kept).count("<section") == serving_page(run.record).count("<section")
    ab.write_report([tmp_path / "kept.json"], tmp_path / "page.html")


# ---------------------------------------------------------------------- the command line


@pytest.mark.slow
def test_the_command_line_does_all_of_it(place, adaptbench, tmp_path) -> None:
    words = [str(place / "small.yaml"), "--out", "out"]
    planned = adaptbench("run", *words, "--dry-run", "--json")
    assert planned.code == 0, planned.err
    pieces = [piece["name"] for piece in json.loads(planned.out)["pieces"]]
    assert pieces == ["craft", "run the samples", "time the nodes", "simulate", "plan", "serve for real"]
    assert not Path("out").exists()
    ended = adaptbench("run", *words, "--limit", "12", "-o", "requests=60", "-o", "measure.blocks=2")
    assert ended.code == 0, ended.err
    assert "served for real" in ended.out
    assert Path("out/report.html").is_file()
    again = adaptbench("run", *words, "--limit", "12", "-o", "requests=60", "-o", "measure.blocks=2", "--json")
    document = json.loads(again.out)
    assert document["computed"] is False
    assert len(document["streams"]) == 20
    quiet = adaptbench("run", *words, "--limit", "12", "-o", "requests=60", "-o", "measure.blocks=2", "--quiet")
    assert len(quiet.out.strip().splitlines()) == 1
    assert adaptbench("baseline", "out", "--out", "kept.json").code == 0
    assert adaptbench("check", "out", "--baseline", "kept.json").code == 3
    assert adaptbench("check", "out", "--selftest").code in (0, 3)
    assert adaptbench("report", "out").code == 0
    assert adaptbench("list", "suites").code == 0
    other = adaptbench("run", "SMALL", "--out", "out")
    assert other.code == 2
    assert "kind serving" in other.err


MISTAKES = {
    "arrivals=[]": "at least 1",
    "arrivals=[poisson: {}]": "rate",
    "arrivals=[poisson: {rate: 5, load: 0.5}]": "one of the two",
    "arrivals=[poisson: {rate: -5}]": "greater than 0",
    "arrivals=[poisson: {load: 0.5, of: nobody}]": "no model is called 'nobody'",
    "arrivals=[bursts: {load: 0.5, peak: 6, share: 0.2}]": "more would come in bursts",
    "arrivals=[trace: {load: 0.5}]": "a trace has a file",
    "arrivals=[trace: {file: nowhere.csv}]": "cannot be read",
    "arrivals=[poisson: {load: 0.5}, poisson: {load: 0.6}]": "stands twice",
    "batching.modes=[batches, batches]": "stands twice",
    "batching.max_batch=0": "greater than or equal to 1",
    "hostile={shares: [0.1]}": "attacked inputs come from",
    "hostile={attack: nope}": "nope",
    "hostile={attack: ilfo, shares: [1.0]}": "less than 1",
    "measure.meters=[nvml]": "the clock is not among",
    "measure.meters=[clock, codecarbon]": "whole runs",
    "measure.meters=[clock, thermometer]": "thermometer",
    "gate={simulated_p99_s: exact}": "a clock never shows the same twice",
    "gate={p99: {increase: 3 %}}": "no metric is called 'p99'",
    "gate={simulated_p99_s: {increase: 3 %, cases: [streem]}}": "streem",
    "gate={replicas: exact, simulated_p99_s: {drop: 3 %}}": "less simulated_p99_s is better",
    "models=[static, skipnet]": "has gates",
    "models=[static, oracle]": "looks at labels",
    "models=[nobody]": "nobody",
    "data=nothing": "nothing",
    "objective=3": "no such key",
    "repeats=1": "greater than or equal to 2",
}


@pytest.mark.parametrize(("override", "said"), MISTAKES.items(), ids=MISTAKES)
def test_a_mistake_says_where_it_stands_and_what_would_be_right(override, said, place) -> None:
    with pytest.raises(AdaptBenchError) as refused:
        runner.prepared(load_serving(str(place / "small.yaml"), [override]), Options(overrides=[override]))
    told = f"{refused.value.seen} {refused.value.why} {refused.value.todo}"
    assert said in told, told
    assert refused.value.todo


def test_cpu_seconds_of_a_card_are_refused(place) -> None:
    with pytest.raises(SuiteError, match="cpu clock was asked for on cuda"):
        runner.prepared(load_serving(str(place / "small.yaml")), Options(device="cuda"))


def test_the_shipped_suite_is_read(monkeypatch) -> None:
    spec = load_serving("serving").serving
    assert spec.sizes == [1, 4, 16]
    assert spec.measure.clock == "cpu"
    assert np.isclose(spec.arrivals[0].load, 0.6)


FEWER = ["requests=50", "repeats=2", "measure.blocks=2", "measure.window_s=0.005", "measure.batch_sizes=[16]"]
FEWER += ["check.requests=40", "check.repeats=1", "check.clocks=[cpu]", "planner.loads=[0.5]", "hostile.shares=[0.5]"]


@pytest.mark.slow
def test_the_commands_of_docs_serving_md_run(adaptbench) -> None:
    """docs/serving.md, in its order, on fewer requests."""
    text = (Path(__file__).resolve().parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\$ adaptbench (.*?)\s*(?:#.*)?$", text, re.MULTILINE)
    assert len(lines) == 4
    for line in lines:
        words = line.split()
        extra = ["--limit", "16", *(word for pair in FEWER for word in ("-o", pair))] if words[0] == "run" else []
        ended = adaptbench(*words, *extra)
        assert ended.code in ((0, 3) if words[0] == "check" else (0,)), ended.out + ended.err
