"""Oracle, uniform threshold and chance, against brute force."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_logs import log_of, random_log

from adaptbench.adaptive import Signals, Structure
from adaptbench.adaptive.replay import Point, cheapest_within, evaluate_on, replay
from adaptbench.errors import CapabilityError, PolicyError
from adaptbench.policies import Oracle, RandomMix, UniformThreshold
from adaptbench.policies.gates.features import confidence_features, feature_width
from adaptbench.testing import planted_graph, planted_split


@st.composite
def dags(draw):
    size = draw(st.integers(1, 5))
    before = [set()] + [draw(st.sets(st.integers(0, v - 1), min_size=1)) for v in range(1, size)]
    return tuple(tuple(w for w in range(v + 1, size) if v in before[w]) for v in range(size))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(dags(), st.integers(0, 1000), st.lists(st.integers(1, 30), min_size=5, max_size=5))
def test_the_oracle_is_the_cheapest_right_way(successors, seed, costs):
    size = len(successors)
    structure = Structure(tuple(map(str, range(size))), successors, 3)
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(12, size, 3, generator=generator)
    labels = torch.randint(3, (12,), generator=generator)
    ways = Oracle().choose(logits, labels, structure, tuple(costs[:size]))
    every = [
        way
        for length in range(1, size + 1)
        for way in itertools.combinations(range(size), length)
        if way[0] == 0 and all(w in successors[v] for v, w in itertools.pairwise(way))
    ]
    for i in range(12):
        right = [w for w in every if logits[i, w[-1]].argmax() == labels[i]] or every
        want = min(sum(costs[v] for v in way) for way in right)
        way = ways[i].nonzero().squeeze(1).tolist()
        assert tuple(way) in every
        assert sum(costs[v] for v in way) == want
        assert tuple(way) in right


def test_the_oracle_is_exact_on_a_graph_of_many_ways():
    """A complete DAG of 20 nodes has 2¹⁹ ways; only the last node is right."""
    size = 20
    structure = Structure(tuple(map(str, range(size))), tuple(tuple(range(v + 1, size)) for v in range(size)), 2)
    logits = torch.zeros(1, size, 2)
    logits[..., 0] = 1.0
    logits[:, -1, 1] = 2.0
    way = Oracle().choose(logits, torch.tensor([1]), structure, tuple(range(1, size + 1)))
    assert way[0].nonzero().squeeze(1).tolist() == [0, size - 1]


def test_an_oracle_in_a_model():
    net = planted_graph("dag")
    test = planted_split("test")
    dense = net.dense_logits(test.images()).detach()
    net.policy = Oracle()
    found = net.infer(test.images(), labels=test.y)
    right = dense.argmax(-1) == test.y[:, None]
    assert torch.equal(found.predictions == test.y, right.any(1))
    cheapest = torch.tensor([0, 64 + 320, 64 + 1280]) + torch.tensor([64, 0, 0])
    want = torch.where(right, cheapest, 10**9).amin(1)
    assert torch.equal(found.macs, torch.where(right.any(1), want, 64))
    with pytest.raises(CapabilityError, match="looks at the label"):
        net.infer(test.images())
    with pytest.raises(CapabilityError):
        net.relax(test.images())


def test_a_uniform_threshold_stops_where_confident():
    log = random_log(100, 4, 0)
    for threshold in (0.0, 0.5, 0.8, 1.1):
        policy = UniformThreshold(threshold)
        policy.bind(log.structure)
        found = replay(policy, log.structure, log.logits)
        confident = torch.cat([log.confidence[:, :-1] >= threshold, torch.ones(100, 1, dtype=torch.bool)], 1)
        assert torch.equal(found.exit, confident.int().argmax(1))


def test_a_uniform_threshold_walks_a_dag_node_by_node():
    net = planted_graph("dag")
    net.policy = UniformThreshold(1.1)
    assert net.infer(planted_split("test", 5).images()).path.all()


def test_a_uniform_threshold_needs_the_way():
    structure = Structure(("a", "b", "c"), ((1, 2), (), ()), 4)
    with pytest.raises(PolicyError, match="walks the nodes in order"):
        UniformThreshold(0.5).bind(structure)


def test_a_fitted_uniform_threshold_is_the_best_of_its_grid():
    log = random_log(400, 3, 2)
    policy = UniformThreshold.fit(log, drop=0.02, grid=40)
    floor = float(log.correct.float().mean(0).max()) - 0.02
    point = evaluate_on(policy, log)
    assert point.accuracy >= floor
    rivals = 0
    for threshold in np.quantile(log.confidence.numpy(), np.linspace(0, 1, 25)):
        other = UniformThreshold(float(threshold))
        other.bind(log.structure)
        rival = evaluate_on(other, log)
        if rival.accuracy >= floor:
            rivals += 1
            assert rival.macs_mean >= point.macs_mean * 0.97
    assert rivals > 1


def test_chance_is_drawn_a_sample_and_a_node():
    policy = RandomMix(0.3)
    signals = Signals(torch.zeros(20_000, 3), seeds=torch.arange(20_000))
    on = [policy.margin(node, signals) > 0 for node in (0, 1)]
    for drawn in on:
        assert abs(float(drawn.float().mean()) - 0.3) < 0.01
    assert abs(float((on[0] & on[1]).float().mean()) - 0.09) < 0.01  # independent from node to node


@pytest.mark.parametrize(("going", "exits"), [(0.0, {0}), (1.0, {2})])
def test_certain_chances(going, exits):
    net = planted_graph()
    net.policy = RandomMix(going)
    found = net.infer(planted_split("test").images())
    assert set(found.exit.tolist()) == exits


def test_chance_interpolates_between_two_nets():
    """Random mixing is a straight line in cost and accuracy."""
    log = log_of(np.full((8000, 2), 0.6), np.stack([np.arange(8000) % 2 == 0, np.ones(8000, bool)], 1), macs=[10, 30])
    for going in (0.25, 0.75):
        point = evaluate_on(RandomMix(going), log)
        assert abs(point.macs_mean - (10 + going * 30)) < 0.6
        assert abs(point.accuracy - (0.5 + going * 0.5)) < 0.02


def test_features_know_no_class_by_name():
    """Permuting the classes changes nothing; saturated logits stay finite and apart."""
    logits = torch.randn(20, 12) * 3
    features = confidence_features(Signals(logits))
    assert features.shape == (20, feature_width(12))
    torch.testing.assert_close(
        features, confidence_features(Signals(logits[:, torch.randperm(12)])), rtol=1e-4, atol=1e-6
    )
    hot = torch.zeros(2, 12, requires_grad=True)
    scale = torch.tensor([[60.0], [400.0]])
    out = confidence_features(Signals(hot + scale * torch.eye(12)[:2]))
    assert torch.isfinite(out).all()
    (gradient,) = torch.autograd.grad(out.sum(), hot)
    assert torch.isfinite(gradient).all()


def test_the_cheapest_within_an_accuracy():
    points = [
        Point(1, 0.9, 10.0, 10.0),
        Point(2, 0.95, 20.0, 20.0),
        Point(3, 0.97, 15.0, 15.0),
        Point(4, 0.8, 1.0, 1.0),
    ]
    assert cheapest_within(points, 0.94).setting == 3
    assert cheapest_within(points, 0.85).setting == 1
    assert cheapest_within(points, 0.99).setting == 3  # none is good enough: the most accurate
