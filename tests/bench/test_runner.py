"""A run from end to end: what it leaves behind, that it resumes after a kill, and that nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import adaptbench as ab
from adaptbench.bench.plan import Evaluation, make_plan
from adaptbench.bench.runner import run_suite
from adaptbench.bench.suite import load_suite
from adaptbench.errors import RunError, UncountedError, UsageError
from adaptbench.policies import SoftmaxThreshold
from adaptbench.results.schema import FIGURES
from adaptbench.results.store import Run

SMALL = str(Path(__file__).parent / "small.yaml")
NOISY = ("craft_s", "latency", "nodes_s", "policy_s", "executor", "saving_time", "realised_saving_time")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_suite(SMALL, out=tmp_path_factory.mktemp("run") / "small", command="adaptbench run small")


def steady(record: dict[str, object]) -> dict[str, object]:
    """A record without what a clock put into it."""
    return {k: v for k, v in record.items() if not k.startswith(NOISY)}


def test_every_case_of_the_plan_has_its_record(finished: Run) -> None:
    plan = make_plan(load_suite(SMALL))
    assert {c["evaluation"] for c in finished.cases} == {e.id for e in plan.evaluations}
    timed = [c for c in finished.cases if c["batch_size"]]
    assert len(timed) == 2 * 3 * 2  # models × conditions × batch sizes
    assert {c["kind"] for c in finished.cases} == {"clean", "control", "attack", "reference", "sweep"}


def test_records_agree_with_the_samples_behind_them(finished: Run) -> None:
    for case in finished.cases:
        rows = finished.samples([case["evaluation"]])
        assert len(rows) == case["n"] == 30
        assert case["accuracy"] == pytest.approx(rows["correct"].mean())
        assert case["macs_mean"] == pytest.approx(rows["macs"].mean())
        assert case["macs_min"] <= rows["macs"].min() <= rows["macs"].max() <= case["macs_max"]


def test_recovery_is_the_ratio_of_means_over_the_same_inputs(finished: Run) -> None:
    for case in finished.cases:
        if case["kind"] != "attack":
            continue
        clean = finished.samples([case["evaluation"].replace("/ilfo", "/clean")])["macs"].mean()
        attacked = finished.samples([case["evaluation"]])["macs"].mean()
        assert case["recovery"] == pytest.approx((attacked - clean) / (case["macs_max"] - clean))


def test_crafted_inputs_are_kept_and_give_the_recorded_figures(finished: Run) -> None:
    import torch

    case = next(c for c in finished.cases if c["model"] == "softmax-threshold" and c["condition"] == "ilfo")
    stored = finished.crafted(case["crafted"])
    rows = finished.samples([case["evaluation"]])
    assert stored["sample_id"].tolist() == rows["sample_id"].tolist()
    model = ab.load_model("softmax-threshold", "digits")
    again = model.infer(torch.from_numpy(stored["x_adv"].copy()).float() / 255)
    np.testing.assert_array_equal(again.macs.numpy(), rows["macs"].to_numpy())
    clean = ab.load_data("digits").split("test").first(30).x.numpy()
    assert np.abs(stored["x_adv"].astype(int) - clean.astype(int)).max() <= 16


def test_energy_without_a_sensor_is_modelled_and_says_so(finished: Run) -> None:
    timed = [c for c in finished.cases if c["batch_size"]]
    assert all(c["energy_provenance"].startswith("modelled") for c in timed)
    assert any("joules are modelled" in note for note in finished.manifest["notes"])
    windows = finished.windows()
    clock = windows[windows["meter"] == "clock"]
    assert clock["energy_j"].isna().all()
    assert clock["missing"].notna().all()
    blocks = windows.groupby(["case", "meter"])["block"].nunique()
    assert (blocks == 3).all()


def test_windows_of_the_static_reference_stand_in_the_same_blocks(finished: Run) -> None:
    cases = set(finished.windows()["case"])
    assert {"static:softmax-threshold/b1", "static:skipnet/b8"} <= cases


def test_a_second_run_computes_nothing_and_ends_equal(finished: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("a committed cell was computed again")

    monkeypatch.setattr("adaptbench.bench.pieces.evaluate_chunk", never)
    monkeypatch.setattr("adaptbench.experiment.measuring.measure", never)
    again = run_suite(SMALL, out=finished.path)
    assert again.cases == finished.cases


@pytest.mark.slow
def test_a_failing_attack_is_null_with_its_reason_and_is_tried_again(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adaptbench.bench import pieces

    real, calls = pieces.evaluate_chunk, []

    def fails(evaluation: Evaluation, *args: object, **kwargs: object) -> object:
        calls.append(evaluation.id)
        if evaluation.id == "digits/skipnet/ilfo" and calls.count(evaluation.id) == 2:
            raise MemoryError("planted")
        return real(evaluation, *args, **kwargs)

    monkeypatch.setattr(pieces, "evaluate_chunk", fails)
    run = run_suite(SMALL, out=tmp_path / "run")
    broken = [c for c in run.cases if c["failed"]]
    assert {c["evaluation"] for c in broken} == {"digits/skipnet/ilfo"}
    assert all(c[f] is None and "not enough memory" in c[f"{f}_missing"] for c in broken for f in FIGURES if f in c)
    assert [f["case"] for f in run.manifest["failures"]] == ["digits/skipnet/ilfo"]
    assert "MemoryError: planted" in (run.path / run.manifest["failures"][0]["traceback"]).read_text(encoding="utf-8")
    whole = [steady(c) for c in finished.cases if c["evaluation"] != "digits/skipnet/ilfo"]
    assert [steady(c) for c in run.cases if not c["failed"]] == whole
    before = len(calls)
    run = run_suite(SMALL, out=tmp_path / "run")
    assert calls[before:] == ["digits/skipnet/ilfo"], "the second chunk of the one that failed, nothing else"
    assert [steady(c) for c in run.cases] == [steady(c) for c in finished.cases]
    assert not list((run.path / "failures").iterdir())


@pytest.mark.slow
def test_a_case_that_cannot_be_timed_keeps_its_other_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from adaptbench.bench import measuring

    real = measuring.make_arm

    def breaks(case: str, *args: object) -> object:
        arm, macs = real(case, *args)
        calls: list[int] = []

        def run() -> None:
            calls.append(1)
            if len(calls) > 4:
                raise RuntimeError("planted")
            arm.run()

        return (replace(arm, run=run) if case == "digits/skipnet/clean/b8" else arm), macs

    monkeypatch.setattr(measuring, "make_arm", breaks)
    run = run_suite(SMALL, overrides=["conditions=[clean]", "sweeps={}"], out=tmp_path / "run")
    by_case = {c["case"]: c for c in run.cases}
    broken = by_case["digits/skipnet/clean/b8"]
    assert broken["macs_mean"] == by_case["digits/skipnet/clean/b1"]["macs_mean"]
    assert "RuntimeError: planted" in broken["latency_s_per_sample_missing"]
    assert by_case["digits/softmax-threshold/clean/b8"]["latency_s_per_sample"] > 0
    monkeypatch.undo()
    whole = run_suite(SMALL, overrides=["conditions=[clean]", "sweeps={}"], out=tmp_path / "whole")
    assert ab.check(run, whole).exit_code == 3, "what failed is never green"


KILLED = """
import os, signal, sys
from adaptbench.bench.runner import run_suite
from adaptbench.results import files

