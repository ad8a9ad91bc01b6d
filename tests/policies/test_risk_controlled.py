"""Joint thresholds against brute force; bounds against exact ones and by coverage; promises kept over re-splits."""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats
from synthetic_logs import log_of, random_log

from adaptbench.errors import CalibrationError, UsageError
from adaptbench.policies.thresholds.joint_threshold import NEVER, JointThreshold, ascend, first_exit, threshold_path
from adaptbench.policies.thresholds.risk_bounds import upper_bound
from adaptbench.policies.thresholds.risk_controlled import RiskControlled, paired_losses
from adaptbench.policies.thresholds.temperature import fit_temperatures


@pytest.mark.parametrize("seed", range(5))
def test_one_threshold_is_the_best_of_all(seed):
    rng = np.random.default_rng(seed)
    confidence = np.round(rng.random((60, 1)), 1).astype(np.float32)
    worth = rng.random((60, 2))
    found = ascend(confidence, worth, np.full(1, NEVER, np.float32))

    def value(threshold):
        return worth[np.arange(60), first_exit(confidence, np.array([threshold]))].mean()

    assert value(found[0]) == pytest.approx(max(value(t) for t in [*np.unique(confidence), NEVER]))


@pytest.mark.parametrize("seed", range(4))
def test_two_thresholds_come_close_to_the_best_pair(seed):
    log = random_log(120, 3, seed)
    confidence = log.confidence[:, :-1].float().numpy()
    worth = log.correct.double().numpy() - 0.3 * log.exit_costs.numpy() / float(log.exit_costs[-1])
    found = ascend(confidence, worth, np.full(2, NEVER, np.float32))
    rows = np.arange(len(worth))
    grids = [[*np.unique(confidence[:, k]), np.float32(NEVER)] for k in range(2)]
    best = max(worth[rows, first_exit(confidence, np.array(pair))].mean() for pair in itertools.product(*grids))
    assert worth[rows, first_exit(confidence, found)].mean() >= best - 0.01


def test_the_path_begins_with_never_and_gets_cheaper():
    path = threshold_path(random_log(1000, 4, 0))
    assert (path.thresholds[0] == NEVER).all()
    assert path.drops[0] == 0
    assert (np.diff(path.costs) < 0).all()
    assert len(path.costs) > 10


def test_epsilon_holds_on_the_log_it_was_fitted_on():
    log = random_log(2000, 4, 1)
    fitted = JointThreshold.fit(log)
    costs = []
    for epsilon in (0.0, 0.01, 0.05, 0.2):
        policy = fitted.at(epsilon)
        losses = paired_losses(log, policy.thresholds[None].numpy())
        assert losses.mean() <= epsilon + 1e-9
        costs.append(
            log.exit_costs.numpy()[first_exit(log.confidence[:, :-1].numpy(), policy.thresholds.numpy())].mean()
        )
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] < costs[0]


def test_clopper_pearson_is_the_exact_one():
    losses = np.zeros((200, 1))
    losses[:7] = 1.0
    wanted = stats.binomtest(7, 200).proportion_ci(confidence_level=0.9, method="exact").high
    assert upper_bound(losses, 0.1, "clopper-pearson")[0] == pytest.approx(wanted, abs=1e-9)
    losses[7:17] = -1.0
    low = stats.binomtest(10, 200).proportion_ci(confidence_level=0.9, method="exact").low
    assert upper_bound(losses, 0.1, "clopper-pearson")[0] == pytest.approx(wanted - low, abs=1e-9)


@pytest.mark.parametrize("kind", ["betting", "clopper-pearson", "hoeffding"])
def test_bounds_cover_the_true_mean(kind):
    rng = np.random.default_rng(7)
    chances = np.array([0.01, 0.95, 0.04])  # −1, 0, 1: mean 0.03
    draws = rng.choice([-1.0, 0.0, 1.0], p=chances, size=(1500, 400))
    failed = (upper_bound(draws, 0.1, kind) < 0.03).mean()
    assert failed <= 0.1 + 3 * np.sqrt(0.09 / 400)


