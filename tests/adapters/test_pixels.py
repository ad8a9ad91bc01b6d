"""Segmentation nets as people write them, wrapped: they become nets that answer every pixel."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import adaptbench as ab
from adaptbench.adaptive import MacCounter, Split
from adaptbench.adaptive.pixels import PixelExits
from adaptbench.errors import GraphError, PolicyError, UsageError
from adaptbench.testing import check_model

SHAPE, CLASSES = (3, 16, 16), 4
EXAMPLE = torch.zeros(1, *SHAPE)


@pytest.fixture(autouse=True)
def a_fixed_seed():
    torch.manual_seed(0)


class Segmenter(nn.Module):
    """A backbone that hands out two maps of features, two small heads, both answers at the picture's size."""

    def __init__(self):
        super().__init__()
        self.shallow = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.deep = nn.Sequential(nn.Conv2d(8, 24, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(24, 24, 3, padding=1))
        self.aux_classifier, self.classifier = nn.Conv2d(8, CLASSES, 1), nn.Conv2d(24, CLASSES, 1)

    def maps(self, x):
        low = self.shallow(x)
        return low, self.deep(low)

    def up(self, z, like):
        return F.interpolate(z, size=like.shape[-2:], mode="bilinear", align_corners=False)

    def forward(self, x):
        low, high = self.maps(x)
        result = OrderedDict(out=self.up(self.classifier(high), x))
        result["aux"] = self.up(self.aux_classifier(low), x)
        return result


class Pair(Segmenter):
    """The last answer, and the others in a list."""

    def forward(self, x):
        low, high = self.maps(x)
        return self.up(self.classifier(high), x), [self.up(self.aux_classifier(low), x)]


class Stacked(Segmenter):
    """(n, K, C, H, W)."""

    def forward(self, x):
        low, high = self.maps(x)
        return torch.stack([self.up(self.aux_classifier(low), x), self.up(self.classifier(high), x)], 1)


class Inside(Segmenter):
    """One answer; the other is a sub-module's."""

    def __init__(self):
        super().__init__()
        self.early, self.late = nn.Identity(), nn.Identity()

    def forward(self, x):
        low, high = self.maps(x)
        self.early(self.up(self.aux_classifier(low), x))
        return self.late(self.up(self.classifier(high), x))


class Looks(Inside):
    """The same, not traceable."""

    def forward(self, x):
        low = self.shallow(x)
        self.early(self.up(self.aux_classifier(low), x))
        if not torch.isfinite(low.detach()).all():
            raise OverflowError
        return self.late(self.up(self.classifier(self.deep(low)), x))


class Coarse(Segmenter):
    """Answers at the sides of its features."""

    def forward(self, x):
        low, high = self.maps(x)
        return [self.aux_classifier(low), self.classifier(high)]


def own(module, x):
    """(n, 2, C, H, W) by hand, the cheaper answer first."""
    low, high = module.maps(x)
    return torch.stack([module.up(module.aux_classifier(low), x), module.up(module.classifier(high), x)], 1)


def images(role="calibration", n=40):
    draw = torch.Generator().manual_seed(5)
    x = torch.randint(0, 256, (n, *SHAPE), generator=draw, dtype=torch.uint8)
    contrast = torch.linspace(0.1, 1, n).view(-1, 1, 1, 1)
    y = (x[:, 0] // 64).clone()
    return Split("made", role, (128 + contrast * (x.float() - 128)).byte(), y, torch.arange(n), tuple("abcd"))


@pytest.mark.parametrize("kind", [Segmenter, Pair, Stacked, Inside, Looks])
def test_it_becomes_a_net_that_answers_every_pixel(kind):
    module = kind()
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.normal_(part.weight, std=0.3)
    how = {"exits": ["early", "late"]} if issubclass(kind, Inside) else {}
    net = ab.wrap(module, example=EXAMPLE, **how).eval()
    assert isinstance(net, PixelExits)
    assert net.n_classes == CLASSES
    assert net.explain().way == ("left at its exits" if kind is Looks else "traced")
    x = images().images(0, 5)
    with torch.no_grad():
        by_hand = own(module.eval(), x)
        torch.testing.assert_close(net.answers(x), by_hand)
        first = net.infer(x, force=torch.tensor([True, False]))
        torch.testing.assert_close(first.logits, by_hand[:, 0])
    assert net.explain().exits[0].macs == 64 * 8 * 27 + 64 * 8 * CLASSES < net.explain().exits[1].macs
    with MacCounter() as counter:
        net.infer(x, force=torch.tensor([True, False]))
    assert counter.macs == 5 * (64 * 8 * 27 + 64 * 8 * CLASSES), "what comes after the exit ran"
    log = net.log(images())
    assert log.quality.shape == (40, 2)
    net.policy = ab.policies.UniformThreshold(float(log.confidence[:, 0].median()))
    check_model(net, n_inputs=8)
    assert len(set(net.infer(images().images()).exit.tolist())) == 2


def test_answers_of_other_sides_say_how_they_come_to_the_pictures():
    with pytest.raises(GraphError) as raised:
        ab.wrap(Coarse(), example=EXAMPLE)
    assert "has the shape (n, 4, 8, 8)" in raised.value.seen
    assert "16 × 16" in raised.value.why
    assert "F.interpolate(z, size=(16, 16))" in raised.value.todo
    module = Coarse().eval()
    net = ab.wrap(module, example=EXAMPLE, logits=lambda out: [F.interpolate(z, size=(16, 16)) for z in out]).eval()
    x = torch.rand(3, *SHAPE)
    with torch.no_grad():
        expected = [F.interpolate(z, size=(16, 16)) for z in module(x)]
        torch.testing.assert_close(net.answers(x), torch.stack(expected, 1))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (lambda net, x: [net.aux_classifier(net.maps(x)[0]).softmax(1)] * 2, "8, 8"),
        (lambda net, x: [net.up(net.classifier(net.maps(x)[1]), x).softmax(1)] * 2, "holds probabilities"),
        (lambda net, x: net.up(net.classifier(net.maps(x)[1]), x), "does not return a list of logits"),
        (lambda net, x: [net.up(net.classifier(net.maps(x)[1]), x), x.mean((2, 3))], "has the shape"),
        (
            lambda net, x: {"a": net.up(net.classifier(net.maps(x)[1]), x), "b": x.mean((2, 3))},
            "does not return a list",
        ),
    ],
)
def test_what_answers_no_pixels_is_refused(body, message):
    class Wrong(Segmenter):
        def forward(self, x):
            return body(self, x)

    with pytest.raises(GraphError, match=message):
        ab.wrap(Wrong(), example=EXAMPLE)


def test_what_asks_for_one_answer_a_picture_is_refused():
    net = ab.wrap(Segmenter(), example=EXAMPLE).eval()
    with pytest.raises(PolicyError, match="every pixel"):
        net.policy = ab.policies.Patience(patience=1)
    with pytest.raises(UsageError, match="every pixel"):
        ab.fit_heads(net, images("train"))
    with pytest.raises(ab.AdaptBenchError, match="every pixel"):
        ab.audit(net.under(ab.policies.UniformThreshold(0.5)), images("test"))
