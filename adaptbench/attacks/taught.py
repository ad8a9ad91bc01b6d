"""A black box that learns beforehand, by queries to other pictures, which patterns make many of them dear."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from adaptbench.attacks.access import BlackBox, QueriedModel
from adaptbench.attacks.assorted import Assorted
from adaptbench.attacks.base import Learned, Task, Unaudited, to_bytes
from adaptbench.attacks.composed import Parts, QueriedAttack
from adaptbench.attacks.constraints import Constraint
from adaptbench.attacks.disjoint import known_by, pictures_apart, require_enough
from adaptbench.attacks.queried import Campaign
from adaptbench.attacks.randomness import uniform_pixels
from adaptbench.attacks.ranges import count


@dataclass
class Taught(Assorted):
    """`Assorted`, whose first patterns are those that made most crafting pictures dear.

    Candidates are drawn once for all pictures: what is drawn is shared, what it follows is each picture's own. Every
    crafting picture is asked about every candidate; then that one is taken which adds most to the dearest costs so far,
    again and again (the greedy cover of Nemhauser, Wolsey, Fisher, Mathematical Programming 1978).

    Args:
        fit_pictures: crafting pictures that are asked, each once as it is and once a candidate.
        candidates: patterns. opening: of them, that each attacked picture is asked about first.
    """

    name: ClassVar[str] = "taught"
    fit_pictures: Annotated[int, count(10, 1_000_000)] = 200
    candidates: Annotated[int, count(1, 100_000)] = 300
    opening: Annotated[int, count(1, 100_000)] = 30

    def learn(self, clean: Tensor, queried: QueriedModel, constraint: Constraint, seed: int) -> list[int]:
        """Which candidates to ask about, the best first; fewer than `opening` where no other adds anything.

        Args:
            clean: (P, C, H, W) crafting pictures, float. queried: the target, with `candidates` + 1 queries a picture.
        """
        rows = torch.arange(len(clean), device=clean.device)
        before = queried.query(rows, to_bytes(clean))
        costs = torch.stack(
            [
                queried.query(rows, constraint.quantise(constraint.scatter(clean, self.draw(drawn)), clean))
                for drawn in (SharedDraws(clean, seed, key) for key in range(self.candidates))
            ]
        )
        chosen: list[int] = []
        while len(chosen) < self.opening:
            adds = (costs - before).clamp_min(0).sum(1)
            best = int(adds.argmax())
            if adds[best] <= 0:
                break
            chosen.append(best)
            before = torch.maximum(before, costs[best])
        return chosen


class SharedDraws:
    """Random numbers that are the same for every picture, by seed and key, where a `Campaign`'s are each input's own.

    Attributes:
        clean: (N, C, H, W) float, the pictures that patterns may follow.
    """

    def __init__(self, clean: Tensor, seed: int, key: int) -> None:
        self.clean, self._seed, self._draws = clean, seed, 0
        self._key = torch.tensor([key], device=clean.device)

    def uniform(self, *shape: int) -> Tensor:
        """(N, *shape) float32 in [0, 1), fresh ones, equal along N."""
        self._draws += 1
        one = uniform_pixels(self._key, shape or (1,), self._seed, -self._draws).view(1, *shape) * 0.5 + 0.5
        return one.expand(len(self.clean), *shape)


class TaughtAttack(QueriedAttack):
    """`Taught` under a budget of queries an input; those of the lesson are counted apart (`fit_queries`).

    What is learned hangs on model, crafting pictures and seed, and on no budget: a run asks for it once.
    """

    needs_crafting = True
    learns = True

    def __init__(self, parts: Parts, via: BlackBox) -> None:
        super().__init__(parts, via)
        self._kept: tuple[str, Learned | None] = ("", None)

    @property
    def learns_as(self) -> str:
        """Without the queries that come after the lesson."""
        return type(self)(self.parts, replace(self.via, queries=1)).sha256

    def _learn(self, task: Task) -> Learned:
        x, _, source = pictures_apart(self.name, task)
        if task.learned is not None:
            return task.learned
        search, constraint = self.parts.search, self._constraint(task)
        assert isinstance(search, Taught)
        x = x[: search.fit_pictures]
        require_enough(self.name, len(x))
        known = known_by(task.model, task.seed, x)
        if self._kept[0] != known or self._kept[1] is None:
            queried = QueriedModel(task.model, len(x), search.candidates + 1)
            chosen = search.learn(x, queried, constraint, task.seed)
            spent = int(queried.used.sum())
            notes = [
                f"{len(chosen)} first patterns were chosen by {spent} queries to {len(x)} pictures that nothing is "
                "judged on; they are not among the queries of an input"
            ]
            if not chosen:
                notes += ["no candidate made a crafting picture dearer: there was nothing to learn"]
            told = {"crafted_on": [source], "fit_queries": float(spent), "notes": notes}
            self._kept = (known, Learned({"opening": torch.tensor(chosen, dtype=torch.int64)}, told))
        assert self._kept[1] is not None
        return self._kept[1]

    def _craft(self, task: Task) -> Unaudited:
        search, learned = self.parts.search, task.learned
        assert isinstance(search, Taught)
        assert learned is not None
        campaign = Campaign(task, self._constraint(task), self.via)
        search.follow(campaign, [SharedDraws(task.x, task.seed, key) for key in learned.tensors["opening"].tolist()])
        details = campaign.details()
        notes = [*learned.told["notes"], *details.get("notes", [])]
        return Unaudited(campaign.best, campaign.used(), details | learned.told | {"notes": notes})
