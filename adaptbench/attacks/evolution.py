"""A genetic search on the hard cost, whose populations hand each other what worked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from adaptbench.attacks.patterns import coarse
from adaptbench.attacks.queried import Campaign, QuerySearch
from adaptbench.attacks.ranges import count, real


@dataclass(frozen=True, slots=True)
class Evolution(QuerySearch):
    """Parents are crossed along a line, sometimes redrawn in part, and take the place of the cheapest.

    After the genetic search of Shumailov et al., EuroS&P 2021, one child at a time. Half of the children have a parent
    from another picture of the craft: what made one picture dear is tried on the next.

    Args:
        population: patterns an input, coarse random signs to begin with.
        exchange: share of the children whose second parent comes from another input.
        mutation: share of the children that are redrawn on one side of the line.
    """

    name: ClassVar[str] = "evolution"
    couples: ClassVar[bool] = True
    population: Annotated[int, count(2, 1000)] = 20
    exchange: Annotated[float, real(0, 1)] = 0.5
    mutation: Annotated[float, real(0, 1)] = 0.5

    def hunt(self, campaign: Campaign) -> None:
        """A population first, then a child a query; nothing depends on the budget."""
        patterns: list[Tensor] = []
        costs: list[Tensor] = []
        while campaign.left and len(patterns) < self.population:
            pattern = coarse(campaign, 1 / 7, 0.5)
            costs.append(campaign.ask(campaign.at(pattern)))
            patterns.append(pattern.to(torch.int8))
        if not campaign.left:
            return
        pool, cost = torch.stack(patterns, 1), torch.stack(costs, 1)
        rows = torch.arange(len(pool), device=pool.device)
        while campaign.left:
            child = self._child(campaign, pool, cost)
            asked = campaign.ask(campaign.at(child))
            cheapest = cost.argmin(1)
            lives = asked >= cost[rows, cheapest]
            pool[rows[lives], cheapest[lives]] = child[lives].to(torch.int8)
            cost[rows[lives], cheapest[lives]] = asked[lives]

    def _child(self, campaign: Campaign, pool: Tensor, cost: Tensor) -> Tensor:
        draw = campaign.uniform(8)
        rows = torch.arange(len(pool), device=pool.device)
        other = (draw[:, 0] * len(pool)).long()
        giver = torch.where(draw[:, 1] < self.exchange, other, rows)
        gain = cost - campaign.clean_cost[:, None]
        one = pool[rows, _dearer(gain, draw[:, 2:4])]
        two = pool[giver, _dearer(gain[giver], draw[:, 4:6])]
        redrawn = (draw[:, 6] < self.mutation).view(-1, 1, 1, 1)
        two = torch.where(redrawn, coarse(campaign, 1 / 7, 0.5), two.float())
        return torch.where(_side(campaign, draw[:, 7]), one.float(), two)


def _dearer(gain: Tensor, draw: Tensor) -> Tensor:
    """(N,) the dearer of two patterns. gain: (N, P). draw: (N, 2) in [0, 1)."""
    first, second = (draw * gain.shape[1]).long().unbind(1)
    rows = torch.arange(len(gain), device=gain.device)
    return torch.where(gain[rows, first] >= gain[rows, second], first, second)


def _side(campaign: Campaign, draw: Tensor) -> Tensor:
    """(N, 1, H, W) bool: above a line, or left of one. draw: (N,) in [0, 1)."""
    h, w = campaign.clean.shape[2:]
    cut = (draw * 2) % 1
    above = torch.arange(h, device=draw.device) < cut[:, None] * h
    left = torch.arange(w, device=draw.device) < cut[:, None] * w
    return torch.where((draw < 0.5).view(-1, 1, 1), above[:, :, None], left[:, None, :])[:, None]
