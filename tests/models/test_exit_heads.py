"""Heads of the papers on existing nets: placement, sizes, shared weights, cumulative logits."""

import pytest
import torch
from torch import nn

from adaptbench.errors import UsageError
from adaptbench.models.exit_heads import (
    HEADS,
    SDN_SHARES,
    attach_exits,
    backbone_of,
    boosted,
    eenet_head,
    paper_head,
    sdn_head,
)
from adaptbench.models.resnet import resnet
from adaptbench.policies import UniformThreshold
from adaptbench.testing import ModelConformance

SMALL = {"input_shape": (3, 8, 8)}


def multi_exit_resnet(depth, n_classes, kind="paper", **settings):
    return attach_exits(resnet(depth, n_classes), kind, **settings)


class TestPaperExits(ModelConformance):
    n_inputs = 24

    def model(self):
        torch.manual_seed(1)
        return attach_exits(resnet(8, 4), "paper", **SMALL, policy=UniformThreshold(0.3))


class TestShallowDeep(ModelConformance):
    n_inputs = 24

    def model(self):
        torch.manual_seed(1)
        return attach_exits(resnet(20, 4), "sdn", **SMALL, policy=UniformThreshold(0.35))


class TestBoosted(ModelConformance):
    n_inputs = 24

    def model(self):
        torch.manual_seed(1)
        return boosted(attach_exits(resnet(8, 4), "eenet", **SMALL, policy=UniformThreshold(0.3)))


@pytest.mark.parametrize("kind", ["paper", "eenet"])
def test_exits_stand_after_the_stages(kind):
    model = multi_exit_resnet(20, 100, kind)
    assert [[name for name, _ in stage.named_children()] for stage in model.stages] == [
        ["normalise", "stem", "stage1_0", "stage1_1", "stage1_2"],
        ["stage2_0", "stage2_1", "stage2_2"],
        ["stage3_0", "stage3_1", "stage3_2"],
    ]
    assert model.infer(torch.rand(2, 3, 32, 32)).logits.shape == (2, 100)


@pytest.mark.parametrize("depth", [32, 56, 110])
def test_internal_classifiers_stand_at_the_published_shares(depth):
    model = multi_exit_resnet(depth, 10, "sdn")
    heads = [sum(p.numel() for p in head.parameters() if p.ndim == 2) for head in model.heads]
    running = torch.tensor(model.node_macs).cumsum(0) - torch.tensor(heads).cumsum(0)
    shares = running[:-1] / (model.macs_full - heads[-1])
    assert torch.allclose(shares, torch.tensor(SDN_SHARES), atol=0.56 / (depth // 2))


def test_head_sizes():
    def sizes(head):
        return [tuple(p.shape) for p in head.parameters() if p.ndim > 1]

    assert sizes(paper_head((16, 32, 32), 10)) == [(64, 256), (10, 64)]
    assert sizes(paper_head((32, 16, 16), 10)) == [(64, 128), (10, 64)]
    assert sizes(sdn_head((32, 16, 16), 10)) == [(10, 512)]
    assert sizes(eenet_head((64, 8, 8), 10, reduction=4)) == [(16, 64, 3, 3), (16, 16, 3, 3), (16, 16, 3, 3), (10, 16)]


@pytest.mark.parametrize("side", [32, 16, 8])
def test_sdn_pools_by_a_quarter_of_the_map(side):
    """The released head: max and mean pooling by ⌊side/4⌋, mixed a : 1 − a."""
    head = sdn_head((3, side, side), 5)
    a = head[1].a
    h = torch.randn(2, 3, side, side)
    mixed = a * nn.MaxPool2d(side // 4)(h) + (1 - a) * nn.AvgPool2d(side // 4)(h)
    assert torch.allclose(head(h), head[-1](mixed.flatten(1)), atol=1e-6)
    head(h).sum().backward()
    assert a.grad is not None
    assert a.grad.abs() > 0


@pytest.mark.parametrize("kind", HEADS)
def test_the_net_itself_is_shared_and_unchanged(kind):
    net = resnet(20, 4).train()
    before = {name: t.clone() for name, t in net.state_dict().items()}
    model = attach_exits(net, kind, **SMALL)
    after = net.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(m.training for m in net.modules())
    x = torch.rand(3, 3, 8, 8)
    assert torch.equal(model.run_reference(x), net.eval()(x))
    assert model.heads[-1] is net[-1]


def test_plain_weights_fit_into_the_backbone():
    trained = resnet(14, 4).eval()
    model = multi_exit_resnet(14, 4, "eenet", **SMALL)
    backbone_of(model).load_state_dict(trained.state_dict())
    x = torch.rand(3, 3, 8, 8)
    assert torch.equal(model.run_reference(x), trained(x))
    assert set(backbone_of(model).state_dict()) == set(trained.state_dict())


def test_exits_where_the_user_wants_them():
    model = attach_exits(resnet(14, 4), lambda shape, c: nn.Sequential(nn.Flatten(), nn.LazyLinear(c)), after=["stem"])
    assert len(model.heads) == 2
    assert model.node_macs[0] < 0.1 * model.macs_full


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"kind": "shallow"}, "no exit head is called 'shallow'"),
        ({"after": ["stage1_9"]}, "'stage1_9' is no part"),
        ({"after": ["head"]}, "'head' is no part"),
        ({"after": ["stage2_0", "stage1_0"]}, "not in the net's order"),
        ({"kind": "sdn"}, "no room for six"),
    ],
)
def test_impossible_exits_are_named(how, said):
    with pytest.raises(UsageError, match=said):
        attach_exits(resnet(14, 4), **how, **SMALL)


