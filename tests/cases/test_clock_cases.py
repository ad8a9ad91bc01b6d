"""Figures of the clock: who spent the seconds, and what a page or terminal says of them."""

from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.console import Console
from synthetic_run import write_run

from adaptbench.adaptive import MultiExit
from adaptbench.adaptive.domain import ImageDomain
from adaptbench.bench.notes import things_to_know
from adaptbench.console import result_table
from adaptbench.experiment.timed import make_arm, make_static_arm
from adaptbench.meters.clock import ClockMeter
from adaptbench.meters.stopwatch import CudaStopwatch
from adaptbench.meters.windows import measure
from adaptbench.report import words
from adaptbench.report.figures import savings
from adaptbench.report.verdict import sensors
from adaptbench.report.view import View
from adaptbench.results import schema, timing


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("clock") / "run")


@pytest.mark.slow
@pytest.mark.case("own")
def test_the_terminals_energy_is_the_pages(run):
    """Terminal and page showed batch 1 and batch 256 under one label, energy/sample: both show and name the page's."""
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(result_table(run.cases, run.manifest, width=160))
    text = console.export_text()
    view = View(run)
    assert f"batch {view.batch_size}" in text
    shown = [record for subject in view.subjects for record in view.rows(subject)]
    write = words.one_scale([r["energy_j_per_sample"] for r in shown], "J")
    assert all(write(record["energy_j_per_sample"]) in text for record in shown)


@pytest.mark.slow
@pytest.mark.case("own")
def test_modelled_energies_are_not_said_to_be_macs_alone(run):
    """Modelled joules count bytes too, so they do say something that MACs do not."""
    sentence = sensors(View(run))
    assert "sensor" in sentence
    assert "bytes" in sentence


def timed_alone(run, windows, record):
    """Savings by pandas alone: (in MACs, in seconds of nodes and policy) of the inputs that were timed."""
    rows = run.samples([record["evaluation"]]).head(record["n_timed"])
    own = windows[(windows["meter"] == "clock") & windows["component"].isin(["nodes", "policy"])]
    both = (own["duration_s"] / own["n_samples"]).groupby([own["case"], own["block"]]).sum()
    pairs = np.log((both[record["case"]] / both[f"static:{record['model']}/b{record['batch_size']}"]).to_numpy())
    walsh = [(a + b) / 2 for i, a in enumerate(pairs) for b in pairs[i:]]
    return 1 - rows["macs"].mean() / record["macs_full"], 1 - np.exp(np.median(walsh))


@pytest.mark.case("own")
def test_savings_of_the_page_are_those_of_the_run_directory(run):
    """A page multiplied a ratio of 64 timed inputs by the MAC saving of all: -806 % where the windows say -186 %."""
    windows = run.windows()
    for record in (r for r in run.cases if r["batch_size"]):
        in_macs, in_time = timed_alone(run, windows, record)
        assert record["n_timed"] == 64
        assert record["saving_macs"] == pytest.approx(in_macs)
        assert record["saving_time"] == pytest.approx(in_time)
        shown = [saving.share for saving in savings.savings_of(record)[:2]]
        assert shown == [record["saving_macs"], record["saving_time"]]
        if record["realised_saving_time"] is not None:
            assert record["realised_saving_time"] == pytest.approx(in_time / in_macs)


@pytest.mark.case("own")
@pytest.mark.parametrize(
    ("macs", "why"),
    [
        (np.full(64, 97), "less than 5 %"),
        (np.array([20, *[100] * 3, 120]), "interval of the MAC saving reaches 0"),
        (np.full(64, 130), "no MAC saving"),
    ],
)
def test_no_share_is_told_of_next_to_no_saving(run, macs, why):
    """A page said -21 795 %, another 382 %: ratios whose denominator is next to nothing."""
    case, static = "digits/skipnet/clean/b1", "static:skipnet/b1"
    record = timing.summarise_windows(run.windows(), case, static, macs=macs, macs_full=100, energy_meters=["modelled"])
    for what in ("time", "energy"):
        assert record[f"saving_{what}"] is not None, "the saving itself is a figure all the same"
        assert record[f"realised_saving_{what}"] is None
        assert why in record[f"realised_saving_{what}_missing"]


