"""The estimate of a study's --dry-run: its windows are the run's, what is kept costs nothing. No clock is trusted."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from adaptbench.experiment.estimating import limited
from adaptbench.experiment.options import Options
from adaptbench.policies import UniformThreshold
from adaptbench.results import tables
from adaptbench.results.studies import StudyRun
from adaptbench.study import estimate as module
from adaptbench.study import load_study, run_study
from adaptbench.study.estimate import GraphEstimate, StudyEstimate, estimate
from adaptbench.study.plan import make_plan

sys.path.append(str(Path(__file__).resolve().parents[1]))

from small_study import STUDY

QUICK = STUDY.replace(", softmax-threshold-published@train]", "]").replace("softmax-threshold-published@train, ", "")
QUICK = QUICK.replace("training_samples: 300\n", "").replace("joint-threshold, uniform, random]", "joint-threshold]")
QUICK = QUICK.replace(", against: [uniform]", ", against: [softmax-threshold]")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("study") / "quick.yaml"
    place.write_text(QUICK, encoding="utf-8")
    return place


@pytest.fixture(scope="module")
def finished(file: Path) -> StudyRun:
    return run_study(str(file), out=file.parent / "run", limit=60)


def guess(file: Path, *overrides: str, out: str = "nowhere") -> StudyEstimate:
    options = Options(out=file.parent / out, limit=60)
    return estimate(make_plan(load_study(str(file), overrides), options), options, 5.0)


@pytest.mark.slow
def test_every_stage_of_the_plan_has_its_seconds(file):
    found = guess(file).graphs["digits"]
    (planned,) = make_plan(load_study(str(file)), Options()).graphs
    assert list(found.stages) == [stage for stage, _ in planned.stages(load_study(str(file)).study)]
    assert all(seconds > 0 for seconds in found.stages.values()), found
    assert not found.doubts
    assert not (file.parent / "nowhere").exists()


@pytest.mark.slow
def test_its_windows_are_those_that_a_run_measures_and_what_is_kept_costs_nothing(file, finished):
    windows = tables.read(finished.path / "windows.parquet", "windows")
    clock = windows[(windows["meter"] == "clock") & (windows["component"] == "clock")]
    measured = Counter(zip(clock["case"], clock["block"], strict=True))
    assert Counter(w for s in guess(file).graphs["digits"].sessions for w in s.windows) == measured
    again = guess(file, out="run")
    assert again.graphs["digits"].kept
    assert again.total_s == 5.0
    longer = guess(file, "measure.blocks=8", out="run").graphs["digits"]
    assert longer.kept, "the figures are; the clock is not"
    assert not longer.stages["execute"]
    assert longer.stages["log test"] == longer.stages["fit and choose"] == 0, "every log and every fit is kept"
    assert longer.stages["time"] > 0


@pytest.mark.slow
def test_a_policy_that_cannot_be_tried_is_left_out_in_words(file, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(module, "stateful", broken)
    monkeypatch.setattr(UniformThreshold, "family", classmethod(broken))
    found = guess(file, "policies=[softmax-threshold, joint-threshold, uniform]").graphs["digits"]
    assert found.stages["stream"] == 0
    assert "no such kernel" in found.doubts["stream"]
    assert "no such kernel" in found.doubts["uniform"]


def test_the_stand_in_of_the_test_log_has_no_test_labels(file):
    (graph,) = make_plan(load_study(str(file)), Options(limit=60)).graphs
    stand_in = module._StandIn(graph, graph.model.dense_logits(graph.calibration.images(0, 50)))
    logged = stand_in.test(1.0)
    assert len(logged.labels) == len(graph.test)
    assert logged.labels.values[:50].equal(graph.calibration.y[:50])
    assert logged.labels.values[50:].equal(graph.calibration.y[:10])


def test_long_logs_are_stood_in_for_by_two_shorter_ones(file):
    (graph,) = make_plan(load_study(str(file)), Options()).graphs
    stand_in = module._StandIn(graph, graph.model.dense_logits(graph.calibration.images(0, 50)))
    assert stand_in.shares == (1.0,)
    assert len(stand_in.log("calibration", 1.0)) == len(graph.calibration)
    assert len(stand_in.log("calibration", 0.5)) == len(graph.calibration) // 2


def test_the_total_is_the_sum_of_its_parts():
    graphs = {"a": GraphEstimate({"log test": 100.0, "time": 10.0}), "b": GraphEstimate({"log test": 0.0}, kept=True)}
    assert StudyEstimate(graphs, 5.0).total_s == 115.5
    assert StudyEstimate({"b": graphs["b"]}, 5.0).total_s == 5.0


def test_a_call_that_takes_too_long_is_stopped_whatever_it_catches():
    def stubborn():
        while True:
            with suppress(Exception):
                time.sleep(0.01)

    assert limited(stubborn, 0.1) is None
    assert limited(lambda: None, 10.0) < 1
    with pytest.raises(ZeroDivisionError):
        limited(lambda: 1 // 0, 10.0)


def test_elsewhere_than_in_the_main_thread_calls_are_waited_for():
    took = []
    thread = threading.Thread(target=lambda: took.append(limited(lambda: time.sleep(0.05), 0.01)))
    thread.start()
    thread.join()
    assert took[0] >= 0.05
