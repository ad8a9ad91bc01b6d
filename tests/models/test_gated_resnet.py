"""SkipNets on shared weights: laws for each kind of gate, their costs by closed form, what is gated."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from adaptbench.errors import UsageError
from adaptbench.models.gated_resnet import skipnet
from adaptbench.models.resnet import resnet
from adaptbench.testing import ModelConformance


def lively(model):
    """Gates that open for some samples and not for others."""
    for m in model.gates.modules():
        if isinstance(m, nn.Linear | nn.LSTMCell):
            for p in m.parameters():
                nn.init.normal_(p, std=2.0 if p.ndim > 1 else 0.3)
    return model


class GateConformance(ModelConformance):
    n_inputs = 24
    gates = ""

    def model(self):
        torch.manual_seed(11)
        return lively(skipnet(resnet(14, 4), self.gates, side=8))

    def test_some_blocks_are_skipped_and_some_run(self):
        path = self._infer().path[:, 2:-1].float()
        assert 0.05 < path.mean() < 0.95


class TestFirstGates(GateConformance):
    gates = "ffgate1"


class TestSecondGates(GateConformance):
    gates = "ffgate2"


class TestRecurrentGates(GateConformance):
    gates = "rnn"


del GateConformance


@pytest.mark.parametrize("gates", ["ffgate1", "ffgate2", "rnn"])
def test_all_blocks_but_the_first_are_gated(gates):
    model = skipnet(resnet(20, 10), gates)
    assert model.gated == (False, *[True] * 8)
    assert model.node_names[1:4] == ("stage1_0", "stage1_1", "stage1_2")
    assert model.max_macs == model.macs_full + model.gate_macs
    assert not model.uncounted


def test_what_gates_cost():
    """Widths 16, 32, 64 on maps of 32, 16, 8; a down-sampling block's gate reads what stands before it."""
    read = [(16, 32)] * 3 + [(32, 16)] * 3 + [(64, 8)] * 2  # stage1_1 … stage3_2 of a ResNet-20
    first = sum(9 * c * c * ((s // 2) ** 2 + (s // 4) ** 2) + 2 * c for c, s in read)
    second = sum(9 * c * c * (s // 2) ** 2 + 2 * c for c, s in read)
    cell = 4 * 10 * (10 + 10) + 10
    recurrent = sum(10 * c + cell for c, _ in read)
    for gates, macs in (("ffgate1", first), ("ffgate2", second), ("rnn", recurrent)):
        assert skipnet(resnet(20, 10), gates).gate_macs == macs


def test_recurrent_gates_are_cheap_and_convolutional_ones_are_not():
    full = skipnet(resnet(110, 10), "rnn")
    assert full.gate_macs < 0.0003 * full.macs_full
    assert skipnet(resnet(110, 10), "ffgate2").gate_macs > 0.1 * full.macs_full


def test_weights_are_the_nets_own():
    net = resnet(14, 4).eval()
    model = skipnet(net, side=8)
    x = torch.rand(3, 3, 8, 8)
    assert torch.equal(model.run_reference(x), net(x))
    with torch.no_grad():
        net[2].body[0][0].weight.mul_(2)
    assert torch.equal(model.run_reference(x), net(x))


def test_skipping_everything_leaves_the_first_block_and_the_shortcuts():
    net = resnet(8, 4).eval()
    model = skipnet(net, side=8)
    x = torch.rand(3, 3, 8, 8)
    with torch.no_grad():
        h = net.stage1_0(net.stem(net.normalise(x)))
        for block in (net.stage2_0, net.stage3_0):
            h = torch.relu(block.shortcut(h))
        expected = net.head(h)
    assert torch.allclose(model.infer(x, force=model.paths()[0]).logits, expected, atol=1e-6)


@pytest.mark.parametrize("gates", ["ffgate1", "ffgate2", "rnn"])
def test_gates_may_begin_open(gates):
    x = torch.rand(16, 3, 8, 8)
    opening = [
        skipnet(resnet(8, 4), gates, open_by=bias, side=8).infer(x).path[:, 2:-1].float().mean() for bias in (-9.0, 9.0)
    ]
    assert opening == [0.0, 1.0]


def test_the_recurrent_state_travels_by_sample():
    model = lively(skipnet(resnet(20, 4), "rnn", side=8))
    cell, x = model.gates.cell, torch.rand(6, 3, 8, 8)
    seen = []
    cell.register_forward_hook(lambda m, given, out: seen.append((given[1][0].detach(), out[0].detach())))
    _ = model.min_macs  # a hook may compute, so that a hooked net is counted anew
    seen.clear()
    model.infer(x)
    assert len(seen) == 8
    assert not seen[0][0].any()
    assert all(torch.equal(after, before) for (_, after), (before, _) in pairwise(seen))


def test_other_gates_and_other_nets_are_refused():
    with pytest.raises(UsageError, match="no gates are called 'gru'"):
        skipnet(resnet(8, 4), "gru")
    with pytest.raises(UsageError, match="is no CIFAR ResNet"):
        skipnet(nn.Sequential(nn.Flatten(), nn.Linear(12, 4)))
