"""What chance reaches with the same number of questions: the control that a black-box attack must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from adaptbench.attacks.queried import Campaign, QuerySearch, SearchedAttack
from adaptbench.attacks.ranges import count
from adaptbench.attacks.searches import RandomDraw


@dataclass(frozen=True, slots=True)
class BestOf(RandomDraw, QuerySearch):
    """Many draws on the edge of the ball, of which the dearest is kept, the first among equals.

    Args:
        shape: as of `RandomDraw`. block: side of the squares of equal change, in pixels.
    """

    name: ClassVar[str] = "best-of"
    balls: ClassVar[tuple[str, ...]] = ()  # any
    shape: Literal["uniform", "sign"] = "sign"
    block: Annotated[int, count(1, 1024)] = 1

    def hunt(self, campaign: Campaign) -> None:
        """Nothing is learned from the answers."""
        c, h, w = campaign.clean.shape[1:]
        size = self.block
        while campaign.left:
            noise = campaign.uniform(c, -(-h // size), -(-w // size)) * 2 - 1
            noise = noise.repeat_interleave(size, 2).repeat_interleave(size, 3)[:, :, :h, :w]
            campaign.ask(self.draw(campaign.clean, campaign.constraint, noise))


class BestOfAttack(SearchedAttack):
    """N − 1 draws an input and the clean picture."""

    hashed_as = "adaptbench.attacks.best_of.BestOfN"
