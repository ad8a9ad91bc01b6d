"""`--json` and `--quiet`: a shape that docs/ci.md states, on a stream of its own; one line where one is asked for."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from adaptbench.registry import METERS
from adaptbench.results.gate_format import headline
from adaptbench.results.gate_rows import GateReport
from adaptbench.results.schema import FIELDS

QUICK = ("-o", "measure=null", "-o", "sweeps={}", "-o", "references=[]", "-o", "models=[skipnet]", "--limit", "4")
STUDY = """
title: small
cite: somebody
graphs: {digits: {data: digits, model: softmax-threshold}}
policies: [softmax-threshold, uniform]
paper: softmax-threshold
ours: uniform
drops: [0.05]
limit: 40
published: [{claim: none, value: 1.0, why: other data}]
"""


def stated(kind):
    """Keys of a document, as docs/ci.md has them."""
    text = Path(__file__).parents[2].joinpath("docs", "ci.md").read_text(encoding="utf-8")
    table = text.split("<!-- json: start -->")[1].split("<!-- json: end -->")[0]
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| `")]
    (keys,) = [keys for _, name, keys in rows if name == f"`{kind}`"]
    return {"schema", "kind", *re.findall(r"`(\w+)`", keys)}


def document(ended, kind):
    """What stands on standard output: one object of the stated shape, and nothing else."""
    found = json.loads(ended.out)
    assert (found["schema"], found["kind"]) == (1, kind)
    assert set(found) == stated(kind)
    return found


@pytest.mark.case("own")
def test_a_run_as_json_holds_the_records_and_the_rest_goes_to_the_other_stream(adaptbench):
    """Programs scraped the table: the records are on standard output, table and progress are not."""
    done = adaptbench("run", "SMALL", *QUICK, "--json", "--no-report")
    found = document(done, "run")
    assert (done.code, found["exit_code"], found["computed"]) == (0, 0, True)
    assert found["cases"] == json.loads(Path("runs/small/summary.json").read_text(encoding="utf-8"))["cases"]
    assert (found["report"], found["report_missing"]) == (None, "no page was asked for")
    assert (found["gate"], found["gate_missing"]) == (None, "there was no baseline to compare with")
    assert "taken back" in done.err
    for case in found["cases"]:
        for name in {name for name in FIELDS if f"{name}_missing" in FIELDS} & set(case):
            assert case[name] is not None or case[f"{name}_missing"], f"{case['case']}: {name} is null without a reason"
    assert adaptbench("baseline", "runs/small", "--out", "kept.json").code == 0
    again = adaptbench("run", "SMALL", *QUICK, "--json", "--quiet", "--baseline", "kept.json")
    found = document(again, "run")
    assert (again.code, found["exit_code"], found["computed"]) == (3, 3, False)
    assert found["report"] == "reports/small.html"
    assert set(found["gate"]) == stated("gate")
    assert again.err == ""


@pytest.mark.case("own")
def test_a_plan_and_a_study_as_json(adaptbench):
    """Both kinds of experiment answer programs."""
    Path("study.yaml").write_text(STUDY, encoding="utf-8")
    plan = document(adaptbench("run", "SMALL", *QUICK, "--dry-run", "--json", "-q"), "plan")
    assert plan["about_s"] > sum(piece["about_s"] for piece in plan["pieces"]) > 0
    assert [piece["name"] for piece in plan["pieces"]] == [
        f"digits/skipnet/{name}" for name in ("clean", "noise", "ilfo")
    ]
    study = document(adaptbench("run", "study.yaml", "--json", "--no-report"), "study")
    assert study["graphs"]["digits"]["reference_accuracy"] > 0.5
    document(adaptbench("run", "study.yaml", "--dry-run", "--json"), "plan")


@pytest.mark.slow
@pytest.mark.case("own")
def test_streams_as_json(adaptbench):
    """A third kind of experiment has a document of its own."""
    quick = [
        "models=[static]",
        "arrivals=[poisson: {load: 0.5}]",
        "hostile=null",
        "check=null",
        "planner=null",
        "gate={}",
    ]
    quick += ["requests=50", "repeats=2", "measure.batch_sizes=[16]", "measure.blocks=1"]
    words = [word for pair in quick for word in ("-o", pair)]
    found = document(adaptbench("run", "serving", *words, "--limit", "8", "--json", "--no-report"), "serving")
    assert [row["mode"] for row in found["streams"]] == ["batches", "queues"]
    assert found["failed"] == {}


@pytest.mark.case("own")
def test_lists_findings_and_verdicts_as_json(adaptbench):
    """Every one is the shape that is stated."""
    names = [entry["name"] for entry in document(adaptbench("list", "meters", "--json"), "list")["entries"]]
    assert names == METERS.names() == adaptbench("list", "meters", "-q").out.split()
    seen = document(adaptbench("doctor", "--json"), "doctor")
    assert seen["found"] + len(seen["missing"]) == len(seen["findings"])
    assert all(one["usable"] or one["why"] for one in seen["findings"])
    (line,) = adaptbench("doctor", "-q").out.splitlines()
    assert line.startswith(f"found {seen['found']} of {len(seen['findings'])}; missing: ")
    adaptbench("run", "SMALL", *QUICK, "--no-report")
    adaptbench("run", "SMALL", *QUICK, "--no-report", "--out", "other")
    check = ("check", "other", "--baseline", "runs/small")
    verdict = document(adaptbench(*check, "--json"), "gate")
    rows = [row for row in verdict["rows"] if row["can_fail"]]
    assert verdict["comparisons"] == len(rows) > 0
    assert verdict["cannot_fail"] == len(verdict["rows"]) - len(rows)
    (line,) = adaptbench(*check, "-q", "--out", "gate.xml", "--format", "junit").out.splitlines()
    assert line.startswith("pass: ")
    assert "<testsuites>" in Path("gate.xml").read_text(encoding="utf-8")
    assert headline(GateReport("", "", ())).startswith("cannot tell")


@pytest.mark.case("own")
def test_a_quiet_run_is_one_line(adaptbench, monkeypatch):
    """Logs of nightly jobs want the verdict and the exit code."""
    done = adaptbench("run", "SMALL", *QUICK, "-q")
    assert (done.code, done.err) == (0, "")
    assert done.out == "done: 3 cases, none failed: runs/small\n"
    wrong = adaptbench("run", "bensh", "--json", "-q")
    assert (wrong.code, wrong.out) == (2, "")
    assert wrong.err.startswith("error: no suite")


@pytest.mark.case("own")
@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("run SMALL -q -v", "--verbose and --quiet were both given"),
        ("check x --baseline y --json --format junit", "--json and --format junit were both given"),
        ("check x --selftest --json", "--json was given beside --selftest"),
        ("list models -v", "no such option: -v"),
    ],
)
def test_wishes_that_do_not_go_together_are_refused(adaptbench, words, says):
    """Nothing that is asked for is ignored."""
    done = adaptbench(*words.split())
    assert done.code == 2
    assert says in done.err
