"""Trends over runs: a planted step is found where it is, noise alone is none, and what cannot be told is named."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.append(str(Path(__file__).resolve().parents[1]))

import synthetic_run
from synthetic_run import MODELS, Plan, write_run

from adaptbench.results.baseline import write_baseline
from adaptbench.results.history import history
from adaptbench.results.store import Run

PUBLISHED = Path(__file__).parents[2] / "reports" / "published"
MODEL = MODELS[0]
ILFO = f"digits/{MODEL.name}/ilfo"


@pytest.fixture
def series_of_runs(tmp_path, monkeypatch):
    """Write a run for each (strength of ILFO, more of the plan), a day apart, and what a manifest holds beside it."""

    def make(*settings, n=120, **manifest):
        plan = {"models": (MODEL,), "conditions": ("clean", "ilfo"), "n": n, "batches": (8,), "sweep": 0}
        plan |= {"references": False, "crafted": False}
        for place, (strength, more) in enumerate(settings):
            monkeypatch.setitem(synthetic_run.STRENGTH, "ilfo", strength)
            about = {"id": f"id{place}", "started": f"2026-03-{place + 1:02d}T00:00:00+00:00"}
            about |= {name: values[place] for name, values in manifest.items()}
            # names against the order of time, so that only the manifest can tell it
            write_run(tmp_path / "runs" / f"run{90 - place}", Plan(**(plan | more)), **about)
        return tmp_path / "runs"

    return make


def steps(trend):
    return [(series.case, series.metric, step) for series, step in trend.stepped]


def test_a_planted_step_is_found_where_it_is(series_of_runs):
    folder = series_of_runs(*[(0.06, {})] * 3, *[(0.5, {})] * 2)
    (trend,) = history([folder]).trends
    assert [run.started.day for run in trend.runs] == [1, 2, 3, 4, 5]
    found = {(case, metric): step for case, metric, step in steps(trend)}
    counted = {key for key in found if key[1] in ("macs_mean", "recovery")}
    assert counted == {(ILFO, "macs_mean"), (ILFO, "recovery")}
    assert all((step.run, step.since, step.worse) == (3, 2, False) for step in found.values())
    before, after = (Run.open(trend.runs[place].path).samples() for place in (2, 3))
    means = [frame[frame["case"] == ILFO]["macs"].mean() for frame in (before, after)]
    step = found[ILFO, "macs_mean"]
    assert step.change == pytest.approx(means[1] / means[0] - 1)
    assert step.low < step.change < step.high < 0


def test_noise_alone_is_no_step(series_of_runs, tmp_path):
    """Six runs that differ by the draws of their windows and inputs: chance names no step and no drift."""
    folder = series_of_runs(*[(0.06, {"seed": seed}) for seed in range(6)])
    for place, run in enumerate(sorted(folder.iterdir())):  # the fixture's hash does not know of the draws
        kept = write_baseline(Run.open(run), tmp_path / "kept" / f"{run.name}.json")
        document = json.loads(kept.read_text(encoding="utf-8"))
        for record in document["cases"]:
            record["inputs_sha256"] = f"{place}"
        kept.write_text(json.dumps(document), encoding="utf-8")
    (trend,) = history([tmp_path / "kept"]).trends
    assert len(trend.runs) == 6
    assert steps(trend) == []
    assert all(series.drift is None for series in trend.series)
    assert any("other inputs were timed" in gap.reason for series in trend.series for gap in series.gaps)


def test_noise_of_the_windows_alone_is_no_step(series_of_runs):
    """The same inputs in every run, each block some per cent quicker or slower by itself."""
    draws = iter(np.random.default_rng(0).normal(1.0, 0.01, 64))
    folder = series_of_runs(*[(0.06, {"slower": next(draws)}) for _ in range(6)])
    (trend,) = history([folder]).trends
    assert steps(trend) == []


def test_a_drift_without_a_step_is_told(series_of_runs):
    folder = series_of_runs(*[(0.06 + 0.03 * place, {}) for place in range(12)], n=60)
    (trend,) = history([folder]).trends
    series = next(s for s in trend.series if (s.case, s.metric) == (ILFO, "macs_mean"))
    if series.steps:
        pytest.fail(f"stepped at {[step.run for step in series.steps]}: the increments are too large for a drift")
    assert series.drift is not None
    assert (series.drift.since, series.drift.run, series.drift.worse) == (0, 11, False)


def test_a_machine_that_changed_is_no_step_of_the_net(series_of_runs):
    """All got slower by 30 %, the plain net too."""
    folder = series_of_runs((0.06, {"references": True}), (0.06, {"references": True, "slower": 1.3}))
    (trend,) = history([folder]).trends
    assert steps(trend) == []
    timed = [series for series in trend.series if series.metric == "latency_s_per_sample"]
    assert all("moved by +30" in series.gaps[0].reason for series in timed if "/clean" in series.case)


def test_seconds_are_held_against_the_same_device(series_of_runs):
    one, other = ({"fingerprint": name, "name": name, "threads": 1} for name in ("one", "other"))
    folder = series_of_runs((0.06, {}), (0.06, {"slower": 3.0}), (0.06, {"slower": 1.5}), device=[one, other, one])
    (trend,) = history([folder]).trends
    timed = [series for series in trend.series if series.metric == "latency_s_per_sample"]
    assert timed
    for series in timed:
        # the third run is held against the first: its plain net moved as well, by a half and not down from three times
        assert [(gap.run, gap.since) for gap in series.gaps] == [(1, 0), (2, 0)]
        assert "another device" in series.gaps[0].reason
        assert "moved by +50" in series.gaps[1].reason


def test_what_cannot_be_read_is_named_and_the_rest_followed(series_of_runs, tmp_path):
    folder = series_of_runs((0.06, {}), (0.06, {}))
    kept = write_baseline(Run.open(folder / "run90"), folder / "kept.json")
    (folder / "broken").mkdir()
    (folder / "broken" / "manifest.json").write_text("{", encoding="utf-8")
    (folder / "foreign.json").write_text(json.dumps({"kind": "recipe"}), encoding="utf-8")
    undated = Run.open(folder / "run90").manifest | {"started": None, "id": "another"}
    document = json.loads(kept.read_text(encoding="utf-8"))
    document["manifest"] |= {"started": None, "id": "another"}
    (folder / "undated.json").write_text(json.dumps(document), encoding="utf-8")
    assert undated["started"] is None
    found = history([folder, tmp_path / "nowhere", tmp_path])
    assert len(found.trends[0].runs) == 2
    reasons = {path.name: reason for path, reason in found.unreadable}
    assert reasons["nowhere"] == "there is nothing"
    assert "same run as" in reasons["kept.json"]
    assert "not JSON" in reasons["broken"]
    assert "does not say when it was started" in reasons["undated.json"]
    assert reasons["foreign.json"]
    assert "holds no run" in reasons[tmp_path.name]


def test_values_are_those_of_the_records(series_of_runs):
    folder = series_of_runs((0.06, {}), (0.3, {}))
    (trend,) = history([folder]).trends
    for place, run in enumerate(trend.runs):
        raw = pd.DataFrame(Run.open(run.path).cases)
        for series in trend.series:
            column = "case" if series.kind != "counted" else "evaluation"
            record = raw[raw[column] == series.case].iloc[0]
            value = series.values[place]
            assert value.value == record[series.metric]
            bounds = record[f"{series.metric}_ci"]
            assert [value.low, value.high] == (bounds if isinstance(bounds, list) else [None, None])
    kinds = {series.metric: series.kind for series in trend.series}
    assert kinds["macs_mean"] == "counted"
    assert kinds["latency_s_per_sample"] == "measured"
    assert kinds["energy_j_per_sample"] == "modelled"


def test_published_summaries_and_studies_are_followed():
    """A suite, and a study held against itself a day later with a planted loss."""
    found = history([PUBLISHED])
    names = {trend.name for trend in found.trends}
    assert {"fashion-mnist", "replicate-eenet"} <= names
    assert {"serving", "decoding"} <= names
    assert not found.unreadable
    study = next(trend for trend in found.trends if trend.name == "replicate-eenet")
    assert study.kind == "study"
    assert {series.metric for series in study.series} == {"macs_mean", "accuracy", "net_speedup"}


def test_a_step_of_a_study_is_found(tmp_path):
    record = json.loads((PUBLISHED / "replicate-dag-selection.json").read_text(encoding="utf-8"))
    (tmp_path / "a.json").write_text(json.dumps(record), encoding="utf-8")
    point = record["graphs"]["cifar10"]["policies"]["fitted-q"]["chosen"][0]
    point["macs_mean"] *= 1.05
    record |= {"id": "later", "started": "2027-01-01T00:00:00+00:00"}
    (tmp_path / "b.json").write_text(json.dumps(record), encoding="utf-8")
    (trend,) = history([tmp_path]).trends
    ((case, metric, step),) = steps(trend)
    assert metric == "macs_mean"
    assert case.startswith("cifar10/fitted-q")
    assert step.worse
    assert step.change == pytest.approx(0.05)
    assert np.isclose(trend.stepped[0][0].values[1].value, point["macs_mean"])


def followed(file, tmp_path, changes):
    """A run for each change to a published one, a day apart."""
    for place, change in enumerate(changes):
        record = json.loads((PUBLISHED / file).read_text(encoding="utf-8"))
        record |= {"id": f"id{place}", "started": f"2027-01-0{place + 1}T00:00:00+00:00"}
        change(record)
        (tmp_path / f"run{9 - place}.json").write_text(json.dumps(record), encoding="utf-8")
    (trend,) = history([tmp_path]).trends
    return trend


@pytest.fixture
def served(tmp_path):
    return lambda *changes: followed("serving.json", tmp_path, changes)


def as_it_was(record):
    """The published run, once more."""


def three_times_the_tail(record):
    row = record["streams"][0]
    assert row["simulated_busy"] < 0.9
    row["simulated_p99_s"] *= 3
    row["simulated_p99_s_ci"] = [3 * end for end in row["simulated_p99_s_ci"]]


def test_a_step_of_a_stream_is_found_and_noise_is_none(served):
    trend = served(as_it_was, as_it_was, three_times_the_tail, three_times_the_tail)
    assert trend.kind == "serving"
    ((case, metric, step),) = steps(trend)
    assert (metric, step.run, step.since, step.worse) == ("simulated_p99_s", 2, 1, True)
    assert step.change == pytest.approx(2.0)
    assert step.low < step.change < step.high
    found = next(series for series in trend.series if (series.case, series.metric) == (case, metric))
    assert found.kind == "simulated", "what is simulated is never called measured"
    assert [value.value for value in found.values[2:]] == [pytest.approx(3 * found.values[0].value)] * 2
    assert found.drift is None


def test_streams_say_what_the_honest_bear_only_where_somebody_is_hostile(served):
    trend = served(as_it_was, as_it_was)
    by_case = {}
    for series in trend.series:
        by_case.setdefault(series.case, set()).add(series.metric)
    streams = {case: metrics for case, metrics in by_case.items() if "simulated_macs" in metrics}
    assert streams
    for case, metrics in streams.items():
        harmed = not case.endswith("/hostile 0 %")  # a budget may cut an honest one short, whoever else comes
        assert ("simulated_benign_p99_s" in metrics) == harmed
    assert {"replicas"} in by_case.values()


def test_a_replica_more_is_a_step_and_another_device_tells_nothing(served):
    def another_replica(record):
        record["provisions"][0]["replicas"] += 1

    def elsewhere(record):
        three_times_the_tail(record)
        record["device"] = {"name": "another", "fingerprint": "another"}

    trend = served(as_it_was, another_replica, elsewhere)
    assert [(metric, step.run, step.worse) for _, metric, step in steps(trend)] == [("replicas", 1, True)]
    assert trend.series[0].gaps == ()
    assert not any(step.run == 2 for series in trend.series for step in series.steps)


def test_a_character_that_became_dearer_is_a_step_and_a_kept_files_digits_are_none(tmp_path):
    def before_it_was_kept(record):
        for row in record["decoders"]:  # six digits are what a kept file has
            row["macs_per_token"] = float(f"{row['macs_per_token']:.6g}") * (1 + 2e-7)

    def dearer(record):
        record["decoders"][1]["macs_per_token"] *= 1.01
        record["decoders"][1]["latency_s_per_token"] *= 3
        record["decoders"][1]["latency_s_per_token_ci"] = [
            3 * end for end in record["decoders"][1]["latency_s_per_token_ci"]
        ]

    trend = followed("decoding.json", tmp_path, [as_it_was, before_it_was_kept, dearer])
    assert trend.kind == "decoding"
    found = {metric: step for _, metric, step in steps(trend)}
    assert set(found) == {"macs_per_token", "latency_s_per_token"}
    assert all((step.run, step.since, step.worse) == (2, 1, True) for step in found.values())
    assert found["macs_per_token"].change == pytest.approx(0.01, rel=1e-3)
    kinds = {series.metric: series.kind for series in trend.series}
    assert (kinds["macs_per_token"], kinds["latency_s_per_token"]) == ("counted", "measured")
    attacks = {series.case for series in trend.series if series.metric == "increase"}
    assert {series.record["kind"] for series in trend.series if series.case in attacks} == {
        "depth attack",
        "length attack",
    }
