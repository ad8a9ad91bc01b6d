"""What chance reaches with the same number of questions: the control that a black-box attack must beat."""

from __future__ import annotations

import torch
from torch import Tensor

from adaptbench.attacks.access import QueriedModel
from adaptbench.attacks.base import Task, Unaudited, to_bytes
from adaptbench.attacks.composed import QueriedAttack
from adaptbench.attacks.randomness import uniform_pixels
from adaptbench.attacks.searches import BestOf


class BestOfAttack(QueriedAttack):
    """N − 1 draws an input and the clean picture; the dearest by executed MACs is kept, the first among equals."""

    hashed_as = "adaptbench.attacks.best_of.BestOfN"

    def _craft(self, task: Task) -> Unaudited:
        search = self.parts.search
        assert isinstance(search, BestOf)
        queried = QueriedModel(task.model, len(task.x), self.via.queries)
        everyone = torch.arange(len(task.x), device=task.x.device)
        best = to_bytes(task.x)
        clean = cost = queried.query(everyone, best).to(best.device)
        for draw in range(1, self.via.queries):
            pictures = self._draw(task, search, draw)
            drawn = queried.query(everyone, pictures).to(best.device)
            dearer = drawn > cost
            best[dearer], cost = pictures[dearer], torch.where(dearer, drawn, cost)
            task.progress(len(task.x) * (draw + 1) // self.via.queries, len(task.x))
        details = {"queries_total": int(queried.used.sum()), "dearer_than_clean": int((cost > clean).sum())}
        return Unaudited(best, queried.used.clone(), details)

    def _draw(self, task: Task, search: BestOf, draw: int) -> Tensor:
        c, h, w = task.x.shape[1:]
        size = search.block
        coarse = (c, -(-h // size), -(-w // size))
        noise = uniform_pixels(task.ids, coarse, task.seed, draw)
        noise = noise.repeat_interleave(size, 2).repeat_interleave(size, 3)[:, :, :h, :w]
        constraint = self._constraint(task)
        return constraint.quantise(search.draw(task.x, constraint, noise), task.x)
