"""A causal character transformer with an exit after every layer, and the memory that its tokens leave behind."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptbench.decoding.characters import VOCABULARY


@dataclass(frozen=True, slots=True)
class Size:
    """Of a model.

    Args:
        layers, heads: how many. width: d, of a state. inner: width of the feed-forward part.
        context: the longest row that it is trained and run on, in characters. vocabulary: ids.
    """

    layers: int = 6
    width: int = 128
    heads: int = 2
    inner: int = 512
    context: int = 192
    vocabulary: int = len(VOCABULARY)


SMALL = Size()
"""What ships: 1.2 million parameters."""


class Layer(nn.Module):
    """Causal attention, then a feed-forward part, each normalised before and added (Vaswani et al. 2017, pre-norm).

    Places enter as rotations of queries and keys (RoPE, Su et al. 2021), so that a key that is kept stays what it is.
    """

    def __init__(self, size: Size) -> None:
        super().__init__()
        d = size.width
        self.heads = size.heads
        self.norm, self.last_norm = nn.LayerNorm(d), nn.LayerNorm(d)
        self.query, self.key_value, self.out = nn.Linear(d, d), nn.Linear(d, 2 * d), nn.Linear(d, d)
        self.wide, self.narrow = nn.Linear(d, size.inner), nn.Linear(size.inner, d)

    def keys_values(self, h: Tensor, turns: Tensor) -> tuple[Tensor, Tensor]:
        """States (N, n, d) at n places → keys and values (N, heads, n, d / heads).

        Args:
            turns: (2, n, d / heads), cosines and sines of the places.
        """
        key, value = self._split(self.key_value(self.norm(h)), 2)
        return turned(key, turns), value

    def forward(self, h: Tensor, turns: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """States (N, n, d) → states.

        Args:
            turns: of the n places. keys, values: (N, heads, T, d / heads), the n places' own last.
            mask: (n, T) True where a place sees another; None: a whole row with T = n, each seeing those before it, or
                one place that sees all.
        """
        (query,) = self._split(self.query(self.norm(h)), 1)
        whole = mask is None and h.shape[1] > 1
        seen = F.scaled_dot_product_attention(turned(query, turns), keys, values, mask, is_causal=whole)
        h = h + self.out(seen.transpose(1, 2).flatten(2))
        inner: Tensor = self.narrow(F.gelu(self.wide(self.last_norm(h)), approximate="tanh"))
        return h + inner

    def _split(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        return tuple(part.view(*part.shape[:2], self.heads, -1).transpose(1, 2) for part in x.chunk(parts, -1))


class CharacterLm(nn.Module):
    """Ids of characters → logits of the next one, at every layer.

    An exit has a norm of its own; the matrix from states to logits is one for all exits, and the entry's (tied), as
    CALM (Schuster et al. 2022) and LayerSkip (Elhoushi et al. 2024) share theirs.
    """

    turns: Tensor

    def __init__(self, size: Size = SMALL) -> None:
        super().__init__()
        self.size = size
        self.entry = nn.Embedding(size.vocabulary, size.width)
        self.layers = nn.ModuleList(Layer(size) for _ in range(size.layers))
        self.exit_norms = nn.ModuleList(nn.LayerNorm(size.width) for _ in range(size.layers))
        self.register_buffer("turns", _turns(size), persistent=False)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(
                    module.weight, std=0.02 if isinstance(module, nn.Embedding) else module.in_features**-0.5
                )
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        for layer in self.layers:
            for last in (layer.out, layer.narrow):
                nn.init.normal_(last.weight, std=(2 * size.layers * last.in_features) ** -0.5)  # type: ignore[arg-type, operator, union-attr]

    def exit_logits(self, h: Tensor, exit: int) -> Tensor:
        """(…, d) states after layer `exit` (from 0) → (…, V) logits."""
        return F.linear(self.exit_norms[exit](h), self.entry.weight)

    def forward(self, ids: Tensor) -> Tensor:
        """(N, n) ids, n ≤ context → (N, exits, n, V) logits of the next character: everything run, nothing kept."""
        h, turns = self.entry(ids), self.turns[:, : ids.shape[1]]
        logits = []
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, Layer)
            h = layer(h, turns, *layer.keys_values(h, turns))
            logits.append(self.exit_logits(h, i))
        return torch.stack(logits, 1)


def turned(x: Tensor, turns: Tensor) -> Tensor:
    """(N, heads, n, c) queries or keys, each pair of numbers turned by its place's angle."""
    first, second = x.chunk(2, -1)
    return x * turns[0] + torch.cat((-second, first), -1) * turns[1]


def _turns(size: Size) -> Tensor:
    """(2, context, c) cosines and sines; angles fall from 1 to 1 / 10 000 a place, as Su et al. have them."""
    c = size.width // size.heads
    rates = 10_000.0 ** (-torch.arange(0, c, 2, dtype=torch.float64) / c)
    angles = torch.outer(torch.arange(size.context, dtype=torch.float64), rates).repeat(1, 2)
    return torch.stack((angles.cos(), angles.sin())).float()
