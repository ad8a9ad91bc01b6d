"""BlockDrop: one look at the picture, a plan for every block."""

import torch
from torch import nn

from adaptbench.adaptive import Static
from adaptbench.models.blockdrop import blockdrop
from adaptbench.models.resnet import resnet
from adaptbench.testing import ModelConformance


def planner(blocks):
    """A plan that follows the picture strongly."""
    net = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(12, blocks))
    nn.init.normal_(net[-1].weight, std=5.0)
    nn.init.normal_(net[-1].bias)
    return net


class TestBlockdrop(ModelConformance):
    n_inputs = 24

    def model(self):
        torch.manual_seed(0)
        return blockdrop(resnet(14, 4), planner(6), side=8)


def test_every_block_is_planned_and_the_planner_paid():
    model = blockdrop(resnet(32, 10))
    assert model.gated == (True,) * 15
    assert model.gate_macs == Static(resnet(8, 15), input_shape=(3, 32, 32)).macs_full
    assert model.gates.planner[-1][-1].out_features == 15


def test_the_picture_is_looked_at_once():
    model = blockdrop(resnet(14, 4), planner(6), side=8)
    calls = []
    model.gates.planner.register_forward_hook(lambda m, given, out: calls.append(len(given[0])))
    _ = model.min_macs  # a hook may compute, so that a hooked net is counted anew
    calls.clear()
    x = torch.rand(9, 3, 8, 8)
    inference = model.infer(x)
    assert calls == [9]
    with torch.no_grad():
        assert torch.equal(inference.path[:, 1:-1], model.gates.planner(x) > 0)


def test_weights_are_the_nets_own():
    net = resnet(14, 4).eval()
    x = torch.rand(3, 3, 8, 8)
    model = blockdrop(net, side=8)
    assert torch.equal(model.run_reference(x), net(x))
    everything = torch.ones(len(model.node_names), dtype=torch.bool)
    assert torch.allclose(model.infer(x, force=everything).logits, net(x), atol=1e-6)
