"""EREBA as published: an estimator fitted on other pictures, once; what it leads to is confirmed by queries."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from adaptbench.adaptive import AdaptiveModel
from adaptbench.attacks.access import BlackBox, QueriedModel
from adaptbench.attacks.base import Learned, Task, Unaudited, to_bytes
from adaptbench.attacks.composed import Parts, QueriedAttack
from adaptbench.attacks.constraints import Constraint
from adaptbench.attacks.disjoint import known_by, pictures_apart, require_enough
from adaptbench.attacks.estimator import Estimator, EstimatorEnergy, ascend, rank_correlation, within_inputs
from adaptbench.attacks.randomness import sample_keys, uniform_pixels
from adaptbench.attacks.searches import GradientSearch
from adaptbench.errors import CapabilityError

CHUNK = 512
DEAREST = "dearest"
"""Beside the estimator's weights: what the dearest crafting picture cost, (1,) int64."""


@dataclass(slots=True)
class Lessons:
    """What was asked around crafting pictures, and what it cost.

    Args:
        pictures: (M, C, H, W) uint8. costs: (M,) int64. owners: (M,) which crafting picture each belongs to.
    """

    pictures: Tensor
    costs: Tensor
    owners: Tensor

    @classmethod
    def asked(cls, model: AdaptiveModel, x: Tensor, constraint: Constraint, probes: int, seed: int) -> Lessons:
        """Each crafting picture as it is, and under random changes.

        Args:
            x: (P, C, H, W) float. probes: changes a picture.
        """
        queried, rows = QueriedModel(model, len(x), probes + 1), torch.arange(len(x), device=x.device)
        asked = [to_bytes(x)]
        for draw in range(probes):
            noise = uniform_pixels(rows, tuple(x.shape[1:]), seed, draw + 1)
            asked.append(constraint.quantise(x + constraint.draw(noise, None), x))
        costs = [queried.query(rows, pictures).to(x.device) for pictures in asked]
        return cls(torch.cat(asked), torch.cat(costs), rows.repeat(probes + 1))

    def taught(self, estimator: Estimator, objective: EstimatorEnergy) -> dict[str, Any]:
        """Fit on all crafting pictures but some, and say how well the others' costs are ranked.

        Returns:
            Details as of `EstimatedAttack`; nothing is fitted where all costs are equal.
        """
        every = max(2, round(1 / objective.holdout))
        held = self.owners % every == every - 1
        ranks: dict[str, Any] = {
            "held_out": int(held.sum()),
            "estimator_spearman": None,
            "estimator_spearman_within": None,
        }
        low, high = self.costs.min(), self.costs.max()
        if low == high:
            return ranks
        wanted = ((self.costs - low).double() / (high - low)).float()
        estimator.fit(self.pictures[~held], wanted[~held], objective.fit_steps)
        predicted = estimator.predict(self.pictures[held])
        ranks["estimator_spearman"] = rank_correlation(predicted, self.costs[held])
        ranks["estimator_spearman_within"] = within_inputs(predicted, self.costs[held], self.owners[held])
        return ranks


def estimator_of(objective: EstimatorEnergy, x: Tensor, seed: int) -> Estimator:
    """A new one for pictures like x; its weights and minibatches are the seed's."""
    key = int(sample_keys(torch.zeros(1, dtype=torch.int64), seed, -2)[0]) & 0x7FFFFFFF
    c, h, w = x.shape[1:]
    return Estimator((c, h, w), objective.width, torch.Generator().manual_seed(key)).to(x.device)


