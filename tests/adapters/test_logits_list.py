"""A module that returns a list of logits, split where its exits are."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from adaptbench.adapters import from_logits_list
from adaptbench.adaptive import MacCounter
from adaptbench.errors import GraphError
from adaptbench.policies import UniformThreshold
from adaptbench.testing import ModelConformance, check_model

SHAPE = (1, 8, 8)


class Shared(nn.Module):
    """Functional glue, a trunk, a skip over an exit, one exit's logits in the next, sizes and parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.middle = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.deep = nn.Conv2d(8, 4, 3, padding=1)
        self.scale = nn.Parameter(torch.tensor([1.0, 2.0, 0.5, 1.5]))
        self.head1, self.head2, self.head3 = nn.Linear(4, 3), nn.Linear(4 * 16, 3), nn.Linear(4, 3)

    def forward(self, x):
        n = x.size(0)
        h = torch.relu(self.stem(x))
        first = self.head1(h.mean((2, 3)) * self.scale)
        g = F.max_pool2d(torch.tanh(self.middle(h)), 2)
        second = self.head2(g.reshape(n, -1)) + 0.5 * first
        deep = self.deep(torch.cat([g, F.avg_pool2d(h, 2)], 1))
        deep = F.dropout(deep, 0.9, training=self.training)
        third = self.head3(deep.flatten(2).mean(2).view(n, 4) * self.scale) + second
        return [first, second, third]


class TestAdapted(ModelConformance):
    def model(self):
        torch.manual_seed(0)
        return from_logits_list(Shared(), input_shape=SHAPE, policy=UniformThreshold(0.42))


def test_every_exit_says_what_the_module_said():
    torch.manual_seed(0)
    module = Shared()
    net = from_logits_list(module, input_shape=SHAPE)
    x = torch.rand(6, *SHAPE)
    assert module.training, "tracing must not leave the module in another mode"
    with torch.no_grad():
        want = torch.stack(module.eval()(x), 1)
        torch.testing.assert_close(net.eval().dense_logits(x), want)
        for k, path in enumerate(torch.tril(torch.ones(3, 3, dtype=torch.bool))):
            torch.testing.assert_close(net.infer(x, force=path).logits, want[:, k])


def test_samples_that_leave_are_compacted_away():
    """A batch size or a parameter carried over an exit would belong to samples that have left."""
    torch.manual_seed(0)
    module = Shared().eval()
    net = from_logits_list(module, input_shape=SHAPE)
    x = torch.rand(9, *SHAPE)
    exits = torch.arange(9) % 3
    force = torch.arange(3) <= exits[:, None]
    inference = net.infer(x, force=force)
    with torch.no_grad():
        want = torch.stack(module(x), 1)[torch.arange(9), exits]
    torch.testing.assert_close(inference.logits, want)


def test_the_later_part_is_not_run():
    net = from_logits_list(Shared(), input_shape=SHAPE)
    _ = net.min_macs
    with MacCounter() as counter:
        net.infer(torch.rand(2, *SHAPE), force=torch.tensor([True, False, False]))
    stem, head = 64 * 4 * 9, 4 * 3
    assert counter.macs == 2 * (stem + head)
    assert net.node_macs == (stem + head, 64 * 4 * 4 * 9 + 64 * 3, 16 * 8 * 4 * 9 + 12)


def test_weights_are_shared_with_the_module():
    module = Shared()
    net = from_logits_list(module, input_shape=SHAPE)
    with torch.no_grad():
        module.head1.bias.fill_(7.0)
    assert any(p is module.head1.bias for p in net.parameters())
    assert float(net.infer(torch.zeros(1, *SHAPE), force=torch.tensor([True, False, False])).logits.mean()) > 3


class Dictionary(nn.Module):
    """Exits by name: forward returns the last one only."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Flatten(), nn.Linear(64, 8))
        self.heads = nn.ModuleDict({"early": nn.Linear(8, 3), "late": nn.Linear(8, 3)})
        self.deep = nn.Linear(8, 8)

    def forward(self, x):
        h = self.stem(x)
        early = self.heads["early"](h)
        return {"late": self.heads["late"](torch.tanh(self.deep(h))), "early": early}


def test_exits_by_name():
    net = from_logits_list(
        Dictionary(), input_shape=SHAPE, exits=["heads.early", "heads.late"], policy=UniformThreshold(0.4)
    )
    assert net.exit_names == ("heads.early", "heads.late")
    assert net.node_macs == (64 * 8 + 24, 64 + 24)
    check_model(net, n_inputs=16)


class LooksAtValues(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(64, 3), nn.Linear(64, 3)

    def forward(self, x):
        first = self.a(x.flatten(1))
        if first.max() > 100:
            return [first]
        return [first, self.b(x.flatten(1))]


class TwoInputs(nn.Module):
    def forward(self, x, mask):
        return [x.flatten(1), mask]


@pytest.mark.parametrize(
    ("module", "exits", "message"),
    [
        (LooksAtValues(), None, "could not be traced"),
        (TwoInputs(), None, "takes 2 inputs"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), None, "does not return a list"),
        (Dictionary(), ["heads.erly"], "'heads.erly' is no sub-module"),
    ],
)
def test_what_cannot_be_split_is_explained(module, exits, message):
    with pytest.raises(GraphError, match=message):
        from_logits_list(module, input_shape=SHAPE, exits=exits)
