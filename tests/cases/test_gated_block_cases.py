"""Gated blocks as people write them."""

import pytest
import torch
from torch import nn

from adaptbench.adaptive import Block, FeedForwardGates, GatedNetwork, ImageDomain
from adaptbench.errors import GraphError
from adaptbench.testing import check_model

SHAPE = (1, 8, 8)


class Run(nn.Module):
    def __init__(self, body, shortcut):
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, h):
        return torch.relu(self.body(h) + self.shortcut(h))


class AsWritten(nn.Module):
    """`relu(run(h) + shortcut(h)) if gate else shortcut(h)`."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.bodies = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))
        self.shortcuts = nn.ModuleList([nn.Identity(), nn.Conv2d(4, 4, 1), nn.Identity()])
        self.gates = nn.ModuleList(nn.Sequential(nn.Flatten(), nn.Linear(256, 1)) for _ in range(3))
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(256, 5))

    def forward(self, x):
        h = self.stem(x)
        for body, shortcut, gate in zip(self.bodies, self.shortcuts, self.gates, strict=True):
            runs = (gate(h) > 0).view(-1, 1, 1, 1)
            h = torch.where(runs, torch.relu(body(h) + shortcut(h)), shortcut(h))
        return self.head(h)


def network(blocks, module):
    return GatedNetwork(
        stem=module.stem,
        blocks=blocks,
        head=module.head,
        gates=FeedForwardGates(module.gates),
        domain=ImageDomain(SHAPE),
        n_classes=5,
    )


@pytest.mark.case("own")
def test_run_and_skip_are_taken_as_written():
    """With `Block(after=ReLU)` those who skip were rectified too, and logits were off by 2.07, unsaid."""
    torch.manual_seed(0)
    module = AsWritten().eval()
    blocks = [
        Block(f"b{i}", run=Run(body, shortcut), skip=shortcut)
        for i, (body, shortcut) in enumerate(zip(module.bodies, module.shortcuts, strict=True))
    ]
    net = network(blocks, module)
    x = torch.rand(32, *SHAPE)
    inference = net.infer(x)
    with torch.no_grad():
        torch.testing.assert_close(inference.logits, module(x))
    assert (inference.path[:, 1:-1].float().mean(0) % 1 > 0).any(), "some block must have samples on both ways"
    assert net.node_macs[2] == net.node_macs[1] == 64 * 4 * 4 * 9, "where it runs it costs the body more than skipped"
    check_model(net)


@pytest.mark.case("own")
@pytest.mark.parametrize(
    ("block", "message"),
    [
        (lambda c: Block("b"), "in no form, or in two"),
        (lambda c: Block("b", c(), run=c()), "in no form, or in two"),
        (lambda c: Block("b", run=c(), after=nn.ReLU()), "in no form, or in two"),
        (lambda c: Block("b", c(), skip=c()), "a skip without a run"),
        (lambda c: Block("b", run=nn.Identity(), skip=c()), "MACs more where it is skipped"),
        (lambda c: Block("b", nn.Conv2d(4, 6, 1)), "where it runs and"),
        (lambda c: Block("b", run=nn.AvgPool2d(2)), "where it runs and"),
    ],
)
def test_blocks_that_do_not_fit_are_refused(block, message):
    """A block without a body, with two forms or with ways of other shapes failed in torch, or was another function."""
    module = AsWritten()
    with pytest.raises(GraphError, match=message):
        network([block(lambda: nn.Conv2d(4, 4, 1))], module)
