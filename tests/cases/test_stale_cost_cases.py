"""Nets that were changed after their MACs had been counted."""

import copy
from argparse import Namespace
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from adaptbench.adaptive import (
    Block,
    ChainPolicy,
    FeedForwardGates,
    GatedNetwork,
    ImageDomain,
    MacCounter,
    MultiExit,
    run_online_on_model,
)
from adaptbench.adaptive.cost_tables import CostTables
from adaptbench.errors import GraphError, PolicyError, UsageError
from adaptbench.policies import ExactBudget, JointThreshold
from adaptbench.policies.online import UeeUcb
from adaptbench.testing.planted import planted_graph, planted_split

SHAPE = (1, 8, 8)


@pytest.fixture(autouse=True)
def a_fixed_seed():
    torch.manual_seed(0)


def head(width):
    return nn.Sequential(nn.Flatten(), nn.Linear(64 * width, 10))


def conv(before, width):
    return nn.Conv2d(before, width, 3, padding=1)


@dataclass
class Plan:
    times: int = 1


class Configured(nn.Module):
    """Cost by attributes of every kind, and parts that no ModuleList holds."""

    def __init__(self):
        super().__init__()
        self.layer = conv(8, 8)
        self.times, self.plan, self.options, self.table = 1, Plan(), Namespace(times=1), {"times": [1]}
        self.parts = (conv(8, 8), [conv(8, 8)])

    def forward(self, h):
        for _ in range(self.times * self.plan.times * self.options.times * self.table["times"][0]):
            h = self.layer(h)
        return self.parts[1][0](self.parts[0](h))


def exits():
    stages = [nn.Sequential(conv(1, 8), nn.ReLU()), nn.Sequential(Configured(), nn.Sequential(conv(8, 16)))]
    return MultiExit(stages, [head(8), head(16)], input_shape=SHAPE)


def gated():
    return GatedNetwork(
        stem=conv(1, 8),
        blocks=[Block("a", conv(8, 8)), Block("b", conv(8, 8))],
        head=head(8),
        gates=FeedForwardGates([nn.Sequential(nn.Flatten(), nn.Linear(512, 1)) for _ in range(2)]),
        domain=ImageDomain(SHAPE),
        n_classes=10,
    )


def whole_stage(net):
    net.stages[1], net.heads[1] = conv(8, 4), head(4)


def deep_within(net):
    net.stages[1][0].layer = nn.Sequential(conv(8, 2), conv(2, 8))


def pruned_in_place(net):
    inner, outer = net.stages[1][1][0], net.heads[1][1]
    inner.weight.data, inner.bias.data = inner.weight.data[:4], inner.bias.data[:4]
    outer.weight.data = outer.weight.data[:, :256]


def of_another_stride(net):
    net.stages[1][1][0].stride = (2, 2)
    net.heads[1] = head(4)


def computing_hook(net):
    side = nn.Linear(8, 8)
    net.stages[1][0].layer.register_forward_hook(lambda m, args, out: out + side(out.transpose(1, 3)).transpose(1, 3))


def past_the_model(net):
    net._modules["heads"] = nn.ModuleList([head(8), nn.Sequential(head(16), nn.Linear(10, 10))])


def low_rank(net):
    class Sum(nn.Module):
        def forward(self, w):
            return w + (w.flatten(1) @ w.flatten(1).T @ w.flatten(1)).view_as(w)

    nn.utils.parametrize.register_parametrization(net.stages[1][1][0], "weight", Sum())


def set_to(value, *names):
    def change(net):
        owner = net.stages[1][0]
        for name in names[:-1]:
            owner = getattr(owner, name)
        setattr(owner, names[-1], value)

    return change


CHANGES = {
    "stage and head": whole_stage,
    "a module deep within": deep_within,
    "parameters pruned in place": pruned_in_place,
    "a stride": of_another_stride,
    "a hook that computes": computing_hook,
    "modules put past the model": past_the_model,
    "a parametrisation": low_rank,
    "a number": set_to(3, "times"),
    "a dataclass's field": set_to(3, "plan", "times"),
    "a namespace's field": set_to(3, "options", "times"),
    "a number in a list in a dictionary": lambda net: net.stages[1][0].table["times"].__setitem__(0, 3),
    "a part that is not registered": lambda net: net.stages[1][0].parts[1].__setitem__(0, nn.Identity()),
}


def told_and_run(net, x):
    path = torch.ones(len(net.node_names), dtype=torch.bool)
    with MacCounter() as counter:
        told = int(net.infer(x, force=path).macs.sum())
    return told, counter.macs


@pytest.mark.case("https://github.com/deepspeedai/DeepSpeed/issues/7413")
@pytest.mark.parametrize("change", CHANGES)
@torch.no_grad()
def test_what_was_changed_is_counted_anew(change):
    """The MAC table outlived the net that it was counted on: 93 696 told, 30 720 run."""
    net, x = exits(), torch.rand(1, *SHAPE)
    before = told_and_run(net, x)
    assert before[0] == before[1]
    CHANGES[change](net)
    told, run = told_and_run(net, x)
    assert told == run != before[0]
    assert int(net.relax(x, temperature=1e-9).expected_macs.sum()) == run
    assert net.max_macs == run
    fresh = MultiExit(list(net.stages), list(net.heads), input_shape=SHAPE)
    assert (net.macs_full, net.node_macs) == (fresh.macs_full, fresh.node_macs)


