"""exact-budget: budgets met, the promise kept, and better answers for the money."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from knapsack import oracle_curve_of
from synthetic_logs import chain, log_of, random_log

from adaptbench.adaptive import CalibrationLog, Structure
from adaptbench.adaptive.outcome import signals_at
from adaptbench.adaptive.replay import evaluate_on, replay
from adaptbench.errors import CalibrationError, PolicyError, UsageError
from adaptbench.policies.budgets.budgeted import MsdnetBudget
from adaptbench.policies.budgets.exact_budget import ExactBudget
from adaptbench.policies.budgets.value_of_going_on import (
    Crossfit,
    foretell,
    history_features,
    history_width,
    outcomes_foreseen,
    ridge,
    soft_correct,
    value_basis,
)


def noisy_log(n, seed, *, nodes=3, classes=4):
    """Each node sees the class through less noise than the one before; samples differ in how hard they are."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    hardness = rng.uniform(0.2, 2.0, (n, 1))
    logits = np.zeros((n, nodes, classes))
    for k in range(nodes):
        seen = np.eye(classes)[labels] + hardness * (1.2 - 0.4 * k) * rng.normal(size=(n, classes))
        logits[:, k] = (3.0 - k) * seen  # the weak are the most sure of themselves
    return CalibrationLog(
        torch.tensor(logits, dtype=torch.float32),
        torch.tensor(labels),
        chain(nodes, classes),
        torch.tensor([10 * 3**v for v in range(nodes)]),
        "synthetic",
        "calibration",
        "",
    )


@pytest.fixture(scope="module")
def log():
    return noisy_log(4000, 0)


@pytest.fixture(scope="module")
def fresh():
    return noisy_log(60_000, 1)


@pytest.fixture(scope="module")
def well_fitted():
    return ExactBudget.fit(noisy_log(30_000, 3), budget=60.0, margin=0.0, folds=2)


@pytest.fixture(scope="module")
def fitted(log):
    return ExactBudget.fit(log, budget=60.0, margin=0.0)


# ---------------------------------------------------------------------- the budget


@pytest.mark.slow
@pytest.mark.parametrize("budget", [15.0, 30.0, 45.0, 60.0, 80.0, 100.0, 120.0])
def test_a_budget_is_met_on_new_samples(well_fitted, fresh, budget):
    """To one per cent, where the calibration samples are so many that chance, s·√(1/n + 1/m), stays below that."""
    assert evaluate_on(well_fitted.at(budget), fresh).cost_mean == pytest.approx(budget, rel=0.01)


def test_a_budget_is_missed_by_chance_alone(fresh):
    """Over fits on other samples the error is as large as sampling makes it, and to neither side."""
    part = fresh.part(torch.arange(20_000))
    errors = []
    for seed in range(8):
        fitted = ExactBudget.fit(noisy_log(600, 100 + seed), budget=60.0, margin=0.0, folds=2)
        costs, spreads = fitted.costs.flip(0).numpy(), fitted.spreads.flip(0).numpy()
        for budget in (15.0, 60.0, 100.0):
            chance = float(np.interp(budget, costs, spreads)) * (1 / 600 + 1 / len(part)) ** 0.5
            errors.append((evaluate_on(fitted.at(budget), part).cost_mean - budget) / chance)
    assert abs(np.mean(errors)) < 0.6
    assert np.sqrt(np.mean(np.square(errors))) < 1.5


def test_a_wrong_budget_would_be_found(well_fitted, fresh):
    """Planted: a table whose costs are 3 % off shows in the test above."""
    wrong = well_fitted.at(60.0)
    wrong.costs.mul_(1.03)
    wrong._set_budget(60.0)
    assert evaluate_on(wrong, fresh).cost_mean != pytest.approx(60.0, rel=0.01)