def test_nets_without_stages_ask_for_names():
    with pytest.raises(UsageError, match="shows no stages") as error:
        attach_exits(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 4)), **SMALL)
    assert "after=" in str(error.value)


def test_a_net_without_names_has_no_plain_form():
    plain = multi_exit_resnet(8, 4, **SMALL)
    with pytest.raises(UsageError, match="does not say where it stood"):
        backbone_of(boosted(plain))


def test_boosted_answers_are_running_sums():
    plain = multi_exit_resnet(8, 4, **SMALL).eval()
    x = torch.rand(5, 3, 8, 8)
    with torch.no_grad():
        own, sums = plain.dense_logits(x), boosted(plain, eta=0.25).dense_logits(x)
    expected = own[:, 0]
    for k in range(3):
        expected = own[:, k] + 0.25 * expected if k else own[:, 0]
        assert torch.allclose(sums[:, k], expected, atol=1e-5)


def test_boosting_detaches_what_came_before_in_training_only():
    plain = multi_exit_resnet(8, 4, **SMALL)
    model = boosted(plain)
    x = torch.rand(5, 3, 8, 8)
    first = plain.heads[0][-1].weight
    for training in (True, False):
        model.train(training)
        last = model.dense_logits(x)[:, -1].square().sum()
        (gradient,) = torch.autograd.grad(last, first, allow_unused=True)
        assert (gradient is None or not gradient.any()) == training


def test_boosting_shares_out_the_gradient():
    """The stem hears the head of exit k with weight 1/(K − k) and everything behind it with (K − k − 1)/(K − k)."""
    plain = multi_exit_resnet(8, 4, **SMALL)
    model = boosted(plain)
    x = torch.rand(6, 3, 8, 8)
    stem = plain.stages[0].stem[0].weight

    def heard(net, k):
        torch.manual_seed(0)
        out = net.train().dense_logits(x)[:, k]
        return torch.autograd.grad((out * torch.linspace(-1, 1, 4)).sum(), stem)[0]

    for k, share in enumerate((1 / 3, 2 / 3 * 1 / 2, 2 / 3 * 1 / 2)):
        assert torch.allclose(heard(model, k), share * heard(plain, k), atol=1e-5, rtol=1e-3)


def test_the_boosted_reference_pays_for_every_head():
    plain = multi_exit_resnet(8, 4, **SMALL)
    assert boosted(plain).macs_full == boosted(plain).max_macs == sum(plain.node_macs)
