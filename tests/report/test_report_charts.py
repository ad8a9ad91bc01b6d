"""The drawings that stand in tables: what they show is what the run directory holds."""

import re

import numpy as np
import pandas as pd
import pytest

from adaptbench.report import clock
from adaptbench.report.figures import exits, recovery, regimes, tracks
from adaptbench.report.view import View


@pytest.fixture
def view(bench_run):
    return View(bench_run)


def centre(values):
    """Hodges and Lehmann's, by hand."""
    return np.median([(a + b) / 2 for place, a in enumerate(values) for b in values[place:]])


def test_seconds_of_a_net_and_of_its_plain_net_are_those_of_the_windows(bench_run, view):
    windows = pd.read_parquet(bench_run.path / "windows.parquet")
    timed = windows[windows["meter"] == "clock"].assign(each=lambda rows: rows["duration_s"] / rows["n_samples"])
    own = timed[timed["component"].isin(["nodes", "policy"])].groupby(["case", "block"])["each"].sum()
    plain = timed[timed["component"] == "nodes"].groupby(["case", "block"])["each"].sum()
    rows = [row.cells for row in regimes.chart(view).rows if not row.heading]
    wanted = [(subject.model, size) for subject in view.subjects for size in (1, 256)]
    assert len(rows) == len(wanted)
    for cells, (model, size) in zip(rows, wanted, strict=True):
        adaptive = np.exp(centre(np.log(own[f"digits/{model}/clean/b{size}"].to_numpy())))
        static = np.exp(centre(np.log(plain[f"static:{model}/b{size}"].to_numpy())))
        assert cells[1].value == pytest.approx(adaptive)
        assert cells[2].value == pytest.approx(static)
        widths = [float(width) for width in re.findall(r"width:([\d.]+)%", cells[1].markup)]
        assert widths == pytest.approx(
            [100 * adaptive / max(adaptive, static), 100 * static / max(adaptive, static)], abs=0.06
        )


def test_the_map_says_in_words_what_the_interval_says(small_run):
    run = small_run()
    told = {1: [-0.4, -0.1], 256: [-0.1, 0.3]}
    for record in run.cases:
        if record["kind"] == "clean":
            record.update(saving_time=sum(told[record["batch_size"]]) / 2, saving_time_ci=told[record["batch_size"]])
    (row,) = regimes.regime_map(View(run)).rows
    assert [(cell.text, cell.under, cell.kind) for cell in row.cells[1:]] == [
        ("slower", "25 % more time", "bad"), ("cannot tell", "10 % less time", "unclear"),
    ]  # fmt: skip


def flagged(run, case, flag, meter="clock"):
    """A view of a run some of whose windows carry a flag."""
    whole = run.windows()
    whole["flags"] = ""
    whole.loc[(whole["case"] == case) & (whole["meter"] == meter), "flags"] = flag
    view = View(run)
    view.__dict__["windows"] = whole
    return view


@pytest.mark.parametrize("case", ["static:softmax-threshold/b1", "digits/softmax-threshold/clean/b1"])
def test_a_flag_of_either_net_is_said_and_the_clock_cannot_tell(small_run, case):
    run = small_run()
    for record in run.cases:
        if record["kind"] == "clean":
            record.update(saving_time=0.3, saving_time_ci=[0.2, 0.4])
    view = flagged(run, case, "throttled")
    at_1, at_256 = clock.paces(view, view.subjects[0])
    assert (at_1.word, at_1.flags, at_1.unclear) == ("cannot tell", "throttled", "its windows are flagged: throttled")
    assert (at_256.word, at_256.flags, at_256.unclear) == ("faster", "", "")
    assert "flagged: throttled" in [cell.under for row in regimes.chart(view).rows for cell in row.cells]
    (row,) = regimes.regime_map(view).rows
    assert [(cell.text, cell.under, cell.kind) for cell in row.cells[1:]] == [
        ("cannot tell", "flagged: throttled", "unclear"), ("faster", "30 % less time", "good"),
    ]  # fmt: skip
    assert "Where the clock cannot tell: Softmax threshold at batch 1." in regimes.worth(view)


def test_doubts_about_a_sensors_reading_are_none_about_seconds(small_run):
    run, case = small_run(), "digits/softmax-threshold/clean/b1"
    for record in run.cases:
        if record["kind"] == "clean":
            record.update(saving_time=0.3, saving_time_ci=[0.2, 0.4])
    meter = next(name for name in run.windows()["meter"].unique() if name != "clock")
    words = {}
    for flag in ("few-ticks", "unsteady", "throttled"):
        view = flagged(run, case, flag, meter)
        words[flag] = clock.paces(view, view.subjects[0])[0].word
    assert words == {"few-ticks": "faster", "unsteady": "faster", "throttled": "cannot tell"}
    view = flagged(run, case, "unsteady")
    assert clock.paces(view, view.subjects[0])[0].word == "cannot tell", "the clock's own windows scatter"


