"""Exits put on nets that have none, their heads fitted, the net itself left alone."""

from __future__ import annotations

import time

import pytest
import torch
from foreign_kinds import CLASSES, SHAPE
from torch import nn

import adaptbench as ab
from adaptbench.adaptive import MacCounter
from adaptbench.errors import GraphError, LeakageError, UsageError
from adaptbench.testing import check_model

EXAMPLE = torch.zeros(2, *SHAPE)


@pytest.fixture(autouse=True)
def a_fixed_seed():
    torch.manual_seed(0)


class Residual(nn.Module):
    """A block in the style of image libraries."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        out = self.bn1(self.conv1(x))
        out += x
        return self.relu(out)


class Classifier(nn.Module):
    """Six blocks, one answer."""

    def __init__(self, channels: int = 3, classes: int = CLASSES, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 3, padding=1)
        self.blocks = nn.Sequential(*(Residual(width) for _ in range(6)))
        self.fc = nn.Linear(width, classes)

    def forward(self, x):
        x = self.blocks(self.stem(x))
        return self.fc(torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1))


class Looks(Classifier):
    """The same, not traceable."""

    def forward(self, x):
        x = self.blocks(self.stem(x))
        if not torch.isfinite(x.detach()).all():
            raise OverflowError
        return self.fc(torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1))


@pytest.mark.parametrize("kind", [Classifier, Looks])
@pytest.mark.parametrize("after", [["blocks.1", "blocks.3"], ["stem", "blocks.2.bn1"]])
def test_the_last_exit_is_the_net_and_what_comes_after_an_exit_does_not_run(kind, after):
    module = kind()
    names = set(dict(module.named_modules()))
    net = ab.attach_exits(module, after=after, example=EXAMPLE)
    assert net.exit_names == (*after, "final")
    assert net.explain().way == ("traced" if kind is Classifier else "left at its exits")
    x = torch.rand(5, *SHAPE)
    with torch.no_grad():
        dense = net.eval().dense_logits(x)
        torch.testing.assert_close(dense[:, -1], module.eval()(x))
    with MacCounter() as counter:
        first = net.infer(x, force=torch.tensor([True, False, False]))
    assert counter.macs == 5 * net.explain().exits[0].macs
    torch.testing.assert_close(first.logits, dense[:, 0])
    assert set(dict(module.named_modules())) == names
    assert not any(m._forward_hooks for m in module.modules())
    net.policy = ab.policies.UniformThreshold(0.9 / CLASSES + 0.1)
    check_model(net, n_inputs=16)


def test_a_head_of_ones_own_and_tokens():
    net = ab.attach_exits(
        Classifier(),
        after=["blocks.0"],
        example=EXAMPLE,
        head=lambda h: nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * h.shape[1], CLASSES)),
    )
    assert net.node_macs[0] == 64 * 8 * 27 + 64 * 8 * 72 + 32 * CLASSES

    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.patch, self.mix = nn.Conv2d(3, 16, 4, stride=4), nn.Linear(16, 16)
            self.fc = nn.Linear(16, CLASSES)

        def forward(self, x):
            t = self.mix(self.patch(x).flatten(2).transpose(1, 2))
            return self.fc((t * 2).mean(1))

    net = ab.attach_exits(Tokens(), after=["mix"], example=EXAMPLE)
    assert net.node_macs[0] == 4 * 16 * 48 + 4 * 16 * 16 + 16 * CLASSES


def test_heads_are_fitted_and_nothing_else_is():
    digits = ab.load_data("digits")
    module = Classifier(1, 10)
    net = ab.attach_exits(
        module,
        after=["blocks.0", "blocks.2"],
        example=torch.zeros(1, 1, 8, 8),
        head=lambda h: nn.Sequential(nn.Flatten(), nn.Dropout(0.1), nn.Linear(h[0].numel(), 10)),
    )
    before = {name: p.clone() for name, p in module.state_dict().items()}
    flags = [p.requires_grad for p in net.parameters()]
    training = [m.training for m in net.modules()]
    accuracy = ab.fit_heads(net, digits.split("train"), epochs=6)
    assert all(a > 0.8 for a in accuracy[:2]), accuracy
    assert len(accuracy) == 3
    assert all(torch.equal(before[name], p) for name, p in module.state_dict().items())
    assert [p.requires_grad for p in net.parameters()] == flags
    assert [m.training for m in net.modules()] == training
    test = digits.split("test")
    with torch.no_grad():
        right = (net.eval().dense_logits(test.images()).argmax(2) == test.y[:, None]).float().mean(0)
    assert (right[:2] > 0.85).all(), right
    assert right[2] < 0.3, "the net's own head is not fitted"
    with pytest.raises(LeakageError):
        ab.fit_heads(net, test)
    with pytest.raises(UsageError, match="0 epochs"):
        ab.fit_heads(net, digits.split("train"), epochs=0)


def test_the_same_seed_gives_the_same_heads():
    train = ab.load_data("digits").split("train").first(256)
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        net = ab.attach_exits(Classifier(1, 10), after=["stem"], example=torch.zeros(1, 1, 8, 8))
        ab.fit_heads(net, train, epochs=1)
        found.append(next(net.heads[0].parameters()).clone())
    assert torch.equal(*found)


def test_the_first_answer_for_an_untrained_net_of_six_blocks_comes_in_seconds():
    digits = ab.load_data("digits")
    began = time.perf_counter()
    net = ab.attach_exits(
        Classifier(1, 10, 16), after=[f"blocks.{k}" for k in range(5)], example=torch.zeros(1, 1, 8, 8)
    )
    ab.fit_heads(net, digits.split("train"), epochs=2)
    net.policy = ab.policies.SoftmaxThreshold.fit(net.log(digits.split("calibration")), epsilon=0.02)
    clean = net.infer(digits.split("test").images(0, 64))
    attacked = ab.attacks.ILFO(eps=8 / 255, steps=10)(net)(
        digits.split("test").images(0, 64), digits.split("test").y[:64]
    )
    assert net.min_macs <= int(clean.macs.min())
    assert net.infer(attacked).macs.float().mean() <= net.max_macs
    assert time.perf_counter() - began < 10


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"after": ["blocks.9"]}, "'blocks.9' is no sub-module.*\n.*Did you mean 'blocks"),
        ({"after": []}, "names no sub-module"),
        ({"after": ["stem", "stem"]}, "names a sub-module twice"),
        ({"after": ["blocks.3", "stem"]}, "calls them in the order stem, blocks.3"),
        ({"after": ["stem"], "head": lambda h: nn.Flatten()}, "exit 'final' has the shape|exit 'stem' has the shape"),
    ],
)
def test_what_is_no_place_for_an_exit_is_refused(how, message):
    with pytest.raises(GraphError, match=message):
        ab.attach_exits(Classifier(), example=EXAMPLE, **how)


def test_an_unknown_head_is_refused():
    with pytest.raises(UsageError, match="'gap-liner' is no head"):
        ab.attach_exits(Classifier(), after=["stem"], example=EXAMPLE, head="gap-liner")
