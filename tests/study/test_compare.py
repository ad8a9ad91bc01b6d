"""Comparison at equal cost, against closed forms."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptbench.study.compare import Curve, drop, gain, mixed_cost, oracle_macs, oracle_share
from adaptbench.study.members import Outcome


def outcome(correct, macs) -> Outcome:
    correct = np.asarray(correct, bool)
    empty = torch.zeros(len(correct), dtype=torch.int64)
    return Outcome(correct, np.full(len(correct), macs), empty[:, None] == 0, empty, empty, empty == 1)


def test_a_point_between_corners_is_their_mixture():
    cheap, dear = outcome([1, 0, 0, 0], 10), outcome([1, 1, 1, 0], 30)
    curve = Curve.through([cheap, dear])
    assert curve.at(9) is None
    assert curve.at(10).tolist() == [1, 0, 0, 0]
    assert curve.at(15).tolist() == [1, 0.25, 0.25, 0]
    assert curve.at(99).tolist() == [1, 1, 1, 0]
    assert curve.accuracy(np.array([20.0]))[0] == pytest.approx(0.5)
    assert curve.area(10, 30) == pytest.approx(0.5)
    assert curve.area(5, 30) is None
    assert curve.cost_at(0.5) == pytest.approx(20)
    assert curve.cost_at(0.9) is None
    assert curve.cost_at(0.1) == 10


def test_a_corner_that_costs_more_on_test_than_the_next_is_left_out():
    curve = Curve.through([outcome([1, 0], 20), outcome([1, 1], 15)])
    assert curve.macs.tolist() == [15]


def test_every_curve_can_begin_where_all_stop_at_once():
    start = Curve.through([outcome([1, 0, 0, 0], 5)])
    curve = Curve.through([outcome([1, 1, 1, 0], 25)], start)
    assert curve.macs.tolist() == [5, 25]
    assert curve.at(15).tolist() == [1, 0.5, 0.5, 0]
    assert Curve.through([outcome([1, 1, 0, 0], 4)], start).macs.tolist() == [5]


def test_gain_is_paired():
    generator = np.random.default_rng(0)
    base = generator.random(4000) < 0.8
    better = base | (generator.random(4000) < 0.02)
    one, two = Curve.through([outcome(better, 10)]), Curve.through([outcome(base, 10)])
    found = gain(one, two, 10)
    assert found.value == pytest.approx(better.mean() - base.mean())
    assert 0 < found.low < found.value < found.high
    assert found.high - found.low < 0.01  # unpaired it would be 0.035
    assert gain(one, two, 5) is None
    assert drop(base, better).value == pytest.approx(-found.value)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(0, 10**6))
def test_the_oracle_is_the_cheapest_right_way(ways, seed):
    rng = np.random.default_rng(seed)
    correct, costs = rng.random((20, ways)) < 0.5, rng.integers(1, 100, ways).tolist()
    best = [min([c for c, ok in zip(costs, row, strict=True) if ok] or [min(costs)]) for row in correct]
    macs, accuracy = oracle_macs(correct, costs)
    assert macs == pytest.approx(np.mean(best))
    assert accuracy == pytest.approx(correct.any(1).mean())


def test_shares():
    assert oracle_share(40, 100, 20) == pytest.approx(0.75)
    assert oracle_share(40, 20, 20) is None


def test_no_mixture_of_corners_beats_the_curve():
    rng = np.random.default_rng(1)
    corners = [outcome(rng.random(200) < p, m) for p, m in ((0.5, 10), (0.7, 20), (0.8, 40))]
    curve = Curve.through(corners)
    for a, b in itertools.pairwise(corners):
        for share in (0.25, 0.5):
            macs = (1 - share) * a.macs_mean + share * b.macs_mean
            assert curve.at(macs).mean() == pytest.approx((1 - share) * a.accuracy + share * b.accuracy)


def test_a_mixture_made_on_calibration_is_priced_on_test():
    corners = [(10.0, 11.0), (20.0, 19.0), (40.0, 44.0)]
    assert mixed_cost(corners, 15.0) == pytest.approx(15.0)
    assert mixed_cost(corners, 30.0) == pytest.approx(31.5)
    assert mixed_cost(corners, 9.0) is None
    assert mixed_cost(corners, 41.0) is None
