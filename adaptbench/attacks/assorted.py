"""Patterns of several kinds, each asked about by its share: what moves one picture leaves the next as it is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from pydantic import BeforeValidator
from torch import Tensor

from adaptbench.attacks.pattern_kinds import PatternKind
from adaptbench.attacks.patterns import Draws, redrawn
from adaptbench.attacks.queried import Campaign, QuerySearch
from adaptbench.attacks.ranges import count, number, real
from adaptbench.attacks.terms import term


def _kinds(value: Any) -> Any:
    """A list of ``{kind: {settings}, share: 1}``."""
    if not isinstance(value, list | tuple) or not value:
        raise ValueError("a list such as [{waves: {}, share: 0.3}, {contours: {}, share: 0.7}]")
    for written in value:
        rest = [key for key in written if key != "share"] if isinstance(written, dict) else []
        if len(rest) != 1:
            raise ValueError(f"a kind is {{name: {{settings}}, share: 1}}; seen: {written!r}")
        if not 0 < number(written.get("share", 1)) <= 1e6:
            raise ValueError(f"share lies above 0; seen: {written['share']!r}")
    return value


@dataclass
class Assorted(QuerySearch):
    """Of each input's queries every kind has its share, drawn; later some change a rectangle of the dearest pattern.

    A change as dear is moved to, as `Contours` does. Nothing depends on the budget: a shorter run is the beginning of a
    longer one.

    Args:
        of: kinds of patterns: ``{waves: {highest: 0.5}, share: 0.3}``; shares are weights, 1 where none is written.
        first: queries before the walk begins.
        walk: share of the later queries that walk.
    """

    name: ClassVar[str] = "assorted"
    of: Annotated[list[dict[str, Any]], BeforeValidator(_kinds)]
    first: Annotated[int, count(1, 1_000_000)] = 100
    walk: Annotated[float, real(0, 1)] = 0.5

    def __post_init__(self) -> None:
        self.kinds = [_kind(dict(written)) for written in self.of]

    def hunt(self, campaign: Campaign) -> None:
        """An input by itself."""
        self.follow(campaign, ())

    def follow(self, campaign: Campaign, opening: Iterable[Draws]) -> None:
        """Ask about what is drawn, a pattern an opening first."""
        ahead = iter(opening)
        dearest, cost = torch.zeros_like(campaign.clean), torch.zeros_like(campaign.clean_cost)
        while campaign.left:
            given = next(ahead, None)
            pattern = self.draw(campaign if given is None else given)
            if given is None and campaign.asked > self.first:
                walks = campaign.uniform(1)[:, 0] < self.walk
                pattern = torch.where(walks.view(-1, 1, 1, 1), redrawn(campaign, dearest, pattern), pattern)
            asked = campaign.ask(campaign.at(pattern))
            dearest = torch.where((asked >= cost).view(-1, 1, 1, 1), pattern, dearest)
            cost = torch.maximum(cost, asked)

    def draw(self, draws: Draws) -> Tensor:
        """(N, C, H, W) float, ±1: a kind an input, and a pattern of it."""
        which = draws.uniform(1)[:, 0] * sum(share for _, share in self.kinds)
        drawn = torch.zeros_like(draws.clean)
        begin = 0.0
        for kind, share in self.kinds:
            drawn = torch.where((which >= begin).view(-1, 1, 1, 1), kind.draw(draws), drawn)
            begin += share
        return drawn


def _kind(written: dict[str, Any]) -> tuple[PatternKind, float]:
    from adaptbench.attacks.registry import PATTERNS  # the registry names this module

    share = number(written.pop("share", 1))
    ((name, settings),) = written.items()
    return term(PATTERNS, name, settings), share
