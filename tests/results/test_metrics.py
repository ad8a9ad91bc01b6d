from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import trapezoid

from adaptbench.errors import RunError
from adaptbench.results import metrics
from adaptbench.results.metrics import CostBounds
from adaptbench.results.schema import complete, validate_record
from adaptbench.results.statistics import tail_mean

SEVEN = (15, 30, 45, 60, 75, 90, 100)
BOUNDS = CostBounds(100, 400, 390, ("early", "middle", "last"), (100, 220, 400))


@pytest.mark.parametrize(
    ("exits", "area"), [([0] * 8, 0.925), ([6] * 8, 0.05), (list(range(7)), 0.479)], ids=["first", "last", "uniform"]
)
def test_trapezoid_anchors(exits, area):
    assert metrics.efficacy_trapezoid(exits, SEVEN).value == pytest.approx(area, abs=5e-4)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.lists(st.integers(1, 50), min_size=5, max_size=5))
def test_trapezoid_is_the_area_of_the_released_code(exits, steps):
    costs = np.cumsum(steps)
    x = np.concatenate([[0], costs / costs[-1]])
    y = np.concatenate([[0], np.cumsum(np.bincount(exits, minlength=5)) / len(exits)])
    y[-1] = 1.0
    assert metrics.efficacy_trapezoid(exits, costs.tolist()).value == pytest.approx(trapezoid(y, x))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([100, 220, 400]), min_size=2, max_size=60))
def test_step_efficacy_is_the_area_under_the_exit_cdf(macs):
    grid = (np.arange(40_000) + 0.5) / 100
    area = np.mean([np.mean(np.array(macs) <= c) for c in grid[::40]])
    assert metrics.efficacy_step(macs, 400).value == pytest.approx(area, abs=2e-3)


def test_recoveries_differ_and_say_so():
    clean, attacked = np.array([100, 390, 400]), np.array([250, 400, 400])
    assert metrics.recovery(clean, attacked, 400).value == pytest.approx(160 / 310)
    assert metrics.recovery_per_input(clean, attacked, 400).value == pytest.approx((0.5 + 1) / 2)
    assert metrics.increase(clean, attacked).value == pytest.approx(1050 / 890 - 1)


def test_nothing_to_take_back():
    assert metrics.recovery([400, 400], [400, 400], 400) is None
    assert metrics.recovery_per_input([400, 400], [400, 400], 400) is None


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([100, 220]), st.sampled_from([100, 220, 400])), min_size=2, max_size=50))
def test_recovery_laws(pairs):
    clean, attacked = np.array(pairs).T
    got = metrics.recovery(clean, attacked, 400)
    assert got.value <= 1
    assert metrics.recovery(clean, clean, 400).value == 0
    assert metrics.recovery(clean, np.full(len(clean), 400), 400).value == pytest.approx(1)
    order = np.random.default_rng(0).permutation(len(clean))
    assert metrics.recovery(clean[order], attacked[order], 400).value == pytest.approx(got.value)


def test_recovery_interval_covers():
    rng = np.random.default_rng(0)
    truth = (0.7 * 100 + 0.3 * 400 - 0.2 * 400 - 0.8 * 100) / (400 - (0.8 * 100 + 0.2 * 400))
    hits = 0
    for _ in range(200):
        clean = np.where(rng.random(150) < 0.8, 100, 400)
        attacked = np.where(rng.random(150) < 0.7, 100, 400)
        got = metrics.recovery(clean, attacked, 400)
        hits += got.low <= truth <= got.high
    assert 0.91 <= hits / 200 <= 0.99


def test_summary_of_an_attack(synthetic):
    truth = synthetic()
    clean, attacked = truth.samples("clean"), truth.samples("ilfo")
    record = metrics.summarise(attacked.sample(frac=1, random_state=0), clean, BOUNDS)
    before, after = clean["macs"].mean(), attacked["macs"].mean()
    assert record["n"] == 300
    assert record["macs_mean"] == pytest.approx(after)
    assert record["increase"] == pytest.approx(after / before - 1)
    assert record["recovery"] == pytest.approx((after - before) / (400 - before))
    assert record["accuracy_drop"] == pytest.approx(clean["correct"].mean() - attacked["correct"].mean())
    assert record["at_ceiling"] == pytest.approx((clean["macs"] == 400).mean())
    assert record["exit_histogram"] == {
        name: int((attacked["exit"] == i).sum()) for i, name in enumerate(BOUNDS.exit_names)
    }
    assert record["efficacy_step"] == pytest.approx(1 - after / 400)
    assert record["macs_p99"] == 400
    assert record["ties"] == 6
    assert record["linf_max"] == pytest.approx(8 / 255)
    assert record["queries_mean"] is None
    assert "query" in record["queries_mean_missing"]
    for name in ("accuracy", "macs_mean", "recovery", "increase", "accuracy_drop", "efficacy_trapezoid"):
        low, high = record[f"{name}_ci"]
        assert low <= record[name] <= high
    identity = {"case": "a", "evaluation": "a", "model": "m", "data": "d", "condition": "c", "kind": "attack"}
    validate_record(complete({**identity, "device": "cpu", **record}), "here")


