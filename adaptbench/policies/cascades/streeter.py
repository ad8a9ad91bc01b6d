"""Greedy cascades from a pool of nets that may abstain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from torch import Tensor, nn

from adaptbench.adaptive.constructors import Cascade
from adaptbench.adaptive.log import CalibrationLog
from adaptbench.errors import UsageError
from adaptbench.policies.cascades.route import PASS, Route, RoutePolicy, Steps
from adaptbench.policies.thresholds.score_thresholds import candidate_levels


def greedy_cascade(
    log: CalibrationLog,
    *,
    slack: float,
    steps: Steps | None = None,
    reference: int | None = None,
    quantiles: int = 100,
    min_answered: int = 20,
) -> list[tuple[int, float]]:
    """Which nodes to run in which order, and the top softmax probability that each answers from.

    Streeter, "Approximation Algorithms for Cascading Prediction Models", ICML 2018: abstaining models are nodes × the
    confidences they answer from. At each step, of those whose accuracy on the examples they would newly answer is at
    least the reference's on the same examples less `slack`, take the one with the most newly answered examples per
    unit of added cost; drop what is answered; until nothing is left. The reference answers everything, so the whole
    cascade is within `slack` of it on the log.

    Deviates: confidences are tried at quantiles of those left, and a node must newly answer `min_answered` examples
    (or all that are left), lest thresholds hang on a handful.

    Args:
        log: its nodes are whole nets, unless `steps` says otherwise.
        slack: accuracy fraction that may be lost, ≥ 0.
        steps: what running a node after another costs (default: a pool of whole nets).
        reference: the node to keep up with (default: the most accurate on the log).

    Returns:
        (node, threshold) in order; the last answers whatever is left.

    Raises:
        CalibrationError: fewer than 50 samples.
        UsageError: slack is negative.
    """
    log.require(50, "build a cascade on")
    if slack < 0:
        raise UsageError(f"slack {slack} asks for more than the reference gives.", todo="Give 0 or more.")
    cost = (Steps.pool(log.node_costs) if steps is None else steps).cost.numpy()
    confidence, correct = log.confidence.double().numpy(), log.correct.numpy()
    goal = int(correct.mean(0).argmax()) if reference is None else reference
    left = np.arange(len(confidence))
    after, chosen = -1, list[tuple[int, float]]()
    used: set[int] = set()
    while len(left):
        best: tuple[float, int, float] | None = None
        for v in range(confidence.shape[1]):
            if v in used or not np.isfinite(cost[after + 1, v]) or not (v == goal or np.isfinite(cost[v + 1, goal])):
                continue
            credit = correct[left, v].astype(float) - correct[left, goal] + slack
            threshold, answered = _widest(confidence[left, v], credit, quantiles, min_answered)
            worth = answered / float(cost[after + 1, v])
            if answered and (best is None or worth > best[0] * (1 + 1e-12)):
                best = (worth, v, threshold)
        if best is None:  # cannot be with a reference that is reachable: it keeps up with itself
            raise UsageError(f"node {goal} cannot be reached as the reference.", todo="Name another reference.")
        _, after, threshold = best
        used.add(after)
        chosen.append((after, threshold))
        left = left[confidence[left, after] < threshold]
    return chosen


def _widest(confidence: np.ndarray, credit: np.ndarray, quantiles: int, least: int) -> tuple[float, int]:
    """The lowest threshold at which what is answered has a credit ≥ 0, and how many that are."""
    levels = candidate_levels(confidence, quantiles, (-1.0, PASS))
    reached = np.searchsorted(levels, confidence, side="right")
    bins = len(levels) + 1
    total = np.bincount(reached, credit, minlength=bins)[::-1].cumsum()[::-1][1:]
    answered = np.bincount(reached, minlength=bins)[::-1].cumsum()[::-1][1:]
    good = np.flatnonzero((total >= -1e-9) & (answered >= min(least, len(credit))))
    return (float(levels[good[0]]), int(answered[good[0]])) if len(good) else (PASS, 0)


class Streeter(RoutePolicy):
    """The greedy cascade along the hand-overs of a graph, for a path of slacks.

    Streeter, ICML 2018 (see `greedy_cascade`). Nodes that the way leads through are paid for and do not answer; the
    entry is always run. For a cascade of freely chosen nets in free order see `streeter_cascade`.

    Args:
        routes: one a slack. slacks: rising. slack: the one in force.
    """

    name = "streeter"
    knob = "slack"

    def __init__(self, routes: Sequence[Route], slacks: Sequence[float], slack: float) -> None:
        self.slacks, self.slack = tuple(float(s) for s in slacks), float(slack)
        if self.slack not in self.slacks:
            nearest = min(self.slacks, key=lambda s: abs(s - self.slack))
            raise UsageError(f"slack {slack:g} was not fitted.", todo=f"The nearest that was is {nearest!r}.")
        super().__init__(routes[self.slacks.index(self.slack)])
        self.routes = tuple(routes)

    @classmethod
    def fit(
        cls,
        log: CalibrationLog,
        *,
        slack: float = 0.005,
        slacks: Sequence[float] | None = None,
        reference: int | None = None,
        quantiles: int = 100,
        seed: int = 0,
    ) -> Self:
        """A route for every slack.

        Args:
            slack: the one in force, an accuracy fraction.
            slacks: the path (default: 0 and 20 up to where the entry may answer everything).
            reference: the node to keep up with (default: the most accurate on the log).
            quantiles: confidences tried at each step.
            seed: unused; the fit is deterministic.

        Raises:
            CalibrationError: fewer than 50 samples.
            UsageError: a negative slack, or a reference that no way leads to.
        """
        if slacks is None:
            accuracy = log.correct.double().mean(0)
            widest = max(float(accuracy.max() - accuracy[0]), 1e-3) * 1.02
            slacks = [0.0, *np.geomspace(widest / 200, widest, 20).tolist()]
        wanted = sorted({*map(float, slacks), float(slack)})
        steps = Steps.graph(log.structure, log.node_costs)
        routes = [
            steps.route(greedy_cascade(log, slack=s, steps=steps, reference=reference, quantiles=quantiles))
            for s in wanted
        ]
        return cls(routes, wanted, slack)

    @classmethod
    def family(cls, log: CalibrationLog, *, seed: int = 0) -> list[Self]:
        """Every slack of the path, cheap to dear; those with the same route once."""
        path = cls.fit(log, seed=seed)
        different = dict(zip(path.routes, path.slacks, strict=True))
        return [path.at(slack) for slack in sorted(different.values(), reverse=True)]

    @classmethod
    def from_state(cls, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Rebuild from a checkpoint."""
        routes = [Route(tuple(r["way"]), tuple(r["thresholds"])) for r in settings["routes"]]
        return cls(routes, settings["slacks"], settings["slack"])

    def describe(self) -> dict[str, Any]:
        """Every slack's way and thresholds."""
        return {
            "slack": self.slack,
            "slacks": list(self.slacks),
            "routes": [{"way": list(r.way), "thresholds": list(r.thresholds)} for r in self.routes],
        }


def streeter_cascade(
    nets: Mapping[str, nn.Module],
    log: CalibrationLog,
    *,
    slack: float,
    input_shape: tuple[int, int, int],
    bounds: tuple[float, float] = (0.0, 1.0),
    **settings: Any,
) -> Cascade:
    """The executable greedy cascade of a pool of whole nets, in the order that the greedy choice found.

    Args:
        nets: by the names of the log's nodes.
        log: logits of the whole pool, as a `NetworkDag` of it logs them.
        slack: accuracy fraction that may be lost.
        input_shape: (C, H, W). bounds: of the input values.
        settings: further arguments of `greedy_cascade`.

    Raises:
        UsageError: a chosen net is not given.
    """
    answers = greedy_cascade(log, slack=slack, **settings)
    names = [log.structure.names[v] for v, _ in answers]
    if missing := [name for name in names if name not in nets]:
        raise UsageError(f"the cascade needs the net '{missing[0]}'.", todo=f"Given: {', '.join(nets)}.")
    route = Route(tuple(range(len(answers))), tuple(t for _, t in answers))
    return Cascade(
        {name: nets[name] for name in names},
        input_shape=input_shape,
        policy=Streeter([route], [slack], slack),
        bounds=bounds,
    )
