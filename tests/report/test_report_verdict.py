import numpy as np
import pandas as pd
import pytest

from adaptbench.report import clock, limits, method, names, verdict
from adaptbench.report.view import View, saving


@pytest.fixture
def view(bench_run):
    return View(bench_run)


def said(view):
    return " ".join(" ".join(pair) for pair in verdict.sentences(view, verdict.judge(view)))


def retold(run, **changes):
    """The sentences of a run whose clean or attacked records are changed by functions of the record."""
    for record in run.cases:
        for name, change in changes.items():
            record[name] = change(record)
    return said(View(run))


def test_the_table_of_the_verdict_is_recomputed_from_raw_rows(bench_run, view):
    """Accuracy, MACs saved, time saved with its word, MACs under the worst attack: by pandas from the run directory."""
    samples = pd.read_parquet(bench_run.path / "samples.parquet")
    windows = pd.read_parquet(bench_run.path / "windows.parquet")
    by_case = samples.groupby("case").agg(macs=("macs", "mean"), accuracy=("correct", "mean"))
    own = windows[(windows["meter"] == "clock") & windows["component"].isin(["nodes", "policy"])]
    seconds = (own["duration_s"] / own["n_samples"]).groupby([own["case"], own["block"]]).sum()
    rows = {row.cells[0].text: row.cells[1:] for row in verdict.table(view, verdict.judge(view)).rows}
    for subject in view.subjects:
        full = bench_run.manifest["models"][subject.model]["macs_full"]
        accuracy, saved, time, worst, _ = rows[subject.title]
        clean = f"digits/{subject.model}/clean"
        assert accuracy.value == pytest.approx(by_case.loc[clean, "accuracy"])
        assert f"({100 * by_case.loc[f'digits/{subject.model}@static=1/clean', 'accuracy']:.1f} %)" in accuracy.text
        assert saved.value == pytest.approx(1 - by_case.loc[clean, "macs"] / full)
        logs = np.log((seconds[f"{clean}/b256"] / seconds[f"static:{subject.model}/b256"]).to_numpy())
        walsh = [(a + b) / 2 for place, a in enumerate(logs) for b in logs[place:]]
        assert time.value == pytest.approx(1 - np.exp(np.median(walsh)))
        attacks = [f"digits/{subject.model}/{name}" for name in ("pgd", "ilfo", "deepsloth", "ereba")]
        assert worst.value == pytest.approx(by_case.loc[attacks, "macs"].max() / full)


def test_an_interval_that_spans_zero_cannot_tell():
    about = {"saving_time": 0.05, "saving_time_ci": [-0.2, 0.09]}
    assert clock.word_of(about) == "cannot tell"
    assert clock.word_of(about | {"saving_time_ci": [0.01, 0.09]}) == "faster"
    assert clock.word_of({"saving_time": -0.05, "saving_time_ci": [-0.09, -0.01]}) == "slower"
    assert clock.word_of({"saving_time": 0.5}) == "cannot tell", "no interval is no proof"
    assert clock.word_of({"saving_time": None}) == ""


def test_the_sentences_follow_the_figures(small_run):
    text = said(View(small_run()))
    assert "Fewer operations, yes:" in text
    slower = {"saving_time": lambda r: -0.2, "saving_time_ci": lambda r: [-0.3, -0.1]}
    assert "Less time, no: it is slower than its plain net at batch 256." in retold(small_run("a"), **slower)
    unclear = {"saving_time": lambda r: 0.2, "saving_time_ci": lambda r: [-0.3, 0.4]}
    assert "Less time? The clock cannot tell at batch 256" in retold(small_run("b"), **unclear)
    undone = {"macs_mean": lambda r: r["macs_full"] * (0.98 if r["kind"] == "attack" else 0.4),
              "macs_clean_mean": lambda r: 0.4 * r["macs_full"]}  # fmt: skip
    assert "Under attack, no: an attacker undoes the saving." in retold(small_run("c"), **undone)
    held = undone | {"macs_mean": lambda r: r["macs_full"] * (0.41 if r["kind"] == "attack" else 0.4)}
    assert "Under attack, it holds: no attack that ran takes back a tenth" in retold(small_run("d"), **held)
    part = undone | {"macs_mean": lambda r: r["macs_full"] * (0.7 if r["kind"] == "attack" else 0.4)}
    assert "Under attack, no: an attacker takes part of the saving." in retold(small_run("e"), **part)


def test_no_saving_is_said_plainly(small_run):
    text = retold(small_run(sweep=0, references=False), macs_full=lambda r: 1)
    assert "No model runs fewer MACs than its plain net" in text
    assert "There is no saving for an attacker to take back." in text


def test_the_worst_attack_is_an_attack_that_ran_most_of_the_plain_nets_macs(view):
    for one in verdict.judge(view):
        assert one.worst["kind"] == "attack"
        assert 1 - saving(one.worst) == max(1 - saving(record) for record in view.attacks(one.subject))


def test_what_ran_and_which_sensors_answered(view, sensor_run):
    text = verdict.measured(view)
    assert text.startswith("Five adaptive models on digits (200 test inputs), held against 4 attacks, on AMD EPYC 7B13")
    assert "No power sensor answered" in verdict.sensors(view)
    assert dict(verdict.chips(view)) == {"MACs": "counted", "time": "measured", "energy": "modelled"}
    assert dict(verdict.chips(View(sensor_run)))["energy"] == "measured"


def test_at_most_four_limits_and_the_gravest_first(small_run):
    run = small_run(manifest={"suite": {"name": "s", "limit": 60}, "git": {"revision": "0", "dirty": True}})
    for record in run.cases:
        record["executor_share"] = 0.3
    run.cases[0]["failed"] = "out of memory"
    told = limits.limits(View(run))
    assert len(told) == limits.MOST
    assert told[0] == "1 case failed and has no figures."
    assert "cut to the first 60 inputs" in told[1]


def test_ties_and_uncounted_operations_are_owned_up_to(small_run):
    run = small_run(sweep=0, references=False)
    for record in run.cases:
        record["ties"] = 2
    run.manifest["models"]["softmax-threshold"]["uncounted"] = ["aten::sort"]
    text = " ".join(text for _, text in method.method(View(run)))
    assert "In 6 passes of a sample, over all conditions, a decision fell within" in text
    assert "no formula covers: aten::sort" in text


def test_code_names_are_spelled_out_and_code_is_left_alone(small_run):
    view = View(small_run())
    view.manifest["models"]["dag-selection"] = {"title": "dag-selection"}
    pieces = limits.readable(view, "dag-selection was skipped; add `dag-selection: {}`")
    assert pieces == [("DAG selection was skipped; add ", False), ("dag-selection: {}", True)]
    assert names.condition_name("own", {"title": "My attack"}) == "My attack"
