"""The gate over studies: equal figures pass, each kind of worse one is red, what cannot be told is 3."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from adaptbench.errors import AdaptBenchError
from adaptbench.results.gate import compare
from adaptbench.results.gate_rows import RowVerdict
from adaptbench.results.gate_studies import StudySide
from adaptbench.results.studies import StudyRun

PUBLISHED = Path(__file__).resolve().parents[2] / "reports" / "published"
FILE = PUBLISHED / "replicate-softmax-threshold.json"


@pytest.fixture(scope="module")
def record():
    return StudyRun.read(FILE)


@pytest.fixture
def changed(record):
    """The study with its first graph changed."""

    def change(edit, **more):
        other = copy.deepcopy(record)
        edit(next(iter(other["graphs"].values())))
        return StudySide.compare(StudySide(FILE, other | more), StudySide(FILE, record))

    return change


def point(graph):
    return graph["policies"]["softmax-threshold"]["chosen"][0]


def test_a_study_against_itself_is_green(changed, record):
    report = changed(lambda graph: None)
    assert all(row.verdict is RowVerdict.PASS for row in report.rows if row.metric != "net_speedup")
    untimed = StudySide(FILE, record | {"graphs": {k: g | {"wall_clock": []} for k, g in record["graphs"].items()}})
    report = StudySide.compare(untimed, untimed)
    assert (report.exit_code, report.comparisons > 100) == (0, True)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda g: point(g).update(accuracy=point(g)["accuracy"] - 1e-4), "for the worse"),
        (lambda g: point(g).update(macs_mean=point(g)["macs_mean"] * 1.0001), "for the worse"),
        (lambda g: point(g).update(macs_mean=point(g)["macs_mean"] * 0.99), "write a new baseline"),
        (lambda g: g["resplits"][0].update(broken=g["resplits"][0]["broken"] + 1), "for the worse"),
        (lambda g: g["policies"].pop("uniform"), "the run has not"),
        (lambda g: g.update(reference_accuracy=g["reference_accuracy"] - 0.01), "for the worse"),
    ],
)
def test_what_got_worse_is_red(changed, edit, said):
    report = changed(edit)
    assert report.exit_code == 1
    assert any(said in row.reason for row in report.rows)


@pytest.mark.parametrize(
    ("edit", "more", "said"),
    [
        (lambda g: g["failed"].update(uniform="planted") or g["policies"].pop("uniform"), {}, "planted"),
        (lambda g: g["resplits"][0].update(count=7), {}, "7 re-splits"),
        (lambda g: g.update(wall_clock=[]), {}, "timed this point, the run did not"),
        (lambda g: None, {"device": {"fingerprint": "x", "name": "another"}}, "another device"),
        (lambda g: None, {"limit": 10}, "another limit"),
        (lambda g: None, {"overrides": ["drops=[0]"]}, "other overrides"),
        (lambda g: None, {"text": "cite: x", "sha256": "y"}, "says something else"),
        (lambda g: g["missing"].update(resplits="planted"), {}, "planted"),
    ],
)
def test_what_cannot_be_told_is_never_green(changed, edit, more, said):
    report = changed(edit, **more)
    assert report.exit_code == 3
    assert any(said in row.reason for row in report.rows)


def test_a_figure_that_a_tie_explains_is_not_told(record):
    graphs = copy.deepcopy(record["graphs"])
    executed = next(
        p for g in graphs.values() for f in g["policies"].values() for p in f["chosen"] if p.get("executed")
    )
    executed["executed"]["ties"] = 3
    executed["accuracy"] -= 2 / executed["executed"]["n"]
    report = StudySide.compare(StudySide(FILE, record | {"graphs": graphs}), StudySide(FILE, record))
    assert report.exit_code == 3


@pytest.mark.parametrize(("factor", "code"), [(1.0, 0), (0.8, 1), (0.9, 3)])
def test_speed_ups_are_told_by_their_intervals(record, factor, code):
    def timed(by):
        graphs = copy.deepcopy(record["graphs"])
        for graph in graphs.values():
            row = {"point": "p", "batch_size": 1, "blocks": 8, "net_speedup": 1.5 * by}
            graph["wall_clock"] = [row | {"net_speedup_ci": [1.49 * by, 1.51 * by]}]
        return StudySide(FILE, record | {"graphs": graphs})

    assert StudySide.compare(timed(factor), timed(1.0)).exit_code == code


def test_the_gate_can_fire(record):
    found = list(StudySide(FILE, record).planted_faults())
    assert len(found) == 5
    assert all(caught for _, caught, _ in found)


def stating(gate):
    return {"gate": gate}


def test_a_stated_gate_watches_what_it_names(changed, record):
    """A point that got dearer is nobody's business where accuracy alone is watched."""
    only = {"accuracy": {"exact": True, "cases": ["point"]}}
    dearer = StudySide.compare(StudySide(FILE, record), StudySide(FILE, record), only)
    assert {row.metric for row in dearer.rows} == {"accuracy"}
    graphs = copy.deepcopy(record["graphs"])
    point(next(iter(graphs.values())))["macs_mean"] *= 1.5
    assert StudySide.compare(StudySide(FILE, record | {"graphs": graphs}), StudySide(FILE, record), only).exit_code == 0
    assert changed(lambda g: point(g).update(macs_mean=point(g)["macs_mean"] * 1.5)).exit_code == 1


