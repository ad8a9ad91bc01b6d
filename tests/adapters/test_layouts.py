"""Exits on nets whose features are no (n, C, H, W): which dimension is the width, and what padding is."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import adaptbench as ab
from adaptbench.errors import GraphError, UsageError
from adaptbench.testing import check_model

SHAPE = (3, 8, 8)
CLASSES = 5
EXAMPLE = torch.zeros(1, *SHAPE)


@pytest.fixture(autouse=True)
def a_fixed_seed():
    torch.manual_seed(0)


class Windowed(nn.Module):
    """Maps (n, H, W, C) from the patches on, in windows, as Swin's are: 4 × 4 places of 4 channels."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 4, 2, stride=2)
        self.norm, self.mix, self.wide = nn.LayerNorm(4), nn.Linear(4, 4), nn.Linear(4, 16)
        self.out = nn.Identity()
        self.fc = nn.Linear(16, CLASSES)

    def forward(self, x):
        x = self.patch(x).permute(0, 2, 3, 1)
        n, h, w, c = x.shape
        windows = self.norm(torch.roll(x, (-1, -1), (1, 2))).view(n, h // 2, 2, w // 2, 2, c)
        windows = self.mix(windows.permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c))
        back = windows.view(n, h // 2, w // 2, 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)
        x = self.out(x + torch.roll(back, (1, 1), (1, 2)))
        return self.fc(self.wide(x).mean((1, 2)))


class Inside(nn.Module):
    """Channels last inside a block, first outside of it, as ConvNeXt's are."""

    def __init__(self):
        super().__init__()
        self.stem, self.deep = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm, self.up, self.down = nn.LayerNorm(8), nn.Linear(8, 32), nn.Linear(32, 8)
        self.out, self.fc = nn.Identity(), nn.Linear(8, CLASSES)

    def forward(self, x):
        x = self.stem(x)
        y = self.down(self.up(self.norm(self.deep(x).movedim(1, -1))).relu())
        x = self.out(x + y.movedim(-1, 1))
        return self.fc(x.mean((2, 3)))


class Mixer(nn.Module):
    """Linear layers over places and over channels by turns: 16 of each."""

    def __init__(self):
        super().__init__()
        self.patch, self.norm = nn.Conv2d(3, 16, 2, stride=2), nn.LayerNorm(16)
        self.places, self.channels = nn.Linear(16, 16), nn.Linear(16, 16)
        self.out, self.fc = nn.Identity(), nn.Linear(16, CLASSES)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = self.out(x + self.places(self.norm(x).transpose(1, 2)).transpose(1, 2))
        return self.fc((x + self.channels(x)).mean(1))


class Shuffled(nn.Module):
    """Groups of channels that are interleaved."""

    def __init__(self):
        super().__init__()
        self.stem, self.out, self.fc = nn.Conv2d(3, 8, 1), nn.Identity(), nn.Linear(8, CLASSES)

    def forward(self, x):
        a, b = self.stem(x).chunk(2, 1)
        x = torch.cat([a, b.relu()], 1)
        n, c, h, w = x.shape
        x = self.out(x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w))
        return self.fc(x.mean((2, 3)))


class Einsum(nn.Module):
    """No layer of torch's says what its dimensions are."""

    def __init__(self):
        super().__init__()
        self.weight, self.out, self.fc = nn.Parameter(torch.randn(3, 8) / 2), nn.Identity(), nn.Linear(8, CLASSES)

    def forward(self, x):
        return self.fc(self.out(torch.einsum("nchw,cd->nhwd", x, self.weight)).mean((1, 2)))


def first_exit(module, net, x, places):
    """What the first exit's linear layer says of the mean over these places of what `out` gives."""
    seen = []
    handle = module.out.register_forward_hook(lambda _m, _g, out: seen.append(out))
    with torch.no_grad():
        module.eval()(x)
        handle.remove()
        (linear,) = [m for m in net.heads[0].modules() if isinstance(m, nn.Linear)]
        return linear(seen[0].mean(places))


