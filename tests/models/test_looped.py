"""Closed-loop inference: the six laws, backward passes counted, nothing left behind."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from adaptbench.adaptive.counting import counting
from adaptbench.errors import UsageError
from adaptbench.models.looped import looped
from adaptbench.models.resnet import resnet
from adaptbench.policies import UniformThreshold
from adaptbench.testing import ModelConformance


def confident(seed=0):
    """A net whose confidence spreads."""
    torch.manual_seed(seed)
    net = resnet(8, 5)
    nn.init.normal_(net[-1][-1].weight, std=1.0)
    return net.eval()


def loop(net, **how):
    return looped(net, **{"input_shape": (3, 8, 8), "candidates": 3} | how)


class TestLooped(ModelConformance):
    def inputs(self):
        return torch.rand(24, 3, 8, 8, generator=torch.Generator().manual_seed(0))

    def model(self):
        net = confident()
        with torch.no_grad():
            middle = float(net(self.inputs()).softmax(1).amax(1).quantile(0.5))
        return loop(net, policy=UniformThreshold(middle), lr=0.5)

    def test_some_loop_and_some_do_not(self):
        assert 0 < self._infer().exit.float().mean() < 1


@pytest.mark.parametrize("steps", [1, 3])
def test_the_loop_costs_its_forward_and_backward_passes(steps):
    """ResNet-8 on 8×8: each counted product by hand, against the record and against the dispatcher."""
    net = confident()
    model = loop(net, steps=steps)
    conv = {
        "stem": 9 * 3 * 16 * 64,
        "stage1": 2 * 9 * 16 * 16 * 64,
        "stage2": 9 * 16 * 32 * 16 + 9 * 32 * 32 * 16,
        "first": 9 * 32 * 64 * 4,
        "second": 9 * 64 * 64 * 4,
        "linear": 64 * 5,
    }
    trunk = conv["stem"] + conv["stage1"] + conv["stage2"]
    tail = conv["first"] + conv["second"] + conv["linear"]
    assert model.macs_full == model.min_macs == trunk + tail
    # Two gradients a product, one of the first's weights alone: nothing before it is calibrated.
    backward = 2 * tail - conv["first"]
    assert model.node_macs[1] == trunk + steps * 2 * (tail + backward) + tail
    x = torch.rand(3, 3, 8, 8)
    with counting() as counter:
        inference = model.infer(x)
    assert counter.macs == int(inference.macs.sum()) == 3 * model.max_macs
    assert model.max_macs > 2 * model.macs_full


def test_weights_are_not_written_to_and_samples_do_not_touch():
    net = confident()
    before = {name: t.clone() for name, t in net.state_dict().items()}
    model = loop(net, lr=1.0, steps=2)
    x = torch.rand(6, 3, 8, 8)
    together = model.infer(x).logits
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert torch.allclose(together, model.infer(x, mode="per-sample").logits, atol=1e-5)


def entropy(net, x, top):
    """Of the mean prediction over the picture and its mirror image, among some classes."""
    mean = net(torch.cat([x, x.flip(-1)]))[:, top].softmax(1).mean(0)
    return -(mean * mean.log()).sum()


def test_the_answer_is_that_of_a_net_calibrated_on_the_sample_alone():
    """Against a copy of the net and torch's own SGD on the entropy among the sample's top three classes."""
    net = confident()
    x = torch.rand(5, 3, 8, 8)
    answers = loop(net, lr=0.3, steps=2).infer(x).logits
    for i in range(len(x)):
        copy, one = deepcopy(net), x[i : i + 1]
        top = copy(one)[0].topk(3).indices
        optimiser = torch.optim.SGD(copy[-2:].parameters(), lr=0.3)
        before = entropy(copy, one, top)
        for _ in range(2):
            optimiser.zero_grad()
            entropy(copy, one, top).backward()
            optimiser.step()
        assert entropy(copy, one, top) < before
        assert torch.allclose(answers[i], copy(one)[0], atol=1e-4)


def test_a_step_of_nothing_changes_nothing():
    net = confident()
    x = torch.rand(4, 3, 8, 8)
    assert torch.allclose(loop(net, lr=0.0).infer(x).logits, net(x), atol=1e-6)


def test_the_loop_runs_in_inference_mode_too():
    model = loop(confident(), lr=0.5)
    x = torch.rand(3, 3, 8, 8)
    expected = model.infer(x).logits
    with torch.inference_mode():
        assert torch.allclose(model.infer(x).logits, expected, atol=1e-6)


def test_every_weight_is_in_the_state_once():
    net = confident()
    assert len(loop(net).state_dict()) == len(net.state_dict())


@pytest.mark.parametrize("how", [{"tail": 0}, {"tail": 6}, {"steps": 0}, {"candidates": 1}, {"candidates": 6}])
def test_numbers_that_make_no_loop(how):
    with pytest.raises(UsageError, match="make no loop"):
        loop(confident(), **how)
