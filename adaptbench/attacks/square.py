"""Square attack on the hard cost: a step function has plateaus, so a move that costs nothing is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch

from adaptbench.attacks.patterns import cells, shrunk, signed_square
from adaptbench.attacks.queried import Campaign, QuerySearch
from adaptbench.attacks.ranges import count, real


@dataclass(frozen=True, slots=True)
class Square(QuerySearch):
    """From standing stripes, squares of one sign; a picture as dear is moved to (Andriushchenko et al., ECCV 2020).

    The squares shrink with the share of the budget that is spent: a shorter run is not the beginning of a longer one.

    Args:
        area: share of the picture that the first squares cover.
        halvings: how often that share is halved on the way, at equal distances.
    """

    name: ClassVar[str] = "square"
    area: Annotated[float, real(0, 1, open_low=True)] = 0.8
    halvings: Annotated[int, count(0, 20)] = 3

    def hunt(self, campaign: Campaign) -> None:
        """A walk of each input's own."""
        n, _, h, _ = campaign.clean.shape
        like = torch.ones(n, dtype=torch.int64, device=campaign.clean.device)
        pattern = cells(campaign, h * like, like)
        cost = campaign.ask(campaign.at(pattern)) if campaign.left else campaign.cost
        while campaign.left:
            share = shrunk(campaign, self.area, self.halvings)
            changed = signed_square(campaign, pattern, share)
            asked = campaign.ask(campaign.at(changed))
            stays = asked < cost
            pattern = torch.where(stays.view(-1, 1, 1, 1), pattern, changed)
            cost = torch.where(stays, cost, asked)
