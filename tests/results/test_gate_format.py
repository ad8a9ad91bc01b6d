from __future__ import annotations

import json
import re
from xml.etree import ElementTree

import pytest

from adaptbench.errors import UsageError
from adaptbench.results.gate_format import FORMATS, render
from adaptbench.results.gate_rows import GateReport, GateRow, RowVerdict

V = RowVerdict


def made(verdict, **more):
    given = {"seen": 0.00012, "baseline": 0.0001, "change": 0.2, "low": 0.18, "high": 0.22, "margin": 0.03}
    return GateRow(
        "d/m/clean/b1", "energy_j_per_sample", "increase of at most 3 %", verdict, "because\n100 %", **given | more
    )


REPORT = GateReport(
    "runs/bench",
    "b.json",
    (
        made(V.PASS, detectable=0.041),
        made(V.REGRESSION),
        made(V.INCONCLUSIVE),
        made(V.IMPROVEMENT),
        GateRow("d/m/<x>\x00", "case", "present", V.MISSING, "gone"),
        GateRow("*", "macs_mean", "exact", V.NOT_COMPARABLE, "another suite", seen=410_000.0),
    ),
    ("a note: 5 %",),
)
EMPTY = GateReport("runs/bench", "", (), ())


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        ([V.PASS], 0),
        ([V.PASS, V.IMPROVEMENT], 0),
        ([V.PASS, V.REGRESSION, V.INCONCLUSIVE], 1),
        ([V.MISSING], 1),
        ([V.PASS, V.INCONCLUSIVE], 3),
        ([V.PASS, V.NOT_COMPARABLE], 3),
        ([V.NOT_COMPARABLE], 3),
        ([], 3),
    ],
)
def test_exit_codes(verdicts, code):
    assert GateReport("", "", tuple(made(verdict) for verdict in verdicts)).exit_code == code


def test_text():
    text = render(REPORT)
    lines = text.splitlines()
    assert lines[0] == "runs/bench against b.json"
    assert "regression" in lines[1]
    assert "0.00012 J, was 0.0001 J, +20 % [+18 %, +22 %], allowed: increase of at most 3 %" in text
    assert "detectable from 4.1 %" in text
    assert "410,000 MACs" in text
    assert lines[-1].startswith("regression: 4 comparisons (1 pass, 1 regression, 1 improvement, 1 inconclusive")


def test_every_format_says_how_many_comparisons_were_made():
    for form in FORMATS:
        assert re.search(r'4 comparisons|"comparisons": 4', render(REPORT, form))
        assert re.search(r'0 comparisons|"comparisons": 0', render(EMPTY, form))


def test_json():
    document = json.loads(render(REPORT, "json"))
    assert document["exit_code"] == 1
    assert document["rows"][1]["verdict"] == "regression"
    assert document["rows"][1]["unit"] == "J"
    assert document["rows"][1]["low"] == 0.18


def test_junit_never_skips_what_could_not_be_told():
    suite = ElementTree.fromstring(render(REPORT, "junit")).find("testsuite")
    counted = {name: int(suite.get(name)) for name in ("tests", "failures", "errors", "skipped")}
    assert counted == {"tests": 6, "failures": 2, "errors": 2, "skipped": 0}
    assert len(suite.findall("testcase")) == 6
    assert len(suite.findall("testcase/failure")) == 2
    assert {case.get("classname") for case in suite.findall("testcase")} >= {"d/m/<x>"}
    empty = ElementTree.fromstring(render(EMPTY, "junit")).find("testsuite")
    assert empty.get("errors") == "1"
    assert len(empty.findall("testcase/error")) == 1


def test_github():
    lines = render(REPORT, "github").splitlines()
    assert len(lines) == 7
    assert sum(line.startswith("::error title=regression%3A energy") for line in lines) == 1
    assert all("because%0A100 %25" in line for line in lines if "because" in line)
    assert lines[-1].startswith("::error title=adaptbench gate::regression: 4 comparisons")
    assert render(EMPTY, "github").startswith("::warning")


def test_unknown_format():
    with pytest.raises(UsageError, match="Did you mean 'junit'"):
        render(REPORT, "jnuit")
