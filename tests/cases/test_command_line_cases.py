"""How commands end: in our words, with an exit code that means what it says, and nothing asked for is ignored."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest

from adaptbench.bench import pieces
from adaptbench.data.places import missing, search_roots
from adaptbench.errors import UsageError
from adaptbench.kinds import _RUNNERS
from adaptbench.watching import Lines

QUICK = ("-o", "measure=null", "-o", "sweeps={}", "-o", "references=[]", "-o", "models=[skipnet]", "--limit", "4")


def plant(monkeypatch, error, *, at=()):
    """Make some conditions fail, or all."""
    real = pieces.evaluate_chunk

    def evaluate(evaluation, *args, **kwargs):
        if not at or evaluation.id.rpartition("/")[2] in at:
            raise error
        return real(evaluation, *args, **kwargs)

    monkeypatch.setattr(pieces, "evaluate_chunk", evaluate)


@pytest.mark.case("own")
def test_one_condition_that_cannot_run_leaves_the_others(adaptbench, monkeypatch):
    """One failing condition lost the whole run with exit code 1, a regression's; it is null and the code is 3."""
    assert adaptbench("run", "SMALL", *QUICK, "--out", "whole").code == 0
    plant(monkeypatch, TypeError("three channels [/x] only"), at=("ilfo",))
    done = adaptbench("run", "SMALL", *QUICK)
    assert done.code == 3
    assert "three channels [/x] only" in done.out
    assert "failed" in done.out
    assert "three channels [/x] only" in Path("reports/small.html").read_text(encoding="utf-8")
    assert adaptbench("baseline", "runs/small").code == 2, "a baseline with holes lets everything pass there"
    assert adaptbench("check", "runs/small", "--baseline", "whole").code == 3


@pytest.mark.case("own")
@pytest.mark.parametrize("error", [ValueError("planted"), SystemExit(1), MemoryError()])
def test_nothing_that_runs_is_an_input_error(adaptbench, monkeypatch, error):
    """Where no case can be run at all, even by a plug-in's own exit, the code is 2 and never 1."""
    plant(monkeypatch, error)
    assert adaptbench("run", "SMALL", *QUICK, "--no-report").code == 2


@pytest.mark.case("own")
@pytest.mark.parametrize("error", [KeyError("planted"), SystemExit(1), MemoryError(), RecursionError("planted")])
def test_an_unexpected_error_is_one_message_and_never_a_regression(adaptbench, monkeypatch, tmp_path, error):
    """Exceptions outside of cases ended with exit code 1; they are 2, with the traceback in a file."""

    def raises(*_args, **_kwargs):
        raise error

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setitem(_RUNNERS, "suite", raises)
    done = adaptbench("run", "SMALL")
    assert done.code == 2
    assert done.err.startswith("error: ")
    kept = ["Traceback" in file.read_text(encoding="utf-8") for file in tmp_path.glob("adaptbench-*.txt")]
    assert kept == ([] if isinstance(error, MemoryError) else [True])


@pytest.mark.case("own")
def test_ctrl_c_says_what_is_kept(adaptbench, monkeypatch):
    """Ctrl-C ended with 130 and no word; it says what is kept and how to go on."""
    plant(monkeypatch, KeyboardInterrupt(), at=("ilfo",))
    done = adaptbench("run", "SMALL", *QUICK)
    assert done.code == 130
    assert "2 of 3 evaluations are kept in runs/small" in done.err
    assert "same command goes on" in done.err


@pytest.mark.case("own")
@pytest.mark.parametrize("words", [("run", "SMALL", "--dry-run"), ("run", "replicate-softmax-threshold")])
def test_a_missing_card_is_said_before_anything_else(adaptbench, words):
    """`--device cuda` without a card gave torch's traceback where the plan is made; it is a usage error everywhere."""
    done = adaptbench(*words, "--device", "cuda")
    assert done.code == 2
    assert "torch sees 0 CUDA devices" in done.err


@pytest.mark.case("own")
def test_square_brackets_are_text_everywhere(adaptbench):
    """`[/x]` and `[lr=0.1]` in ids, titles and paths were read as markup: an error after the run, or lost words."""
    text = Path(__file__).parent.parent.joinpath("bench", "small.yaml").read_text(encoding="utf-8")
    named = text.replace("title: small", "title: 'a [/b] [red]'").replace("steps: 6}", "steps: 6, id: 'x[/x][lr=0.1]'}")
    Path("suites").mkdir()
    Path("suites/s[y].yaml").write_text(named, encoding="utf-8")
    name = "s[y]"
    done = adaptbench("run", name, *QUICK, "--out", "d[/x]")
    assert done.code == 0, done.err
    assert "x[/x][lr=0.1]" in done.out
    assert "d[/x]" in done.out.splitlines()[-2]
    assert "x[/x][lr=0.1]" in done.err, "progress"
    assert "a [/b] [red]" in adaptbench("list", "suites").out
    assert "x[/x][lr=0.1]" in adaptbench("run", name, *QUICK, "--dry-run").out


@pytest.mark.case("own")
def test_a_page_lies_with_its_run(adaptbench):
    """A second run with another --out overwrote reports/NAME.html of the first."""
    adaptbench("run", "SMALL", *QUICK)
    first = Path("reports/small.html").read_bytes()
    done = adaptbench("run", "SMALL", *QUICK, "-o", "conditions=[clean]", "--out", "other")
    assert Path("reports/small.html").read_bytes() == first
    assert "other/report.html" in done.out
    assert Path("other/report.html").is_file()


