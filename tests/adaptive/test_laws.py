"""The six laws on random decision graphs and gated nets, and on the shapes users build."""

import itertools

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import sampled_from
from random_models import CLASSES, SHAPE, RandomScores, decision_graphs, gated_networks
from torch import nn

from adaptbench.adaptive import (
    Block,
    Cascade,
    FeedForwardGates,
    GatedNetwork,
    ImageDomain,
    MultiExit,
    NetworkDag,
    Static,
)
from adaptbench.adaptive.outcome import seeds_from_content
from adaptbench.adaptive.replay import replay
from adaptbench.errors import CapabilityError, NonFiniteError, PolicyError
from adaptbench.policies import Oracle, RandomMix, UniformThreshold
from adaptbench.testing import ModelConformance, check_model

few = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@pytest.mark.slow
@few
@given(decision_graphs())
def test_every_decision_graph_keeps_the_laws(net):
    check_model(net, n_inputs=9)


@settings(few, max_examples=15)
@given(gated_networks())
def test_every_gated_network_keeps_the_laws(net):
    check_model(net, n_inputs=9)


@pytest.mark.slow
@settings(few, max_examples=8)
@given(decision_graphs(), sampled_from([("quantise", {"levels": 4}), ("smooth", {}), ("smooth", {"kind": "median"})]))
def test_every_decision_graph_keeps_the_laws_behind_a_defence(net, defence):
    check_model(net.defended(defence[0], **defence[1]), n_inputs=9)


@settings(few, max_examples=5)
@given(gated_networks(), sampled_from([("quantise", {"levels": 4}), ("smooth", {"kind": "mean"})]))
def test_every_gated_network_keeps_the_laws_behind_a_defence(net, defence):
    check_model(net.defended(defence[0], **defence[1]), n_inputs=9)


@settings(few, max_examples=8)
@given(decision_graphs())
def test_an_oracle_on_any_graph_keeps_the_laws(net):
    net.policy = Oracle()
    check_model(net, n_inputs=9)


def linear(*sizes: int) -> nn.Sequential:
    layers = [nn.Flatten(), nn.Linear(16, sizes[0])]
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Tanh(), nn.Linear(a, b)]
    return nn.Sequential(*layers)


def nets() -> dict[str, nn.Module]:
    return {"small": linear(CLASSES), "middle": linear(8, CLASSES), "large": linear(16, 16, CLASSES)}


class TestMultiExit(ModelConformance):
    def model(self):
        stages = [nn.Sequential(nn.Flatten(), nn.Linear(16, 6)), nn.Linear(6, 6), nn.Linear(6, 6)]
        policy = RandomScores(3, history=False, chance=False, committee=False)
        return MultiExit(stages, [nn.Linear(6, 3) for _ in stages], input_shape=SHAPE, policy=policy)


class TestCascade(ModelConformance):
    def model(self):
        return Cascade(nets(), input_shape=SHAPE, policy=UniformThreshold(0.4))


class TestRandomMix(ModelConformance):
    def model(self):
        return Cascade(nets(), input_shape=SHAPE, policy=RandomMix(0.5))


class TestDagThatNeverStops(ModelConformance):
    def model(self):
        return NetworkDag(nets(), input_shape=SHAPE)


class TestOtherBounds(ModelConformance):
    def model(self):
        return NetworkDag(nets(), input_shape=SHAPE, policy=UniformThreshold(0.4), bounds=(-1.0, 3.0))


class TestPlainNet(ModelConformance):
    def model(self):
        return Static(linear(4, CLASSES), input_shape=SHAPE)

    def inputs(self):
        return torch.rand(64, *SHAPE)


def test_the_reference_of_a_cascade_is_its_best_member_alone():
    """Closed form: one member's stages and head; no other member, no policy."""
    net = Cascade(nets(), input_shape=SHAPE, reference="middle")
    assert net.node_macs == (16 * 3, 16 * 8 + 8 * 3, 16 * 16 + 16 * 16 + 16 * 3)
    assert net.macs_full == 16 * 8 + 8 * 3
    assert (net.min_macs, net.max_macs) == (48, sum(net.node_macs))  # the worst case exceeds the largest net
    x = torch.rand(3, *SHAPE)
    with torch.no_grad():
        assert torch.equal(net.run_reference(x), net.stages[1](x))


def test_the_reference_of_a_multi_exit_net_has_one_head():
    stages = [nn.Flatten(), nn.Linear(16, 6)]
    net = MultiExit(stages, [nn.Linear(16, 3), nn.Linear(6, 3)], input_shape=SHAPE)
    assert net.macs_full == 16 * 6 + 6 * 3
    assert net.max_macs == net.macs_full + 16 * 3


def test_a_forced_path_that_does_not_exist_is_refused():
    net = Cascade(nets(), input_shape=SHAPE)
    with pytest.raises(CapabilityError, match="no hand-over"):
        net.infer(torch.rand(2, *SHAPE), force=torch.tensor([True, False, True]))


