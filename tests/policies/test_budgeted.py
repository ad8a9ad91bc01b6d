"""Quotas and thresholds for a budget, and the roof over them, against laws, brute force and linear programming."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from knapsack import oracle_curve, oracle_curve_of
from scipy.optimize import linprog
from synthetic_logs import log_of, random_log

from adaptbench.adaptive import CalibrationLog, Structure
from adaptbench.adaptive.outcome import signals_at
from adaptbench.adaptive.replay import evaluate_on, replay
from adaptbench.errors import PolicyError, UsageError
from adaptbench.policies.budgets.budgeted import BranchyNetBudget, MsdnetBudget, PabeeBudget
from adaptbench.policies.budgets.quotas import (
    NEVER,
    RELEASED_RATIOS,
    exits_taken,
    geometric_quotas,
    quota_thresholds,
    search_quotas,
)
from adaptbench.policies.thresholds.entropy import EntropyThreshold

BUDGETED = [MsdnetBudget, BranchyNetBudget, PabeeBudget]


# ---------------------------------------------------------------------- quotas


def test_geometric_quotas_in_closed_form():
    torch.testing.assert_close(geometric_quotas(2.0, 3), torch.tensor([2.0, 4.0, 8.0], dtype=torch.float64) / 14)
    base = torch.tensor([0.2, 0.5, 0.3])
    torch.testing.assert_close(geometric_quotas(1.0, 3, base), base.double(), atol=1e-7, rtol=0)
    assert geometric_quotas(1e-12, 4)[0] > 1 - 1e-9
    assert geometric_quotas(1e12, 4)[-1] > 1 - 1e-9


def test_the_released_ratios():
    assert len(RELEASED_RATIOS) == 80
    assert RELEASED_RATIOS[0] == pytest.approx(1 / 15)
    assert RELEASED_RATIOS[-1] == pytest.approx(81 / 15)


@pytest.mark.parametrize("ties", ["together", "released"])
@pytest.mark.parametrize("ratio", [0.2, 1.0, 3.0])
def test_thresholds_bring_the_quotas_about(ratio, ties):
    scores = torch.rand(997, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    quotas = geometric_quotas(ratio, 5)
    thresholds = quota_thresholds(scores, quotas, ties=ties)
    counts = torch.bincount(exits_taken(scores, thresholds), minlength=5)
    want = (quotas[:-1] * 997).floor().long().tolist()
    assert counts.tolist() == [*want, 997 - sum(want)]


def test_thresholds_as_a_loop_would_find_them():
    """The greedy rule spelt out: N_k-th largest of what is left, those N_k taken away."""
    scores = torch.rand(50, 3, generator=torch.Generator().manual_seed(1))
    left, want = list(range(50)), []
    for k, count in ((0, 12), (1, 20)):
        ranked = sorted(left, key=lambda i: float(scores[i, k]), reverse=True)
        want.append(float(scores[ranked[count - 1], k]))
        left = ranked[count:]
    got = quota_thresholds(scores, torch.tensor([12.4, 20.2, 17.4]) / 50)
    assert got[:2].tolist() == want
    assert got[2] == -torch.inf


def test_an_exit_without_a_quota_is_taken_by_nobody():
    scores = torch.ones(20, 3)
    thresholds = quota_thresholds(scores, torch.tensor([0.0, 0.5, 0.5]))
    assert thresholds[0] == NEVER
    assert (exits_taken(scores, thresholds) > 0).all()


def test_ties_leave_together():
    scores = torch.tensor([[0.9, 0.1], [0.9, 0.2], [0.9, 0.3], [0.1, 0.4]])
    thresholds = quota_thresholds(scores, torch.tensor([0.25, 0.75]))
    assert exits_taken(scores, thresholds).tolist() == [0, 0, 0, 1]


def test_ties_matter_to_the_next_exit():
    """Released: three remain for exit 2, though two have left when deployed; ours sees the one that is there."""
    scores = torch.tensor([[0.9, 0.8, 0], [0.9, 0.7, 0], [0.9, 0.6, 0], [0.1, 0.5, 0]])
    quotas = torch.tensor([0.25, 0.25, 0.5])
    assert quota_thresholds(scores, quotas)[1] == 0.5
    assert quota_thresholds(scores, quotas, ties="released")[1] == pytest.approx(0.7)


@pytest.mark.parametrize("budget", [12.0, 40.0, 90.0, 250.0])
def test_within_never_overspends_and_comes_close(budget):
    log = random_log(4000, 4, 3)
    found = search_quotas(log.confidence, log.exit_costs, budget)
    assert budget * 0.98 <= found.cost <= budget
    assert found.cost == pytest.approx(float(log.exit_costs[exits_taken(log.confidence, found.thresholds)].mean()))


@pytest.mark.parametrize("budget", [40.0, 90.0])
def test_released_takes_the_first_ratio_that_overspends(budget):
    log = random_log(4000, 4, 3)
    found = search_quotas(log.confidence, log.exit_costs, budget, acceptance="released")
    where = RELEASED_RATIOS.index(found.ratio)
    assert float(geometric_quotas(found.ratio, 4) @ log.exit_costs) > budget
    assert float(geometric_quotas(RELEASED_RATIOS[where - 1], 4) @ log.exit_costs) <= budget
    assert budget < found.cost < budget * 1.15


def test_released_cannot_go_beyond_its_last_ratio():
    log = random_log(500, 4, 3)
    assert search_quotas(log.confidence, log.exit_costs, 299.0, acceptance="released").ratio == RELEASED_RATIOS[-1]


def test_an_unknown_acceptance():
    log = random_log(100, 3, 0)
    with pytest.raises(UsageError, match="no acceptance"):
        search_quotas(log.confidence, log.exit_costs, 20.0, acceptance="about")


# ---------------------------------------------------------------------- policies


@pytest.mark.parametrize("policy", BUDGETED)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.4, 0.8, 1.0])
def test_a_fitted_policy_costs_its_budget(policy, share):
    log = random_log(3000, 4, 5)
    low, high = log.exit_costs[[0, -1]].tolist()
    budget = low + share * (high - low)
    cost = evaluate_on(policy.fit(log, budget=budget), log).cost_mean
    assert cost <= budget * (1 + 1e-6)
    assert cost >= budget * 0.98


def test_costs_are_quotas_times_exit_costs():
    log = random_log(5000, 4, 6)
    fitted = MsdnetBudget.fit(log, budget=60.0)
    quotas = (geometric_quotas(fitted.ratio, 4)[:-1] * 5000).floor() / 5000
    quotas = torch.cat([quotas, 1 - quotas.sum(0, keepdim=True)])
    assert evaluate_on(fitted, log).cost_mean == pytest.approx(float(quotas @ log.exit_costs), rel=1e-6)


@pytest.mark.parametrize("policy", BUDGETED)
@pytest.mark.parametrize("budget", [9.0, 301.0, float("nan")])
def test_a_budget_out_of_range_is_refused_with_the_range(policy, budget):
    with pytest.raises(UsageError, match=r"\[10, 300\]"):
        policy.fit(random_log(300, 4, 0), budget=budget)


def test_budgets_are_in_the_logs_own_unit():
    log = random_log(2000, 3, 0).priced(torch.tensor([0.1, 0.1, 0.3]), "J")
    fitted = MsdnetBudget.fit(log, budget=0.25)
    assert fitted.describe()["cost_unit"] == "J"
    assert evaluate_on(fitted, log).cost_mean == pytest.approx(0.25, rel=0.01)


def test_a_dag_is_refused():
    log = random_log(100, 3, 0)
    dag = CalibrationLog(
        log.logits, log.labels, Structure(("a", "b", "c"), ((1, 2), (2,), ()), 4), log.node_macs, log.data, log.role, ""
    )
    for policy in (*BUDGETED, EntropyThreshold):
        with pytest.raises(PolicyError, match="chains"):
            policy.fit(dag, **({"budget": 20.0} if policy is not EntropyThreshold else {}))


def test_another_number_of_exits_is_refused():
    with pytest.raises(PolicyError, match="thresholds"):
        MsdnetBudget.fit(random_log(100, 4, 0), budget=30.0).bind(random_log(10, 3, 0).structure)


def test_scores_in_closed_form():
    log = random_log(200, 3, 2)
    p = log.logits.softmax(-1)
    seen = [signals_at(log.logits, k) for k in range(3)]
    blank = {c: c(torch.zeros(2), budget=1.0, ratio=1.0) for c in BUDGETED}
    torch.testing.assert_close(blank[MsdnetBudget].score(1, seen[1]), p[:, 1].amax(-1))
    entropy = 1 + (p[:, 1] * p[:, 1].log()).sum(-1) / np.log(4)
    torch.testing.assert_close(blank[BranchyNetBudget].score(1, seen[1]), entropy, atol=1e-5, rtol=1e-5)


def test_votes_count_before_confidence():
    log = random_log(400, 3, 2)
    said = log.logits.argmax(-1)
    score = PabeeBudget(torch.zeros(2), budget=1.0, ratio=1.0).score(2, signals_at(log.logits, 2))
    votes = torch.tensor([max(row.count(c) for c in row) for row in said.tolist()])
    assert score[votes == 3].min() > score[votes == 2].max()
    assert score[votes == 2].min() > score[votes == 1].max()
    same = votes == 2
    assert torch.equal(score[same].argsort(), log.confidence[same, 2].argsort())
    assert float(score.max()) <= 1


@pytest.mark.parametrize("policy", [*BUDGETED, EntropyThreshold])
def test_a_family_spans_the_range(policy):
    log = random_log(1000, 4, 1)
    costs = [evaluate_on(p, log).cost_mean for p in policy.family(log)]
    assert len(costs) >= 10
    assert costs == sorted(costs)
    assert costs[0] == pytest.approx(10)
    assert costs[-1] == pytest.approx(300)


def test_entropy_leaves_below_its_threshold():
    log = random_log(300, 3, 4)
    p = log.logits.softmax(-1)
    entropy = -(p * p.log()).sum(-1) / np.log(4)
    found = replay(EntropyThreshold(0.5), log.structure, log.logits)
    want = [next((k for k in range(2) if row[k] < 0.5), 2) for row in entropy.tolist()]
    assert found.exit.tolist() == want


# ---------------------------------------------------------------------- the roof


def _by_linear_programming(gains, costs, budget):
    n, p = gains.shape
    one_each = np.kron(np.eye(n), np.ones(p))
    solved = linprog(
        -gains.flatten(),
        A_ub=np.tile(costs, n)[None],
        b_ub=[budget * n],
        A_eq=one_each,
        b_eq=np.ones(n),
        bounds=(0, 1),
        method="highs",
    )
    assert solved.success
    return -solved.fun / n


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 10_000), st.booleans())
def test_the_roof_is_the_linear_programme(n, p, seed, binary):
    rng = np.random.default_rng(seed)
    gains = rng.integers(0, 2, (n, p)).astype(float) if binary else rng.normal(size=(n, p))
    costs = rng.integers(1, 12, p).astype(float)  # equal costs happen, and need not rise
    curve = oracle_curve(torch.tensor(gains), torch.tensor(costs))
    for share in (0.0, 0.2, 0.5, 0.9, 1.0):
        budget = costs.min() + share * (costs.max() - costs.min())
        assert curve.at(budget) == pytest.approx(_by_linear_programming(gains, costs, budget), abs=1e-7)


def test_the_roof_at_its_corners_is_the_best_of_all_choices():
    rng = np.random.default_rng(0)
    gains, costs = rng.integers(0, 2, (4, 3)).astype(float), np.array([1.0, 3.0, 7.0])
    curve = oracle_curve(torch.tensor(gains), torch.tensor(costs))
    for budget, accuracy in zip(curve.cost, curve.accuracy, strict=True):
        every = [
            gains[range(4), choice].mean()
            for choice in itertools.product(range(3), repeat=4)
            if costs[list(choice)].mean() <= budget + 1e-9
        ]
        assert max(every) == pytest.approx(accuracy)


def test_the_roof_is_concave_and_over_every_policy():
    log = random_log(2000, 4, 9)
    curve = oracle_curve_of(log)
    assert (np.diff(curve.cost) > 0).all()
    slopes = np.diff(curve.accuracy) / np.diff(curve.cost)
    assert (np.diff(slopes) < 0).all()
    for policy in MsdnetBudget.family(log):
        point = evaluate_on(policy, log)
        assert point.accuracy <= curve.at(point.cost_mean) + 1e-6
    assert curve.accuracy[-1] == pytest.approx(float(log.correct.any(1).float().mean()))
    assert curve.at(1e9) == curve.accuracy[-1]


def test_the_roof_of_a_dag_takes_the_cheapest_ways():
    structure = Structure(("a", "b", "c"), ((1, 2), (2,), ()), 4)
    log = log_of([[0.5] * 3] * 2, [[0, 0, 1], [0, 1, 1]], macs=[1, 2, 4], structure=structure)
    curve = oracle_curve_of(log)  # a alone 1, a → b 3, a → c 5
    np.testing.assert_allclose(curve.cost, [1.0, 2.0, 4.0])
    np.testing.assert_allclose(curve.accuracy, [0.0, 0.5, 1.0])


def test_the_roof_has_no_answer_below_the_cheapest_way():
    with pytest.raises(UsageError, match="no choice costs"):
        oracle_curve(torch.ones(3, 2), torch.tensor([2.0, 4.0])).at(1.0)
