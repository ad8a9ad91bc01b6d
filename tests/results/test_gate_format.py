from __future__ import annotations

import json
import re
from xml.etree import ElementTree

import pytest

from adaptbench.errors import UsageError
from adaptbench.results.gate_format import FORMATS, figures, render
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
    assert lines[0].startswith("regression: 4 comparisons (1 pass, 1 regression, 1 improvement, 1 inconclusive")
    assert lines[1] == "runs/bench against b.json"
    assert "regression" in lines[2]
    assert "120 µJ, was 100 µJ, +20 % [+18, +22], allowed: increase of at most 3 %" in text
    assert "detectable from 4.1 %" in text
    assert "410 kMACs" in text
    assert lines[-1].startswith("  pass"), "failures first"
    assert render(REPORT, verbose=False).splitlines()[-1] == "  pass           1 of them: -v names each"


@pytest.mark.parametrize(
    ("seen", "baseline", "unit", "told"),
    [
        (73_974.4, 73_974.4, "MACs", ["74.0 kMACs", "as before"]),
        (73_975.0, 73_974.0, "MACs", ["73.975 kMACs", "was 73.974 kMACs"]),
        (0.9694, 0.9722, "1", ["96.9 %", "was 97.2 %"]),
        (0.0, 0.2, "1", ["0 %", "was 20.0 %"]),
        (12.0, 12.0, "MACs", ["12.0 MACs", "as before"]),
    ],
)
def test_three_digits_or_as_many_as_tell_two_figures_apart(seen, baseline, unit, told):
    metric = {"MACs": "macs_mean", "1": "accuracy"}[unit]
    row = GateRow("d/m/clean", metric, "exact", V.PASS, "", seen, baseline)
    assert figures(row).split(", ") == told


@pytest.mark.parametrize(
    ("metric", "rule", "margin", "baseline", "can_fail"),
    [
        ("recovery", "increase of at most 10 points", 0.1, 0.85, True),
        ("recovery", "increase of at most 10 points", 0.1, 0.97, False),
        ("accuracy", "drop of at most 5 points", 0.05, 0.97, True),
        ("accuracy", "drop of at most 5 points", 0.05, 0.04, False),
        ("recovery", "at most 0.5", 0.5, None, True),
        ("recovery", "at most 1", 1.0, None, False),
        ("macs_mean", "increase of at most 300 %", 3.0, 5e5, True),
        ("macs_mean", "exact", None, 5e5, True),
    ],
)
def test_a_row_that_cannot_fail_is_not_counted(metric, rule, margin, baseline, can_fail):
    row = GateRow("d/m/ilfo", metric, rule, V.PASS, "", 0.9, baseline, margin=margin)
    assert row.can_fail is can_fail
    report = GateReport("a", "b", (row,))
    assert (report.comparisons, report.exit_code) == ((1, 0) if can_fail else (0, 3))
    assert ("cannot fail    d/m/ilfo" in render(report)) is not can_fail
    assert row.judged(V.REGRESSION, "").can_fail, "what failed could"


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
