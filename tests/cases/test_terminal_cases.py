"""What the terminal shows: nothing cut at 80 columns, four things to know and not nineteen, an answer at once."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

sys.path.append(str(Path(__file__).resolve().parents[1]))

from synthetic_run import MODELS, Plan, write_run

from adaptbench.bench.notes import said_once
from adaptbench.console import MOST_NOTES, result_table, show_notes
from adaptbench.registry import DATA
from adaptbench.report import words
from adaptbench.results.store import Run
from adaptbench.watching import Bars


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    plan = Plan(models=(MODELS[0], MODELS[1]), conditions=("clean", "noise", "ilfo"), n=80, sweep=0)
    return Run.open(write_run(tmp_path_factory.mktemp("terminal") / "run", plan).path)


def printed(run, width):
    sink = io.StringIO()
    Console(width=width, file=sink).print(result_table(run.cases, run.manifest, width=width))
    return sink.getvalue()


@pytest.mark.case("own")
@pytest.mark.parametrize(("width", "energy"), [(80, False), (100, True), (120, True)])
def test_a_narrow_table_keeps_the_interval_and_cuts_no_figure(run, width, energy):
    """At 80 columns the interval was left out, and what stayed was cut: "accur…", "0.39 µJ mode…"."""
    text = printed(run, width)
    assert "…" not in text
    assert max(map(cell_len, text.splitlines())) <= width
    assert ("energy/sample" in text) is energy
    for title in ("accuracy", "MACs", "plain net", "taken back", "95 % interval"):
        assert title in text
    attacked = {c["evaluation"]: c for c in run.cases if c["kind"] in ("attack", "control")}.values()
    assert len(attacked) == 4
    for case in attacked:
        figures = [case["accuracy"], case["recovery"]]
        wanted = [*map(words.percent, figures), words.macs(case["macs_mean"]), words.interval(case["recovery_ci"])]
        wanted.append(words.percent(case["macs_mean"] / case["macs_full"], 0))
        assert any(all(figure in line for figure in wanted) for line in text.splitlines())


@pytest.mark.case("own")
def test_four_things_to_know_are_said_and_the_others_counted():
    """Nineteen stood below the table, eight of them of one attack."""
    notes = [f"note {i}: {'a word ' * 20}of 12 % of it" for i in range(19)]

    def said(**how):
        sink = io.StringIO()
        show_notes(Console(width=60, file=sink), notes, **how)
        return sink.getvalue()

    few = said(verbose=False)
    assert few.startswith("\n19 things to know")
    assert [line[4:11] for line in few.splitlines() if line.startswith("  · ")] == [
        f"note {i}:" for i in range(MOST_NOTES)
    ]
    assert few.splitlines()[-1].strip() == "15 more: on the page, or with -v"
    assert said(verbose=False, page=False).splitlines()[-1].strip() == "15 more: with -v"
    assert said().count("  · ") == 19
    assert max(map(len, said().splitlines())) <= 60
    assert " %" in few
    assert not any(line.strip().startswith("%") for line in said().splitlines()), "a figure keeps its unit"


@pytest.mark.case("own")
def test_an_attack_says_the_same_of_several_models_once():
    """EREBA stopped early on four models: that were four sentences."""
    stopped, still = (
        "{} of 40 inputs were asked fewer than 100 times: {} were spared",
        "for {} inputs nothing {{moved}}",
    )
    said = [("ereba", model, stopped.format(n, n)) for model, n in (("a", 11), ("b", 25), ("c", 7))]
    assert said_once([*said, ("ereba", "b", still.format(3)), ("other", "b", still.format(3))]) == [
        "ereba on a, b and c: 11, 25 and 7 of 40 inputs were asked fewer than 100 times: 11, 25 and 7 were spared",
        "ereba on b: for 3 inputs nothing {moved}",
        "other on b: for 3 inputs nothing {moved}",
    ]
    many = said_once([("ereba", f"m{n}", still.format(n)) for n in (10, 9, 11, 8, 30)])
    assert many == ["ereba on m10, m9, m11, m8 and m30: for 8 to 30 inputs nothing {moved}"]
    assert said_once([("ereba", "a", "same"), ("ereba", "a", "same")]) == ["ereba on a: same"]


@pytest.mark.case("own")
@pytest.mark.parametrize(
    ("command", "heavy"),
    [("--help", "torch numpy yaml"), ("list models", "torch"), ("list attacks", "torch"), ("list data", "torch"),
     ("list suites", "torch"), ("--version", "numpy"), ("doctor", "sklearn pandas codecarbon torchattacks")],
)  # fmt: skip
def test_a_command_imports_no_more_than_it_needs(command, heavy, tmp_path):
    """`doctor` took five seconds, of which scikit-learn's import was one: for a file of 57 kB."""
    code = f"""
import sys
from adaptbench import terminal
from adaptbench.cli import app
sys.argv = ["adaptbench", *{command.split()!r}]
code = terminal.run(app)
found = [name for name in {heavy.split()!r} if name in sys.modules]
sys.exit(f"imported: {{found}}" if found else code)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.case("own")
def test_bars_leave_room_for_the_words_at_80_columns():
    """A bar of 24 columns and three clocks left no room: which cell of how many, and how long, is what is asked."""
    sink = io.StringIO()
    with Bars(Console(width=80, file=sink, force_terminal=True)) as bars:
        bars.begin("crafting  torchattacks/PGD → softmax-threshold", 4)
        bars.advance(1, "cell 7 of 52, about 1:20 left")
    drawn = [line for line in Text.from_ansi(sink.getvalue()).plain.splitlines() if "25 %" in line]
    assert drawn
    assert all("cell 7 of 52, about 1:20 left" in line and cell_len(line) <= 80 for line in drawn)
    assert all(line.startswith("crafting  torchatt") for line in drawn)


@pytest.mark.case("own")
def test_doctor_misses_no_file_that_nobody_named(adaptbench):
    """`data: npz missing → Write npz:PATH` stood among what is wrong with a machine."""
    said = adaptbench("doctor").out
    assert "data: digits" in said
    for entry in DATA:
        assert (f"data: {entry.name} " in said) is not getattr(DATA.load(entry.name), "takes_argument", False)