def test_inputs_that_cost_more_than_those_fitted_on_are_met_without_labels(fitted, fresh):
    """The easy half of the samples gone: the old table overspends, one estimated on such inputs does not."""
    lead = fresh.logits[:, 0].softmax(-1).amax(-1)
    rows = (lead < lead.median()).nonzero().squeeze(1)
    seen, later = fresh.part(rows[::2]), fresh.part(rows[1::2])
    assert evaluate_on(fitted, later).cost_mean > 1.03 * fitted.budget
    unlabelled = replace(seen, labels=torch.zeros_like(seen.labels))
    anew = fitted.recosted(unlabelled)
    assert evaluate_on(anew, later).cost_mean == pytest.approx(fitted.budget, rel=0.02)
    assert anew.budget == fitted.budget
    assert anew.fitted_on == len(seen)


def test_costs_estimated_anew_on_the_same_samples_change_nothing(fitted, log):
    anew = fitted.recosted(log)
    for budget in (20.0, 60.0, 100.0):
        assert anew.at(budget).target == pytest.approx(budget)
        assert evaluate_on(anew.at(budget), log).cost_mean == pytest.approx(
            evaluate_on(fitted.at(budget), log).cost_mean, rel=1e-3
        )


@pytest.mark.parametrize("end", [0, -1])
def test_the_ends_of_the_range_are_fixed_exits(fitted, fresh, end):
    budget = float(fresh.exit_costs[end])
    found = replay(fitted.at(budget), fresh.structure, fresh.logits, seeds=torch.arange(len(fresh)))
    assert (found.exit == (0 if end == 0 else 2)).all()


def test_a_budget_is_met_where_all_scores_tie():
    """Two kinds of samples only: thresholds could give three mean costs, draws give every one."""
    n = 3000
    kind = torch.arange(n) % 2 == 0
    small = torch.where(kind[:, None], torch.tensor([3.0, 0.0]), torch.tensor([0.4, 0.0]))
    labels = torch.zeros(n, dtype=torch.int64)
    labels[~kind & (torch.arange(n) % 3 == 0)] = 1
    large = torch.nn.functional.one_hot(labels, 2) * 3.0
    log = CalibrationLog(
        torch.stack([small, large], 1), labels, chain(2, 2), torch.tensor([1, 3]), "synthetic", "calibration", ""
    )
    fitted = ExactBudget.fit(log, budget=1.6, margin=0.0)
    for budget in (1.3, 1.9, 2.2, 3.1):
        assert evaluate_on(fitted.at(budget), log).cost_mean == pytest.approx(budget, rel=0.03)


@pytest.mark.slow
def test_the_promise_is_kept():
    """β = 2 %: in at most 5 of 100 re-splits (calibration and test both anew) do new samples cost more than the budget.

    Two are expected; without a margin it would be fifty, and is.
    """
    everything = noisy_log(60_000, 2, nodes=2)
    kept, without = 0, 0
    generator = torch.Generator().manual_seed(0)
    for _ in range(100):
        rows = torch.randperm(len(everything), generator=generator)[:1500]
        policy = ExactBudget.fit(everything.part(rows[:500]), budget=24.0, beta=0.02, deployed=1000, folds=2)
        new = everything.part(rows[500:])
        kept += evaluate_on(policy, new).cost_mean <= 24.0
        without += evaluate_on(policy._with(margin=0.0), new).cost_mean <= 24.0
    assert kept >= 95
    assert 35 <= without <= 65


def test_the_margin_is_the_normal_bound(fitted):
    free = fitted._with(margin=None)
    assert free.target < 60.0 == fitted.target
    spread = float(np.interp(free.target, fitted.costs.flip(0).numpy(), fitted.spreads.flip(0).numpy()))
    assert free.target + 1.6448536 * spread * (1 / 4000 + 1 / 10_000) ** 0.5 == pytest.approx(60.0, rel=1e-6)
    assert fitted._with(margin=0.1).target == pytest.approx(54.0)


def test_the_tables_spread_is_that_of_costs_on_new_samples(fitted, fresh):
    found = replay(fitted, fresh.structure, fresh.logits, seeds=torch.arange(len(fresh)))
    at = float(np.interp(60.0, fitted.costs.flip(0).numpy(), fitted.spreads.flip(0).numpy()))
    assert at == pytest.approx(float(found.cost(fresh.node_costs).std()), rel=0.05)


