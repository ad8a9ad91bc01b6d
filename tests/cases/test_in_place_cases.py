"""Parts that work in place on what they are given."""

import pytest
import torch
from torch import nn

from adaptbench.adaptive import (
    Block,
    Cascade,
    ChainPolicy,
    DecisionGraph,
    FeedForwardGates,
    GatedNetwork,
    ImageDomain,
    MultiExit,
    Node,
    Static,
)
from adaptbench.errors import GraphError, PolicyError
from adaptbench.policies import UniformThreshold
from adaptbench.testing import check_model

SHAPE = (1, 8, 8)


@pytest.fixture(autouse=True)
def a_fixed_seed():
    torch.manual_seed(0)


class Norm(nn.Module):
    def forward(self, x):
        return x.sub_(0.5).div_(0.25)


class PastTheCount(nn.Module):
    def forward(self, x):
        x.data.mul_(0.5)
        return x


class SameValues(nn.Module):
    """Writes what stands there already, on a picture in [0, 1]."""

    def forward(self, x):
        return x.clamp_(0, 1)


def net(width, first):
    return nn.Sequential(first, nn.Conv2d(1, width, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(64 * width, 10))


@pytest.mark.case("https://github.com/pytorch/vision/issues/680")
@pytest.mark.parametrize("first", [Norm, PastTheCount, SameValues])
def test_a_normaliser_in_place_spoils_nobody_elses_pictures(first):
    """The caller's pictures and the next net's input came out normalised, once more a net."""
    small, large = net(2, first()), net(8, first())
    both = Cascade({"small": small, "large": large}, input_shape=SHAPE)
    x = torch.rand(32, *SHAPE)
    kept = x.clone()
    with torch.no_grad():
        both.policy = UniformThreshold(float(small(kept.clone()).softmax(1).amax(1).median()))
        inference = both.infer(x)
        late = inference.exit == 1
        assert 0 < late.sum() < 32
        torch.testing.assert_close(inference.logits[late], large(kept.clone())[late])
        torch.testing.assert_close(both.run_reference(x), large(kept.clone()))
        both.recount()
        both.infer(x)
    both.relax(x.requires_grad_()).expected_macs.sum().backward()
    assert torch.equal(x, kept)
    assert both.macs_full == Static(large, input_shape=SHAPE).macs_full


@pytest.mark.case("https://github.com/pytorch/vision/issues/680")
def test_a_normaliser_in_place_keeps_the_laws():
    """Every pass of such a net, the differentiable one included, is that of the net with a normaliser of its own."""
    check_model(Cascade({"a": net(2, Norm()), "b": net(4, Norm())}, input_shape=SHAPE, policy=UniformThreshold(0.13)))


@pytest.mark.case("own")
def test_two_nodes_that_read_the_same_features_do_not_meet():
    """What one node wrote reached the other where all samples went through both, and not where some did."""
    relu = nn.ReLU(inplace=True)
    nodes = [
        Node("a", nn.Sequential(nn.Flatten(), nn.Linear(64, 6)), nn.Linear(6, 3), to=("b", "c")),
        Node("b", nn.Sequential(relu, nn.Linear(6, 6)), nn.Linear(6, 3), reads="a", to=("c",)),
        Node("c", nn.Linear(6, 6), nn.Linear(6, 3), reads="a"),
    ]
    graph = DecisionGraph(nodes, domain=ImageDomain(SHAPE), n_classes=3)
    x = torch.rand(4, *SHAPE)
    through = graph.infer(x, force=torch.tensor([True, True, True])).logits
    torch.testing.assert_close(graph.infer(x, force=torch.tensor([True, False, True])).logits, through)
    check_model(graph)


@pytest.mark.case("own")
def test_a_stage_that_begins_in_place_has_gradients():
    """`nn.ReLU(inplace=True)` at the head of a stage ended in autograd's own error when the net was attacked."""
    stages = [nn.Conv2d(1, 4, 3, padding=1), nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3, padding=1))]
    heads = [
        nn.Sequential(nn.Conv2d(4, 3, 8), nn.Flatten()),
        nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(4, 3, 8), nn.Flatten()),
    ]
    check_model(MultiExit(stages, heads, input_shape=SHAPE, policy=UniformThreshold(0.4)))


@pytest.mark.case("own")
def test_a_head_in_place_before_another_stage_is_refused():
    """With the head run the next stage saw rectified features, in the static reference it did not."""
    stages = [nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)]
    heads = [nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(256, 3)) for _ in stages]
    with pytest.raises(GraphError, match="head of node 'exit1' works in place on features that 'exit2' reads"):
        MultiExit(stages, heads, input_shape=SHAPE)


class Cools(ChainPolicy):
    def margin(self, node, signals):
        return signals.logits.div_(2).amax(1)


@pytest.mark.case("own")
def test_a_policy_in_place_is_refused():
    """A temperature written into the logits reached the answer and the log that policies are fitted on."""
    net = MultiExit([nn.Flatten(), nn.Linear(64, 8)], [nn.Linear(64, 3), nn.Linear(8, 3)], input_shape=SHAPE)
    net.policy = Cools()
    with pytest.raises(PolicyError, match="works in place on the signals"):
        net.infer(torch.rand(2, *SHAPE))


def gated(**parts):
    given = {"stem": nn.Conv2d(1, 2, 3, padding=1), "gate": nn.Sequential(nn.Flatten(), nn.Linear(128, 1))} | parts
    block = {k: v for k, v in given.items() if k not in ("stem", "gate", "head")}
    return GatedNetwork(
        stem=given["stem"],
        blocks=[Block("a", **({"body": nn.Conv2d(2, 2, 3, padding=1)} | block)), Block("b", nn.Conv2d(2, 2, 1))],
        head=given.get("head", nn.Sequential(nn.Flatten(), nn.Linear(128, 3))),
        gates=FeedForwardGates([given["gate"], nn.Sequential(nn.Flatten(), nn.Linear(128, 1))]),
        domain=ImageDomain(SHAPE),
        n_classes=3,
    )


@pytest.mark.case("own")
@pytest.mark.parametrize(
    "parts",
    [
        {"stem": nn.Sequential(Norm(), nn.Conv2d(1, 2, 3, padding=1))},
        {"after": nn.ReLU(inplace=True)},
        {"body": nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(2, 2, 1)), "shortcut": nn.Conv2d(2, 2, 1)},
        {"head": nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(128, 3))},
    ],
    ids=lambda parts: next(iter(parts)),
)
def test_gated_parts_in_place_keep_the_laws(parts):
    """What a body wrote was seen by the shortcut where every sample ran and not where some did."""
    check_model(gated(**parts))


@pytest.mark.case("own")
@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"body": nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(2, 2, 1))}, "the body of block 'a' works in place"),
        ({"shortcut": nn.ReLU(inplace=True)}, "what block 'a' skips to works in place"),
        ({"gate": nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(128, 1))}, "the gate of block 'a'"),
    ],
    ids=["body", "shortcut", "gate"],
)
def test_gated_parts_in_place_whose_meaning_is_open_are_refused(parts, message):
    """The identity beside a body that rectifies in place is rectified or not, by how many samples run."""
    with pytest.raises(GraphError, match=message):
        gated(**parts)
