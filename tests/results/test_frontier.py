from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptbench.results import frontier

POINTS = st.lists(st.tuples(st.integers(1, 30), st.integers(0, 30)), min_size=1, max_size=25)


@given(POINTS)
def test_hull_lies_below_every_point_and_is_made_of_points(points):
    cost, error = np.array(points, float).T
    x, y = frontier.lower_hull(cost, error)
    assert set(zip(x, y, strict=True)) <= set(zip(cost, error, strict=True))
    assert (np.diff(x) > 0).all()
    assert (np.diff(y) < 0).all()
    slopes = np.diff(y) / np.diff(x)
    assert (np.diff(slopes) > -1e-12).all()
    for c, e in points:
        assert frontier.error_at_cost(cost, error, c) <= e + 1e-9


@given(POINTS, st.floats(0, 40))
def test_hull_is_the_best_mixture_of_two_settings(points, at):
    cost, error = np.array(points, float).T
    got = frontier.error_at_cost(cost, error, at)
    best = np.inf
    for (c, e), (d, f) in ((p, q) for p in points for q in points):
        if c <= at and (d <= at or c < d):
            share = 1.0 if d <= at else (at - c) / (d - c)
            best = min(best, e + share * (f - e) if d > at else min(e, f))
    assert (got is None) == (best == np.inf)
    if got is not None:
        assert got == pytest.approx(best, abs=1e-9)


def test_accuracy_at_cost_and_cost_at_drop_are_inverse():
    cost, accuracy = [10, 20, 40, 30], [0.8, 0.9, 0.95, 0.85]
    assert frontier.accuracy_at_cost(cost, accuracy, 15) == pytest.approx(0.85)
    assert frontier.accuracy_at_cost(cost, accuracy, 100) == pytest.approx(0.95)
    assert frontier.accuracy_at_cost(cost, accuracy, 9) is None
    assert frontier.cost_at_drop(cost, accuracy, 0.95, 0.10) == pytest.approx(15)
    assert frontier.cost_at_drop(cost, accuracy, 0.95, 0.0) == pytest.approx(40)
    assert frontier.cost_at_drop(cost, accuracy, 0.95, 0.5) == pytest.approx(10)
    assert frontier.cost_at_drop(cost, accuracy, 0.99, 0.01) is None


def test_share_of_the_oracles_saving():
    assert frontier.share_of_oracle_saving(60, 100, 20) == pytest.approx(0.5)
    assert frontier.share_of_oracle_saving(60, 100, 100) is None


def test_hull_needs_points():
    for bad in (([], []), ([1.0], [np.nan])):
        with pytest.raises(ValueError):
            frontier.lower_hull(*bad)