def test_draws_hang_on_the_seed_alone(fitted, fresh):
    policy = fitted.at(47.0)
    part = fresh.part(torch.arange(500))
    seeds = torch.arange(500)
    once = replay(policy, part.structure, part.logits, seeds=seeds)
    order = torch.randperm(500)
    again = replay(policy, part.structure, part.logits[order], seeds=seeds[order])
    assert torch.equal(once.exit[order], again.exit)


@pytest.mark.parametrize("budget", [9.0, 131.0])
def test_a_budget_out_of_range_is_refused(fitted, log, budget):
    with pytest.raises(UsageError, match=r"\[10, 130\]"):
        fitted.at(budget)
    with pytest.raises(UsageError, match=r"\[10, 130\]"):
        ExactBudget.fit(log, budget=budget)


def test_other_mistakes_are_named(log, fitted):
    with pytest.raises(CalibrationError, match="too few"):
        ExactBudget.fit(log.part(torch.arange(50)), budget=50.0)
    with pytest.raises(UsageError, match="no probability"):
        ExactBudget.fit(log, budget=50.0, beta=0.0)
    with pytest.raises(PolicyError, match="own log"):
        fitted.bind(chain(4, 4))
    structure = Structure(("a", "b", "c"), ((1, 2), (2,), ()), 4)
    dag = log_of([[0.5] * 3] * 200, [[1] * 3] * 200, macs=[1, 2, 4], structure=structure)
    with pytest.raises(PolicyError, match="chains"):
        ExactBudget.fit(dag, budget=3.0)


# ---------------------------------------------------------------------- the answers


@pytest.mark.slow
def test_it_beats_quotas_of_the_top_probability(fitted, fresh, log):
    """On nets whose early exits are over-sure, at equal realised cost; and it stays below the roof."""
    quotas = [evaluate_on(p, fresh) for p in MsdnetBudget.family(log)]
    roof = oracle_curve_of(fresh)
    for budget in (20.0, 35.0, 50.0, 70.0):
        point = evaluate_on(fitted.at(budget), fresh)
        base = np.interp(point.cost_mean, [q.cost_mean for q in quotas], [q.accuracy for q in quotas])
        assert point.accuracy > base + 0.002
        assert point.accuracy < roof.at(point.cost_mean)


def test_at_every_budget_it_is_no_worse_than_the_best_fixed_exit(fitted, fresh):
    accuracy = fresh.correct.double().mean(0).numpy()
    costs = fresh.exit_costs.numpy()
    for k in range(3):
        assert evaluate_on(fitted.at(float(costs[k])), fresh).accuracy >= accuracy[k] - 1e-6


def test_where_going_on_helps_is_found():
    """Planted: only samples of one class gain from going on, and at any price they go first."""
    rng = np.random.default_rng(0)
    n = 2000
    said = rng.integers(0, 4, n)
    hopeful = rng.random(n) < 0.5
    labels = np.where(hopeful, (said + rng.integers(1, 4, n)) % 4, said)
    confidence = np.where(hopeful, 0.55, 0.5) + rng.uniform(-0.02, 0.02, n)  # the wrong are the surer ones
    correct = np.stack([~hopeful, np.ones(n, bool)], 1)
    log = log_of(np.stack([confidence, np.full(n, 0.97)], 1), correct, macs=[1, 1])
    fitted = ExactBudget.fit(log, budget=1.5, margin=0.0)
    found = replay(fitted, log.structure, log.logits, seeds=torch.arange(n))
    assert float((found.exit.numpy() == hopeful).mean()) > 0.97
    assert len(labels) == n


def test_gradients_reach_this_exit_and_the_earlier_ones(fitted, log):
    history = log.logits[:50].clone().requires_grad_()
    signals = signals_at(history, 1)
    signals.seeds = torch.arange(50)
    (gradient,) = torch.autograd.grad(fitted.margin(1, signals).sum(), history)
    assert torch.isfinite(gradient).all()
    assert (gradient[:, 0] != 0).any(1).all()
    assert (gradient[:, 1] != 0).any(1).all()
    assert (gradient[:, 2] == 0).all()