def test_betting_is_the_tightest_where_losses_are_rare():
    draws = np.random.default_rng(3).choice([-1.0, 0.0, 1.0], p=[0.01, 0.97, 0.02], size=(3000, 20))
    betting, pearson, hoeffding = (
        upper_bound(draws, 0.05, k).mean() for k in ("betting", "clopper-pearson", "hoeffding")
    )
    assert betting < pearson < hoeffding


@pytest.mark.slow
def test_the_promise_is_kept_over_resplits_and_the_bare_estimate_is_not():
    rng = np.random.default_rng(0)
    ease = rng.random(6000)
    confidence = np.clip(np.stack([0.35 + 0.6 * ease + 0.1 * rng.standard_normal(6000)] * 3, 1), 0.3, 0.99)
    correct = rng.random((6000, 3)) < np.stack([0.4 + 0.55 * ease, 0.6 + 0.37 * ease, 0.8 + 0.19 * ease], 1)
    pool = log_of(confidence, correct, macs=[10, 40, 90])
    broken = {"risk": 0, "joint": 0}
    generator = torch.Generator().manual_seed(0)
    for _ in range(40):
        order = torch.randperm(len(pool), generator=generator)
        calibration, fresh = pool.part(order[:2000]), pool.part(order[2000:])
        for name, cls in (("risk", RiskControlled), ("joint", JointThreshold)):
            policy = cls.fit(calibration, epsilon=0.02, prices=20)
            broken[name] += float(paired_losses(fresh, policy.thresholds[None].numpy()).mean()) > 0.02
    assert broken["risk"] <= 2
    assert broken["joint"] > 10


def test_a_smaller_promise_costs_more_and_the_smallest_runs_everything():
    fitted = RiskControlled.fit(random_log(3000, 3, 2))
    assert (fitted.at(0.0).thresholds == NEVER).all()
    rows = [fitted.at(e)._place() for e in (0.0, 0.02, 0.05, 0.2, 1.0)]
    assert rows == sorted(rows)
    assert rows[-1] > 0


def test_mistakes_are_named():
    log = random_log(120, 3, 0)
    with pytest.raises(CalibrationError, match="cannot carry a promise"):
        RiskControlled.fit(log)
    with pytest.raises(CalibrationError, match="too few"):
        JointThreshold.fit(log.part(torch.arange(10)))
    with pytest.raises(UsageError, match="ε = 2"):
        JointThreshold.fit(log).at(2.0)
    with pytest.raises(UsageError, match="β"):
        upper_bound(np.zeros((5, 1)), 1.0)
    with pytest.raises(UsageError, match="no bound"):
        upper_bound(np.zeros((5, 1)), 0.1, "hoping")


def expected_calibration_error(logits, labels, bins=15):
    """Σ_b |B_b|/N · |accuracy − confidence| over equal-width bins of the top probability; logits (N, C)."""
    confidence, predicted = logits.double().softmax(1).max(1)
    right = (predicted == labels).double()
    which = (confidence * bins).long().clamp_max(bins - 1)
    gap = torch.zeros(bins, dtype=torch.float64).index_add_(0, which, right - confidence)
    return float(gap.abs().sum() / len(labels))


def test_temperature_undoes_a_planted_scale():
    generator = torch.Generator().manual_seed(1)
    honest = torch.randn(4000, 2, 5, generator=generator)
    labels = torch.distributions.Categorical(logits=honest[:, 0])
    torch.manual_seed(0)
    y = labels.sample()
    log = log_of(np.full((4000, 2), 0.5), np.ones((4000, 2)), macs=[1, 2], classes=5)
    log = type(log)(
        torch.stack([honest[:, 0], 3 * honest[:, 0]], 1), y, log.structure, log.node_macs, log.data, log.role, ""
    )
    found = fit_temperatures(log)
    assert found[0] == pytest.approx(1.0, abs=0.1)
    assert found[1] == pytest.approx(3 * float(found[0]), rel=1e-3)
    before = expected_calibration_error(log.logits[:, 1], y)
    assert expected_calibration_error(log.logits[:, 1] / found[1], y) < 0.3 * before