@pytest.mark.parametrize(
    ("kind", "places", "width"),
    [(Windowed, (1, 2), 4), (Inside, (2, 3), 8), (Mixer, 1, 16), (Shuffled, (2, 3), 8)],
)
def test_the_width_is_found_where_the_layers_say_it(kind, places, width):
    module = kind()
    net = ab.attach_exits(module, after=["out"], example=EXAMPLE).eval()
    (linear,) = [m for m in net.heads[0].modules() if isinstance(m, nn.Linear)]
    assert linear.in_features == width
    x = torch.rand(3, *SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(net.dense_logits(x)[:, 0], first_exit(module, net, x, places))
    net.policy = ab.policies.UniformThreshold(0.25)
    check_model(net, n_inputs=8)


def test_series_have_channels_first():
    class Waves(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.out, self.fc = nn.Conv1d(3, 6, 3, padding=1), nn.ReLU(), nn.Linear(6, CLASSES)

        def forward(self, x):
            return self.fc(self.out(self.conv(x)).amax(2))

    module, domain = Waves(), ab.SeriesDomain((3, 32), -1.0, 1.0, "g")
    net = ab.attach_exits(module, after=["out"], example=torch.zeros(1, 3, 32), domain=domain).eval()
    x = torch.rand(4, 3, 32)
    with torch.no_grad():
        torch.testing.assert_close(net.dense_logits(x)[:, 0], first_exit(module, net, x, 2))


def test_what_cannot_be_told_is_asked_for():
    with pytest.raises(GraphError) as raised:
        ab.attach_exits(Einsum(), after=["out"], example=EXAMPLE)
    assert "what 'out' gives, (n, 8, 8, 8), holds channels cannot be told" in raised.value.seen
    assert "layout='channels-last' for (n, …, C)" in raised.value.todo
    assert "head=lambda" in raised.value.todo
    module = Einsum()
    net = ab.attach_exits(module, after=["out"], example=EXAMPLE, layout="channels-last").eval()
    x = torch.rand(3, *SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(net.dense_logits(x)[:, 0], first_exit(module, net, x, (1, 2)))
    with pytest.raises(UsageError, match=r"'nhwc' is no layout.*\n?.*channels-last"):
        ab.attach_exits(Einsum(), after=["out"], example=EXAMPLE, layout="nhwc")


LENGTH, PIECES = 12, 40


class Texts(nn.Module):
    """Token ids → a feature a word → its own mean; `first` puts a place before them, as class tokens are."""

    def __init__(self, first: bool = False):
        super().__init__()
        self.words, self.mix = nn.Embedding(PIECES, 8, padding_idx=0), nn.Linear(8, 8)
        self.first = nn.Parameter(torch.randn(1, 1, 8)) if first else None
        self.out, self.fc = nn.Identity(), nn.Linear(8, CLASSES)

    def forward(self, ids, mask=None):
        h = self.words(ids)
        if self.first is not None:
            h = torch.cat([self.first.expand(len(ids), 1, 8), h], 1)
        h = self.out(self.mix(h) + 1)  # what stands at padding is not zero
        return self.fc(h[:, 0])


class Narrow(nn.Module):
    """Convolutions over words, (n, C, T)."""

    def __init__(self):
        super().__init__()
        self.words, self.out = nn.Embedding(PIECES, 8, padding_idx=0), nn.Conv1d(8, 6, 3, padding=1)
        self.fc = nn.Linear(6, CLASSES)

    def forward(self, ids):
        return self.fc(self.out(self.words(ids).transpose(1, 2))[..., 0])


IDS = torch.tensor([[5, 7, 9, 3], [5, 7, 0, 0], [1, 0, 0, 0]])
PADDED = torch.cat([IDS, torch.zeros(3, LENGTH - 4, dtype=torch.int64)], 1)


@pytest.mark.parametrize("example", ["ids", "named"])
@pytest.mark.parametrize("kind", [Texts, Narrow])
def test_padding_is_in_no_mean(kind, example):
    module, given = kind(), torch.ones(1, LENGTH, dtype=torch.int64)
    if example == "named" and kind is Texts:
        given = {"ids": given, "mask": torch.ones(1, LENGTH, dtype=torch.int64)}
    net = ab.attach_exits(module, after=["out"], example=given).eval()
    seen = []
    handle = module.out.register_forward_hook(lambda _m, _g, out: seen.append(out))
    with torch.no_grad():
        module.eval()(PADDED)
        handle.remove()
        (linear,) = [m for m in net.heads[0].modules() if isinstance(m, nn.Linear)]
        features = seen[0].transpose(1, 2) if kind is Narrow else seen[0]
        by_hand = torch.stack([linear(h[:n].mean(0)) for h, n in zip(features, [4, 2, 1], strict=True)])
        torch.testing.assert_close(net.dense_logits(PADDED)[:, 0], by_hand)
        assert not torch.allclose(linear(features.mean(1)), by_hand, atol=1e-3)
    net.policy = ab.policies.UniformThreshold(0.25)
    check_model(net, n_inputs=8)


def test_texts_leave_by_an_exception_as_well():
    class Looks(Texts):
        def forward(self, ids):
            h = self.out(self.mix(self.words(ids)) + 1)
            if not torch.isfinite(h.detach()).all():
                raise OverflowError
            return self.fc(h[:, 0])

    torch.manual_seed(0)
    plain = ab.attach_exits(Texts(), after=["out"], example=PADDED).eval()
    torch.manual_seed(0)
    left = ab.attach_exits(Looks(), after=["out"], example=PADDED).eval()
    assert (plain.explain().way, left.explain().way) == ("traced", "left at its exits")
    with torch.no_grad():
        torch.testing.assert_close(left.dense_logits(PADDED), plain.dense_logits(PADDED))


def test_places_that_are_no_words_are_refused():
    module = Texts(first=True)
    with pytest.raises(GraphError) as raised:
        ab.attach_exits(module, after=["out"], example=PADDED)
    assert "what 'out' gives, (n, 13, 8), are padding cannot be told: rows have 12 ids" in raised.value.seen
    assert "head=lambda" in raised.value.todo

    class First(nn.Module):
        def __init__(self, h):
            super().__init__()
            self.linear = nn.Linear(h.shape[2], CLASSES)

        def forward(self, h):
            return self.linear(h[:, 0])

    assert ab.attach_exits(module, after=["out"], example=PADDED, head=First).exit_names == ("out", "final")
    hidden = Texts()
    domain = ab.TokenDomain(LENGTH, tuple(map(str, range(PIECES))))
    with pytest.raises(GraphError, match="no input of forward is the ids as they are"):
        ab.attach_exits(hidden, after=["out"], example=PADDED, domain=domain, inputs=lambda ids: ((ids + 1) % PIECES,))