def test_at_refits_nothing_and_equals_a_fit(fitted, log):
    other = ExactBudget.fit(log, budget=33.0, margin=0.0)
    moved = fitted.at(33.0)
    assert moved.describe() == other.describe()
    for name, tensor in moved.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])


def test_a_family_meets_its_budgets(log):
    members = ExactBudget.family(log)
    assert len(members) >= 15
    for member in members:
        assert evaluate_on(member, log).cost_mean == pytest.approx(member.budget, rel=0.015)


# ---------------------------------------------------------------------- its parts


def test_soft_targets_are_right_on_average_and_less_noisy():
    log = noisy_log(20_000, 5)
    soft, hard = soft_correct(log), log.correct.double()
    torch.testing.assert_close(soft.mean(0), hard.mean(0), atol=2e-3, rtol=0)
    for k in range(3):
        for low in (0.1, 0.4, 0.7):
            inside = (soft[:, k] >= low) & (soft[:, k] < low + 0.2)
            assert float(hard[inside, k].mean()) == pytest.approx(float(soft[inside, k].mean()), abs=0.04)
    gain, noisy = soft[:, 2] - soft[:, 0], hard[:, 2] - hard[:, 0]
    assert float(gain.std()) < float(noisy.std())


def test_soft_targets_follow_top_k():
    log = noisy_log(2000, 5)
    assert (soft_correct(log.judged(2)).mean(0) > soft_correct(log).mean(0)).all()


def test_features_have_their_width_and_are_finite_when_saturated():
    logits = torch.tensor([[[200.0, 0, 0, -50.0]] * 3, [[0.0, 0, 0, 0]] * 3])
    for node in range(3):
        got = history_features(logits, node)
        assert got.shape == (2, history_width(4, node))
        assert torch.isfinite(got).all()
    wide = torch.randn(5, 2, 100)
    assert history_features(wide, 1).shape == (5, history_width(100, 1))


def test_features_do_not_see_later_exits(log):
    history = log.logits[:20].clone()
    before = history_features(history, 1)
    history[:, 2] = 7.0
    assert torch.equal(before, history_features(history, 1))


def test_what_is_foretold():
    assert outcomes_foreseen(0, 5) == (0, 1, 4)
    assert outcomes_foreseen(3, 5) == (3, 4)
    assert value_basis(torch.zeros(2, 3)).shape == (2, 14)


def test_logistic_layers_equal_cross_fitted_ones_in_expectation():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 3, generator=generator)
    chance = (x @ torch.tensor([1.0, -2.0, 0.0]) + 0.5).sigmoid()
    aside, layer = foretell(x, chance[:, None], Crossfit.drawn(4000, 5, 0), strength=10.0)
    torch.testing.assert_close(layer.weight[0], torch.tensor([1.0, -2.0, 0.0]), atol=0.03, rtol=0)
    assert float(layer.bias[0].detach()) == pytest.approx(0.5, abs=0.03)
    torch.testing.assert_close(aside.float(), layer(x).detach(), atol=0.05, rtol=0)


def test_ridge_is_scikit_learns():
    from sklearn.linear_model import Ridge

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 4)), rng.normal(size=(200, 3))
    want = Ridge(alpha=7.0).fit(x, y)
    got = ridge(x, y, 7.0)
    np.testing.assert_allclose(got[0], want.intercept_)
    np.testing.assert_allclose(got[1:], want.coef_.T)


def test_folds_are_even():
    assert np.bincount(Crossfit.drawn(103, 5, 0).of).tolist() == [21, 21, 21, 20, 20]


def test_classes_that_are_never_wrong_do_not_break_a_fit():
    log = random_log(300, 3, 0)
    sure = log_of(np.full((300, 3), 0.9), np.ones((300, 3), bool), macs=[1, 2, 4])
    for some in (log, sure):
        low, high = some.exit_costs[[0, -1]].tolist()
        fitted = ExactBudget.fit(some, budget=(low + high) / 2, margin=0.0)
        assert all(torch.isfinite(t).all() for t in fitted.state_dict().values())
        assert evaluate_on(fitted, some).cost_mean == pytest.approx((low + high) / 2, rel=0.1)  # 300 coins