@pytest.mark.parametrize(
    ("rule", "by", "code"),
    [
        ({"accuracy": {"drop": "1 points"}}, {"accuracy": -0.009}, 0),
        ({"accuracy": {"drop": "1 points"}}, {"accuracy": -0.02}, 1),
        ({"accuracy": {"drop": "1 points"}}, {"accuracy": 0.02}, 0),
        ({"macs_mean": {"increase": "5 %"}}, {"share": 1.04}, 0),
        ({"macs_mean": {"increase": "5 %"}}, {"share": 1.06}, 1),
        ({"macs_mean": {"max": 1e15}}, {"share": 1.5}, 0),
        ({"macs_mean": {"max": 1.0}}, {}, 1),
        ({"broken": {"increase": "3 points", "cases": ["re-splits"]}}, {"broken": 3}, 0),
        ({"broken": {"increase": "3 points"}}, {"broken": 4}, 1),
        ({"broken": {"max": 100}}, {"broken": 4}, 0),
        ({"accuracy": {"drop": "1 points", "cases": ["joint-threshold"]}}, {"accuracy": -0.5}, 0),
        ({"accuracy": {"drop": "1 points", "cases": ["nosuch"]}}, {}, 3),
        ({"net_speedup": {"drop": "10 %"}}, {}, 3),
    ],
)
def test_tolerances_mean_what_a_suites_do(record, rule, by, code):
    graphs = copy.deepcopy(record["graphs"])
    first = next(iter(graphs.values()))
    found = first["policies"]["softmax-threshold"]["chosen"][0]
    found["executed"] = None
    kept = copy.deepcopy(graphs)
    found["accuracy"] += by.get("accuracy", 0)
    found["macs_mean"] *= by.get("share", 1)
    row = next(row for row in first["resplits"] if row["count"] == 100)
    row["broken"] += by.get("broken", 0)
    for side in (graphs, kept):
        for graph in side.values():
            graph["wall_clock"] = []
    sides = [StudySide(FILE, record | {"graphs": side} | stating(rule)) for side in (graphs, kept)]
    report = StudySide.compare(*sides)
    assert report.exit_code == code, [row for row in report.rows if row.verdict is not RowVerdict.PASS]


def test_the_judged_study_does_not_loosen_the_rules(record):
    lax, strict = {"accuracy": {"drop": "5 points"}}, {"accuracy": {"drop": "1 points"}}

    def judge(own, kept):
        return StudySide.compare(StudySide(FILE, record | stating(own)), StudySide(FILE, record | stating(kept)))

    assert judge(lax, strict).exit_code == 3
    assert any("loosened or dropped" in row.reason for row in judge(lax, strict).rows)
    assert judge(lax, {}).exit_code == 3, "a baseline that states none was held to those of every study"
    assert judge(strict, lax).exit_code == 0
    assert {row.rule for row in judge(strict, lax).rows} == {"drop of at most 5 points", "drop of at most 1 points"}


def test_the_same_file_with_another_rule_is_compared(record):
    gate = {"accuracy": {"drop": "5 points"}}
    here = record | stating(gate) | {"text": record["text"] + "\ngate: {accuracy: {drop: 5 points}}\n", "sha256": "x"}
    report = StudySide.compare(StudySide(FILE, here), StudySide(FILE, record | stating(gate)))
    assert report.exit_code == 0


def test_a_fault_is_planted_beyond_what_a_rule_allows(record):
    lax = {"accuracy": {"drop": "30 points"}, "macs_mean": {"max": 1e15}}
    found = {fault: caught for fault, caught, _ in StudySide(FILE, record | stating(lax)).planted_faults()}
    assert found == {
        "none (control)": True,
        "five points of accuracy lost": True,
        "one and a half times the MACs": None,
        "one more re-split broken": None,
        "a policy left out": True,
    }


def test_a_study_is_compared_with_a_study_only(record, tmp_path):
    with pytest.raises(AdaptBenchError, match="holds no study"):
        compare(FILE, PUBLISHED / "replicate-gates.json")
    with pytest.raises(AdaptBenchError, match="study's figures"):
        compare(PUBLISHED / "replicate-gates.json", FILE)
    with pytest.raises(AdaptBenchError, match="the run itself"):
        compare(FILE, FILE)
    (tmp_path / "same.json").write_text(json.dumps(record | {"id": "one"}), encoding="utf-8")
    (tmp_path / "again.json").write_text(json.dumps(record | {"id": "one"}), encoding="utf-8")
    assert compare(tmp_path / "same.json", tmp_path / "again.json").exit_code == 3