@pytest.mark.case("https://github.com/deepspeedai/DeepSpeed/issues/7413")
def test_gates_and_bodies_are_counted_anew():
    """A gated net's table outlived its blocks and gates as a graph's did its stages."""
    net, x = gated(), torch.rand(2, *SHAPE)
    found = [net.max_macs]
    for change in (
        lambda: net.bodies.__setitem__(0, nn.Sequential(conv(8, 2), conv(2, 8))),
        lambda: setattr(net, "gates", FeedForwardGates([nn.Sequential(nn.Flatten(), nn.LazyLinear(1))] * 2)),
        lambda: net.gates.gates.__setitem__(1, nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(128, 1))),
    ):
        change()
        told, run = told_and_run(net, x)
        assert told == run == 2 * net.max_macs
        found.append(net.max_macs)
    assert found[1] != found[0] != found[3] != found[1]


class Costly(ChainPolicy):
    def __init__(self):
        super().__init__()
        self.look = nn.Linear(10, 1)

    def margin(self, node, signals):
        return self.look(signals.logits).flatten()


@pytest.mark.case("https://github.com/deepspeedai/DeepSpeed/issues/7413")
def test_a_policy_grown_in_place_is_counted_anew():
    """A policy's own MACs were kept when its layers were exchanged under it."""
    net = exits()
    net.policy = Costly()
    assert net.policy_macs == (10, 0)
    net.policy.look = nn.Sequential(nn.Linear(10, 20), nn.Linear(20, 1))
    assert net.policy_macs == (220, 0)


@pytest.mark.case("https://github.com/deepspeedai/DeepSpeed/issues/7413")
def test_a_policy_with_another_nets_costs_is_refused():
    """A budget looked up in a table of costs that are no longer the net's was neither met nor refused."""
    net, split = planted_graph(), planted_split()
    net.policy = ExactBudget.fit(net.log(split), budget=500.0)
    net.infer(split.images(0, 4))
    net.stages[2][2] = nn.Sequential(net.stages[2][2], nn.Linear(4, 4))
    with pytest.raises(PolicyError, match="64 to 1664 MACs; these cost 64 to 1680"):
        net.infer(split.images(0, 4))
    net.policy = net.policy.recosted(net.log(split))
    net.infer(split.images(0, 4))


@pytest.mark.case("https://github.com/deepspeedai/DeepSpeed/issues/7413")
def test_a_stream_goes_on_at_the_costs_it_began_with_or_not_at_all():
    """A stateful policy that resumed on a changed net was charged what the old one had cost."""
    net, x = planted_graph(), planted_split().images(0, 8)
    online = UeeUcb()
    run_online_on_model(online, net, x)
    net.stages[2][2] = nn.Sequential(net.stages[2][2], nn.Linear(4, 4))
    with pytest.raises(UsageError, match="began at costs"):
        run_online_on_model(online, net, x, resume=True)


@pytest.mark.case("https://github.com/deepspeedai/DeepSpeed/issues/7413")
def test_a_net_whose_parts_no_longer_fit_is_refused_by_node():
    """Half a change, such as a stage without its head, ended in torch's own error about shapes."""
    net = exits()
    assert net.node_macs
    net.stages[1] = conv(8, 4)
    with pytest.raises(GraphError, match="node 'exit2' could not be run on one picture"):
        net.infer(torch.rand(2, *SHAPE))
    net.heads[1] = nn.Sequential(nn.Flatten(), nn.Linear(256, 7))
    with pytest.raises(GraphError, match=r"node 'exit2' returned \(1, 7\)"):
        _ = net.macs_full


class Counts(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.calls, self.kept = conv(1, 8), 0, None

    def forward(self, x):
        self.calls += 1
        self.kept = self.layer(x)
        return self.kept


@pytest.mark.case("own")
def test_state_and_equal_weights_are_no_change(monkeypatch):
    """What a forward writes itself is no change of the net: counting anew at every pass would make each pass dearer."""
    counted = []
    kept = CostTables.of
    monkeypatch.setattr(
        CostTables,
        "of",
        lambda self, key, model, count: kept(self, key, model, lambda: (counted.append(1), count())[1]),
    )
    net = MultiExit([Counts(), parametrizations.weight_norm(conv(8, 16))], [head(8), head(16)], input_shape=SHAPE)
    for n in (1, 2, 3):
        net.infer(torch.rand(n, *SHAPE))
        net.train()
        net(torch.rand(n, *SHAPE))
        _ = net.min_macs
    net.load_state_dict({k: v.clone() for k, v in net.state_dict().items()}, assign=True)
    net.infer(torch.rand(2, *SHAPE))
    assert len(counted) == 1
    copy.deepcopy(net).infer(torch.rand(2, *SHAPE))
    assert len(counted) == 2


@pytest.mark.case("own")
def test_a_path_of_another_nets_costs_is_refused():
    """JointThreshold picked the cheapest point by the mean costs of the net that it was fitted on, under any net."""
    net, split = planted_graph(), planted_split()
    fitted = JointThreshold.fit(net.log(split))
    x = split.images(0, 4)
    net.policy = fitted
    net.infer(x)
    stale = JointThreshold(fitted.path, fitted.drops, 2 * fitted.costs)
    net.policy = stale.fixed(0)
    net.infer(x)  # one point is not chosen by its cost
    net.policy = stale
    with pytest.raises(PolicyError, match="'joint-threshold' was fitted on exits that cost"):
        net.infer(x)
    torch.testing.assert_close(stale.recosted(net.log(split)).costs, fitted.costs)
