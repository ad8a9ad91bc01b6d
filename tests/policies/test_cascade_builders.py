"""Pairs and greedy cascades: found on logged logits, then really run."""

import itertools

import numpy as np
import pytest
import torch
from synthetic_logs import chain, log_of, random_log

from adaptbench.adaptive import Structure
from adaptbench.adaptive.replay import evaluate_on, replay
from adaptbench.errors import CalibrationError, PolicyError, UsageError
from adaptbench.policies.cascades.pairs import LebovitzPair, Pair, all_pairs, pair_cascade, pareto
from adaptbench.policies.cascades.route import PASS, Route, RoutePolicy, Steps
from adaptbench.policies.cascades.streeter import Streeter, greedy_cascade, streeter_cascade
from adaptbench.testing import planted_graph, planted_split
from adaptbench.testing.planted import SHAPE

DAG = Structure(("a", "b", "c", "d"), ((1, 2), (3,), (3,), ()), 4)


def dag_log(n=600, seed=0):
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.3, 0.999, (n, 4))
    correct = rng.random((n, 4)) < np.array([0.1, 0.2, 0.3, 0.4]) + 0.6 * confidence
    return log_of(confidence, correct, macs=[10, 50, 20, 100], structure=DAG, seed=seed)


def nets_of(graph):
    return dict(zip(graph.node_names, graph.stages, strict=True))


# ---------------------------------------------------------------------- steps through a graph


def test_steps_take_the_cheapest_way_and_pay_for_what_is_passed():
    steps = Steps.graph(DAG, torch.tensor([10.0, 50.0, 20.0, 100.0]))
    inf = float("inf")
    assert steps.cost[0].tolist() == [10, 60, 30, 130]
    assert steps.cost[1].tolist() == [inf, 50, 20, 120]
    assert steps.cost[2].tolist() == [inf, inf, inf, 100]
    assert steps.between(-1, 3) == [0, 2, 3]
    assert steps.between(1, 3) == [3]
    assert steps.route([(0, 0.9), (3, -1.0)]) == Route((0, 2, 3), (0.9, PASS, -1.0))


def test_a_pool_has_no_ways():
    steps = Steps.pool(torch.tensor([1.0, 5.0]))
    assert steps.cost.tolist() == [[1, 5], [float("inf"), 5], [1, float("inf")]]
    assert steps.route([(1, 0.5), (0, -1.0)]).way == (1, 0)


def test_routes_that_the_graph_lacks_are_refused():
    with pytest.raises(PolicyError, match="from node 1 to 2"):
        RoutePolicy(Route((0, 1, 2), (0.5, 0.5, -1.0))).bind(DAG)
    with pytest.raises(PolicyError, match="entry is node 0"):
        RoutePolicy(Route((1, 3), (0.5, -1.0))).bind(DAG)


# ---------------------------------------------------------------------- pairs


