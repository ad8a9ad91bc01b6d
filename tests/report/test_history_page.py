"""A history in the terminal, for programs and on its page."""

import json
import re
import sys
from html import unescape
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

sys.path.append(str(Path(__file__).resolve().parents[1]))

import synthetic_run
from synthetic_run import MODELS, Plan, write_run

from adaptbench import terminal
from adaptbench.cli import app
from adaptbench.report import trends
from adaptbench.report.figures.sparkline import bars, line
from adaptbench.report.history_page import history_page
from adaptbench.results.history import Series, Step, Value, history
from adaptbench.results.store import Run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four runs; ILFO gets weaker from the third on."""
    place = tmp_path_factory.mktemp("history") / "runs"
    plan = Plan(models=MODELS[:2], conditions=("clean", "ilfo"), n=120, batches=(8,), sweep=0, crafted=False)
    with pytest.MonkeyPatch.context() as patch:
        for number in range(4):
            patch.setitem(synthetic_run.STRENGTH, "ilfo", 0.06 if number < 2 else 0.5)
            write_run(place / f"r{number}", plan, id=f"i{number}", started=f"2026-03-0{number + 1}T08:00:00+00:00")
    return place


@pytest.fixture
def tell(monkeypatch):
    """What `adaptbench history` says, in 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")

    def told(*words):
        return CliRunner().invoke(app, ["history", *map(str, words)])

    return told


def test_the_terminal_says_the_verdict_first_and_fits(folder, tell):
    said = tell(folder)
    assert said.exit_code == 0
    lines = said.stdout.splitlines()
    (trend,) = history([folder]).trends
    steps = [step for _, step in trend.stepped]
    assert (
        lines[0] == f"{len(steps)} steps beyond noise in {len(trend.series)} figures over 4 runs: all for the better."
    )
    assert max(map(len, lines)) <= 80
    assert any("taken back" in one and "██▁▁" in one and "run 3: −" in one for one in lines)
    everything = tell(folder, "-v").stdout.splitlines()
    assert max(map(len, everything)) <= 80
    assert sum("  time a sample" in one for one in everything) == 4
    assert tell(folder, "-q").stdout.splitlines() == lines[:1]


def test_programs_get_every_value_and_step(folder, tell):
    document = json.loads(tell(folder, "--json").stdout)
    assert document["kind"] == "history"
    (trend,) = document["trends"]
    raw = pd.concat([pd.DataFrame(Run.open(folder / f"r{n}").cases).assign(run=n) for n in range(4)])
    for series in trend["series"]:
        column = "evaluation" if series["kind"] == "counted" else "case"
        mine = raw[raw[column] == series["case"]].drop_duplicates("run")
        assert [value["value"] for value in series["values"]] == mine[series["metric"]].tolist()
    stepped = {(s["case"], s["metric"]): s["steps"] for s in trend["series"] if s["steps"]}
    assert all(step["run"] == 2 for steps in stepped.values() for step in steps)
    case = f"digits/{MODELS[0].name}/ilfo"
    samples = [Run.open(folder / f"r{n}").samples([case])["macs"].mean() for n in (1, 2)]
    assert stepped[case, "macs_mean"][0]["change"] == pytest.approx(samples[1] / samples[0] - 1)


def test_nothing_to_read_is_an_input_error(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["adaptbench", "history", str(tmp_path), str(tmp_path / "nowhere")])
    assert terminal.run(app) == 2
    assert "it holds no run and no kept summary (and 1 more)" in capsys.readouterr().err


def test_the_page_shows_each_figure_once_with_its_steps_first(folder):
    found = history([folder])
    (trend,) = found.trends
    page = history_page(found)
    assert page == history_page(history([folder]))
    assert page.count('<svg class="spark"') == len(trend.series)
    first = page.partition("<details")[0]
    assert first.count('<svg class="spark"') == len(trend.moved)
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", re.search(r'id="t0-steps".*?</table>', page, re.S)[0], re.S)[1:]
    assert len(rows) == len(trend.stepped)
    for row, (series, step) in zip(rows, trend.stepped, strict=True):
        values = [float(v) for v in re.findall(r'data-v="([^"]+)"', row)]
        before, after = series.values[step.since].value, series.values[step.run].value
        assert values == pytest.approx([step.run + 1, before, after, step.change], rel=1e-9)
        assert f'data-t="{series.case}"' in row
    assert trends.verdict(found) in unescape(page).replace("\u00a0", " ")


def test_a_line_goes_up_where_the_figure_does():
    values = (Value(1.0, 0.9, 1.1), None, Value(3.0, 2.5, 3.5), Value(2.0))
    step = Step(2, 0, 2.0, 1.0, 3.0, True, "")
    series = Series("a/b/c", "macs_mean", "counted", values, (step,), (), None, {})
    drawn = line(series, "told <b>")
    points = [tuple(map(float, p.split(","))) for p in re.search(r'points="([^"]+)"', drawn)[1].split()]
    assert len(points) == 3
    heights = [y for _, y in points]
    assert heights[1] < heights[2] < heights[0]
    assert points[2][0] - points[1][0] == pytest.approx((points[1][0] - points[0][0]) / 2, abs=0.1)
    assert drawn.count('class="step worse"') == 1
    assert "told &lt;b&gt;" in drawn
    assert bars(values, 8) == "▁·█▅"
    assert bars([Value(2.0), Value(2.0)], 8) == "▄▄"
