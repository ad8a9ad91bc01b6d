"""Forwards in the styles that people publish, written for these tests; none knows of adaptbench.

Each class says how it is adapted (`how`, the arguments of `wrap` beside the module and an example), and which of its
sub-modules only the last exit needs (`late`).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHAPE = (3, 8, 8)
CLASSES = 5


class Kind(nn.Module):
    """Trunk, an early and a late head."""

    how: ClassVar[dict[str, Any]] = {}
    late = "deep.0"

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.deep = nn.Sequential(nn.Conv2d(6, 12, 3, stride=2, padding=1), nn.BatchNorm2d(12), nn.ReLU(inplace=True))
        self.head1, self.head2 = nn.Linear(6, CLASSES), nn.Linear(12, CLASSES)

    def early(self, a: Tensor) -> Tensor:
        return self.head1(a.mean((2, 3)))

    def final(self, a: Tensor) -> Tensor:
        return self.head2(self.deep(a).mean((2, 3)))


class Flagged(Kind):
    """A flag chooses the form of the answer; thresholds and the like have defaults."""

    how: ClassVar[dict[str, Any]] = {"kwargs": {"return_all": True}}

    def forward(self, x, threshold=0.5, return_all=False, *, temperature=1.0):
        a = F.relu(self.stem(x))
        early = self.early(a) / temperature
        if not return_all:
            return early if early.softmax(1).amax() > threshold else self.final(a)
        return [early, self.final(a) / temperature]


class ShapeTests(Kind):
    """Asserts, refusals and branches on shapes, types and devices."""

    def forward(self, x):
        assert isinstance(x, Tensor)
        assert x.ndim == 4, f"expected 4D input, got {x.dim()}D"
        assert (x >= 0).all(), "pictures are not negative"
        n, c, h, w = x.shape
        torch._assert(c == 3, "colour pictures")
        if x.shape[0] == 0 or n < 1:
            raise ValueError("empty batch")
        if h != w or (h, w) not in ((8, 8), (16, 16)):
            x = F.interpolate(x, size=(8, 8))
        if x.dtype not in (torch.float32, torch.float64) or x.device.type == "meta":
            x = x.float()
        a = F.relu(self.stem(x))
        if a.shape[-2:] == x.shape[-2:] and len(a.shape) == 4:
            a = a + x.mean(1, keepdim=True)
        return self.early(a), self.final(a)


class Strips(Kind):
    """Loops over rows and over dimensions of a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(6 * 8, 6)

    def forward(self, x):
        a = self.stem(x)
        rows = []
        for i in range(a.shape[2]):
            rows.append(self.mix(a[:, :, i].flatten(1)))  # noqa: PERF401
        for column in a.permute(3, 0, 1, 2):
            rows[0] = rows[0] + column.mean(2)
        mixed = sum(rows) / len(rows)
        scale = mixed.view(a.size(0), *[6 if d == 1 else 1 for d in range(1, a.dim())])
        return [self.head1(mixed), self.final(a * scale.sigmoid())]


class Tokens(nn.Module):
    """A small vision transformer: class token, positions, sized factories, a head at each layer."""

    how: ClassVar[dict[str, Any]] = {}
    late = "layers.1"

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 4, stride=4)
        self.cls = nn.Parameter(torch.randn(1, 1, 16))
        self.register_buffer("position", torch.randn(1, 9, 16))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.1) for _ in range(2)
        )
        self.heads = nn.ModuleList(nn.Linear(16, CLASSES) for _ in range(2))

    def forward(self, x):
        t = self.patch(x).flatten(2).transpose(1, 2)
        b, length, width = t.shape
        empty = torch.zeros(b, 1, width, device=t.device, dtype=t.dtype)
        t = torch.cat([self.cls.expand(b, -1, -1) + empty, t], dim=1)
        t = t + self.position[:, : length + 1]
        t = t * torch.ones(len(x), length + 1, 1, device=x.device)
        ramp = torch.arange(length + 1, device=x.device).view(1, -1, 1) / (length + 1)
        outputs = []
        for layer, head in zip(self.layers, self.heads):  # noqa: B905
            t = layer(t + 0.1 * ramp)
            outputs.append(head(t[:, 0]))
        return outputs


class Written(Kind):
    """Buffers that are filled slice by slice, masks written in place."""

    def forward(self, x):
        a = self.stem(x)
        padded = torch.zeros(x.size(0), 6, 10, 10, device=x.device)
        padded[:, :, 1:-1, 1:-1] = a
        padded[:, 0] += 1
        quiet = a.clone()
        quiet[quiet < 0] = 0
        quiet.mul_(0.5)
        return {"main": self.final(padded), "aux": self.early(quiet)}


@dataclass
class Output:
    logits: Tensor
    exit_logits: list[Tensor]
    loss: Tensor | None = None


class Dataclass(Kind):
    """An output class with fields that are not there."""

    def forward(self, x, labels=None):
        a = self.stem(x).relu()
        loss = None if labels is None else F.cross_entropy(self.early(a), labels)
        return Output(logits=self.final(a), exit_logits=[self.early(a)], loss=loss)


