"""Objective and gradients against brute force, fits against planted rules."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_logs import log_of, random_log

from adaptbench.adaptive import Signals
from adaptbench.adaptive.replay import evaluate_on, replay
from adaptbench.errors import CalibrationError, PolicyError, UsageError
from adaptbench.policies import LearnedCascade
from adaptbench.policies.gates.learned_cascade import stage_losses
from adaptbench.policies.gates.selection_module import cascade_objective, stopping_distribution
from adaptbench.testing import planted_graph


def problem(n, k, seed):
    generator = torch.Generator().manual_seed(seed)
    stop = torch.rand(n, k - 1, generator=generator, dtype=torch.float64) * 0.9 + 0.05
    losses = torch.rand(n, k, generator=generator, dtype=torch.float64) * 2
    costs = torch.rand(k, generator=generator, dtype=torch.float64).cumsum(0)
    return stop, losses, costs


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 1000))
def test_the_stopping_distribution(n, k, seed):
    stop, _, _ = problem(n, k, seed)
    chances = stopping_distribution(stop)
    assert chances.shape == (n, k)
    torch.testing.assert_close(chances.sum(1), torch.ones(n, dtype=torch.float64))
    for i in range(n):
        going = 1.0
        for j in range(k):
            s = 1.0 if j == k - 1 else float(stop[i, j])
            assert math.isclose(float(chances[i, j]), going * s)
            going *= 1 - s


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.integers(1, 4), st.integers(2, 5), st.floats(0, 3), st.integers(0, 1000))
def test_the_exact_objective_is_the_expectation(n, k, price, seed):
    """Σ over every outcome of the K−1 coin tosses, each weighed by its probability: nothing factored."""
    stop, losses, costs = problem(n, k, seed)
    total = 0.0
    for i in range(n):
        for tosses in range(2 ** (k - 1)):
            heads = [(tosses >> j) & 1 for j in range(k - 1)]
            chance = math.prod(float(stop[i, j]) if h else 1 - float(stop[i, j]) for j, h in enumerate(heads))
            end = heads.index(1) if 1 in heads else k - 1
            total += chance * (float(losses[i, end]) + price * float(costs[end]))
    found = cascade_objective(stop, losses, costs, price=price, estimator="exact")
    assert math.isclose(float(found), total / n, rel_tol=1e-9)


def test_reinforce_is_unbiased():
    """The mean gradient of many draws is the exact one, for stops and for the nets' losses."""
    stop, losses, costs = problem(3, 4, 5)

    def gradient(estimator, copies):
        s, x = (t.repeat(copies, 1).requires_grad_() for t in (stop, losses))
        generator = torch.Generator().manual_seed(0)
        objective = cascade_objective(s, x, costs, price=0.7, estimator=estimator, generator=generator)
        gs, gx = torch.autograd.grad(objective, [s, x])
        return gs.view(copies, 3, 3).sum(0), gx.view(copies, 3, 4).sum(0)

    exact, estimate = gradient("exact", 1), gradient("reinforce", 20_000)
    for one, two in zip(exact, estimate, strict=True):
        assert float((one - two).abs().max()) < 0.02 * float(one.abs().max())


def test_the_baseline_takes_variance_away_and_no_bias_in():
    """Rewards shifted by a constant leave the REINFORCE gradient as it was, draw by draw."""
    stop, losses, costs = problem(4, 3, 1)

    def gradient(shift):
        s = stop.clone().requires_grad_()
        generator = torch.Generator().manual_seed(3)
        objective = cascade_objective(s, losses + shift, costs, price=0.3, estimator="reinforce", generator=generator)
        return torch.autograd.grad(objective, s)[0]

    torch.testing.assert_close(gradient(0.0), gradient(100.0), rtol=1e-6, atol=1e-9)


