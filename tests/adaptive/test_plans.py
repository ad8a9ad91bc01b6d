"""What a pass looks up once, writes over, and writes into: the same answers to the bit, and nobody else's tensors."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from random_models import CLASSES, SHAPE, RandomScores, decision_graphs, gated_networks
from torch import nn

from adaptbench.adaptive import Block, GatedNetwork, Gates, ImageDomain, MultiExit, Policy, graph
from adaptbench.adaptive.plans import plan_of
from adaptbench.adaptive.rows import parted
from adaptbench.policies import UniformThreshold

few = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


class Plain(RandomScores):
    """What is returned is the node's own answer, so that a pass may write over what earlier nodes said."""

    predict = Policy.predict


def plain(net):
    own = net.policy
    net.policy = Plain(own.seed, history=own.looks_back, chance=own.draws, committee=False)
    return net.eval()


@few
@given(decision_graphs())
def test_answers_written_over_are_those_collected_from_who_leaves(net) -> None:
    plain(net)
    for n in (1, 2, 9):
        x = torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(n))
        collected = net(x)  # with gradients, each answer is taken from who leaves
        with net.serving():
            assert torch.equal(net.serve(x), collected)
        assert torch.equal(net.infer(x).logits, collected)
        assert collected.requires_grad


@few
@given(decision_graphs())
def test_the_exit_of_a_row_is_the_last_node_on_its_path(net) -> None:
    told = plain(net).infer(torch.rand(9, *SHAPE))
    for row, leaves in zip(told.path, told.exit, strict=True):
        assert int(row.nonzero().max()) == int(leaves)


@few
@given(gated_networks())
def test_a_gated_pass_that_writes_into_its_own_maps_answers_to_the_bit_as_one_that_does_not(net) -> None:
    net.eval()
    for n in (1, 2, 9):
        x = torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(n))
        apart, before = net(x), x.clone()
        with net.serving():
            assert torch.equal(net.serve(x), apart)
        assert torch.equal(x, before)


def test_a_plan_is_made_once_while_a_net_is_served(monkeypatch) -> None:
    net = MultiExit([nn.Flatten(), nn.Linear(16, 16)], [nn.Linear(16, CLASSES) for _ in "ab"], input_shape=SHAPE)
    net.policy = UniformThreshold(0.5)
    made = []
    monkeypatch.setattr(graph, "plan_of", lambda *given: made.append(given) or plan_of(*given))
    with net.serving():
        for n in (1, 3, 5):
            net.serve(torch.rand(n, *SHAPE))
        assert len(made) == 1
    net.heads[0] = nn.Linear(16, CLASSES)
    told = net.infer(torch.rand(3, *SHAPE))
    assert len(made) > 1, "outside, a part may have been exchanged"
    x = torch.rand(5, *SHAPE)
    with net.serving():
        first = net.heads[0](x.flatten(1))
        leaves = net.infer(x).exit == 0
        assert torch.equal(net.serve(x)[leaves], first[leaves])
    assert len(told) == 3


class Peeking(Gates):
    """Its margin is a view of the features, and so is what it remembers."""

    name = "peeking"

    def margin(self, block, features, state):
        return features[:, block], features


def residual(gates, **how) -> GatedNetwork:
    torch.manual_seed(0)
    blocks = [Block(f"b{i}", nn.Linear(8, 8), after=nn.ReLU(), **how) for i in range(4)]
    return GatedNetwork(
        stem=nn.Sequential(nn.Flatten(), nn.Linear(16, 8)),
        blocks=blocks,
        head=nn.Linear(8, CLASSES),
        gates=gates,
        domain=ImageDomain(SHAPE),
        n_classes=CLASSES,
    ).eval()


def test_a_gate_that_looks_at_the_features_by_a_view_sees_them_as_they_were() -> None:
    net, x = residual(Peeking()), torch.rand(64, *SHAPE)
    told = net.infer(x)
    assert 0 < told.path[:, 2:5].float().mean() < 1, "blocks that all or none run would show nothing"
    assert torch.equal(told.logits, net(x))
    each = net.infer(x, mode="per-sample")
    assert torch.equal(told.path, each.path)
    assert torch.equal(told.tie, each.tie)


class Glancing(Peeking):
    """The second block, which nobody runs, is decided by a view; the third, which some run, by numbers of its own."""

    def margin(self, block, features, state):
        if block == 1:
            return features.t()[0], None
        return (torch.arange(len(features)) % 2 - 0.5) if block else torch.ones(len(features)), None


def test_a_view_of_features_that_went_past_a_block_stays_as_it_was() -> None:
    net, x = residual(Glancing()), torch.rand(6, *SHAPE)
    for block in range(4):
        net.afters[block] = nn.Identity()
    net.bodies[0].bias.data[0] = -100.0  # the first feature is far below zero behind the first block
    net.bodies[2].bias.data[0] = 100.0
    with net.serving():
        before = net._hard_pass(x[:1], net._counted(x), None, lambda part: None)[1].best[1][1]
        _, decided = net._hard_pass(x, net._counted(x), None, lambda part: None)
    assert (before < -50).all()
    assert (decided.best[1][1] < -50).all()


class Parting(Gates):
    """Opens for every other row; a plan made at the start."""

    name = "parting"

    def start(self, x):
        return torch.arange(len(x)) % 2 - 0.5

    def margin(self, block, features, state):
        return state * (-1) ** block, state


def test_whoever_listens_to_a_block_keeps_what_he_heard() -> None:
    net, x = residual(Parting()), torch.rand(6, *SHAPE)
    heard, was = [], []

    def listening(module, given, made) -> None:
        heard.extend((given[0], made))
        was.extend((given[0].clone(), made.clone()))

    for after in net.afters:
        after.register_forward_hook(listening)
    net.infer(x)
    assert len(heard) >= 8
    assert all(torch.equal(a, b) for a, b in zip(heard, was, strict=True))


def test_blocks_of_a_served_net_write_into_the_pass_s_own_maps(monkeypatch) -> None:
    net, x = residual(Parting()), torch.rand(6, *SHAPE)
    own, copies = torch.Tensor.index_add, []
    monkeypatch.setattr(torch.Tensor, "index_add", lambda *given: copies.append(given) or own(*given))
    with net.serving():
        net.serve(x)
        served = len(copies)
    assert served == 1, "the first map is the stem's; those behind it are sums of the pass"


@pytest.mark.parametrize("stopping", [True, False])
@pytest.mark.parametrize(
    ("action", "ways", "groups"),
    [
        ([True, False, True], 1, {1: [0, 2], 0: [1]}),
        ([True, True], 1, {1: None}),
        ([False, False], 1, {0: None}),
        ([2, 0, 1, 2], 2, {0: [1], 1: [2], 2: [0, 3]}),
        ([2, 2], 2, {2: None}),
        ([1, 2, 1], 2, {1: [0, 2], 2: [1]}),
        ([0, 0], 3, {0: None}),
    ],
)
def test_rows_part_by_what_they_do(action, ways, groups, stopping) -> None:
    found = parted(torch.tensor(action), ways, len(action), stopping=stopping)
    told = {taken: None if places is None else places.tolist() for taken, places in found}
    asked = groups if stopping or len(groups) == 1 else {taken: places for taken, places in groups.items() if taken}
    assert told == asked
    assert len(found) == len(told)


def test_a_lone_row_does_what_its_number_says() -> None:
    assert parted(torch.tensor([2]), 2, 1) == [(2, None)]
    assert parted(False, 1, 1) == [(0, None)]
