"""Black-box: fit an estimator on queried costs, craft on it, ask for the true cost, learn from the answer, again."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from adaptbench.attacks.access import QueriedModel
from adaptbench.attacks.base import Task, Unaudited, to_bytes
from adaptbench.attacks.composed import Parts, QueriedAttack
from adaptbench.attacks.estimator import Estimator, EstimatorEnergy, ascend, rank_correlation, within_inputs
from adaptbench.attacks.metered import MeteredModel, questions
from adaptbench.attacks.randomness import sample_keys, uniform_pixels
from adaptbench.attacks.searches import GradientSearch

CHUNK = 512


class EstimatedAttack(QueriedAttack):
    """The loop of EREBA under a query budget; the target's gradient is never taken."""

    takes_metered = True
    hashed_as = "adaptbench.attacks.ereba.QueryAttack"
    couples_samples = True

    def _craft(self, task: Task) -> Unaudited:
        queried = questions(task.model, len(task.x), self.via, task.metering)
        return _Campaign(replace(self.parts, constraint=self._constraint(task)), task, queried).run()


class _Campaign:
    """One craft: what was asked, what was answered, and the best of it."""

    def __init__(self, parts: Parts, task: Task, queried: QueriedModel) -> None:
        assert isinstance(parts.objective, EstimatorEnergy)
        assert isinstance(parts.search, GradientSearch)
        self.objective, self.constraint, self.search = parts.objective, parts.constraint, parts.search
        self.task, self.queried = task, queried
        seed = int(sample_keys(task.ids[:1], task.seed)[0]) & 0x7FFFFFFF
        self.generator = torch.Generator().manual_seed(seed)
        c, h, w = task.x.shape[1:]
        self.estimator = Estimator((c, h, w), self.objective.width, self.generator).to(task.x.device)
        self.everyone = torch.arange(len(task.x), device=task.x.device)
        self.best = to_bytes(task.x)
        self.cost = torch.full((len(task.x),), -1, dtype=torch.int64, device=task.x.device)
        self.pictures: list[Tensor] = []
        self.costs: list[Tensor] = []
        self.owners: list[Tensor] = []
        self.draws = 0

    def run(self) -> Unaudited:
        """Probe, then rounds until the budget or the plan ends."""
        self._ask(self.everyone, self.best.clone())
        clean = self.cost.clone()
        for _ in range(min(self.objective.probes, self.queried.budget - 1)):
            change = self.constraint.draw(self._noise(self.everyone), None)
            self._ask(self.everyone, self.constraint.quantise(self.task.x + change, self.task.x))
        correlations: list[float | None] = []
        for round_ in range(self.objective.rounds):
            correlations.append(self._fit())
            rounds_left = self.objective.rounds - round_
            climbs = self._climbs(rounds_left)
            for climb in range(climbs):
                rows = self._unsatisfied()
                left = int(self.queried.left(rows).min()) if len(rows) else 0
                share = left // (rounds_left * climbs - climb)
                for part in torch.split(rows, CHUNK) if share else ():
                    self._climb(part, min(share, self.search.steps))
            self.task.progress(len(self.task.x) * (round_ + 1) // self.objective.rounds, len(self.task.x))
        self._spend()
        details: dict[str, Any] = {
            "queries_total": int(self.queried.used.sum()),
            "dearer_than_clean": int((self.cost > clean).sum()),
            "dearest_seen": self._at_dearest(),
            **self._judged(),
        }
        details["notes"] = self._notes(details)
        if isinstance(self.queried, MeteredModel):
            details = self.queried.with_noise(details)
        return Unaudited(self.best, self.queried.used.clone(), details)

    def _at_dearest(self) -> int:
        """Inputs that stopped asking because none was seen that cost more."""
        return len(self.everyone) - int((self.cost < max(int(c.max()) for c in self.costs)).sum())

    def _extreme(self, which: str) -> Tensor:
        """(N,) the least or the greatest cost that was seen of each input."""
        costs, owners = torch.cat(self.costs), torch.cat(self.owners)
        return torch.zeros_like(self.cost).scatter_reduce(0, owners, costs, which, include_self=False)

    def _judged(self) -> dict[str, Any]:
        """How well the estimator ranks queries that no fit saw: all together, and within each input."""
        costs, owners = torch.cat(self.costs), torch.cat(self.owners)
        pooled = self._fit()
        held = self._split()[1].to(costs.device)
        ranks: dict[str, Any] = {
            "held_out": len(held),
            "never_moved": int((self._extreme("amin") == self._extreme("amax")).sum()),
            "estimator_spearman": pooled,
            "estimator_spearman_within": None,
            "input_mean_spearman": None,
        }
        if costs.min() == costs.max():
            return ranks
        predicted = self.estimator.predict(torch.cat(self.pictures)[held])
        fitting = self._split()[0].to(costs.device)
        means = torch.stack([costs[fitting][owners[fitting] == row].float().mean() for row in self.everyone])
        ranks["estimator_spearman_within"] = within_inputs(predicted, costs[held], owners[held])
        ranks["input_mean_spearman"] = rank_correlation(means[owners[held]].nan_to_num(), costs[held])
        return ranks

    def _notes(self, details: dict[str, Any]) -> list[str]:
        notes = []
        if bool((self._extreme("amin").min() == self._extreme("amax").max()).item()):
            notes.append("all queried costs are equal: the estimator had nothing to learn")
        if spared := int((self.queried.left(self.everyone) > 0).sum()):
            dearest = details["dearest_seen"]
            notes.append(
                f"{spared} of {len(self.everyone)} inputs were asked fewer than {self.queried.budget} times: "
                f"{dearest} cost as much as the dearest that was seen"
            )
        if still := details["never_moved"]:
            notes.append(f"for {still} of {len(self.everyone)} inputs no query ever moved the cost")
        return notes

    def _spend(self) -> None:
        """What is left of those that sat out while they were as dear as the dearest seen then."""
        while len(rows := self._unsatisfied()):
            self._fit()
            asks = min(int(self.queried.left(rows).min()), self.search.steps)
            for part in torch.split(rows, CHUNK):
                self._climb(part, asks)

    def _climbs(self, rounds_left: int) -> int:
        """How many climbs a round makes: as many as the recipe says, and more where the budget would be left over."""
        rows = self._unsatisfied()
        left = int(self.queried.left(rows).min()) if len(rows) else 0
        return max(self.objective.climbs, math.ceil(left / (rounds_left * self.search.steps)))

    def _unsatisfied(self) -> Tensor:
        """Inputs below the dearest cost seen, with budget left; nobody tells a black-box attacker the ceiling."""
        dearest = max(int(c.max()) for c in self.costs)
        cheapest = min(int(c.min()) for c in self.costs)
        below = self.cost < dearest if cheapest < dearest else torch.ones_like(self.cost, dtype=torch.bool)
        return self.everyone[below & (self.queried.left(self.everyone).to(below.device) > 0)]

    def _climb(self, rows: Tensor, asks: int) -> None:
        """From a perturbed best up the estimator; the last `asks` pictures on the way are queried."""
        clean = self.task.x[rows]
        noise = self._noise(rows)
        near = self.best[rows].float() / 255.0 + self.constraint.draw(noise, None) * noise.abs()
        way = ascend(self.estimator, self.search, self.constraint, clean, near, noise)
        for step, point in enumerate(way):
            if step >= self.search.steps - asks:
                self._ask(rows, self.constraint.quantise(point, clean))

    def _noise(self, rows: Tensor) -> Tensor:
        self.draws += 1
        return uniform_pixels(self.task.ids[rows], tuple(self.task.x.shape[1:]), self.task.seed, self.draws)

    def _ask(self, rows: Tensor, pictures: Tensor) -> None:
        if not len(rows):
            return
        costs = self.queried.query(rows, pictures).to(rows.device)
        self.pictures.append(pictures)
        self.costs.append(costs)
        self.owners.append(rows)
        better = costs > self.cost[rows]
        self.best[rows[better]], self.cost[rows[better]] = pictures[better], costs[better]

    def _split(self) -> tuple[Tensor, Tensor]:
        """Row numbers of queried pictures: for fitting, and held out; once held out, always held out."""
        total = sum(len(c) for c in self.costs)
        draw = uniform_pixels(torch.arange(total), (1,), self.task.seed, -1).squeeze(1) * 0.5 + 0.5
        held = draw < self.objective.holdout
        return (~held).nonzero().squeeze(1), held.nonzero().squeeze(1)

    def _fit(self) -> float | None:
        """Refit on everything asked so far; rank correlation on what no fit has seen."""
        pictures, costs = torch.cat(self.pictures), torch.cat(self.costs).float()
        low, high = costs.min(), costs.max()
        if low == high:
            return None
        fitting, held = self._split()
        fitting, held = fitting.to(costs.device), held.to(costs.device)
        self.estimator.fit(pictures[fitting], ((costs - low) / (high - low))[fitting], self.objective.fit_steps)
        return rank_correlation(self.estimator.predict(pictures[held]), costs[held])