def by_sensor(run, **savings):
    """Joules of the clean cases as a sensor would have read them: batch → (saving, interval)."""
    for record in run.cases:
        if record["kind"] == "clean":
            share, bounds = savings[f"b{record['batch_size']}"]
            record.update(
                saving_time=0.3, saving_time_ci=[0.2, 0.4], energy_meter="nvml", energy_provenance="measured: counter",
                saving_energy=share, saving_energy_ci=bounds,
            )  # fmt: skip
    return run


def test_joules_stand_on_the_map_where_a_sensor_read_them(small_run):
    run = by_sensor(small_run(), b1=(-0.2, [-0.3, -0.1]), b256=(0.4, [0.3, 0.5]))
    (row,) = regimes.energy_map(View(run)).rows
    assert [(cell.text, cell.under, cell.kind) for cell in row.cells[1:]] == [
        ("more energy", "20 % more energy", "bad"), ("less energy", "40 % less energy", "good"),
    ]  # fmt: skip
    view = flagged(run, "digits/softmax-threshold/clean/b256", "few-ticks", "modelled")
    view.windows["meter"] = view.windows["meter"].replace({"modelled": "nvml"})
    (row,) = regimes.energy_map(view).rows
    assert (row.cells[2].text, row.cells[2].under) == ("cannot tell", "flagged: few-ticks")


def test_modelled_joules_are_on_no_map(small_run):
    run = small_run()
    for record in run.cases:
        if record["kind"] == "clean":
            record.update(energy_provenance="modelled: MACs", saving_energy=0.5, saving_energy_ci=[0.4, 0.6])
    assert regimes.energy_map(View(run)) is None
    assert regimes.worth(View(run))[-1] == "No power sensor answered, so that nothing is said of joules."


def test_the_page_answers_in_words_when_it_is_worth_it(small_run):
    run = by_sensor(small_run(), b1=(-0.2, [-0.3, -0.1]), b256=(0.4, [0.3, 0.5]))
    told = {1: [-0.4, -0.1], 256: [0.1, 0.3]}
    for record in run.cases:
        if record["kind"] == "clean":
            record.update(saving_time=sum(told[record["batch_size"]]) / 2, saving_time_ci=told[record["batch_size"]])
    view = flagged(run, "", "")
    assert regimes.worth(view) == [
        "Faster than its plain net: Softmax threshold at batch 256.",
        "Slower: Softmax threshold at batch 1.",
        "With less energy by the power sensor: Softmax threshold at batch 256.",
        "With more: Softmax threshold at batch 1.",
    ]
    for record in run.cases:
        if record["kind"] == "clean":
            record.update(saving_time=-0.3, saving_time_ci=[-0.4, -0.1], energy_provenance=None)
    assert regimes.worth(flagged(run, "", ""))[:2] == [
        "Faster than its plain net: nowhere.", "Slower: Softmax threshold at batch 1 and 256.",
    ]  # fmt: skip


def test_a_dot_stands_where_its_figure_is_and_the_band_where_noise_is(bench_run, view):
    made = recovery.chart(view)
    by_case = {record["case"]: record for record in bench_run.cases}
    low, high = recovery._span([r for s in view.subjects for r in recovery._shown(view, s)])
    row = next(row for row in made.rows if row.cells and row.cells[0].text == "PGD 8/255 (torchattacks)")
    attack, noise = (by_case[f"digits/softmax-threshold/{name}/b256"] for name in ("pgd", "noise"))
    place = float(re.search(r'<b class="attack" style="left:([\d.]+)%', row.cells[1].markup)[1])
    assert place == pytest.approx(100 * (attack["recovery"] - low) / (high - low), abs=0.06)
    left, width = map(
        float, re.search(r'<i class="band" style="left:([\d.]+)%;width:([\d.]+)%', row.cells[1].markup).groups()
    )
    assert left == pytest.approx(100 * (noise["recovery_ci"][0] - low) / (high - low), abs=0.06)
    assert width == pytest.approx(100 * (noise["recovery_ci"][1] - noise["recovery_ci"][0]) / (high - low), abs=0.11)
    assert row.cells[2].value == noise["recovery"]


def test_bars_of_exits_are_whole_and_the_last_exit_is_darkest(bench_run, view):
    samples = pd.read_parquet(bench_run.path / "samples.parquet")
    for subject, stack in zip(view.subjects, exits.stacks(view), strict=True):
        assert stack.key[-1].shade == "100%"
        assert [part.shade for part in stack.key] == sorted((p.shade for p in stack.key), key=lambda s: float(s[:-1]))
        for bar, record in zip(stack.bars, view.rows(subject), strict=True):
            assert sum(part.share for part in bar.segments) == pytest.approx(1)
            rows = samples[samples["case"] == record["evaluation"]]
            column = "depth" if subject.model == "skipnet" else "exit"
            shares = rows[column].value_counts(normalize=True).sort_index().tolist()
            assert [part.share for part in bar.segments] == pytest.approx(shares)


def test_what_does_not_exist_has_no_bar():
    assert str(tracks.bars([(None, "clean"), (2.0, "control")])).count("<i") == 1
    assert "arm" not in tracks.dot(0.2, None, span=(0, 1), role="attack")
