"""EENet's losses in closed form, its schedule on planted scores, and its policy."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic_logs import log_of, random_log

from adaptbench.adaptive import CalibrationLog, Structure
from adaptbench.adaptive.replay import evaluate_on, replay
from adaptbench.errors import CalibrationError, PolicyError, UsageError
from adaptbench.policies.budgets.eenet import FAMILY_SIZE, EENet, PublishedEENet
from adaptbench.policies.budgets.eenet_scheduler import (
    PUBLISHED,
    Scheduler,
    SchedulerSettings,
    cost_loss,
    divergence,
    scheduler_inputs,
    score_loss,
    train,
)

QUICK = SchedulerSettings(epochs=60, restarts=1)


# ---------------------------------------------------------------------- losses


def test_inputs_in_closed_form():
    log = random_log(20, 3, 0)
    p = log.logits[:, 1].softmax(-1)
    got = scheduler_inputs(log.logits)[1]
    torch.testing.assert_close(got[:, :4], p)
    torch.testing.assert_close(got[:, 4], p.amax(-1))
    torch.testing.assert_close(got[:, 5], 1 + (p * p.log()).sum(-1) / np.log(4), atol=1e-5, rtol=1e-5)


def test_losses_in_closed_form():
    rng = np.random.default_rng(0)
    q, p = rng.uniform(-0.2, 1.2, (7, 3)), rng.dirichlet(np.ones(3), 7)
    correct = rng.integers(0, 2, (7, 3)).astype(float)
    bar = q.clip(0, 1)
    with np.errstate(divide="ignore"):
        entropy = -(correct * np.log(bar).clip(-100) + (1 - correct) * np.log(1 - bar).clip(-100))
    want = sum((p[:, k] / p[:, k].sum() * entropy[:, k]).sum() for k in range(3)) / 3
    tensors = [torch.tensor(x) for x in (q, correct, p)]
    assert float(score_loss(*tensors)) == pytest.approx(want)
    target = bar / bar.sum(1, keepdims=True)
    want = np.where(target > 0, target * (np.log(np.where(target > 0, target, 1)) - np.log(p)), 0).mean()
    assert float(divergence(tensors[2], tensors[0])) == pytest.approx(want)
    costs = np.array([1.0, 2.0, 5.0])
    want = abs((p @ costs).mean() - 2.5) / 2.5
    assert float(cost_loss(tensors[2], torch.tensor(costs), 2.5)) == pytest.approx(want)


def test_widths_and_inputs_are_the_released_ones():
    scheduler = Scheduler(3, 10)
    assert [net[0].in_features for net in scheduler.share] == [12, 13, 14]
    assert [net[0].out_features for net in scheduler.share] == [6, 6, 7]
    scheduler.start(torch.Generator().manual_seed(0), at_confidence=False)
    q, full = scheduler.scores(scheduler_inputs(random_log(9, 3, 0, classes=10).logits))
    torch.testing.assert_close(full[2][:, 12:], q[:, :2].clamp(0, 1))
    torch.testing.assert_close(scheduler.shares(full).sum(1), torch.ones(9))


def test_a_bounded_assignment_cannot_leave_its_band():
    """Softmax over values in (0, 1): no share above e / (e + K − 1), whatever the weights; 0.88 of three is outside."""
    scheduler = Scheduler(3, 4, bounded=True)
    with torch.no_grad():
        scheduler.share[0][2].bias.fill_(100.0)
        scheduler.share[1][2].bias.fill_(-100.0)
        scheduler.share[2][2].bias.fill_(-100.0)
    shares = scheduler.shares(scheduler.scores(scheduler_inputs(random_log(9, 3, 0).logits))[1])
    torch.testing.assert_close(shares[:, 0], torch.full((9,), np.e / (np.e + 2)))
    assert float(shares[:, 0].detach().max()) < 0.6


def test_earlier_scores_are_detached():
    scheduler = Scheduler(2, 4)
    scheduler.start(torch.Generator().manual_seed(0), at_confidence=True)
    q, _ = scheduler.scores(scheduler_inputs(random_log(9, 2, 0).logits))
    q[:, 1].sum().backward()
    assert (scheduler.by_class[0].weight.grad == 0).all()
    assert (scheduler.by_class[1].weight.grad != 0).any()


def test_training_learns_which_exit_is_right():
    """Confidence says nothing; being right hangs on the class alone: q must learn it from the probabilities."""
    rng = np.random.default_rng(1)
    n = 1500
    answers = rng.integers(0, 4, n)
    correct = np.stack([answers < 2, np.ones(n, bool)], 1)
    labels = np.where(correct[:, 0], answers, (answers + 1) % 4)
    logits = np.zeros((n, 2, 4))
    logits[range(n), 0, answers] = 3.0
    logits[range(n), 1, labels] = 3.0
    log = CalibrationLog(
        torch.tensor(logits, dtype=torch.float32),
        torch.tensor(labels),
        random_log(4, 2, 0).structure,
        torch.tensor([1, 3]),
        "synthetic",
        "calibration",
        "",
    )
    fitted = EENet.fit(log, budget=2.7, acceptance="within")
    q = fitted.scores_until(log.logits, 0)[:, 0]
    assert float(q[answers < 2].min()) > float(q[answers >= 2].max()) + 0.3
    assert evaluate_on(fitted, log).accuracy == pytest.approx(1.0)


def test_the_schedule_meets_the_cost_it_is_trained_for():
    log = random_log(800, 3, 2)
    scheduler = Scheduler(3, 4)
    generator = torch.Generator().manual_seed(0)
    scheduler.start(generator, at_confidence=True)
    costs = (log.exit_costs / log.exit_costs[-1]).float()
    inputs = scheduler_inputs(log.logits)
    train(scheduler, inputs, log.correct.float(), costs, 0.3, SchedulerSettings(), generator)
    shares = scheduler.shares(scheduler.scores(inputs)[1])
    assert float(cost_loss(shares, costs, 0.3).detach()) < 0.02


def test_minibatches_learn_too():
    log = random_log(600, 3, 2)
    fitted = EENet.fit(log, budget=50.0, settings=SchedulerSettings(batch=128, epochs=40, restarts=1))
    assert fitted.in_band
    assert evaluate_on(fitted, log).cost_mean == pytest.approx(50.0, rel=0.12)


def test_the_published_values_are_within_reach():
    assert (PUBLISHED.lr, PUBLISHED.weight_decay, PUBLISHED.batch, PUBLISHED.epochs) == (3e-5, 1e-2, 512, 1000)
    assert (PUBLISHED.patience, PUBLISHED.period, PUBLISHED.restarts, PUBLISHED.bounded) == (100, 10, 10, True)
    assert (PUBLISHED.kl_weight, PUBLISHED.cost_weight, PUBLISHED.sharpness) == (1e-3, 1e-2, 1.0)
    short = replace(PUBLISHED, epochs=20, restarts=1)
    fitted = PublishedEENet.fit(random_log(80, 2, 0), budget=30.0, settings=short)
    assert not fitted.clamp_past


# ---------------------------------------------------------------------- the policy


@pytest.mark.parametrize("share", [0.15, 0.5])
def test_released_acceptance_is_near_the_budget_and_within_is_below(share):
    log = random_log(1500, 4, 3)
    low, high = log.exit_costs[[0, -1]].tolist()
    budget = low + share * (high - low)
    released = EENet.fit(log, budget=budget, settings=QUICK)
    assert released.in_band
    assert evaluate_on(released, log).cost_mean == pytest.approx(budget, rel=0.12)
    assert float(torch.tensor(released.assignment, dtype=torch.float64) @ log.exit_costs) == pytest.approx(
        budget, rel=0.1
    )
    within = EENet.fit(log, budget=budget, settings=QUICK, acceptance="within")
    # thresholds are scores of samples, so rounding of another processor may send one sample the other way
    assert budget * 0.98 <= evaluate_on(within, log).cost_mean <= budget + (high - low) / 1500


def test_the_last_exit_takes_everybody():
    log = random_log(400, 3, 3)
    fitted = EENet.fit(log, budget=100.0, settings=QUICK)
    fitted.thresholds.fill_(1e6)
    assert (replay(fitted, log.structure, log.logits).exit == 2).all()


def test_scores_are_those_of_the_scheduler():
    log = random_log(300, 3, 3)
    scheduler = Scheduler(3, 4)
    scheduler.start(torch.Generator().manual_seed(3), at_confidence=False)
    policy = EENet._from_scheduler(scheduler, log, 60.0, in_band=True)
    want = scheduler.scores(scheduler_inputs(log.logits))[0][:, :2]
    torch.testing.assert_close(policy.scores_until(log.logits, 1), want)


def test_unclamped_scores_are_an_option():
    log = random_log(300, 3, 3)
    scheduler = Scheduler(3, 4)
    scheduler.start(torch.Generator().manual_seed(3), at_confidence=False)
    with torch.no_grad():
        scheduler.by_class[0].weight.fill_(-2.0)  # the first score is far below zero
    free = PublishedEENet._from_scheduler(scheduler, log, 60.0, in_band=True).scores_until(log.logits, 1)
    kept = EENet._from_scheduler(scheduler, log, 60.0, in_band=True).scores_until(log.logits, 1)
    weight = scheduler.by_summary[1].weight[0, 2]
    torch.testing.assert_close(free[:, 1] - kept[:, 1], weight * free[:, 0])


def test_gradients_reach_earlier_exits():
    log = random_log(50, 3, 3)
    scheduler = Scheduler(3, 4)
    scheduler.start(torch.Generator().manual_seed(0), at_confidence=True)
    policy = EENet._from_scheduler(scheduler, log, 60.0, in_band=True)
    history = log.logits.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(policy.scores_until(history, 1)[:, 1].sum(), history)
    assert (gradient[:, 0] != 0).any()
    assert (gradient[:, 1] != 0).any()
    assert (gradient[:, 2] == 0).all()


def test_a_family_goes_from_cheap_to_dear():
    log = random_log(500, 3, 8)
    members = EENet.family(log)
    assert 8 <= len(members) <= 12
    costs = [evaluate_on(m, log).cost_mean for m in members]
    assert costs == sorted(costs)
    for member, cost in zip(members, costs, strict=True):
        assert cost == pytest.approx(member.budget, rel=0.2)


@pytest.mark.parametrize("budget", [9.0, 141.0])
def test_a_budget_out_of_range_is_refused(budget):
    with pytest.raises(UsageError, match=r"\[10, 140\]"):
        EENet.fit(random_log(300, 3, 0), budget=budget)


def test_mistakes_are_named():
    log = random_log(100, 3, 0)
    with pytest.raises(CalibrationError, match="too few"):
        EENet.fit(log.part(torch.arange(20)), budget=50.0)
    with pytest.raises(UsageError, match="hold-out"):
        EENet.fit(log, budget=50.0, holdout=1.0)
    dag = log_of(
        [[0.5] * 3] * 60, [[1] * 3] * 60, macs=[1, 2, 4], structure=Structure(("a", "b", "c"), ((1, 2), (2,), ()), 4)
    )
    with pytest.raises(PolicyError, match="chain"):
        EENet.fit(dag, budget=3.0)
    with pytest.raises(PolicyError, match="own log"):
        EENet.fit(log, budget=50.0, settings=QUICK).bind(random_log(9, 4, 0).structure)


def test_the_released_settings_are_a_policy_of_their_own(monkeypatch):
    assert PublishedEENet.family_settings == PUBLISHED
    quick = replace(PUBLISHED, epochs=20, restarts=1)
    monkeypatch.setattr(PublishedEENet, "family_settings", quick)
    log = random_log(120, 2, 0)
    members = PublishedEENet.family(log)
    assert len(members) == FAMILY_SIZE
    assert not any(member.clamp_past for member in members)
    assert all(0.27 <= share <= 0.74 for member in members for share in member.assignment), "r is bounded"