class ModelOutput(OrderedDict):
    """The form of a widespread library: a dictionary with attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Library(Kind):
    """Hidden states beside the logits: what is meant is said."""

    how: ClassVar[dict[str, Any]] = {"logits": lambda out: [out.ramps[0], out["logits"]]}

    def forward(self, x):
        a = self.stem(x).relu()
        return ModelOutput(logits=self.final(a), hidden_states=(a,), ramps=(self.early(a),))


class FinalAndOthers(Kind):
    """(final, [others]), in train-time style."""

    def forward(self, x):
        a = self.stem(x).relu()
        deep = self.deep(a)
        return self.head2(deep.mean((2, 3))), [self.early(a)]


class Stacked(Kind):
    """All exits in one tensor, (K, n, C)."""

    def forward(self, x):
        a = self.stem(x).relu()
        return torch.stack([self.early(a), self.final(a)])


class Joined(Kind):
    """All exits in one tensor, (n, K, C), joined and taken apart again."""

    how: ClassVar[dict[str, Any]] = {"logits": lambda out: out["exits"].unbind(1)}

    def forward(self, x):
        a = self.stem(x).relu()
        return {"exits": torch.cat([self.early(a)[:, None], self.final(a)[:, None]], dim=1), "features": a}


class Shared(nn.Module):
    """One head for all exits, one block again and again."""

    how: ClassVar[dict[str, Any]] = {"exits": ["head"]}
    late = None

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(192, 24)
        self.block, self.head = nn.Sequential(nn.Linear(24, 24), nn.Tanh()), nn.Linear(24, CLASSES)

    def forward(self, x):
        h = self.embed(torch.flatten(x, 1))
        best = None
        for _ in range(3):
            h = h + self.block(h)
            best = self.head(h)
        return best


class Listed(Kind):
    """The heads are named as the list they stand in; forward returns the last one only."""

    how: ClassVar[dict[str, Any]] = {"exits": ["ramps"], "logits": lambda out: out[0]}

    def __init__(self) -> None:
        super().__init__()
        self.ramps = nn.ModuleList(Ramp(width) for width in (6, 12))

    def forward(self, x):
        a = self.stem(x).relu()
        self.ramps[0](a)
        logits, _confidence = self.ramps[1](self.deep(a))
        return logits


class Ramp(nn.Module):
    """Logits and a confidence."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score, self.trust = nn.Linear(width, CLASSES), nn.Linear(width, 1)

    def forward(self, h):
        pooled = F.adaptive_avg_pool2d(h, 1).flatten(1)
        return self.score(pooled), self.trust(pooled).sigmoid()


class Remembers(Kind):
    """Layers say whether they are exits; outputs are kept in the module, as internal-classifier code does."""

    def __init__(self) -> None:
        super().__init__()
        self.is_exit = [True, True]

    def forward(self, x):
        self.outputs = []
        h = x
        for k, layer in enumerate((self.stem, self.deep)):
            h = layer(h)
            self.last = h
            if self.is_exit[k]:
                self.outputs.append((self.head1, self.head2)[k](h.mean(dim=(-1, -2))))
        return self.outputs


class OneByOne(nn.Module):
    """A layer that goes through the samples itself: no graph holds it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)

    def forward(self, h):
        return torch.stack([self.linear(row.amax((1, 2))) * (2.0 if row.max() > 0 else 1.0) for row in h])


class Opaque(Kind):
    """A sub-module that cannot be entered is taken whole."""

    def __init__(self) -> None:
        super().__init__()
        self.odd = OneByOne()

    def forward(self, x):
        a = self.stem(x)
        b = a * self.odd(a)[:, :, None, None]
        return [self.early(b), self.final(b)]


class Rows(nn.Module):
    """A recurrent net over the rows of a picture; confidence lists beside the logits."""

    how: ClassVar[dict[str, Any]] = {"logits": lambda out: out[0]}
    late = "second"

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LSTM(24, 16, batch_first=True), nn.GRU(16, 16, batch_first=True)
        self.heads = nn.ModuleDict({"a": nn.Linear(16, CLASSES), "b": nn.Linear(16, CLASSES)})

    def forward(self, x, state=None):
        b, c, h, w = x.size()
        if state is None:
            state = (x.new_zeros(1, b, 16), x.new_zeros(1, b, 16))
        rows = x.permute(0, 2, 1, 3).contiguous().view(b, h, c * w)
        out, (hidden, _) = self.first(rows, state)
        logits = [self.heads["a"](hidden[-1])]
        out, hidden = self.second(out)
        logits.append(self.heads["b"](hidden[-1]))
        return logits, [z.softmax(-1).max(-1)[0] for z in logits]


KINDS: tuple[type[nn.Module], ...] = (
    Flagged,
    ShapeTests,
    Strips,
    Tokens,
    Written,
    Dataclass,
    Library,
    FinalAndOthers,
    Stacked,
    Joined,
    Shared,
    Listed,
    Remembers,
    Opaque,
    Rows,
)
