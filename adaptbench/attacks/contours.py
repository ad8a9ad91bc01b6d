"""The shipped black box: structure first, then a walk; the cost alone tells too little for more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch

from adaptbench.attacks.patterns import contours, redrawn
from adaptbench.attacks.queried import Campaign, QuerySearch
from adaptbench.attacks.ranges import count, real


@dataclass(frozen=True, slots=True)
class Contours(QuerySearch):
    """Coarse signs that follow the picture; later, every other query changes a rectangle of the dearest pattern.

    The picture is the attacker's own, so that its bright and dark parts and its edges are known before a query is made.
    A change as dear is moved to. Nothing depends on the budget: a shorter run is the beginning of a longer one.

    Args:
        first: queries before the walk begins.
        walk: share of the later queries that walk.
    """

    name: ClassVar[str] = "contours"
    first: Annotated[int, count(1, 1_000_000)] = 100
    walk: Annotated[float, real(0, 1)] = 0.5

    def hunt(self, campaign: Campaign) -> None:
        """An input by itself."""
        if not campaign.left:
            return
        dearest = contours(campaign)
        cost = campaign.ask(campaign.at(dearest))
        while campaign.left:
            pattern = contours(campaign)
            if campaign.asked > self.first:
                walks = campaign.uniform(1)[:, 0] < self.walk
                pattern = torch.where(walks.view(-1, 1, 1, 1), redrawn(campaign, dearest, pattern), pattern)
            asked = campaign.ask(campaign.at(pattern))
            dearest = torch.where((asked >= cost).view(-1, 1, 1, 1), pattern, dearest)
            cost = torch.maximum(cost, asked)
