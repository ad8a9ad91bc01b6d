"""Two operating points mixed by chance: any budget between them is met exactly on average."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from adaptbench.adaptive.log import CalibrationLog
from adaptbench.adaptive.outcome import Signals
from adaptbench.adaptive.policy import Policy
from adaptbench.adaptive.replay import Point, evaluate_on
from adaptbench.adaptive.structure import Structure
from adaptbench.errors import PolicyError, UsageError
from adaptbench.registry import POLICIES

_STREAM = 1 << 16  # a draw of its own: those of the two policies are untouched


class Mixture(Policy):
    """Each sample follows the dear policy with a fixed probability, else the cheap one, all the way.

    Bolukbasi et al. 2017 keep the convex hull of (cost, loss) points; a mixture of neighbours on it realises every
    point between them. The draw is a function of the sample's seed, so no batch and no order changes it.

    Args:
        cheap, dear: fitted policies of one kind and size: deciding costs the same under both.
        share: probability of the dear one.
    """

    name = "mixture"
    draws = True
    knob = "share"

    def __init__(self, cheap: Policy, dear: Policy, share: float) -> None:
        super().__init__()
        if not 0.0 <= share <= 1.0:
            raise UsageError(f"share = {share} is no probability.", todo="Give a value in [0, 1].")
        if cheap.needs_labels or dear.needs_labels:
            raise PolicyError("an oracle cannot be mixed.", why="It has no scores.", todo="Mix deployable policies.")
        self.cheap, self.dear, self.share = cheap, dear, float(share)
        self.uses_history = cheap.uses_history or dear.uses_history

    def bind(self, structure: Structure) -> None:
        """Whatever both parts accept."""
        self.cheap.bind(structure)
        self.dear.bind(structure)

    def _dear(self, signals: Signals) -> Tensor:
        return signals.uniform(_STREAM) < self.share

    def scores(self, node: int, signals: Signals) -> Tensor:
        """Each row's own policy scores it."""
        return self._by_row(signals, lambda policy, s: policy.scores(node, s))

    def predict(self, node: int, signals: Signals) -> Tensor:
        """Each row's own policy answers."""
        return self._by_row(signals, lambda policy, s: policy.predict(node, s))

    def _by_row(self, signals: Signals, call: Any) -> Tensor:
        dear = self._dear(signals)
        if dear.all():
            return call(self.dear, signals)  # type: ignore[no-any-return]
        if not dear.any():
            return call(self.cheap, signals)  # type: ignore[no-any-return]
        first: Tensor = call(self.cheap, signals.rows(~dear))
        second: Tensor = call(self.dear, signals.rows(dear))
        place = torch.cat([(~dear).nonzero().squeeze(1), dear.nonzero().squeeze(1)]).argsort()
        return torch.cat([first, second])[place]

    @property
    def knob_value(self) -> float:
        """Probability of the dear policy."""
        return self.share

    def at(self, value: float) -> Self:
        """The same two policies in another proportion."""
        return type(self)(self.cheap, self.dear, value)

    def describe(self) -> dict[str, Any]:
        """Both parts and the share."""
        parts = {
            n: {"policy": p.name, "settings": p.describe()} for n, p in (("cheap", self.cheap), ("dear", self.dear))
        }
        return {"share": self.share, **parts}

    @classmethod
    def from_state(cls, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Rebuild both parts from a checkpoint."""
        parts = []
        for part in ("cheap", "dear"):
            own = {k.removeprefix(f"{part}."): t for k, t in tensors.items() if k.startswith(f"{part}.")}
            kind: type[Policy] = POLICIES.load(settings[part]["policy"])
            parts.append(kind.from_state(settings[part]["settings"], own))
        return cls(parts[0], parts[1], settings["share"])

    @classmethod
    def fit(cls, log: CalibrationLog, *, of: str = "uniform", budget: float | None = None, seed: int = 0) -> Self:
        """The family of a registered policy, mixed to a budget.

        Args:
            of: the policy's name. budget: as of `between`.
        """
        return cls.between(log, POLICIES.load(of).family(log, seed=seed), budget=budget)

    @classmethod
    def between(cls, log: CalibrationLog, members: Sequence[Policy], *, budget: float | None = None) -> Self:
        """The mixture of hull neighbours whose mean cost on the log is the budget; never more than the best costs.

        Args:
            members: fitted policies (a `family`).
            budget: mean cost in the log's unit, policies' own cost left out; None: the middle of the hull.

        Raises:
            UsageError: the cheapest member costs more.
        """
        points = [evaluate_on(member, log) for member in members]
        corners = hull(points)
        costs = [points[i].cost_mean for i in corners]
        budget = (costs[0] + costs[-1]) / 2 if budget is None else budget
        if budget < costs[0]:
            raise UsageError(
                f"a mean cost of {budget:g} {log.cost_unit} was asked for; the cheapest member costs {costs[0]:g}.",
                todo=f"Give a budget from there on; {costs[-1]:g} buys the most accurate one.",
            )
        if budget >= costs[-1]:
            return cls(members[corners[-1]], members[corners[-1]], 1.0)
        right = next(i for i, cost in enumerate(costs) if cost > budget)
        left = right - 1
        share = (budget - costs[left]) / (costs[right] - costs[left])
        return cls(members[corners[left]], members[corners[right]], share)


def hull(points: Sequence[Point]) -> list[int]:
    """Indices of the upper convex hull, cheapest first, up to the most accurate point.

    What lies on it, or between two neighbours by mixing, no other mixture of the points beats.
    """
    order = sorted(range(len(points)), key=lambda i: (points[i].cost_mean, -points[i].accuracy))
    best = max(points[i].accuracy for i in order)
    corners: list[int] = []
    for i in order:
        x, y = points[i].cost_mean, points[i].accuracy
        if corners and y <= points[corners[-1]].accuracy:
            continue
        while len(corners) >= 2:
            a, b = points[corners[-2]], points[corners[-1]]
            if (b.accuracy - a.accuracy) * (x - b.cost_mean) > (y - b.accuracy) * (b.cost_mean - a.cost_mean):
                break
            corners.pop()
        corners.append(i)
        if y >= best:
            break
    return corners
