"""Coarse signs at many scales, asked one after another: what structure alone is worth, before anything is learned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from adaptbench.attacks.patterns import coarse
from adaptbench.attacks.queried import Campaign, QuerySearch
from adaptbench.attacks.ranges import real


@dataclass(frozen=True, slots=True)
class Blocks(QuerySearch):
    """Squares and stripes of random signs, each picture at a scale of its own; the dearest is kept.

    Args:
        finest: the smallest side of a square, a share of the picture's; stripes may be one pixel wide.
        stripes: share of the patterns that are stripes, half of them standing.
    """

    name: ClassVar[str] = "blocks"
    finest: Annotated[float, real(0, 1)] = 1 / 7
    stripes: Annotated[float, real(0, 1)] = 0.5

    def hunt(self, campaign: Campaign) -> None:
        """Nothing depends on an answer or on the budget: a shorter run is the beginning of a longer one."""
        while campaign.left:
            campaign.ask(campaign.at(coarse(campaign, self.finest, self.stripes)))
