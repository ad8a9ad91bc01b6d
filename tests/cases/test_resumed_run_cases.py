"""Runs that are stopped, resumed and repeated in one directory: nothing complete is lost, nothing is counted twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptbench.bench import measuring, pieces, runner
from adaptbench.bench.runner import run_suite
from adaptbench.meters.clock import ClockMeter
from adaptbench.meters.reading import Reading
from adaptbench.report import words
from adaptbench.report.reproduce import took
from adaptbench.results.store import Run
from adaptbench.results.writer import RunWriter

SMALL = str(Path(__file__).parent.parent / "bench" / "small.yaml")
QUICK = ["models=[skipnet]", "references=[]", "sweeps={}", "measure={meters: [clock], blocks: 1, window_s: 0.001}"]


class Whole(ClockMeter):
    """Ten joules a stretch."""

    name, quantity, whole_run = "whole", "energy", True

    def end(self, mark, work):
        return [Reading("total", 10.0, 1.0, "measured: test", "machine")]


def stop_at(monkeypatch, condition):
    real = pieces.evaluate_chunk

    def evaluate(evaluation, *args, **kwargs):
        if evaluation.id.rpartition("/")[2] == condition:
            raise KeyboardInterrupt
        return real(evaluation, *args, **kwargs)

    monkeypatch.setattr(pieces, "evaluate_chunk", evaluate)


def go(out, **more):
    return run_suite(SMALL, overrides=QUICK, out=out, limit=more.pop("limit", 4), **more)


@pytest.mark.slow
@pytest.mark.case("own")
@pytest.mark.parametrize("fresh", [False, True])
def test_a_complete_run_stays_readable_until_the_new_one_is(fresh, tmp_path, monkeypatch):
    """A second run that began in a complete directory and was killed left an incomplete one."""
    first = go(tmp_path / "d")
    with monkeypatch.context() as patch:
        stop_at(patch, "ilfo")
        with pytest.raises(KeyboardInterrupt):
            go(tmp_path / "d", limit=3, fresh=fresh)
    kept = Run.open(tmp_path / "d")
    kept.verify()
    assert kept.cases == first.cases
    assert len(kept.samples()) == len(first.samples()) == 12
    assert len(go(tmp_path / "d", limit=3).samples()) == 9


@pytest.mark.slow
@pytest.mark.case("own")
def test_a_kill_between_two_files_leaves_one_run_or_the_other(tmp_path, monkeypatch):
    """Files of two runs could lie side by side; whichever moment it is, readers find one whole run."""
    go(tmp_path / "d")
    with monkeypatch.context() as patch:
        patch.setattr(RunWriter, "_settle", lambda self: None)
        second = go(tmp_path / "d", limit=3)
    assert len(second.samples()) == 9
    (tmp_path / "d" / ".ready" / "samples.parquet").replace(tmp_path / "d" / "samples.parquet")
    assert Run.open(tmp_path / "d").cases == second.cases
    assert len(Run.open(tmp_path / "d").samples()) == 9
    RunWriter(tmp_path / "d")
    assert not (tmp_path / "d" / ".ready").exists()
    assert Run.open(tmp_path / "d").cases == second.cases


@pytest.mark.case("own")
def test_whole_run_energy_adds_up_and_says_what_is_missing(tmp_path, monkeypatch):
    """157 J over 16 s became 0.8 J when the command was repeated; a finished run changes nothing, stretches add up."""
    monkeypatch.setattr(measuring, "make_meter", lambda name, spec: Whole())
    with monkeypatch.context() as patch:
        stop_at(patch, "ilfo")
        with pytest.raises(KeyboardInterrupt):
            go(tmp_path / "d")
    done = go(tmp_path / "d")
    rows = done.windows(["suite"])
    assert rows["energy_j"].sum() == 10.0
    assert ["stopped" in str(text) for text in rows["missing"]] == [True, False]
    before = {file: file.read_bytes() for file in (tmp_path / "d").rglob("*") if file.is_file()}
    assert go(tmp_path / "d").manifest["id"] == done.manifest["id"]
    assert {file: file.read_bytes() for file in (tmp_path / "d").rglob("*") if file.is_file()} == before


class Carbon(Whole):
    """A gram a window, as long as it is open."""

    def describe(self):
        return {"found": True, "reason": None, "co2e_kg": 0.001, "co2e_kg_missing": None}


@pytest.mark.case("own")
def test_carbon_and_duration_are_of_all_stretches(tmp_path, monkeypatch):
    """`co2e_kg` and "took" of a resumed run were of its last command; stretches add up, a killed one is missing."""
    monkeypatch.setattr(measuring, "make_meter", lambda name, spec: Carbon())
    first = go(tmp_path / "d")
    assert first.manifest["meters"]["whole"]["co2e_kg"] == 0.001
    with monkeypatch.context() as patch:
        patch.setattr(runner.Runner, "_already", lambda self: None)  # as where a case failed and is tried again
        second = go(tmp_path / "d")
    assert second.manifest["meters"]["whole"]["co2e_kg"] == 0.002
    assert len(second.manifest["stretches"]) == 2
    told = [{"started": "2025-01-01T00:00:00", "ended": f"2025-01-01T00:0{n}:00"} for n in (1, 2)]
    assert took({**told[0], "stretches": told}) == f"{words.seconds(180.0)} in 2 stretches"
    told[0]["ended"] = None
    assert "1 more ended unseen" in took({**told[1], "stretches": told})
    with monkeypatch.context() as patch:
        stop_at(patch, "ilfo")
        with pytest.raises(KeyboardInterrupt):
            go(tmp_path / "e")
    stopped = go(tmp_path / "e").manifest
    assert stopped["meters"]["whole"]["co2e_kg"] is None
    assert "was stopped" in stopped["meters"]["whole"]["co2e_kg_missing"]
    assert all(stretch["ended"] for stretch in stopped["stretches"])


@pytest.mark.slow
@pytest.mark.case("own")
def test_a_finished_run_that_is_repeated_says_so(adaptbench):
    """A repeated command computed, measured and wrote again; it says "already complete" and leaves the run alone."""
    words = ("run", "SMALL", "--limit", "4", *(part for text in QUICK for part in ("-o", text)))
    assert "already complete" not in adaptbench(*words).out
    before = Path("runs/small/manifest.json").read_bytes()
    assert "already complete" in adaptbench(*words).out
    assert Path("runs/small/manifest.json").read_bytes() == before
    assert "already complete" not in adaptbench(*words, "--fresh").out
