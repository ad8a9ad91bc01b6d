"""Cost and returned logits as a threat of its own: between two steps of the cost the answer shows the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from adaptbench.attacks.patterns import contours, shrunk, signed_square
from adaptbench.attacks.queried import Campaign, QuerySearch
from adaptbench.attacks.ranges import count, real


@dataclass(frozen=True, slots=True)
class AnswerSquare(QuerySearch):
    """The squares of `square`, moved to where the cost rises, or stays and the returned answer is less sure.

    How sure is the log-odds of the answer's largest probability. It is the answer of another exit once the cost has
    moved, so the two are compared in this order. Most of these nets leave where an answer is sure; of one that does
    not, the tie-break is noise. The squares shrink with the share of the budget that is spent.

    Args:
        first: patterns that follow the picture, of which the best is where the walk begins.
        area: share of the picture that the first squares cover.
        halvings: how often that share is halved on the way, at equal distances.
    """

    name: ClassVar[str] = "answer-square"
    returns: ClassVar[str] = "cost+logits"
    first: Annotated[int, count(1, 1_000_000)] = 20
    area: Annotated[float, real(0, 1, open_low=True)] = 0.1
    halvings: Annotated[int, count(0, 20)] = 5

    def hunt(self, campaign: Campaign) -> None:
        """A walk of each input's own."""
        pattern = torch.zeros_like(campaign.clean)
        cost, sure = campaign.clean_cost, _log_odds(campaign.logits)
        while campaign.left:
            if campaign.asked <= self.first:
                changed = contours(campaign)
            else:
                share = shrunk(campaign, self.area, self.halvings)
                changed = signed_square(campaign, pattern, share)
            asked = campaign.ask(campaign.at(changed))
            answered = _log_odds(campaign.logits)
            moves = (asked > cost) | ((asked == cost) & (answered <= sure))
            pattern = torch.where(moves.view(-1, 1, 1, 1), changed, pattern)
            cost, sure = torch.where(moves, asked, cost), torch.where(moves, answered, sure)


def _log_odds(logits: Tensor) -> Tensor:
    """(N,) of the largest probability; exact where the softmax is 1. logits: (N, C), C ≥ 2."""
    top = logits.float().sort(1, descending=True).values
    return top[:, 0] - top[:, 1:].logsumexp(1)