class DisjointAttack(QueriedAttack):
    """Of an attacked input nothing is asked but whether a candidate is dear; no answer to one reaches another.

    The estimator hangs on model, crafting pictures and seed, and on no budget. It is fitted once; its queries and time
    are told apart from those of crafting (`fit_queries`, `training_s`).
    """

    needs_crafting = True
    learns = True

    def __init__(self, parts: Parts, via: BlackBox) -> None:
        super().__init__(parts, via)
        self._kept: tuple[str, Learned | None] = ("", None)

    @property
    def learns_as(self) -> str:
        """Without the queries that come after the fit."""
        return type(self)(self.parts, replace(self.via, queries=1)).sha256

    def _learn(self, task: Task) -> Learned:
        x, _, source = pictures_apart(self.name, task)
        if task.learned is not None:
            return task.learned
        objective = self.parts.objective
        assert isinstance(objective, EstimatorEnergy)
        x = x[: objective.fit_pictures]
        require_enough(self.name, len(x))
        known = known_by(task.model, task.seed, x)
        if known != self._kept[0] or self._kept[1] is None:
            self._kept = (known, self._fitted(task, objective, x, source))
        assert self._kept[1] is not None
        return self._kept[1]

    def _fitted(self, task: Task, objective: EstimatorEnergy, x: Tensor, source: str) -> Learned:
        began = time.monotonic()
        lessons = Lessons.asked(task.model, x, self._constraint(task), objective.probes, task.seed)
        estimator = estimator_of(objective, x, task.seed)
        ranks = lessons.taught(estimator, objective)
        notes = [
            f"the estimator was fitted on {len(lessons.costs)} queries to {len(x)} pictures that nothing is judged "
            "on; they are not among the queries of an input"
        ]
        if ranks["estimator_spearman"] is None and lessons.costs.min() == lessons.costs.max():
            notes.append("all queried costs are equal: the estimator had nothing to learn")
        told = {"crafted_on": [source], "fit_queries": float(len(lessons.costs)), "notes": notes, **ranks}
        told["held_out"], told["training_s"] = float(ranks["held_out"]), time.monotonic() - began
        weights = {name: tensor.detach().cpu().clone() for name, tensor in estimator.state_dict().items()}
        return Learned({**weights, DEAREST: lessons.costs.max().cpu()[None]}, told)

    def _estimator(self, task: Task, tensors: dict[str, Tensor]) -> Estimator:
        objective = self.parts.objective
        assert isinstance(objective, EstimatorEnergy)
        estimator = estimator_of(objective, task.x, task.seed)
        weights = {name: tensor.to(task.x.device) for name, tensor in tensors.items() if name != DEAREST}
        try:
            estimator.load_state_dict(weights)
        except RuntimeError as error:
            raise CapabilityError(
                f"the estimator that was handed to '{self.name}' is of another size: {error}.",
                todo="Hand over what `learn` of this attack gave for this model, or nothing.",
            ) from None
        return estimator.requires_grad_(False)

    def _craft(self, task: Task) -> Unaudited:
        objective, search, constraint = self.parts.objective, self.parts.search, self._constraint(task)
        learned = task.learned
        assert isinstance(objective, EstimatorEnergy)
        assert isinstance(search, GradientSearch)
        assert learned is not None
        estimator, dearest = self._estimator(task, learned.tensors), int(learned.tensors[DEAREST])
        notes = list(learned.told["notes"])
        found = _Confirmed(task, QueriedModel(task.model, len(task.x), self.via.queries))
        found.ask(found.everyone, found.best.clone())
        clean = found.cost.clone()
        plan = objective.rounds * objective.climbs
        climb = 0
        while len(rows := found.open(dearest)):
            left = int(found.queried.left(rows).min())
            asks = min(search.steps, max(1, left // max(plan - climb, 1)), left)
            climb += 1
            for part in torch.split(rows, CHUNK):
                start = task.x[part]
                noise = uniform_pixels(task.ids[part], tuple(start.shape[1:]), task.seed, climb)
                near = start + constraint.draw(noise, None) * noise.abs()
                for step, point in enumerate(ascend(estimator, search, constraint, start, near, noise)):
                    if step >= search.steps - asks:
                        found.ask(part, constraint.quantise(point, start))
            task.progress(int(found.queried.used.sum()) // self.via.queries, len(task.x))
        task.progress(len(task.x), len(task.x))
        details: dict[str, Any] = {**learned.told, "queries_total": int(found.queried.used.sum())}
        details |= {"dearer_than_clean": int((found.cost > clean).sum()), "never_moved": int((~found.moved).sum())}
        if spared := int((found.queried.left(found.everyone) > 0).sum()):
            notes.append(
                f"{spared} of {len(task.x)} inputs were asked fewer than {self.via.queries} times: they cost "
                "as much as the dearest crafting picture"
            )
        return Unaudited(found.best, found.queried.used.clone(), details | {"notes": notes})


class _Confirmed:
    """What each attacked input cost, and the dearest picture of it so far."""

    def __init__(self, task: Task, queried: QueriedModel) -> None:
        self.queried = queried
        self.everyone = torch.arange(len(task.x), device=task.x.device)
        self.best = to_bytes(task.x)
        self.cost = torch.full((len(task.x),), -1, dtype=torch.int64, device=task.x.device)
        self.moved = torch.zeros(len(task.x), dtype=torch.bool, device=task.x.device)

    def ask(self, rows: Tensor, pictures: Tensor) -> None:
        costs = self.queried.query(rows, pictures).to(rows.device)
        self.moved[rows] |= (self.cost[rows] >= 0) & (costs != self.cost[rows])
        better = costs > self.cost[rows]
        self.best[rows[better]], self.cost[rows[better]] = pictures[better], costs[better]

    def open(self, dearest: int) -> Tensor:
        """Inputs that may be asked again, and cost less than the dearest that the estimator was fitted on."""
        return self.everyone[(self.cost < dearest) & (self.queried.left(self.everyone).to(self.cost.device) > 0)]
