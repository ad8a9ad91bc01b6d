"""Committees, energies and the threshold search behind them."""

import itertools
import math

import numpy as np
import pytest
import torch
from synthetic_logs import log_of, random_log

from adaptbench.adaptive import Signals
from adaptbench.adaptive.outcome import signals_at
from adaptbench.adaptive.replay import evaluate_on, replay
from adaptbench.errors import CalibrationError, PolicyError, UsageError
from adaptbench.policies.cascades.committees import Committees, committee
from adaptbench.policies.thresholds.ebjr import EnergyRouting
from adaptbench.policies.thresholds.score_thresholds import candidate_levels, search_thresholds
from adaptbench.testing import planted_graph, planted_split


def planted_log():
    return planted_graph().log(planted_split())


# ---------------------------------------------------------------------- the search


def objective(scores, correct, costs, thresholds, price):
    leaves = np.concatenate([scores >= thresholds, np.ones((len(scores), 1), bool)], 1).argmax(1)
    rows = np.arange(len(scores))
    return (correct[rows, leaves] - price * costs[leaves]).mean()


@pytest.mark.parametrize("price", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("seed", range(5))
def test_one_threshold_is_the_best_of_all(seed, price):
    log = random_log(120, 2, seed)
    scores, correct = log.confidence[:, :1].double().numpy(), log.correct.numpy()
    costs = np.array([0.2, 1.0])
    levels = [candidate_levels(scores[:, 0], 500, (-1.0, 2.0))]
    chosen = search_thresholds(scores, correct, costs, levels, price)
    got = objective(scores, correct, costs, levels[0][chosen], price)
    every = [objective(scores, correct, costs, np.array([t]), price) for t in np.append(scores[:, 0], [-1, 2])]
    assert got == pytest.approx(max(every), abs=1e-12)


@pytest.mark.parametrize("price", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("seed", range(4))
def test_several_thresholds_are_no_worse_than_any_neighbour_and_near_the_best(seed, price):
    log = random_log(300, 3, seed)
    scores, correct = log.confidence[:, :2].double().numpy(), log.correct.numpy()
    costs = np.array([0.1, 0.4, 1.0])
    levels = [candidate_levels(scores[:, k], 20, (-1.0, 2.0)) for k in range(2)]
    chosen = search_thresholds(scores, correct, costs, levels, price)
    table = {
        pair: objective(scores, correct, costs, np.array([levels[0][pair[0]], levels[1][pair[1]]]), price)
        for pair in itertools.product(*(range(len(level)) for level in levels))
    }
    got = table[tuple(chosen)]
    for k in range(2):
        line = [v for pair, v in table.items() if pair[1 - k] == chosen[1 - k]]
        assert got >= max(line) - 1e-9
    assert got >= max(table.values()) - 0.01


def test_levels_lie_between_scores_and_include_the_limits():
    levels = candidate_levels(np.array([0.2, 0.2, 0.4, 0.8]), 10, (-1.0, 2.0))
    assert levels[[0, -1]].tolist() == [-1.0, 2.0]
    assert levels[1:-1] == pytest.approx([0.2, 0.3, 0.6])


# ---------------------------------------------------------------------- committees


def test_the_average_is_of_probabilities():
    logits = torch.randn(6, 3, 5, generator=torch.Generator().manual_seed(0))
    for k in range(3):
        want = logits[:, : k + 1].softmax(-1).mean(1)
        got = committee(signals_at(logits, k), "probabilities")
        assert torch.allclose(got.exp(), want, atol=1e-6)
        assert torch.allclose(committee(signals_at(logits, k), "logits"), logits[:, : k + 1].mean(1), atol=1e-6)


def test_the_average_answers_and_its_confidence_decides():
    log = random_log(200, 3, 1)
    policy = Committees.fit(log, drop=0.0)
    found = replay(policy, log.structure, log.logits)
    for i in range(0, 200, 17):
        running = log.logits[i].softmax(-1).cumsum(0) / torch.arange(1, 4)[:, None]
        heights = [*policy.thresholds[policy.prices.index(policy.price)].tolist(), 0.0]
        leave = next(k for k in range(3) if running[k].max() >= heights[k])
        assert int(found.exit[i]) == leave
        assert torch.allclose(found.logits[i].exp(), running[leave], atol=1e-6)


def test_averaging_beats_its_members_where_their_mistakes_differ():
    rng = np.random.default_rng(0)
    correct = rng.random((2000, 3)) < 0.7
    confidence = np.where(correct, 0.9, 0.5)  # a mistake is made with less confidence
    log = log_of(confidence, correct, macs=[10, 10, 10])
    dear = Committees.family(log)[-1]
    assert evaluate_on(dear, log).accuracy > float(log.correct.float().mean(0).max()) + 0.1


def test_targets_are_kept():
    log = random_log(1000, 3, 2)
    best = float(log.correct.float().mean(0).max())
    policy = Committees.fit(log, drop=0.03)
    assert evaluate_on(policy, log).accuracy >= best - 0.03
    budget = 0.5 * float(log.exit_costs[-1])
    point = evaluate_on(Committees.fit(log, budget=budget), log)
    assert point.cost_mean <= budget
    others = [evaluate_on(p, log) for p in Committees.family(log)]
    assert point.accuracy == max(p.accuracy for p in others if p.cost_mean <= budget)
    with pytest.raises(UsageError, match="below what leaving"):
        Committees.fit(log, budget=2.0)


def test_the_path_runs_from_cheap_to_dear():
    log = random_log(1000, 4, 3)
    for kind in (Committees, EnergyRouting):
        family = kind.family(log)
        costs = [evaluate_on(p, log).cost_mean for p in family]
        assert costs == sorted(costs)
        assert len(family) >= 10
        assert list(family[0].prices) == sorted(family[0].prices, reverse=True)


def test_costs_in_another_unit_change_the_choice():
    log = random_log(1000, 3, 4)
    other = Committees.fit(log.priced(torch.tensor([1.0, 100.0, 1.0]), "seconds"))
    assert other.describe()["cost_unit"] == "seconds"
    assert not torch.equal(other.thresholds, Committees.fit(log).thresholds)


def test_wrong_settings_are_named():
    log = random_log(100, 3, 0)
    with pytest.raises(UsageError, match="median"):
        Committees.fit(log, average="median")
    with pytest.raises(UsageError, match="was not fitted"):
        Committees.fit(log).at(0.123456)
    with pytest.raises(UsageError, match="no temperature"):
        EnergyRouting.fit(log, temperature=0.0)
    with pytest.raises(CalibrationError, match="too few"):
        Committees.fit(random_log(20, 3, 0))
    with pytest.raises(PolicyError, match="2 thresholds were given to 4"):
        Committees.fit(log).bind(random_log(100, 4, 0).structure)
    dag = planted_graph("dag").log(planted_split())
    with pytest.raises(PolicyError, match="chains"):
        EnergyRouting.fit(dag)


# ---------------------------------------------------------------------- energy


def test_energy_is_minus_the_soft_maximum():
    log = random_log(100, 2, 0)
    for temperature in (0.5, 1.0, 3.0):
        policy = EnergyRouting.fit(log, temperature=temperature)
        z = log.logits[:5, 0]
        want = [temperature * math.log(sum(math.exp(v / temperature) for v in row)) for row in z.tolist()]
        assert policy.score(0, Signals(z)).tolist() == pytest.approx(want, rel=1e-5)


def test_energy_separates_what_the_softmax_does_not():
    """Logits shifted by a constant: the same softmax, another energy."""
    log = random_log(400, 2, 0)
    right = log.correct[:, :1]
    shifted = log.logits.clone()
    shifted[:, 0] += torch.where(right, 5.0, -5.0)
    log = type(log)(shifted, log.labels, log.structure, log.node_macs, log.data, log.role, "")
    best = max(evaluate_on(p, log).accuracy for p in EnergyRouting.family(log))
    assert best == pytest.approx(float(log.correct.any(1).float().mean()))
    assert best > max(evaluate_on(p, log).accuracy for p in Committees.family(log))