@pytest.mark.case("own")
def test_notes_take_no_mean_of_ratios(run):
    """Over models the mean of shares was 382 %: savings and shares of the window are averaged, each in its own unit."""
    cases = [{**r, "realised_saving_time": 1e6} for r in run.cases]
    notes = things_to_know(cases, meters={}, models={}, conditions={}, skipped=[])
    (note,) = [n for n in notes if "saved by the nets" in n]
    saved = [r["saving_time"] for r in run.cases if r["kind"] == "clean" and r["batch_size"] == 1]
    assert f"batch 1: {words.percent(float(np.mean(saved)), 0)} of the time" in note
    assert "harness: 20 % of the window" in note


def small():
    torch.manual_seed(0)
    stages = [torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 32)), torch.nn.Linear(32, 32)]
    return MultiExit(stages, [torch.nn.Linear(32, 10) for _ in stages], input_shape=(1, 8, 8))


@pytest.mark.case("own")
def test_seconds_are_told_apart_and_no_check_is_inside_a_window(monkeypatch):
    """The clock blamed nets for the harness: parts are timed in the same windows, checks run before them."""
    model, x = small(), torch.rand(8, 1, 8, 8)
    arm, inputs = make_arm("a", model, x, torch.arange(8), 4)
    arms = [arm, make_static_arm("static", model, x, 4)]
    assert inputs.macs_mean == inputs.macs.mean()

    def unwanted(self, given):
        raise AssertionError("a check inside a window")

    bare = [type(a)(a.case, a.run, a.work, (), a.ready, a.watch) for a in arms]
    monkeypatch.setattr(ImageDomain, "check", unwanted)
    with ClockMeter().on("cpu") as clock:
        rows = measure(bare, [clock], blocks=2, window_s=0.01, warmup_s=0, rng=np.random.default_rng(0), idle=False)
    for block in range(2):
        spent = {(r.case, r.component): r.duration_s for r in rows if r.block == block}
        assert {part for case, part in spent if case == "a"} == {"clock", "nodes", "policy", "executor"}
        parts = sum(spent["a", part] for part in ("nodes", "policy", "executor"))
        assert 0.5 * spent["a", "clock"] < parts <= spent["a", "clock"]
        assert {part for case, part in spent if case == "static"} == {"clock", "nodes"}


@pytest.mark.case("own")
def test_laps_on_a_gpu_are_events_in_its_queue(monkeypatch):
    """The host's clock blames whoever waits for the device; events see what the device did, and are used again."""
    now, made = [0.0], []

    class Event:
        def __init__(self, enable_timing):
            made.append(self)
            assert enable_timing

        def record(self, stream):
            self.at = now[0]

        def elapsed_time(self, other):
            return 1000 * (other.at - self.at)

    monkeypatch.setattr(torch, "cuda", SimpleNamespace(Event=Event, current_stream=lambda device: None))
    watch = CudaStopwatch("cuda:0")
    for _ in range(2):
        watch.start()
        for part, spent in (("executor", 0.25), ("nodes", 2.0), ("policy", 0.5), ("nodes", 1.0)):
            now[0] += spent
            watch.lap(part)
        assert watch.stop() == {"executor": 0.25, "nodes": 3.0, "policy": 0.5}
    assert len(made) == 5


@pytest.mark.case("own")
def test_old_records_say_why_they_tell_nothing_of_nets():
    """Runs of schema 1 timed nets and harness as one; read today, their shares are null with that reason."""
    old = {"schema": 1, "cases": [{"case": "a", "realised_saving_time": 0.5, "realised_saving_time_ci": [0, 1]}]}
    (case,) = schema.migrate(old, "summary.json")["cases"]
    assert case["realised_saving_time"] is None
    assert "realised_saving_time_ci" not in case
    assert "timed apart" in case["realised_saving_time_missing"]
    assert old["cases"][0]["realised_saving_time"] == 0.5
