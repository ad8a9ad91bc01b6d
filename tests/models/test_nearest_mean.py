"""Class-mean exits: means and distances by brute force, their MACs, and a net left as it was."""

import pytest
import torch
from torch import nn

from adaptbench.adaptive.splits import Split
from adaptbench.errors import CalibrationError, LeakageError
from adaptbench.models.nearest_mean import ClassMeans, attach_class_means, class_mean_exits
from adaptbench.models.resnet import resnet
from adaptbench.policies import UniformThreshold
from adaptbench.testing import ModelConformance


def split_of(n=60, role="train", classes=3):
    """Classes that differ in colour."""
    y = torch.arange(n) % classes
    x = torch.rand(n, 3, 8, 8) * 80
    x[torch.arange(n), y] += 120
    return Split("toy", role, x.to(torch.uint8), y, torch.arange(n), tuple("abc"[:classes]))


class TestClassMeans(ModelConformance):
    n_inputs = 32

    def model(self):
        torch.manual_seed(0)
        return attach_class_means(resnet(8, 3), split_of(), policy=UniformThreshold(0.345))


def test_logits_are_distances_over_their_average():
    split = split_of()
    net = resnet(8, 3).eval()
    model = attach_class_means(net, split)
    x = torch.rand(5, 3, 8, 8)
    with torch.no_grad():
        features, given = net[:3](split.images()).mean((2, 3)), net[:3](x).mean((2, 3))
        out = model.dense_logits(x)[:, 0]
    for c in range(3):
        mean = features[split.y == c].mean(0)
        average = (features - mean).norm(dim=1).mean()
        assert torch.allclose(out[:, c], -(given - mean).norm(dim=1) / average, atol=1e-4)


def test_colours_are_told_apart_without_training():
    train, test = split_of(), split_of(role="test")
    model = attach_class_means(resnet(14, 3), train)
    logits = model.eval().dense_logits(test.images())
    assert (logits[:, 0].argmax(1) == test.y).float().mean() > 0.9


def test_costs_are_classes_times_channels():
    model = class_mean_exits(resnet(20, 100))
    plain = class_mean_exits(resnet(20, 10))
    assert model.node_macs[0] - plain.node_macs[0] == 90 * 16
    assert model.node_macs[1] - plain.node_macs[1] == 90 * 32
    assert not model.uncounted


def test_one_formula_for_every_batch_size():
    head = ClassMeans(16, 40)
    nn.init.normal_(head.means)
    h = torch.rand(64, 16, 4, 4)
    assert torch.equal(head(h)[:1], head(h[:1]))


def test_the_net_is_left_as_it_was():
    net = resnet(8, 3).train()
    before = {name: t.clone() for name, t in net.state_dict().items()}
    model = attach_class_means(net, split_of())
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())
    assert all(m.training for m in net.modules())
    again = class_mean_exits(resnet(8, 3), input_shape=(3, 8, 8))
    again.load_state_dict(model.state_dict())
    x = torch.rand(3, 3, 8, 8)
    assert torch.equal(again.eval().dense_logits(x), model.eval().dense_logits(x))


def test_test_samples_and_missing_classes_are_refused():
    with pytest.raises(LeakageError):
        attach_class_means(resnet(8, 3), split_of(role="test"))
    with pytest.raises(CalibrationError, match="class 2 has no samples"):
        attach_class_means(resnet(8, 3), split_of(classes=2))


def test_gradients_are_finite_on_a_mean():
    head = ClassMeans(2, 3)
    h = torch.zeros(1, 2, 1, 1, requires_grad=True)
    head(h).sum().backward()
    assert torch.isfinite(h.grad).all()
