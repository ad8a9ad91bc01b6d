"""Cascades of two: every pair of nets judged on logged logits, one confidence threshold between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from torch import Tensor, nn

from adaptbench.adaptive.constructors import Cascade
from adaptbench.adaptive.log import CalibrationLog
from adaptbench.errors import UsageError
from adaptbench.policies.cascades.route import PASS, Route, RoutePolicy, Steps
from adaptbench.policies.thresholds.score_thresholds import candidate_levels, evenly

_MEMBERS = 25


@dataclass(frozen=True, slots=True)
class Pair:
    """Run `first`; where its top softmax probability misses the threshold, run `second` too and take its answer.

    Args:
        first, second: nodes of the log.
        threshold: of the top softmax probability.
        accuracy: on the log, a fraction.
        cost: mean on the log, in its unit: c_first + deferral · c_second.
        deferral: share handed over.
    """

    first: int
    second: int
    threshold: float
    accuracy: float
    cost: float
    deferral: float


def all_pairs(log: CalibrationLog, *, steps: Steps | None = None, quantiles: int = 100) -> list[Pair]:
    """Every ordered pair of nodes at every threshold tried.

    Args:
        log: its nodes are whole nets, unless `steps` says otherwise.
        steps: what running a node costs (default: a pool of whole nets, each at its own cost).
        quantiles: thresholds tried for each pair; the ends are the first net alone and both nets for everybody.
    """
    cost = (Steps.pool(log.node_costs) if steps is None else steps).cost.numpy()
    confidence, correct = log.confidence.double().numpy(), log.correct.numpy()
    n, size = confidence.shape
    pairs = []
    for a in range(size):
        if not np.isfinite(cost[0, a]):
            continue
        levels = candidate_levels(confidence[:, a], quantiles, (-1.0, PASS))
        reached = np.searchsorted(levels, confidence[:, a], side="right")
        bins = len(levels) + 1
        kept = _at_least(np.ones(n), reached, bins)
        right_here = _at_least(correct[:, a], reached, bins)
        for b in np.flatnonzero(np.isfinite(cost[a + 1])).tolist():
            right_there = correct[:, b].sum() - _at_least(correct[:, b], reached, bins)
            deferral = 1 - kept / n
            accuracy = (right_here + right_there) / n
            spend = cost[0, a] + deferral * cost[a + 1, b]
            pairs += [
                Pair(a, b, *row)
                for row in zip(
                    levels.tolist(), accuracy.tolist(), spend.tolist(), np.maximum(deferral, 0).tolist(), strict=True
                )
            ]
    return pairs


def pareto(pairs: list[Pair]) -> list[Pair]:
    """Those that no other beats: cheap to dear, each more accurate than every cheaper one."""
    front: list[Pair] = []
    for pair in sorted(pairs, key=lambda p: (p.cost, -p.accuracy)):
        if not front or pair.accuracy > front[-1].accuracy:
            front.append(pair)
    return front


class LebovitzPair(RoutePolicy):
    """Run one node, stop where its top softmax probability reaches t, else run a second one, which answers.

    Lebovitz et al., "Efficient Inference With Model Cascades", TMLR 2023. Pair and threshold are chosen on the
    calibration log among all pairs that the graph can run; nodes that the way leads through are paid for and do not
    answer. For pairs of any nets of a pool, the first not being the graph's entry, see `pair_cascade`.

    Args:
        route: the way through the graph, by the thresholds of its nodes.
        first: the place in the way of the node that may answer before the last.
    """

    name = "lebovitz-pair"
    knob = "threshold"

    def __init__(self, route: Route, first: int = 0) -> None:
        super().__init__(route)
        self.first = first

    @classmethod
    def fit(cls, log: CalibrationLog, *, drop: float = 0.005, quantiles: int = 200, seed: int = 0) -> Self:
        """The cheapest pair and threshold within `drop` of the most accurate node.

        Args:
            drop: accuracy fraction that may be lost.
            quantiles: thresholds tried for each pair.

        Raises:
            UsageError: the graph has one node.
        """
        steps, front = cls._front(log, quantiles)
        floor = log.best_accuracy - drop
        chosen = next((p for p in front if p.accuracy >= floor - 1e-9), front[-1])
        return cls._of(steps, chosen)

    @classmethod
    def family(cls, log: CalibrationLog, *, seed: int = 0) -> list[Self]:
        """The Pareto set of all pairs that the graph can run, thinned to even steps of cost."""
        steps, front = cls._front(log, 200)
        return [cls._of(steps, front[i]) for i in evenly([p.cost for p in front], _MEMBERS)]

    @classmethod
    def _front(cls, log: CalibrationLog, quantiles: int) -> tuple[Steps, list[Pair]]:
        steps = Steps.graph(log.structure, log.node_costs)
        front = pareto(all_pairs(log, steps=steps, quantiles=quantiles))
        if not front:
            raise UsageError("a graph of one node has no pairs.", todo="Give a graph with a hand-over.")
        return steps, front

    @classmethod
    def _of(cls, steps: Steps, pair: Pair) -> Self:
        route = steps.route([(pair.first, pair.threshold), (pair.second, -1.0)])
        return cls(route, route.way.index(pair.first))

    @classmethod
    def from_state(cls, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Rebuild from a checkpoint."""
        return cls(Route(tuple(settings["way"]), tuple(settings["thresholds"])), settings["first"])

    @property
    def knob_value(self) -> float:
        """The threshold in force."""
        return self.route.thresholds[self.first]

    def at(self, value: float) -> Self:
        """The same pair at another t."""
        thresholds = list(self.route.thresholds)
        thresholds[self.first] = float(value)
        return type(self)(Route(self.route.way, tuple(thresholds)), self.first)

    def describe(self) -> dict[str, Any]:
        """The way, its thresholds and which node of it may answer early."""
        return {"way": list(self.route.way), "thresholds": list(self.route.thresholds), "first": self.first}


def pair_cascade(
    nets: Mapping[str, nn.Module],
    log: CalibrationLog,
    pair: Pair,
    *,
    input_shape: tuple[int, int, int],
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Cascade:
    """The executable cascade of a pair found by `all_pairs` on a pool of whole nets.

    Args:
        nets: by the names of the log's nodes; others may be among them.
        log: that the pair was found on.
        pair: one of `pareto(all_pairs(log))`.
        input_shape: (C, H, W). bounds: of the input values.

    Raises:
        UsageError: a net of the pair is not given.
    """
    names = [log.structure.names[v] for v in (pair.first, pair.second)]
    if missing := [name for name in names if name not in nets]:
        raise UsageError(f"the pair needs the net '{missing[0]}'.", todo=f"Given: {', '.join(nets)}.")
    policy = LebovitzPair(Route((0, 1), (pair.threshold, -1.0)))
    return Cascade({name: nets[name] for name in names}, input_shape=input_shape, policy=policy, bounds=bounds)


def _at_least(values: np.ndarray, reached: np.ndarray, bins: int) -> np.ndarray:
    """Σ of values over the samples that reach each level."""
    suffix: np.ndarray = np.bincount(reached, values.astype(float), minlength=bins)[::-1].cumsum()[::-1][1:]
    return suffix