suite, out, writes = sys.argv[1], sys.argv[2], int(sys.argv[3])
sync = files._sync

def dies(path):
    global writes
    writes -= 1
    if writes == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    sync(path)

files._sync = dies
run_suite(suite, out=out)
"""


@pytest.mark.slow
@pytest.mark.parametrize("writes", [3, 45, 120])
def test_killed_and_resumed_equals_undisturbed(finished: Run, tmp_path: Path, writes: int) -> None:
    """kill -9 while something is written: early, while crafting, while measuring; then the same command again."""
    out = tmp_path / "run"
    words = [sys.executable, "-c", KILLED, SMALL, str(out), str(writes)]
    done = subprocess.run(words, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    with pytest.raises(RunError, match="incomplete"):
        Run.open(out)
    resumed = run_suite(SMALL, out=out)
    assert [steady(c) for c in resumed.cases] == [steady(c) for c in finished.cases]
    pd.testing.assert_frame_equal(resumed.samples(), finished.samples())


def test_the_gate_passes_where_nothing_changed_and_sees_a_planted_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault is in the code: a policy that goes on where it stopped before."""
    quick = ["measure=null", "conditions=[clean]", "models=[softmax-threshold]", "references=[]", "sweeps={}"]
    before, again = (run_suite(SMALL, overrides=quick, out=tmp_path / name) for name in ("before", "again"))
    assert ab.check(again, before).exit_code == 0
    margin = SoftmaxThreshold.margin
    monkeypatch.setattr(SoftmaxThreshold, "margin", lambda *given: margin(*given) + 0.2)
    dearer = run_suite(SMALL, overrides=quick, out=tmp_path / "dearer")
    assert ab.check(dearer, before).exit_code == 1


def test_every_reference_is_held_against_the_static_net(tmp_path: Path) -> None:
    overrides = ["measure=null", "conditions=[clean]", "models=[skipnet]", "references=[static, softmax-threshold]"]
    run = run_suite(SMALL, overrides=[*overrides, "sweeps={}"], out=tmp_path / "run")
    full = {r["model"]: r["macs_full"] for r in run.cases if r["kind"] == "reference"}
    assert full["softmax-threshold"] == full["static"], "not the full cost of its own three exits"


def test_strict_refuses_uncounted_compute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from adaptbench.adaptive import DecisionGraph

    monkeypatch.setattr(DecisionGraph, "uncounted", property(lambda self: ("aten::_fft_r2c",)))
    with pytest.raises(UncountedError, match="_fft_r2c"):
        run_suite(SMALL, out=tmp_path / "run")
    loose = run_suite(SMALL, overrides=["strict=false", "measure=null", "conditions=[clean]"], out=tmp_path / "loose")
    assert loose.cases[0]["uncounted"] == ["aten::_fft_r2c"]


def test_no_such_device_is_said_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no device"):
        run_suite(SMALL, device="gpu9", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