@pytest.mark.case("own")
def test_a_baseline_is_read_before_the_run_overwrites_it(adaptbench):
    """`run --out d --baseline d` compared the new run with itself: always a pass; by any name of d it is refused."""
    adaptbench("run", "SMALL", *QUICK, "--out", "d")
    Path("link").symlink_to("d")
    before = Path("d/manifest.json").read_bytes()
    for name in ("d", "link", "./d/../d"):
        assert adaptbench("run", "SMALL", *QUICK, "--limit", "3", "--out", "d", "--baseline", name).code == 2
    assert Path("d/manifest.json").read_bytes() == before
    assert adaptbench("run", "SMALL", *QUICK, "--out", "e", "--baseline", "d").code != 2


@pytest.mark.case("own")
@pytest.mark.parametrize(
    ("word", "says"), [("model", "skipnet"), ("policy", "oracle"), ("suite", "bench"), ("Models", "skipnet")]
)
def test_the_singular_of_a_list_works(adaptbench, word, says):
    """`list model` was refused, with a suggestion that did not say what to type."""
    done = adaptbench("list", word)
    assert done.code == 0
    assert says in done.out
    assert "Did you mean 'models'" in adaptbench("list", "modles").err


@pytest.mark.case("own")
def test_one_broken_file_does_not_break_a_list(adaptbench):
    """A file in suites/ or attacks/ that is no YAML broke `list`; it is named once, the others are listed."""
    for folder, shown in (("suites", "bench"), ("attacks", "ilfo")):
        Path(folder).mkdir()
        Path(folder, "bad.yaml").write_text("a: &a [*a]\n", encoding="utf-8")
        done = adaptbench("list", folder)
        assert done.code == 0
        assert shown in done.out
        assert done.err.count("bad.yaml") == 1


@pytest.mark.case("own")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("redirect", "code"), [("> /dev/full", 2), ("2> /dev/full > /dev/full", 2), ("| true; exit ${PIPESTATUS[0]}", 141)]
)
def test_a_full_disk_or_a_reader_that_left_is_no_regression(redirect, code, unbuffered):
    """Output that cannot be written ended with a traceback and 1 or 120; it is one message, 2 or 141."""
    code_text = "import time; from adaptbench import cli; time.sleep(0.3); cli.main()"
    script = f'{sys.executable} -c "{code_text}" list models {redirect}'
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == code, done
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    if redirect == "> /dev/full":
        assert done.stderr.startswith("error: ")


@pytest.mark.case("own")
def test_a_terminal_without_unicode_gets_plain_characters():
    """`PYTHONIOENCODING=ascii` ended with UnicodeEncodeError; what the encoding lacks is spelt plainly."""
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "adaptbench", "list", "policies"]
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert b"residual-accuracy thresholds, eps at run time" in done.stdout


@pytest.mark.case("own")
def test_a_pipe_hears_of_each_case_and_of_long_ones():
    """Piped output had no progress for fifteen minutes; it has a line a stage, and one whenever ten seconds pass."""
    from rich.console import Console

    now, console = [0.0], Console(width=100, markup=False, record=True, file=io.StringIO())
    lines = Lines(console, every_s=9.0, clock=lambda: now[0])
    lines.begin("crafting  ilfo → net[/x]", 10)
    for second in range(31):
        now[0] = float(second)
        lines.advance(second // 4)
        lines.beat()
    lines.end()
    said = console.export_text(clear=False).splitlines()
    assert [line for line in said if "so far" in line] == [
        f"crafting  ilfo → net[/x]  {share} %, {at} s so far"
        for share, at in ((20, "9.00"), (40, "18.0"), (60, "27.0"))
    ]
    assert said[-1] == "crafting  ilfo → net[/x]  took 30.0 s"
    lines.begin("crafting  ilfo → net", 10)
    lines.advance(10, "cell 7 of 52, about 1:20 left")
    lines.end()
    assert console.export_text(clear=False).splitlines()[-1].endswith("took 0 s, cell 7 of 52, about 1:20 left")
    assert "\x1b" not in console.export_text(clear=False)
    with Lines(console, every_s=0.05):
        time.sleep(0.2)  # silence of our own making: the watching thread speaks
    assert "preparing" in console.export_text()


@pytest.mark.case("own")
@pytest.mark.parametrize("said", ["no such file: a/b", "Looked in:", "it has: {1} ", "Whole.", "Whole?", "a, b …", ""])
def test_errors_end_in_whole_sentences(said):
    """Messages ended in a colon, or where a foreign error's text did."""
    error = UsageError(said, why=said, todo=said)
    for part in (error.seen, error.why, error.todo):
        assert part == "" or part.endswith((".", "?", "…"))
        assert not part.endswith((":.", "..", "?.", "….", " ."))
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.case("own")
def test_a_data_set_that_is_nowhere_names_each_place_in_one_line(tmp_path, monkeypatch):
    """`doctor` showed the first line only: "Looked in:)"."""
    monkeypatch.setenv("ADAPTBENCH_DATA", str(tmp_path))
    error = missing("cifar10", search_roots(None), files="cifar10.npz", remotes=[], size="1 MB")
    (line,) = error.seen.splitlines()
    assert str(tmp_path) in line
    assert line.endswith(".")


@pytest.mark.case("own")
def test_streams_that_cannot_be_prepared_are_no_regression(monkeypatch):
    """An unwritable stream with text pending ended with 1, the gate's code, before a command began."""
    from adaptbench import terminal

    def full() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(terminal, "prepare", full)
    assert terminal.run(lambda **_: 0) == 2
