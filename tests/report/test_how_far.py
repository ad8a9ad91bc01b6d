"""How far attacks go over steps, and what the dearest inputs cost: figures of the page against the run's own files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from adaptbench.bench.runner import run_suite
from adaptbench.report.page import run_page
from adaptbench.report.tails import tail_table
from adaptbench.report.view import View
from adaptbench.results.step_curves import StepCurve, step_curves
from adaptbench.results.store import Run

HALF = "multi-exit:exact-budget(budget=0.5)"
SUITE = """
data: digits
models: [softmax-threshold, multi-exit: {exact-budget: {budget: 0.5}}]
conditions:
  - clean
  - noise: {eps: 24/255}
  - ilfo: {eps: 24/255, steps: 20}
  - margin-kept: {eps: 24/255, steps: 6}
limit: 24
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    place = tmp_path_factory.mktemp("far")
    (place / "far.yaml").write_text(SUITE, encoding="utf-8")
    return run_suite(str(place / "far.yaml"), out=place / "run")


@pytest.fixture(scope="module")
def rows(run: Run) -> pd.DataFrame:
    return pd.read_parquet(Path(run.path) / "samples.parquet")


def of(rows: pd.DataFrame, condition: str, model: str = "softmax-threshold") -> np.ndarray:
    mine = rows[rows["case"] == f"digits/{model}/{condition}"]
    assert len(mine) == 24
    return mine["macs"].to_numpy(dtype=float)


def test_a_curve_over_steps_is_what_the_search_told_and_ends_at_what_the_rows_give(
    run: Run, rows: pd.DataFrame
) -> None:
    curve = next(c for c in step_curves(run.manifest, run.cases) if c.model == "softmax-threshold")
    assert (curve.condition, curve.n) == ("ilfo", 24)
    summary = json.loads((Path(run.path) / "summary.json").read_text())
    case = next(c for c in summary["cases"] if c["case"].startswith("digits/softmax-threshold/ilfo"))
    dearest, clean = run.manifest["models"]["softmax-threshold"]["max_macs"], of(rows, "clean").mean()
    assert [point.steps for point in curve.points] == [1, 2, 5, 10, 20]
    for point in curve.points:
        told = case["craft_details"][f"macs_at_step_{point.steps}"]
        assert point.recovery == pytest.approx((told - clean) / (dearest - clean))
    assert curve.points[-1].recovery == pytest.approx((of(rows, "ilfo").mean() - clean) / (dearest - clean))
    assert [curve.points[-1].low, curve.points[-1].high] == case["recovery_ci"]
    assert all(point.low is None for point in curve.points[:-1]), "means on the way have no rows, so no interval"
    up = [point.recovery for point in curve.points]
    assert up == sorted(up)
    assert up[-1] > up[0]


def test_searches_that_tell_no_cost_on_the_way_have_no_curve(run: Run) -> None:
    assert {c.condition for c in step_curves(run.manifest, run.cases)} == {"ilfo"}


def test_the_dearest_inputs_are_those_of_the_rows(run: Run, rows: pd.DataFrame) -> None:
    table = tail_table(View(run))
    assert table is not None
    body = {"softmax-threshold": [], HALF: []}
    current = iter(body.values())
    for row in table.rows:
        if row.heading:
            mine = next(current)
        else:
            mine.append(row)
    for model, condition in (("softmax-threshold", "clean"), (HALF, "ilfo")):
        macs = of(rows, condition, model)
        place = [c["condition"] for c in run.cases if c["model"] == model and c["kind"] != "reference"].index(condition)
        told = next(r for r in body[model] if r.cells[0].text.lower().startswith(condition))
        assert told.cells[1].value == pytest.approx(macs.mean()), place
        assert told.cells[3].value == pytest.approx(np.sort(macs)[-2:].mean(), rel=0.05)  # a twentieth of 24 is 1.2
        assert macs.min() <= told.cells[2].value <= macs.max()
    budget = next(c["macs_budget"] for c in run.cases if c["model"] == HALF)
    told = next(r for r in body[HALF] if r.cells[0].text.lower().startswith("ilfo"))
    assert told.cells[5].value == pytest.approx((of(rows, "ilfo", HALF) > budget).mean())
    none = next(r for r in body["softmax-threshold"])
    assert none.cells[5].value is None
    assert none.cells[5].reason


def test_the_page_shows_both(run: Run) -> None:
    page = run_page(run)
    for piece in ("How far it goes", 'id="fig-steps"', 'id="table-steps"', 'id="table-tails"'):
        assert piece in page
    assert "after 20" in page


def test_what_lacks_a_part_has_no_curve() -> None:
    case = {"model": "a", "condition": "ilfo", "kind": "attack", "recovery": 0.5, "macs_clean_mean": 10.0, "n": 3}
    whole = case | {"craft_details": {"macs_at_step_1": 12.0, "macs_at_step_10": 15.0}, "seed": 0}
    manifest = {"models": {"a": {"max_macs": 20}}}
    (curve,) = step_curves(manifest, [whole, whole | {"batch_size": 64}])
    assert isinstance(curve, StepCurve)
    assert [(p.steps, p.recovery, p.low) for p in curve.points] == [(1, 0.2, None), (10, 0.5, None)]
    for change in (
        {"kind": "control"},
        {"craft_details": {"macs_at_step_1": 12.0}},
        {"recovery": None},
        {"macs_clean_mean": None},
        {"macs_clean_mean": 20.0},
        {"craft_details": None},
    ):
        assert step_curves(manifest, [whole | change]) == []
    assert step_curves({}, [whole]) == []