@pytest.mark.parametrize("seed", range(3))
def test_pairs_are_counted_right(seed):
    log = random_log(200, 3, seed, levels=20)
    confidence, correct = log.confidence.double().numpy(), log.correct.numpy()
    pairs = all_pairs(log, quantiles=10)
    assert {(p.first, p.second) for p in pairs} == set(itertools.permutations(range(3), 2))
    for pair in pairs[:: max(len(pairs) // 40, 1)]:
        keeps = confidence[:, pair.first] >= pair.threshold
        right = np.where(keeps, correct[:, pair.first], correct[:, pair.second])
        first, second = (float(log.node_costs[v]) for v in (pair.first, pair.second))
        assert pair.accuracy == pytest.approx(right.mean())
        assert pair.deferral == pytest.approx(1 - keeps.mean())
        assert pair.cost == pytest.approx((first + ~keeps * second).mean())


def test_the_pareto_set_is_what_nothing_beats():
    pairs = all_pairs(random_log(300, 3, 1), quantiles=30)
    front = pareto(pairs)
    assert [p.cost for p in front] == sorted(p.cost for p in front)
    for p in front:
        assert not any(q.cost <= p.cost and q.accuracy > p.accuracy for q in pairs)
    for q in pairs:
        assert any(p.cost <= q.cost and p.accuracy >= q.accuracy for p in front)


def test_a_pair_need_not_start_at_the_first_net():
    """Net 0 is worthless: the pair (1, 2) is on the front, and runs as a cascade of its own."""
    graph = planted_graph("dag")
    log = graph.log(planted_split())
    pair = max((p for p in all_pairs(log) if (p.first, p.second) == (1, 2)), key=lambda p: (p.accuracy, -p.cost))
    model = pair_cascade(nets_of(graph), log, pair, input_shape=SHAPE)
    assert model.node_names == ("middle", "large")
    found = model.infer(planted_split().images())
    answers = found.predictions == planted_split().y
    assert float(answers.float().mean()) == pytest.approx(pair.accuracy, abs=0.011)  # ties
    assert float(found.macs.double().mean()) == pytest.approx(pair.cost, rel=0.02)
    with pytest.raises(UsageError, match="'large'"):
        pair_cascade({"middle": nets_of(graph)["middle"]}, log, pair, input_shape=SHAPE)


@pytest.mark.parametrize("log", [dag_log(), random_log(600, 4, 3)], ids=["dag", "chain"])
def test_the_family_lands_where_the_front_says(log):
    front = pareto(all_pairs(log, steps=Steps.graph(log.structure, log.node_costs), quantiles=200))
    by_cost = {round(p.cost, 6): p for p in front}
    family = LebovitzPair.family(log)
    for member in family:
        point = evaluate_on(member, log)
        assert by_cost[round(point.cost_mean, 6)].accuracy == pytest.approx(point.accuracy)
    chosen = evaluate_on(LebovitzPair.fit(log, drop=0.02), log)
    assert chosen.accuracy >= float(log.correct.float().mean(0).max()) - 0.02 - 1e-6


def test_nodes_passed_on_the_way_never_answer():
    log = random_log(300, 4, 5)
    policy = LebovitzPair(Steps.graph(log.structure, log.node_costs).route([(1, 0.7), (3, -1.0)]), 1)
    policy.bind(log.structure)
    found = replay(policy, log.structure, log.logits)
    assert set(found.exit.tolist()) == {1, 3}
    assert found.path[:, :2].all()
    assert policy.at(0.9).route.thresholds == (PASS, 0.9, PASS, -1.0)


def test_one_node_has_no_pairs():
    with pytest.raises(UsageError, match="no pairs"):
        LebovitzPair.fit(random_log(100, 1, 0))


# ---------------------------------------------------------------------- greedy cascades


def answered_by(log, answers):
    """(N,) which step of the cascade answers each sample."""
    confidence = log.confidence.double().numpy()
    out = np.full(len(log), len(answers) - 1)
    for step in reversed(range(len(answers) - 1)):
        node, threshold = answers[step]
        out = np.where(confidence[:, node] >= threshold, step, out)
    return out


@pytest.mark.parametrize("slack", [0.0, 0.01, 0.05])
@pytest.mark.parametrize("seed", range(3))
def test_the_cascade_stays_within_its_slack(seed, slack):
    log = random_log(800, 4, seed)
    answers = greedy_cascade(log, slack=slack)
    right = log.correct.numpy()
    step = answered_by(log, answers)
    nodes = np.array([v for v, _ in answers])[step]
    reference = right.mean(0).argmax()
    got, goal = right[np.arange(800), nodes], right[:, reference]
    assert got.mean() >= goal.mean() - slack - 1e-9
    for s in range(len(answers)):  # and so does each step on what it answers
        rows = step == s
        assert got[rows].sum() >= goal[rows].sum() - slack * rows.sum() - 1e-6
    assert len({v for v, _ in answers}) == len(answers)


def test_the_first_choice_answers_most_for_its_cost():
    """Brute force over every net and every threshold."""
    log = random_log(400, 4, 7)
    confidence, right = log.confidence.double().numpy(), log.correct.numpy()
    goal = right.mean(0).argmax()
    best = 0.0
    for v in range(4):
        for t in confidence[:, v]:
            rows = confidence[:, v] >= t
            if rows.sum() >= 20 and right[rows, v].sum() >= right[rows, goal].sum() - 0.02 * rows.sum() - 1e-9:
                best = max(best, rows.sum() / float(log.node_costs[v]))
    node, threshold = greedy_cascade(log, slack=0.02, quantiles=1000)[0]
    got = (confidence[:, node] >= threshold).sum() / float(log.node_costs[node])
    assert got == pytest.approx(best)


def test_a_useless_net_is_left_out_and_the_order_is_free():
    rng = np.random.default_rng(0)
    easy = rng.random(1000) < 0.6
    always, never = np.ones(1000), np.zeros(1000)
    confidence = np.stack([np.full(1000, 0.9), np.full(1000, 0.99), np.where(easy, 0.95, 0.4)], 1)
    log = log_of(confidence, np.stack([never, always, easy], 1), macs=[1, 100, 10])
    assert [v for v, _ in greedy_cascade(log, slack=0.0)] == [2, 1]


def test_a_slack_for_everything_stops_at_the_cheapest():
    log = random_log(300, 3, 0)
    assert [v for v, _ in greedy_cascade(log, slack=1.0)] == [0]


@pytest.mark.parametrize("log", [dag_log(), random_log(600, 4, 3)], ids=["dag", "chain"])
def test_along_a_graph_the_slack_holds_too(log):
    policy = Streeter.fit(log, slack=0.02)
    assert 0.02 in policy.slacks
    goal = float(log.correct.float().mean(0).max())
    costs = []
    for slack in policy.slacks:
        point = evaluate_on(policy.at(slack), log)
        assert point.accuracy >= goal - slack - 1e-6
        costs.append(point.cost_mean)
    assert costs[-1] == float(log.node_costs[0])  # the entry answers everything
    assert costs[0] > costs[-1]


def test_the_built_cascade_runs_as_planned():
    graph = planted_graph("dag")
    log = graph.log(planted_split(n=600))
    model = streeter_cascade(nets_of(graph), log, slack=0.02, input_shape=SHAPE)
    found = model.infer(planted_split(n=600).images())
    right = float((found.predictions == planted_split(n=600).y).float().mean())
    assert right >= float(log.correct.float().mean(0).max()) - 0.02 - 0.005  # ties
    assert float(found.macs.double().mean()) < model.max_macs
    with pytest.raises(UsageError, match="needs the net"):
        streeter_cascade({}, log, slack=0.02, input_shape=SHAPE)


def test_the_reference_must_lie_ahead():
    ways = Structure(("a", "b", "c"), ((1, 2), (), ()), 4)
    log = log_of(np.full((100, 3), 0.9), np.ones((100, 3)), macs=[1, 1, 1], structure=ways)
    policy = Streeter.fit(log, slacks=(0.0,), slack=0.0, reference=2)
    assert policy.route.way in {(0,), (0, 2)}


def test_wrong_settings_are_named():
    with pytest.raises(UsageError, match="more than the reference"):
        greedy_cascade(random_log(100, 2, 0), slack=-0.1)
    with pytest.raises(CalibrationError, match="too few"):
        greedy_cascade(random_log(20, 2, 0), slack=0.1)
    with pytest.raises(UsageError, match="was not fitted"):
        Streeter.fit(random_log(100, 3, 0)).at(0.77)
    with pytest.raises(PolicyError, match="no such way"):
        Streeter([Route((0, 1), (0.5, -1.0))], [0.0], 0.0).bind(chain(1, 4))
    assert Pair(0, 1, 0.5, 0.9, 10.0, 0.2).deferral == 0.2
