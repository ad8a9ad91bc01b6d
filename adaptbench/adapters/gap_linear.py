"""The head of an exit that nobody designed: the mean over places, and a linear layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from adaptbench.adapters.feeding import Feed
from adaptbench.adaptive import TokenDomain
from adaptbench.adaptive.domain import Domain
from adaptbench.errors import GraphError, UsageError

Layout = Literal["channels-first", "channels-last"]
LAYOUTS: Mapping[str, str] = {"channels-first": "(n, C, …)", "channels-last": "(n, …, C)"}
OWN = "give a head of your own, head=lambda h: … → nn.Module"
Words = tuple[int | str, int]
"""Where among forward's inputs the ids are, and the id of the padding."""


class GapLinear(nn.Module):
    """Mean over places, padding left out, then one linear layer.

    Args:
        like: features (n, …) that it will be given. channels: the dimension of their channels. n_classes: C.
    """

    def __init__(self, like: Tensor, channels: int, n_classes: int) -> None:
        super().__init__()
        self.places = tuple(d for d in range(1, like.ndim) if d != channels)
        self.linear = nn.Linear(like.shape[channels], n_classes).to(like)

    def forward(self, h: Tensor, is_word: Tensor | None = None) -> Tensor:
        """(n, n_classes). is_word: (n, T) bool, False where a place is padding."""
        if is_word is not None:
            is_word = is_word.unsqueeze(3 - self.places[0])
            h = h.masked_fill(~is_word, 0).sum(self.places) / is_word.sum(self.places).clamp_min(1)
        elif self.places:
            h = h.mean(self.places)
        return self.linear(h)  # type: ignore[no-any-return]


def checked_layout(layout: str | None) -> None:
    """Refuse a word that names no layout.

    Raises:
        UsageError: it does not.
    """
    if layout is not None and layout not in LAYOUTS:
        offered = " or ".join(f"'{name}' for {form}" for name, form in LAYOUTS.items())
        raise UsageError(f"'{layout}' is no layout.", todo=f"Give {offered}; or leave it out.")


def channels_of(path: str, h: Tensor, followed: int | None, layout: str | None) -> int:
    """The dimension of the channels of what a sub-module gives.

    Args:
        path: of the sub-module. h: (n, …). followed: the dimension, as it was followed through the forward; None where
            it could not be. layout: as it was said.

    Raises:
        GraphError: it was not said and cannot be told.
    """
    if h.ndim == 2 or layout == "channels-first":
        return 1
    if layout == "channels-last":
        return h.ndim - 1
    if not followed:
        offered = " or ".join(f"layout='{name}' for {form}" for name, form in LAYOUTS.items())
        raise GraphError(
            f"which dimension of what '{path}' gives, {_size(h)}, holds channels cannot be told.",
            why="A head would take the mean over channels, and a side for the width.",
            todo=f"Say it: {offered}; or {OWN}.",
        )
    return followed


def words_in(feed: Feed, x: Tensor, domain: Domain) -> Words | None:
    """Where forward's ids are; None of pictures and series, and where no input is the ids.

    Args:
        x: (n, …) a batch of the domain.
    """
    if not isinstance(domain, TokenDomain):
        return None
    positional, named = feed.given(x)
    where: list[tuple[int | str, Any]] = [*enumerate(positional), *named.items()]
    for key, value in where:
        if isinstance(value, Tensor) and value.shape == x.shape and torch.equal(value, x):
            return key, domain.pad
    return None


def has_padding(path: str, h: Tensor, channels: int, words: Words | None, domain: Domain) -> bool:
    """Whether places of what a sub-module gives are padding, by the ids.

    Args:
        path: of the sub-module. h: (n, …). channels: of it. words: of `words_in`.

    Raises:
        GraphError: they may be, and which of them cannot be told.
    """
    if not isinstance(domain, TokenDomain) or h.ndim == 2:
        return False
    places = [size for d, size in enumerate(h.shape[1:], 1) if d != channels]
    if words is None or places != [domain.length]:
        why = "no input of forward is the ids as they are" if words is None else f"rows have {domain.length} ids"
        raise GraphError(
            f"which places of what '{path}' gives, {_size(h)}, are padding cannot be told: {why}.",
            why="A mean over padding hangs on how long the longest text of its batch is.",
            todo=f"Put the exit after a sub-module that gives a place an id, or {OWN}.",
        )
    return True


def _size(h: Any) -> str:
    return f"({', '.join(['n', *map(str, h.shape[1:])])})"
