"""The frame of attacks that ask and learn: one question an input at a time, the dearest picture kept, and the curve."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from adaptbench.attacks.access import AnsweringModel, BlackBox
from adaptbench.attacks.base import Task, Unaudited, to_bytes
from adaptbench.attacks.composed import Parts, QueriedAttack
from adaptbench.attacks.constraints import Constraint
from adaptbench.attacks.metered import MeteredModel, questions
from adaptbench.attacks.randomness import uniform_pixels
from adaptbench.attacks.searches import Search
from adaptbench.errors import CapabilityError

MARKS = tuple(k * 10**e for e in range(7) for k in (1, 2, 5))
"""Queries at which the curve is read, as far as the budget goes."""


class Campaign:
    """One craft: who is attacked, what may be asked, and the best of what was answered.

    Every input is asked at the same time and equally often, so that nothing but a search that looks at other inputs
    makes an input's pictures depend on its neighbours.

    Args:
        task: of the craft. constraint: that every picture is put into.
        via: what may be asked how often, the clean picture included.

    Attributes:
        clean: (N, C, H, W) float in [0, 1]. ids: (N,) int64.
        best: (N, C, H, W) uint8, the first of the dearest pictures. cost: (N,) int64, its executed MACs, or steps
            of a meter. clean_cost: (N,) int64. told: what a search has to say, beside the counts in `details`.
    """

    def __init__(self, task: Task, constraint: Constraint, via: BlackBox) -> None:
        self.clean, self.ids, self.constraint = task.x, task.ids, constraint
        self._task = task
        self._queried = questions(task.model, len(task.x), via, task.metering)
        self._everyone = torch.arange(len(task.x), device=task.x.device)
        self._asked = self._draws = 0
        self._curve: dict[str, float] = {}
        self.told: dict[str, Any] = {}
        self.best = to_bytes(task.x)
        self.cost = torch.full((len(task.x),), -1, dtype=torch.int64, device=task.x.device)
        self._moved = torch.zeros(len(task.x), dtype=torch.bool, device=task.x.device)
        self.clean_cost = self._ask(self.best)

    @property
    def budget(self) -> int:
        """Queries an input, all included."""
        return self._queried.budget

    @property
    def asked(self) -> int:
        """Queries that each input was asked so far; the clean picture is the first."""
        return self._asked

    @property
    def left(self) -> int:
        """Queries that each input still has."""
        return self.budget - self._asked

    @property
    def logits(self) -> Tensor:
        """(N, C) of the answers to the last query.

        Raises:
            CapabilityError: the attacker sees costs only.
        """
        if not isinstance(self._queried, AnsweringModel) or self._queried.logits is None:
            raise CapabilityError(
                "logits were looked at where only costs come back.",
                todo="Write access: {black-box: {queries: 500, returns: cost+logits}}.",
            )
        return self._queried.logits

    def uniform(self, *shape: int) -> Tensor:
        """(N, *shape) float32 in [0, 1), fresh ones; an input's own by seed and id."""
        self._draws += 1
        return uniform_pixels(self.ids, shape or (1,), self._task.seed, self._draws).view(-1, *shape) * 0.5 + 0.5

    def at(self, pattern: Tensor) -> Tensor:
        """Pictures as far away as may be.

        Args:
            pattern: (N, C, H, W) in [−1, 1], the direction of each change.

        Returns:
            (N, C, H, W) float.
        """
        return self.constraint.scatter(self.clean, pattern)

    def ask(self, x: Tensor) -> Tensor:
        """One query an input; what is dearer than all before is kept.

        Args:
            x: (N, C, H, W) float; put into the constraint and rounded to 8 bits first.

        Returns:
            (N,) int64 executed MACs.

        Raises:
            CapabilityError: the budget is spent; nothing was asked then.
        """
        return self._ask(self.constraint.quantise(x, self.clean))

    def _ask(self, pictures: Tensor) -> Tensor:
        costs = self._queried.query(self._everyone, pictures).to(pictures.device)
        self._asked += 1
        dearer = costs > self.cost
        self.best = torch.where(dearer.view(-1, 1, 1, 1), pictures, self.best)
        self.cost = torch.where(dearer, costs, self.cost)
        if self._asked > 1:
            self._moved |= costs != self.clean_cost
        if self._asked in MARKS or self._asked == self.budget:
            metered = self._queried if isinstance(self._queried, MeteredModel) else None
            amount = float(self.cost.double().mean()) if metered is None else metered.amount(self.cost)
            self._curve[f"{metered.unit if metered else 'macs'}_at_{self._asked}"] = amount
            self._curve[f"moved_at_{self._asked}"] = float(self._moved.double().mean())
        self._task.progress(len(pictures) * self._asked // self.budget, len(pictures))
        return costs

    def used(self) -> Tensor:
        """(N,) int64 queries."""
        return self._queried.used.clone()

    def details(self) -> dict[str, Any]:
        """Totals; of the curve, mean best cost and share of inputs whose cost ever moved, after so many queries."""
        details: dict[str, Any] = {
            "queries_total": int(self._queried.used.sum()),
            "dearer_than_clean": int((self.cost > self.clean_cost).sum()),
            **self._curve,
            **self.told,
        }
        if still := int((~self._moved).sum()):
            details["never_moved"] = still
        if self.left:
            details["notes"] = [f"the search ended after {self._asked} of {self.budget} queries"]
        return self._queried.with_noise(details) if isinstance(self._queried, MeteredModel) else details


class QuerySearch(Search):
    """Finds dear pictures by asking what they cost.

    Attributes:
        couples: an input's pictures depend on what was answered of other inputs of the craft.
        balls: constraints that it knows how to move in.
        returns: what it must be told of a query, as of `BlackBox`.
    """

    couples: ClassVar[bool] = False
    balls: ClassVar[tuple[str, ...]] = ("linf", "l2")
    returns: ClassVar[str] = "cost"

    @abstractmethod
    def hunt(self, campaign: Campaign) -> None:
        """Ask until nothing is left; the campaign keeps the best."""


class SearchedAttack(QueriedAttack):
    """A `QuerySearch` under a budget of queries an input."""

    takes_metered = True
    hashed_as = "adaptbench.attacks.queried.SearchedAttack"

    def __init__(self, parts: Parts, via: BlackBox) -> None:
        super().__init__(parts, via)
        assert isinstance(parts.search, QuerySearch)
        self.couples_samples = parts.search.couples

    def _craft(self, task: Task) -> Unaudited:
        search = self.parts.search
        assert isinstance(search, QuerySearch)
        campaign = Campaign(task, self._constraint(task), self.via)
        search.hunt(campaign)
        return Unaudited(campaign.best, campaign.used(), campaign.details())
