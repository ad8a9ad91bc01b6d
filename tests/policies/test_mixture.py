"""A mixture meets its budget, never beats its hull, and draws by sample."""

import itertools

import pytest
import torch
from scipy.spatial import ConvexHull
from synthetic_logs import random_log

from adaptbench.adaptive.replay import Point, evaluate_on, replay
from adaptbench.errors import PolicyError, UsageError
from adaptbench.policies import Oracle, SoftmaxThreshold, UniformThreshold
from adaptbench.policies.references.mixture import Mixture, hull


def test_the_hull_is_scipys():
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        drawn = torch.rand(40, 2, generator=generator).tolist()
        points = [Point(0, y, 0, x) for x, y in drawn]
        whole = {tuple(drawn[i]) for i in ConvexHull(drawn).vertices}
        mine = [tuple(drawn[i]) for i in hull(points)]
        assert set(mine) <= whole
        assert mine == sorted(mine)
        assert mine[-1][1] == max(y for _, y in drawn)
        assert mine[0][0] == min(x for x, _ in drawn)
        for x, y in whole:  # nothing lies above the line
            for (ax, ay), (bx, by) in itertools.pairwise(mine):
                if ax <= x <= bx:
                    assert y <= ay + (by - ay) * (x - ax) / (bx - ax) + 1e-9


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_the_budget_is_met_on_fresh_samples(share):
    log = random_log(20000, 3, 5)
    calibration, fresh = log.halves(0.5)
    members = SoftmaxThreshold.family(calibration)
    points = [evaluate_on(m, calibration) for m in members]
    costs = [points[i].cost_mean for i in hull(points)]
    budget = min(costs) + share * (max(costs) - min(costs))
    mixed = Mixture.between(calibration, members, budget=budget)
    assert evaluate_on(mixed, fresh).cost_mean == pytest.approx(budget, rel=0.02)


def test_each_sample_follows_one_policy_all_the_way():
    log = random_log(500, 4, 1)
    cheap, dear = UniformThreshold(0.0), UniformThreshold(1.1)
    mixed = Mixture(cheap, dear, 0.4)
    found = replay(mixed, log.structure, log.logits, seeds=torch.arange(500))
    assert set(found.exit.tolist()) == {0, 3}
    again = replay(mixed, log.structure, log.logits.flip(0), seeds=torch.arange(500).flip(0))
    assert torch.equal(found.exit, again.exit.flip(0))


def test_mistakes_are_named():
    log = random_log(300, 3, 1)
    with pytest.raises(UsageError, match="cheapest member costs"):
        Mixture.fit(log, budget=2.0)
    rich = Mixture.fit(log, budget=1e9)
    assert rich.share == 1.0
    with pytest.raises(UsageError, match="share"):
        Mixture(UniformThreshold(), UniformThreshold(), 1.5)
    with pytest.raises(PolicyError, match="oracle"):
        Mixture(UniformThreshold(), Oracle(), 0.5)
