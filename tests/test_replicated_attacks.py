"""The section on attacks of docs/replication.md: its figures are those of the rows, its verdicts those of its bars."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from adaptbench.bench.runner import run_suite
from adaptbench.results.baseline import Baseline

ROOT = Path(__file__).parent.parent
SUITE = """\
data: digits
models: [softmax-threshold, skipnet]
references: [static]
conditions:
  - clean: {limit: 60}
  - deepsloth: {limit: 40, models: [softmax-threshold]}
  - ilfo: {eps: 24/255, steps: 12, limit: 20, models: [skipnet]}
  - noise: {eps: 24/255, limit: 30}
  - sponge: {steps: 4, limit: 8, models: [softmax-threshold]}
limit: 60
"""


@pytest.fixture(scope="module")
def page():
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import replicated_attacks
    finally:
        sys.path.pop(0)
    return replicated_attacks


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("attacks")
    (folder / "small.yaml").write_text(SUITE, encoding="utf-8")
    return run_suite(str(folder / "small.yaml"), out=folder / "run")


@pytest.fixture
def side(page, run):
    return page.Side(Baseline.of(run))


@pytest.fixture(scope="module")
def rows(run):
    """(model, condition) → rows by sample id, read by pandas alone."""
    frame = pd.read_parquet(run.path / "samples.parquet")
    keys = frame["case"].str.split("/", expand=True)
    return {key: part.set_index("sample_id") for key, part in frame.groupby([keys[1], keys[2]])}


@pytest.fixture(scope="module")
def told(run):
    return json.loads((run.path / "manifest.json").read_text(encoding="utf-8"))["models"]


def test_recovery_is_that_of_the_rows(page, side, rows, told):
    attacked, top = rows["skipnet", "ilfo"], told["skipnet"]["max_macs"]
    before = rows["skipnet", "clean"].loc[attacked.index]
    expected = (attacked["macs"].mean() - before["macs"].mean()) / (top - before["macs"].mean())
    found = page.recovery("skipnet", "ilfo")(side)
    assert found.value == pytest.approx(expected)
    assert found.n == 20
    assert found.told.startswith(page.number(100 * expected) + " % [")
    each = ((attacked["macs"] - before["macs"]) / (top - before["macs"]))[before["macs"] < top]
    assert page.best_input("skipnet", "ilfo")(side).value == pytest.approx(each.max())
    assert each.max() > expected


def test_efficacy_lost_is_that_of_the_exits(page, side, rows, told):
    """By the exit column, where the page goes by MACs; the area as the released code has it."""
    costs = np.cumsum(np.add(told["softmax-threshold"]["node_macs"], told["softmax-threshold"]["policy_macs"]))

    def area(exits):
        share = np.cumsum(np.bincount(exits, minlength=len(costs))) / len(exits)
        return np.trapezoid(np.concatenate([[0], share]), np.concatenate([[0], costs / costs[-1]]))

    attacked = rows["softmax-threshold", "deepsloth"]
    before = rows["softmax-threshold", "clean"].loc[attacked.index]
    found = page.efficacy_lost("softmax-threshold", "deepsloth")(side)
    assert found.value == pytest.approx(1 - area(attacked["exit"]) / area(before["exit"]))
    assert found.value > 0.01


def test_gain_is_over_the_inputs_that_both_saw(page, side, rows, told):
    one, two, clean = (rows["skipnet", c]["macs"] for c in ("ilfo", "noise", "clean"))
    both = one.index.intersection(two.index)
    assert len(both) == 20 < len(two)
    room = told["skipnet"]["max_macs"] - clean[both].mean()
    found = page.gain_over("skipnet", "ilfo", "noise")(side)
    assert found.value == pytest.approx((one[both].mean() - two[both].mean()) / room)
    assert found.n == 20


def test_density_is_that_of_the_details(page, side, run):
    case = next(c for c in run.cases if c["condition"] == "sponge")
    found = page.density("softmax-threshold", "sponge")(side)
    told = case["craft_details"]
    assert found.value == pytest.approx(told["activation_density"] / told["activation_density_clean"] - 1)
    assert "(modelled)" in found.told


@pytest.mark.parametrize("model", ["skipnet"])
def test_a_row_that_was_changed_changes_the_figure(page, run, model):
    """Planted: one input's MACs, as a kept summary might be edited."""
    kept = Baseline.of(run)
    honest = page.recovery(model, "ilfo")(page.Side(kept)).value

    def edited(evaluation):
        outcomes = kept.samples(evaluation)
        if not evaluation.endswith("/ilfo"):
            return outcomes
        macs = outcomes.macs.copy()
        macs[0] += 1000
        return replace(outcomes, macs=macs)

    assert page.recovery(model, "ilfo")(page.Side(kept.changed(load_samples=edited))).value != honest


def test_verdicts_are_those_of_the_bars_and_cases_that_are_not_there_have_no_row(page, run, monkeypatch):
    ours = page.recovery("skipnet", "ilfo")
    value = ours(page.Side(Baseline.of(run))).value
    rows = [
        ("a", "t", "p", "[abs]", ours, value, "w"),
        ("b", "t", "p", "[abs]", ours, value + 0.01, "w"),
        ("c", "t", "p", "[abs]", ours, None, "w"),
        ("d", "t", "–", "", ours, None, "w"),
        ("e", "t", "p", "[abs]", page.recovery("skipnet", "elsewhere"), 0.0, "w"),
    ]
    monkeypatch.setattr(page, "CLAIMS", tuple(page.Claim(*row) for row in rows))
    lines = page.section(Baseline.of(run))
    said = [line.split(" | ")[6] for line in lines if line[:5] in {f"| {a} |" for a in "abcde"}]
    assert said == ["met", "not met", "not comparable", "stated"]


def test_every_published_figure_says_where_it_was_read(page):
    for claim in page.CLAIMS:
        assert bool(claim.source) == (claim.published != "–"), claim
        assert claim.why
