"""Text as a net takes it: rows of token ids, padded on the right, and the slope of a pass at their embeddings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adaptbench.errors import DomainError

_WATCHED: ContextVar[list[Tensor] | None] = ContextVar("_WATCHED", default=None)


@dataclass(frozen=True, slots=True)
class TokenDomain:
    """Token ids (N, L), L up to `length`; what a text does not fill is `pad`, on the right.

    A batch may come with fewer columns than `length`; its MACs are then those of the columns it has, padding included,
    because that is what runs. `trimmed` cuts the columns that are padding in every row.

    Args:
        length: most columns. vocabulary: the piece of each id; an attack's words come from it.
        pad: id of the padding.
        trims: fewer columns may be given; False: the net takes rows of exactly `length`.

    Raises (from `check`):
        DomainError: wrong shape or type, an empty batch or text, ids outside the vocabulary, padding before a token.
    """

    length: int
    vocabulary: tuple[str, ...]
    pad: int = 0
    trims: bool = True

    @property
    def shape(self) -> tuple[int]:
        """(L,) of a row at its longest."""
        return (self.length,)

    def check(self, x: Tensor) -> None:
        """Refuse what the model was not made for."""
        least = 1 if self.trims else self.length
        if x.ndim != 2 or not least <= x.shape[1] <= self.length:
            sizes = f"1 … {self.length}" if self.trims else f"{self.length}"
            raise DomainError(
                f"an input of shape {tuple(x.shape)} was given to a model of text, which takes (N, {sizes}).",
                why="Text is rows of token ids.",
                todo="Encode it with the data set's tokenizer, cut or padded to that length; one text needs x[None].",
            )
        if len(x) == 0:
            raise DomainError("an empty batch was given.", todo="Give at least one text.")
        if x.dtype not in (torch.int64, torch.int32):
            raise DomainError(f"an input of type {x.dtype} was given to a model of text.", todo="Give int64 token ids.")
        low, high = (int(v) for v in torch.aminmax(x))
        if low < 0 or high >= len(self.vocabulary):
            raise DomainError(
                f"token ids from {low} to {high} were given; the vocabulary has {len(self.vocabulary)} pieces.",
                why="They come from another tokenizer.",
                todo="Encode the text with the tokenizer that belongs to the model.",
            )
        real = x != self.pad
        if not bool(real[:, 0].all()) or bool((real[:, 1:] & ~real[:, :-1]).any()):
            raise DomainError(
                "a row begins with padding, or has padding between its tokens.",
                why="A text's length is read off its padding, which stands on the right.",
                todo="Move the padding to the end of each row; an empty text needs one token.",
            )

    def drawn(self, n: int, generator: torch.Generator) -> Tensor:
        """(n, L) int64: random ids, no padding; what a pass costs is counted on it."""
        ids = torch.randint(len(self.vocabulary) - 1, (n, self.length), generator=generator)
        return ids + (ids >= self.pad)

    def lengths(self, x: Tensor) -> Tensor:
        """(N,) int64 tokens of each row, padding apart."""
        return (x != self.pad).sum(1)

    def trimmed(self, x: Tensor) -> Tensor:
        """The batch without the columns that are padding in every row, where the net takes it so."""
        return x[:, : int(self.lengths(x).max())] if self.trims else x

    def by_length(self, x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """(rows (n,) int64, their ids (n, l) without any padding) for each length l that occurs.

        All rows as they are, where the net takes no shorter ones.
        """
        lengths = self.lengths(x) if self.trims else torch.full((len(x),), x.shape[1])
        for size in sorted(set(lengths.tolist())):
            rows = (lengths == size).nonzero().squeeze(1)
            yield rows, x[rows, :size]


def without_padding(domain: object, x: Tensor, run: Callable[[Tensor], Tensor], *, most: int = 256) -> Tensor:
    """(N, …) of a function of each row, texts of equal length together; pictures all at once.

    It saves what padding costs where no MACs are told: logging, training, accuracies.

    Args:
        domain: of the inputs. x: (N, …). run: (n, …) → (n, …), each row on its own. most: texts a call.
    """
    if not isinstance(domain, TokenDomain):
        return run(x)
    places, parts = [], []
    for rows, ids in domain.by_length(x):
        for start in range(0, len(rows), most):
            places.append(rows[start : start + most])
            parts.append(run(ids[start : start + most]))
    return torch.cat(parts)[torch.cat(places).argsort()]


class WordEmbedding(nn.Embedding):
    """A table of embeddings whose output `followed` makes a leaf of."""

    def forward(self, ids: Tensor) -> Tensor:
        """(N, L) ids → (N, L, d)."""
        out = F.embedding(ids, self.weight)
        if (kept := _WATCHED.get()) is not None:
            out = out.detach().requires_grad_()
            kept.append(out)
        return out


@contextmanager
def followed(x: Tensor) -> Iterator[tuple[Tensor, Callable[[], Tensor]]]:
    """What to give a net so that gradients reach its input, and after the pass the leaf that they reach.

    Of pictures it is a copy that needs a gradient; ids have none, and the leaf is the embeddings of the last pass.

    Raises (from the second):
        RuntimeError: the pass came by no `WordEmbedding`.
    """
    if x.is_floating_point():
        leaf = x.detach().clone().requires_grad_()
        yield leaf, lambda: leaf
        return
    kept: list[Tensor] = []

    def reached() -> Tensor:
        if not kept:
            raise RuntimeError("no WordEmbedding was run")
        return kept[-1]

    token = _WATCHED.set(kept)
    try:
        yield x, reached
    finally:
        _WATCHED.reset(token)
