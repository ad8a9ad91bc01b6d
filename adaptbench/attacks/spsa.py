"""Simultaneous perturbation: the slope of the cost along random directions, from two queries each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch

from adaptbench.attacks.patterns import coarse
from adaptbench.attacks.queried import Campaign, QuerySearch
from adaptbench.attacks.ranges import count, real


@dataclass(frozen=True, slots=True)
class Spsa(QuerySearch):
    """Pairs of opposite coarse signs around a point, which moves where the dearer ones lie.

    After Spall 1992 and Ilyas et al., ICML 2018. Most pairs cost the same, since the cost is a step function:
    wide perturbations and a long memory make up for it. Nothing depends on the budget.

    Args:
        pairs: of queries before a move.
        width: of the perturbation, in half widths of the ball.
        step: of a move, in the same unit.
        memory: share of the estimated slope that a move keeps.
    """

    name: ClassVar[str] = "spsa"
    pairs: Annotated[int, count(1, 10_000)] = 4
    width: Annotated[float, real(0.01, 2)] = 1.0
    step: Annotated[float, real(0.001, 2)] = 0.25
    memory: Annotated[float, real(0, 1)] = 0.9

    def hunt(self, campaign: Campaign) -> None:
        """Move after some pairs; a query left over is asked at the point itself."""
        point = torch.zeros_like(campaign.clean)
        slope = torch.zeros_like(point)
        while campaign.left >= 2:
            slope = slope * self.memory
            for _ in range(min(self.pairs, campaign.left // 2)):
                way = coarse(campaign, 1 / 7, 0.5)
                up = campaign.ask(campaign.at((point + self.width * way).clamp(-1, 1)))
                down = campaign.ask(campaign.at((point - self.width * way).clamp(-1, 1)))
                slope = slope + (up - down).sign().view(-1, 1, 1, 1) * way
            point = (point + self.step * slope.sign()).clamp(-1, 1)
        if campaign.left:
            campaign.ask(campaign.at(point))
