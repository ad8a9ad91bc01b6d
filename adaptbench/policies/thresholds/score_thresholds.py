"""A score and a threshold at each exit of a chain, searched jointly on the calibration log for a path of prices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from adaptbench.adaptive.log import CalibrationLog, is_correct
from adaptbench.adaptive.outcome import Signals, signals_at
from adaptbench.adaptive.policy import ChainPolicy
from adaptbench.adaptive.replay import Point, cheapest_within
from adaptbench.adaptive.structure import Structure
from adaptbench.errors import CapabilityError, PolicyError, UsageError

_PRICES = np.geomspace(10.0, 1e-4, 61)  # accuracy fraction that running everything is worth; dear first
_MEMBERS = 25  # of the path that is kept


class ScoreThresholds(ChainPolicy):
    """Leave at the first exit whose score reaches that exit's threshold. Subclasses give `score`.

    Thresholds are kept for a path of prices λ; each maximises accuracy − λ·mean cost / c_K on the calibration log by
    coordinate search over quantiles of the scores, so the path runs along the upper hull of the accuracy–cost plane.

    Args:
        thresholds: (P, K−1), one row a price.
        prices: (P,) falling: cheap policies first.
        price: the one in force, among `prices` (default: the lowest).
        cost_unit: what mean cost was counted in.
    """

    knob = "price"
    limits: ClassVar[tuple[float, float]] = (-1.0, 2.0)
    """Thresholds that every score reaches, and none; scores lie strictly between. Finite, as checkpoints want it."""
    thresholds: Tensor

    def __init__(
        self, thresholds: Tensor, prices: Sequence[float], price: float | None = None, *, cost_unit: str = "macs"
    ) -> None:
        super().__init__()
        self.prices = tuple(float(p) for p in prices)
        self.price = self.prices[-1] if price is None else float(price)
        if self.price not in self.prices:
            nearest = min(self.prices, key=lambda p: abs(p - self.price))
            raise UsageError(
                f"λ = {self.price:g} was not fitted.",
                todo=f"Take one of {len(self.prices)} prices; the nearest is {nearest!r}.",
            )
        self.cost_unit = cost_unit
        self.register_buffer("thresholds", thresholds)

    def bind(self, structure: Structure) -> None:
        """A chain with one threshold an exit but the last."""
        super().bind(structure)
        if self.thresholds.shape[1] != len(structure.names) - 1:
            raise PolicyError(
                f"{self.thresholds.shape[1]} thresholds were given to {len(structure.names)} exits.",
                why="Every exit but the last has a threshold; the last accepts everything.",
                todo="Fit the policy on this model's own log.",
            )

    def score(self, node: int, signals: Signals) -> Tensor:
        """(n,), high where the sample may leave; strictly between `limits`."""
        raise CapabilityError(
            f"{type(self).__name__} gives no score.", todo="Subclasses of ScoreThresholds define score()."
        )

    def margin(self, node: int, signals: Signals) -> Tensor:
        """Threshold minus score: > 0 goes on, equal leaves."""
        return self.thresholds[self.prices.index(self.price), node] - self.score(node, signals)

    @classmethod
    def fit(
        cls,
        log: CalibrationLog,
        *,
        drop: float = 0.005,
        budget: float | None = None,
        quantiles: int = 200,
        seed: int = 0,
    ) -> Self:
        """Thresholds for the whole path, and the price in force from a target on the same log.

        Args:
            drop: accuracy fraction that may be lost against the most accurate node; the cheapest such price is taken.
            budget: mean cost in the log's unit; given, the most accurate price within it is taken and `drop` unused.
            quantiles: levels a threshold may take at each exit.

        Raises:
            CalibrationError: fewer than 50 samples.
            PolicyError: the log is not of a chain.
            UsageError: no price keeps within the budget.
        """
        return cls._search(log, drop, budget, quantiles)

    @classmethod
    def _search(cls, log: CalibrationLog, drop: float, budget: float | None, quantiles: int, **settings: Any) -> Self:
        """As `fit`; settings: of the subclass's score."""
        log.require(50, "search thresholds on")
        exits = len(log.structure.names)
        blank = cls(torch.zeros(1, exits - 1), [0.0], cost_unit=log.cost_unit, **settings)
        blank.bind(log.structure)
        scores, correct = score_table(blank, log)
        costs = (log.exit_costs / log.exit_costs[-1]).numpy()
        levels = [candidate_levels(scores[:, k], quantiles, cls.limits) for k in range(exits - 1)]
        prices, rows = threshold_path(scores, correct, costs, levels)
        path = cls(torch.from_numpy(rows).float(), prices, cost_unit=log.cost_unit, **settings)
        points = [
            chain_point(log, correct, scores >= row, price)
            for price, row in zip(path.prices, path.thresholds.double().numpy(), strict=True)
        ]
        if budget is None:
            return path.at(cheapest_within(points, log.best_accuracy - drop).setting)
        within = [p for p in points if p.cost_mean <= budget]
        if not within:
            cheapest = min(p.cost_mean for p in points)
            raise UsageError(
                f"a mean cost of {budget:g} {log.cost_unit} is below what leaving at the first exit costs.",
                todo=f"Give a budget of at least {cheapest:g}.",
            )
        return path.at(max(within, key=lambda p: (p.accuracy, -p.cost_mean)).setting)

    @classmethod
    def family(cls, log: CalibrationLog, *, seed: int = 0) -> list[Self]:
        """The whole path, cheap to dear."""
        path = cls.fit(log, seed=seed)
        return [path.at(price) for price in path.prices]

    @classmethod
    def from_state(cls, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Rebuild from a checkpoint."""
        return cls(tensors["thresholds"].clone(), **settings)

    def describe(self) -> dict[str, Any]:
        """The path of prices, the one in force and the unit of cost."""
        return {"prices": list(self.prices), "price": self.price, "cost_unit": self.cost_unit}


class Scorer(Protocol):
    """A chain's policy that stops where a score is high."""

    def score(self, node: int, signals: Signals) -> Tensor:
        """(n,)."""

    def predict(self, node: int, signals: Signals) -> Tensor:
        """(n, C)."""


@torch.no_grad()
def score_table(policy: Scorer, log: CalibrationLog) -> tuple[np.ndarray, np.ndarray]:
    """Scores (N, K−1) float64 at each exit but the last; whether what `predict` returns there is right (N, K) bool."""
    exits = len(log.structure.names)
    scores, correct = [], []
    for k in range(exits):
        signals = signals_at(log.logits, k)
        correct.append(is_correct(policy.predict(k, signals), log.labels, log.top))
        if k < exits - 1:
            scores.append(policy.score(k, signals))
    return torch.stack(scores, 1).double().numpy(), torch.stack(correct, 1).numpy()


def exits_taken(stops: np.ndarray) -> np.ndarray:
    """(N,) first exit that stops; the last where none does. stops: (N, K−1) bool."""
    taken: np.ndarray = np.concatenate([stops, np.ones((len(stops), 1), bool)], 1).argmax(1)
    return taken


def chain_point(log: CalibrationLog, correct: np.ndarray, stops: np.ndarray, setting: float) -> Point:
    """What `evaluate_on` gives for a chain's decisions, without running the policy again for each threshold.

    Args:
        log: of a chain. correct: (N, K) of the answers returned. stops: (N, K−1) bool.
    """
    taken = exits_taken(stops)
    return Point(
        setting,
        float(correct[np.arange(len(taken)), taken].mean()),
        float(log.node_macs.double().cumsum(0).numpy()[taken].mean()),
        float(log.exit_costs.numpy()[taken].mean()),
    )


def search_thresholds(
    scores: np.ndarray, correct: np.ndarray, costs: np.ndarray, levels: list[np.ndarray], price: float
) -> np.ndarray:
    """Thresholds that maximise accuracy − price·mean cost, one exit at a time until none moves.

    Each step is exact: who arrives hangs on the exits before, what going on is worth on the exits after, and a
    sample at a level stops at every lower one, so one histogram gives the worth of all levels.

    Args:
        scores: (N, K−1). correct: (N, K). costs: (K,) cumulative.
        levels: K−1 rising arrays of candidate thresholds; the first stops everybody, the last nobody.

    Returns:
        (K−1,) index into each exit's levels.
    """
    deciders = scores.shape[1]
    worth = correct - price * costs
    reached = [np.searchsorted(levels[k], scores[:, k], side="right") for k in range(deciders)]  # levels at or below
    chosen = np.array([len(levels[k]) - 1 for k in range(deciders)])
    for _ in range(20):
        before = chosen.copy()
        stops = np.stack([reached[k] > chosen[k] for k in range(deciders)], 1)
        arrives = np.concatenate([np.ones((len(scores), 1), bool), np.cumprod(~stops, 1)[:, :-1].astype(bool)], 1)
        onward = worth[:, -1].copy()  # what a sample that stands before exit k+1 will get
        for k in reversed(range(deciders)):
            rows = arrives[:, k]
            gain = np.bincount(reached[k][rows], (worth[:, k] - onward)[rows], minlength=len(levels[k]) + 1)
            total = gain[::-1].cumsum()[::-1][1:]  # of stopping whoever reaches level m
            best = int(total.argmax())
            if total[best] > total[chosen[k]] + 1e-9:
                chosen[k] = best
            onward = np.where(reached[k] > chosen[k], worth[:, k], onward)
        if (chosen == before).all():
            break
    return chosen


def threshold_path(
    scores: np.ndarray, correct: np.ndarray, costs: np.ndarray, levels: list[np.ndarray]
) -> tuple[list[float], np.ndarray]:
    """Searched thresholds from dear prices to low ones, thinned to even steps of cost.

    Returns:
        P prices, falling, and thresholds (P, K−1); P ≤ 25.
    """
    first_at: dict[tuple[float, ...], tuple[float, float]] = {}
    for price in _PRICES.tolist():
        chosen = search_thresholds(scores, correct, costs, levels, price)
        row = np.array([levels[k][m] for k, m in enumerate(chosen)])
        first_at.setdefault(tuple(row), (price, float(costs[exits_taken(scores >= row)].mean())))
    rows = sorted(first_at, key=lambda r: (first_at[r][1], -first_at[r][0]))
    prices = [first_at[r][0] for r in rows]
    spend = [first_at[r][1] for r in rows]
    falling: list[int] = []
    for i in evenly(spend, _MEMBERS):  # a coordinate search may end early; the knob must not turn back
        if not falling or prices[i] < prices[falling[-1]]:
            falling.append(i)
    return [prices[i] for i in falling], np.array([rows[i] for i in falling])


def candidate_levels(scores: np.ndarray, quantiles: int, limits: tuple[float, float]) -> np.ndarray:
    """Thresholds to try: halfway below quantiles of the scores and of their distinct values, and the two limits.

    Args:
        scores: (N,). quantiles: at most so many of each kind.
        limits: a threshold that every score reaches and one that none does.
    """
    distinct = np.unique(scores)
    picked = np.unique(np.quantile(distinct, np.linspace(0, 1, quantiles), method="nearest"))
    spread = np.unique(np.quantile(scores, np.linspace(0, 1, quantiles), method="nearest"))
    at = np.unique(np.concatenate([picked, spread]))
    below = distinct[np.maximum(np.searchsorted(distinct, at) - 1, 0)]
    middles = ((at + below) / 2).astype(np.float32).astype(np.float64)
    return np.unique(np.concatenate([[limits[0]], middles, [limits[1]]]))


def evenly(costs: Sequence[float], members: int) -> list[int]:
    """At most so many places in a rising list of costs, its ends among them, in even steps of cost."""
    spend = np.asarray(costs)
    return sorted({int(np.abs(spend - want).argmin()) for want in np.linspace(spend[0], spend[-1], members)})