def test_what_texts_cost_without_padding_stands_apart(synthetic):
    rows = synthetic().samples("clean")
    record = metrics.summarise(rows, None, BOUNDS)
    assert record["macs_unpadded_mean"] is None
    assert "no texts" in record["macs_unpadded_mean_missing"]
    texts = rows.assign(linf=np.nan, l2=np.nan)
    assert "rows of one length" in metrics.summarise(texts, None, BOUNDS)["macs_unpadded_mean_missing"]
    told = metrics.summarise(texts.assign(macs_unpadded=rows["macs"] // 2), None, BOUNDS)
    assert told["macs_unpadded_mean"] == pytest.approx((rows["macs"] // 2).mean())
    assert told["macs_mean"] == record["macs_mean"]


def test_summary_of_the_clean_case_and_of_a_net_without_fixed_exits(synthetic):
    record = metrics.summarise(synthetic().samples("clean"), None, CostBounds(100, 400, 390, ("a", "b", "c")))
    for name in ("recovery", "increase", "accuracy_drop", "recovery_per_input_mean", "recovery_seen"):
        assert record[name] is None
        assert "clean case" in record[f"{name}_missing"]
    assert record["at_ceiling"] > 0
    assert "no one cost" in record["efficacy_trapezoid_missing"]


def test_attack_on_a_subset_is_paired_with_that_subset(synthetic):
    truth = synthetic()
    clean, attacked = truth.samples("clean"), truth.samples("ilfo").iloc[50:90]
    record = metrics.summarise(attacked, clean, BOUNDS)
    assert record["increase"] == pytest.approx(attacked["macs"].mean() / clean["macs"].iloc[50:90].mean() - 1)
    apart = metrics.summarise(attacked.assign(sample_id=range(40)), clean, BOUNDS)
    assert apart["recovery"] is None
    assert "no input in common" in apart["at_ceiling_missing"]


def test_the_tail_the_budget_the_dearest_seen_and_kept_answers_by_pandas(synthetic):
    """Counted again from raw rows in another way."""
    truth = synthetic()
    clean, attacked = truth.samples("clean"), truth.samples("ilfo").sample(frac=0.7, random_state=1)
    bounds = replace(BOUNDS, seen=390, budget=150.0)
    record = metrics.summarise(attacked, clean, bounds)
    dearest = attacked["macs"].nlargest(-(-len(attacked) // 20))
    assert record["macs_cvar"] == pytest.approx(dearest.mean())
    assert record["budget_violation"] == pytest.approx((attacked["macs"] > 150).mean())
    assert record["macs_budget"] == 150
    pairs = attacked.merge(clean, on="sample_id", suffixes=("", "_clean"))
    assert record["label_kept"] == pytest.approx((pairs["prediction"] == pairs["prediction_clean"]).mean())
    before = pairs["macs_clean"].mean()
    assert record["recovery_seen"] == pytest.approx((pairs["macs"].mean() - before) / (390 - before))
    assert record["recovery_seen"] > record["recovery"]
    assert record["macs_seen"] == 390
    for name in ("macs_cvar", "budget_violation", "recovery_seen", "label_kept"):
        low, high = record[f"{name}_ci"]
        assert low <= record[name] <= high
    alone = metrics.summarise(clean, None, BOUNDS)
    assert "has no budget" in alone["budget_violation_missing"]
    assert "clean case" in alone["label_kept_missing"]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=80), st.sampled_from([0.05, 0.3, 1.0]))
def test_the_tail_mean_is_that_of_the_sorted_values(values, share):
    got = tail_mean(values, share)
    assert got.value == pytest.approx(np.mean(sorted(values)[-max(1, math.ceil(share * len(values) - 1e-9)) :]))
    assert min(values) <= got.low <= got.value <= got.high <= max(values)


def test_queries_and_ceiling(synthetic):
    rows = synthetic().samples("ilfo").assign(macs=400, queries=500)
    record = metrics.summarise(rows, rows, BOUNDS)
    assert record["queries_mean"] == 500
    assert record["at_ceiling"] == 1
    assert "costs the maximum" in record["recovery_missing"]
    assert record["increase"] == 0


def test_sample_ids_must_be_unique(synthetic):
    rows = synthetic().samples("clean")
    for bad in (rows.assign(sample_id=1), rows.iloc[:0]):
        with pytest.raises(RunError, match="sample id"):
            metrics.summarise(bad, None, BOUNDS)