def test_the_entropy_bonus_pulls_towards_undecided():
    """Closed form: dH/ds = log((1 − s)/s). A detached target once made this zero."""
    s = torch.tensor([[0.1, 0.8]], dtype=torch.float64, requires_grad=True)
    objective = cascade_objective(
        s, torch.zeros(1, 3, dtype=torch.float64), torch.zeros(3), price=0.0, estimator="exact", entropy_bonus=2.0
    )
    (gradient,) = torch.autograd.grad(objective, s)
    want = [-2.0 / 2 * math.log((1 - v) / v) for v in (0.1, 0.8)]
    np.testing.assert_allclose(gradient[0].numpy(), want)


def test_losses():
    log = random_log(30, 3, 0)
    torch.testing.assert_close(stage_losses(log.logits, log.labels, "zero-one"), 1 - log.correct.float())
    p = log.logits.softmax(-1).gather(-1, log.labels[:, None, None].expand(-1, 3, 1)).squeeze(-1)
    torch.testing.assert_close(stage_losses(log.logits, log.labels, "cross-entropy"), -p.log())


def planted(n=600, seed=0):
    """Net 1 is right exactly where its confidence is above 0.7, net 2 always: stop there, go on below."""
    rng = np.random.default_rng(seed)
    confidence = np.stack([rng.uniform(0.4, 0.99, n), np.full(n, 0.99)], 1)
    correct = np.stack([confidence[:, 0] > 0.7, np.ones(n, bool)], 1)
    return log_of(confidence, correct, macs=[1, 4], seed=seed)


@pytest.mark.parametrize("estimator", ["exact", "reinforce"])
def test_a_fit_recovers_the_planted_rule(estimator):
    policy = LearnedCascade.fit(planted(), price=0.3, estimator=estimator, steps=200)
    fresh = planted(seed=1)
    went_on = replay(policy, fresh.structure, fresh.logits).exit == 1
    assert float((went_on == ~fresh.correct[:, 0]).float().mean()) > 0.95


@pytest.mark.parametrize(("price", "macs"), [(50.0, 1.0), (0.0, None)])
def test_price_extremes(price, macs):
    """Compute that costs everything: leave at once. Compute for nothing: be right."""
    log = planted()
    point = evaluate_on(LearnedCascade.fit(log, price=price, steps=200), log)
    if macs is None:
        assert point.accuracy > 0.99
    else:
        assert point.macs_mean == macs


def test_a_higher_t_spends_more():
    """Stop needs a probability of at least t: the knob gives a curve, ends included."""
    log = planted()
    policy = LearnedCascade.fit(log, price=0.3, steps=100)
    costs = [evaluate_on(policy.at(t), log).macs_mean for t in (0.001, 0.1, 0.5, 0.9, 0.999)]
    assert costs == sorted(costs)
    assert costs[0] < costs[-1]


def test_margins_are_signed_by_the_probability():
    policy = LearnedCascade.fit(planted(), price=0.3, steps=50).at(0.3)
    signals = Signals(planted(seed=2).logits[:, 0])
    chance = policy.stop_logit(0, signals).sigmoid()
    assert torch.equal(policy.margin(0, signals) <= 0, chance >= 0.3)


def test_a_sweep_keeps_the_best_member_s_accuracy_where_it_can():
    policy, points = LearnedCascade.sweep(planted(1000), [0.01, 0.1, 0.3, 20.0], steps=100)
    by_price = {p.setting: p for p in points}
    assert by_price[20.0].macs_mean == 1.0
    assert evaluate_on(policy, planted(seed=3)).accuracy > 0.97


@pytest.mark.parametrize("t", [0.0, 1.0, 7])
def test_t_is_a_probability(t):
    with pytest.raises(UsageError, match="no probability"):
        LearnedCascade(4, 1, t)


def test_wrong_words_and_models_are_refused():
    with pytest.raises(UsageError, match="no estimator is called 'exakt'"):
        LearnedCascade.fit(planted(), price=1.0, estimator="exakt", steps=1)
    with pytest.raises(UsageError, match="no loss is called 'hinge'"):
        LearnedCascade.fit(planted(), price=1.0, loss="hinge", steps=1)
    with pytest.raises(CalibrationError, match="too few"):
        LearnedCascade.fit(planted(49), price=1.0)
    with pytest.raises(PolicyError, match="1 selection modules"):
        planted_graph().policy = LearnedCascade(4, 1)
