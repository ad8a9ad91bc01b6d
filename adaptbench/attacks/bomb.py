"""EREBA's universal test: from noise to one picture that an estimator calls dear, near no other."""

from __future__ import annotations

import hashlib
import time
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from adaptbench.attacks.access import BlackBox, QueriedModel
from adaptbench.attacks.base import Learned, Task, Unaudited
from adaptbench.attacks.composed import Parts, QueriedAttack
from adaptbench.attacks.disjoint import known_by, pictures_apart, require_enough
from adaptbench.attacks.ereba_disjoint import Lessons, estimator_of
from adaptbench.attacks.estimator import EstimatorEnergy, ascend
from adaptbench.attacks.judging import hard_macs
from adaptbench.attacks.randomness import uniform_pixels
from adaptbench.attacks.searches import GradientSearch
from adaptbench.attacks.universal import Shared

_STARTS = 1_000_000
"""Draws of the starts, apart from those of the fit."""


class BombAttack(QueriedAttack):
    """One picture that is sent in the place of any other; of those that it is judged on none is ever looked at.

    The estimator is fitted on crafting pictures, and on what its own candidates cost. The budget is of the one picture:
    so many candidates are confirmed on the true cost. It hangs on model, crafting pictures and seed, and is made once.
    """

    needs_crafting = True
    learns = True
    replaces = True

    def __init__(self, parts: Parts, via: BlackBox, shared: Shared) -> None:
        super().__init__(parts, via)
        self.shared = shared
        self._kept: tuple[str, Learned | None] = ("", None)

    @property
    def settings(self) -> dict[str, Any]:
        """With who shares the picture, and the numbers of crafting pictures and of starts."""
        shared = {f.name: getattr(self.shared, f.name) for f in fields(self.shared)}
        return {**super().settings, "shared": self.shared.name, **shared}

    def _learn(self, task: Task) -> Learned:
        x, _, source = pictures_apart(self.name, task)
        if task.learned is not None:
            return task.learned
        x = x[: self.shared.pictures]
        require_enough(self.name, len(x))
        known = known_by(task.model, task.seed, x)
        if known != self._kept[0] or self._kept[1] is None:
            self._kept = (known, self._make(task, x, source))
        assert self._kept[1] is not None
        return self._kept[1]

    def _craft(self, task: Task) -> Unaudited:
        learned = task.learned
        assert learned is not None
        picture = learned.tensors["picture"].to(task.x.device)
        task.progress(len(task.x), len(task.x))
        queries = torch.full((len(task.x),), int(learned.told["queries_total"]), dtype=torch.int64)
        out = picture.expand(len(task.x), *picture.shape[1:]).clone()
        return Unaudited(out, queries, dict(learned.told))

    def _make(self, task: Task, x: Tensor, source: str) -> Learned:
        """(1, C, H, W) uint8 as `picture`, and what it took."""
        began = time.monotonic()
        objective, search, constraint = self.parts.objective, self.parts.search, self._constraint(task)
        assert isinstance(objective, EstimatorEnergy)
        assert isinstance(search, GradientSearch)
        lessons = Lessons.asked(task.model, x, constraint, objective.probes, task.seed)
        fitted, usual = len(lessons.costs), float(hard_macs(task.model, lessons.pictures[: len(x)]).double().mean())
        estimator = estimator_of(objective, x, task.seed)
        queried = QueriedModel(task.model, 1, self.via.queries)
        best, dearest = lessons.pictures[:1], -1
        starts, one = torch.arange(self.shared.batch, device=x.device), torch.zeros(1, dtype=torch.int64)
        ranks: dict[str, Any] = {}
        climb, plan = 0, objective.rounds * objective.climbs
        while left := int(queried.left(one)):
            if climb % objective.climbs == 0 and climb < plan:
                ranks = lessons.taught(estimator, objective)
            noise = uniform_pixels(starts, tuple(x.shape[1:]), task.seed, _STARTS + climb)
            near = noise / 2 + 0.5
            *_, point = ascend(estimator, search, constraint, near, near, noise)
            found = constraint.quantise(point, near)
            share = -(-self.via.queries // plan)
            found = found[estimator.predict(found).argsort(descending=True)[: min(share, left)]]
            costs = queried.query(torch.zeros(len(found), dtype=torch.int64), found).to(x.device)
            if int(costs.max()) > dearest:
                best, dearest = found[costs.argmax()][None], int(costs.max())
            owners = int(lessons.owners.max()) + 1 + torch.arange(len(found), device=x.device)
            lessons = Lessons(
                torch.cat([lessons.pictures, found]),
                torch.cat([lessons.costs, costs]),
                torch.cat([lessons.owners, owners]),
            )
            climb += 1
        asked = int(queried.used.sum())
        notes = [
            f"the estimator was fitted on {fitted} queries to {len(x)} pictures that nothing is judged on, and "
            f"{asked} candidates were asked what they cost; none of the judged pictures was"
        ]
        if dearest <= usual:
            notes.append("no candidate cost more than the crafting pictures do on average: the picture is no attack")
        picture = best.cpu()
        told = {
            "crafted_on": [source],
            "changes": [f"all: {hashlib.sha256(picture.numpy().tobytes()).hexdigest()[:16]}"],
            "fit_queries": float(fitted),
            "queries_total": float(asked),
            "training_s": time.monotonic() - began,
            **ranks,
            "notes": notes,
        }
        told |= {"held_out": float(ranks["held_out"])} if "held_out" in ranks else {}
        return Learned({"picture": picture}, told)