def test_a_forced_path_follows_edges_in_any_order():
    edges = [("small", "large"), ("small", "middle"), ("middle", "large")]
    net = NetworkDag(nets(), input_shape=SHAPE, edges=edges)
    assert net.infer(torch.rand(2, *SHAPE), force=torch.ones(3, dtype=torch.bool)).path.all()


def test_many_ways_do_not_hide_the_extremes():
    """2¹⁷ ways through a complete DAG: the cheapest and the dearest are listed all the same."""
    many = {f"n{i}": nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES)) for i in range(18)}
    net = NetworkDag(many, input_shape=SHAPE)
    paths = net.paths()
    assert paths[0].tolist() == [True] + [False] * 17
    assert paths[1].all()
    assert len({tuple(p.tolist()) for p in paths}) == len(paths) <= 64


def test_broken_weights_are_named():
    net = Static(linear(4, CLASSES), input_shape=SHAPE)
    with torch.no_grad():
        net.stages[0][1].weight.fill_(torch.nan)
    with pytest.raises(NonFiniteError, match="NaN"):
        net.infer(torch.rand(1, *SHAPE))


def test_an_aggregating_prediction_is_paid_by_those_who_leave():
    """The committee's votes cost V·C MACs where a sample stops, and nothing where it goes on."""
    net = Cascade(nets(), input_shape=SHAPE, policy=RandomScores(1, history=False, chance=False, committee=True))
    assert net.predict_macs == (9, 9, 9)
    assert net.policy_macs == (3 * 2, 3 * 2, 0)
    inference = net.infer(torch.rand(20, *SHAPE), force=torch.tensor([True, True, False]))
    assert (inference.macs == net.node_macs[0] + net.node_macs[1] + 12 + 9).all()


def test_exchanging_the_policy_recounts():
    net = Cascade(nets(), input_shape=SHAPE, policy=UniformThreshold(0.4))
    before = net.max_macs
    net.policy = RandomScores(1, history=False, chance=False, committee=False)
    assert net.max_macs == before + 12


def test_a_net_under_another_policy_shares_its_weights_and_leaves_it_alone():
    net = Cascade(nets(), input_shape=SHAPE, policy=UniformThreshold(0.4))
    own, other = net.policy, UniformThreshold(1.1).train()
    twin = net.under(other)
    assert net.policy is own
    assert other.training, "the policy given is copied"
    assert all(a is b for a, b in zip(net.parameters(), twin.parameters(), strict=True))
    assert twin.infer(torch.rand(5, *SHAPE)).path.all()
    with torch.no_grad():
        next(net.parameters()).zero_()
    assert not next(twin.parameters()).any()
    with pytest.raises(PolicyError, match="chains"):
        NetworkDag(nets(), input_shape=SHAPE).under(RandomMix())


def test_replay_equals_inference_for_policies_that_draw():
    net = Cascade(nets(), input_shape=SHAPE, policy=RandomMix(0.6))
    x = torch.rand(50, *SHAPE)
    inference = net.infer(x)
    again = replay(net.policy, net.structure, net.dense_logits(x).detach(), seeds=seeds_from_content(x))
    assert torch.equal(inference.path, again.path)
    assert len(inference.exit.unique()) == 3


def test_a_decision_at_its_threshold_is_named_a_tie():
    """Graph and gates: who stands on the threshold is named, and nobody else."""
    net = Cascade(nets(), input_shape=SHAPE)
    x = torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(0))
    first = net.dense_logits(x)[:, 0].detach().softmax(1).amax(1)
    net.policy = UniformThreshold(float(first.max()))
    assert net.infer(x).tie.tolist() == (first == first.max()).tolist()
    gate = nn.Sequential(nn.Flatten(), nn.Linear(16, 1, bias=False))
    gated = GatedNetwork(
        stem=nn.Identity(),
        blocks=[Block("a", nn.Tanh())],
        head=nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES)),
        gates=FeedForwardGates([gate]),
        domain=ImageDomain(SHAPE),
        n_classes=CLASSES,
    )
    x[2] = 0
    assert gated.infer(x).tie.tolist() == [False, False, True, False, False]


def test_margins_off_the_path_are_given():
    """What would happen at a node that the sample never reached: an attacker needs its gradient."""
    net = Cascade(nets(), input_shape=SHAPE, policy=UniformThreshold(0.0))  # everybody leaves at once
    relaxed = net.relax(torch.rand(5, *SHAPE, requires_grad=True))
    assert (relaxed.margins < 0).all()
    assert relaxed.margins.shape == (5, 2)
    assert relaxed.margins[:, 1].std() > 0


def test_gradients_flow_through_a_policy_that_looks_back():
    """Planted once: the table of visited nodes was changed in place under autograd."""
    net = Cascade(nets(), input_shape=SHAPE, policy=RandomScores(1, history=True, chance=False, committee=False))
    x = torch.rand(5, *SHAPE, requires_grad=True)
    (gradient,) = torch.autograd.grad(net.relax(x, temperature=1.0).expected_macs.sum(), x)
    assert gradient.abs().sum() > 0
