"""An ensemble of ordinal models of the cost that says which picture to ask about next."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptbench.adaptive.pooling import MeanPool
from adaptbench.attacks.estimator import rank_correlation, within_inputs
from adaptbench.attacks.patterns import contours, redrawn
from adaptbench.attacks.queried import Campaign, QuerySearch
from adaptbench.attacks.ranges import count, real

LEVELS = 12
"""Observed costs that are told apart, at most; more are joined at quantiles."""
_BATCH = 128
_CHUNK = 1024


@dataclass(frozen=True, slots=True)
class Ordinal(QuerySearch):
    """Of several patterns, the one of the greatest expected improvement is asked about; the answers refit the models.

    Costs come in steps, one a path. Each model is a cumulative link (McCullagh 1980): P(cost ≥ level j) =
    σ(s(x, change) + offset of the input − θ_j), θ rising, with a small convolutional s. The expected improvement over
    the input's dearest picture is taken over the members, and their disagreement is added, so that queries also go
    where the models do not know. Some patterns are taken at random: what was predicted of them judges the models.

    Args:
        members: of the ensemble. first: queries by chance before the first fit. every: queries between two fits.
        pool: patterns that are compared for a query: fresh ones, the same turned, and changes of the dearest.
        explore: share of the queries that take the first of them.
        disagreement: weight of the members' standard deviation.
        width: channels of s. fit_steps: minibatch steps a fit.
    """

    name: ClassVar[str] = "ordinal"
    couples: ClassVar[bool] = True
    members: Annotated[int, count(2, 100)] = 3
    first: Annotated[int, count(1, 1_000_000)] = 20
    every: Annotated[int, count(1, 1_000_000)] = 20
    pool: Annotated[int, count(4, 1000)] = 8
    explore: Annotated[float, real(0, 1)] = 0.1
    disagreement: Annotated[float, real(0, 100)] = 1.0
    width: Annotated[int, count(1, 1024)] = 8
    fit_steps: Annotated[int, count(1, 100_000)] = 40

    def hunt(self, campaign: Campaign) -> None:
        """Chance first, then fits and questions in turn."""
        asked = _Asked(campaign)
        ensemble: list[_Link] = []
        fitted = 0
        judged: list[tuple[Tensor, Tensor, Tensor]] = []
        while campaign.left:
            if campaign.asked <= self.first:
                asked.ask(contours(campaign))
                continue
            if not ensemble or len(asked.costs) - fitted >= self.every:
                fitted = len(asked.costs)
                ensemble = self._fit(asked, ensemble)
            chance = contours(campaign)
            at_random = campaign.uniform(1)[:, 0] < self.explore
            chosen, expected = self._choose(campaign, asked, ensemble, chance)
            pattern = torch.where(at_random.view(-1, 1, 1, 1), chance, chosen)
            costs = asked.ask(pattern)
            rows = at_random.nonzero().squeeze(1)
            judged.append((expected[rows], costs[rows], rows))
        if judged:
            predicted, costs, owners = (torch.cat(part) for part in zip(*judged, strict=True))
            campaign.told["held_out"] = len(costs)
            campaign.told["estimator_spearman"] = rank_correlation(predicted, costs)
            campaign.told["estimator_spearman_within"] = within_inputs(predicted, costs, owners)

    def _fit(self, asked: _Asked, ensemble: list[_Link]) -> list[_Link]:
        """Members of before go on; all begin anew where other levels have been seen."""
        levels = asked.levels()
        if len(levels) < 2:
            return []
        if not ensemble or not torch.equal(ensemble[0].levels, levels):
            ensemble = [_Link(asked, levels, self.width, member) for member in range(self.members)]
        for link in ensemble:
            link.fit(asked, self.fit_steps)
        return ensemble

    def _choose(
        self, campaign: Campaign, asked: _Asked, ensemble: list[_Link], chance: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) the pattern to ask about, and (N,) the expected level of `chance`."""
        n = len(chance)
        if not ensemble:
            return chance, torch.zeros(n, device=chance.device)
        fresh = [contours(campaign) for _ in range(self.pool // 4)]
        turned = [chance, *fresh, *(-pattern for pattern in fresh)]
        near = [redrawn(campaign, asked.dearest, turned[i % len(turned)]) for i in range(self.pool - len(turned))]
        options = torch.stack([*turned, *near])
        rows = torch.arange(n, device=chance.device).repeat(len(options))
        chances = torch.stack([link.chances(asked, options.flatten(0, 1), rows) for link in ensemble])
        levels = ensemble[0].levels
        steps = (levels[1:] - levels[:-1]) / (levels[-1] - levels[0])
        above = (levels[1:] > asked.cost[rows][:, None]).to(steps)
        gains = (chances * steps * above).sum(-1).view(len(ensemble), len(options), n)
        best = (gains.mean(0) + self.disagreement * gains.std(0)).argmax(0)
        expected = (chances * steps).sum(-1).mean(0).view(len(options), n)[0]
        return options[best, torch.arange(n, device=best.device)], expected


class _Asked:
    """Every pattern that was asked about, what it cost, and the dearest of each input."""

    def __init__(self, campaign: Campaign) -> None:
        self.campaign = campaign
        self.patterns: list[Tensor] = []
        self.costs: list[Tensor] = []
        self.dearest = torch.zeros_like(campaign.clean)
        self.cost = campaign.clean_cost.clone()

    def ask(self, pattern: Tensor) -> Tensor:
        costs = self.campaign.ask(self.campaign.at(pattern))
        self.patterns.append(pattern.to(torch.int8))
        self.costs.append(costs)
        dearer = costs >= self.cost
        self.dearest = torch.where(dearer.view(-1, 1, 1, 1), pattern, self.dearest)
        self.cost = torch.maximum(self.cost, costs)
        return costs

    def levels(self) -> Tensor:
        """(L,) float64, rising: costs that were seen."""
        seen = torch.cat([self.campaign.clean_cost, *self.costs]).double().unique()  # type: ignore[no-untyped-call]
        if len(seen) <= LEVELS:
            return seen  # type: ignore[no-any-return]
        return seen[torch.linspace(0, len(seen) - 1, LEVELS).round().long().to(seen.device)]  # type: ignore[no-any-return]


class _Link(nn.Module):
    """One member: s, an offset for each input, and rising thresholds."""

    def __init__(self, asked: _Asked, levels: Tensor, width: int, member: int) -> None:
        super().__init__()
        n, c, h, w = asked.campaign.clean.shape
        key = int(asked.campaign.uniform(1).sum().mul(1e6)) + member
        self.generator = torch.Generator().manual_seed(key)
        self.levels = levels
        stride = 2 if min(h, w) >= 16 else 1
        self.score = nn.Sequential(
            nn.Conv2d(2 * c, width, 3, stride=stride, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, 2 * width, 3, stride=stride, padding=1),
            nn.SiLU(),
            MeanPool(min(4, h, w)),
            nn.Flatten(),
            nn.Linear(2 * width * min(4, h, w) ** 2, 32),
            nn.SiLU(),
            nn.Linear(32, 1),
        ).to(asked.campaign.clean.device)
        for layer in self.score:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                bound = math.sqrt(3.0 / layer.weight[0].numel())
                with torch.no_grad():
                    drawn = torch.rand(layer.weight.shape, generator=self.generator) * 2 - 1
                    layer.weight.copy_(drawn * bound)
                    if layer.bias is not None:
                        layer.bias.zero_()
        self.offset = nn.Parameter(torch.zeros(n, device=levels.device))
        self.start = nn.Parameter(torch.zeros((), device=levels.device))
        self.gaps = nn.Parameter(torch.zeros(max(len(levels) - 2, 0), device=levels.device))
        self.optimiser = torch.optim.AdamW(self.parameters(), lr=3e-3, weight_decay=1e-3)

    def forward(self, clean: Tensor, pattern: Tensor, rows: Tensor) -> Tensor:
        """(M, L − 1) logits of P(cost ≥ level), for every level but the lowest."""
        seen = torch.cat([(clean[rows] - 0.5) * 4, pattern.float()], 1)
        score = self.score(seen).squeeze(1) + self.offset[rows]
        rising = torch.cat([self.start[None], self.start + F.softplus(self.gaps).cumsum(0)])
        return score[:, None] - rising  # type: ignore[no-any-return]

    def fit(self, asked: _Asked, steps: int) -> None:
        """Minibatches of all that was asked, this member's own ones."""
        n, clean = len(asked.cost), asked.campaign.clean
        patterns, costs = torch.stack(asked.patterns), torch.stack(asked.costs).double()
        with torch.enable_grad():
            for _ in range(steps):
                when = torch.randint(len(patterns), (_BATCH,), generator=self.generator).to(clean.device)
                rows = torch.randint(n, (_BATCH,), generator=self.generator).to(clean.device)
                wanted = (costs[when, rows][:, None] >= self.levels[1:]).float()
                loss = F.binary_cross_entropy_with_logits(self(clean, patterns[when, rows], rows), wanted)
                self.optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                self.optimiser.step()

    @torch.no_grad()
    def chances(self, asked: _Asked, patterns: Tensor, rows: Tensor) -> Tensor:
        """(M, L − 1) probabilities."""
        clean = asked.campaign.clean
        parts = zip(torch.split(patterns, _CHUNK), torch.split(rows, _CHUNK), strict=True)
        return torch.cat([self(clean, part, mine).sigmoid() for part, mine in parts])
