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


def test_flags_of_either_net_are_said(small_run):
    run = small_run()
    whole = run.windows()
    whole.loc[whole["case"] == "static:softmax-threshold/b1", "flags"] = "throttled"
    view = View(run)
    view.__dict__["windows"] = whole
    assert next(pace.flags for pace in clock.paces(view, view.subjects[0])) == "throttled"
    assert "flagged: throttled" in [cell.under for row in regimes.chart(view).rows for cell in row.cells]


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
