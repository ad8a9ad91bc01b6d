"""Network selection over a DAG: cost-sensitive decisions, learned from the sinks back to the source."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from adaptbench.adaptive.log import CalibrationLog
from adaptbench.adaptive.outcome import Signals
from adaptbench.adaptive.policy import Policy, Structure, edge_margins
from adaptbench.adaptive.replay import Point, cheapest_within, evaluate_on
from adaptbench.errors import CalibrationError, PolicyError, UsageError
from adaptbench.policies.features import confidence_features, feature_width
from adaptbench.policies.learned_cascade import seed_weights
from adaptbench.policies.selection_module import selection_module

DEFAULT_PRICES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)


class DagSelection(Policy):
    """At each node score stopping and every hand-over by what the rest of the way costs from there.

    Bolukbasi, Wang, Dekel, Saligrama, "Adaptive Neural Networks for Efficient Inference", ICML 2017. An action costs
    T + λ·(L(ŷ) − L(ŷ_ref))₊ under the decisions already learned below; a mistake that the reference makes too is free.

    Deviates: out-degree > 1 is learned in one piece, by a logistic loss over all actions weighted by what each saves
    (the paper speaks of weighted binary problems; with one way on the two are the same).

    Args:
        structure: of the graph.
        prices: λ path, one set of modules each, of the reference's cost; `lambda_` picks one.
        lambda_: the price in force.
        cost_unit: what T was counted in.
    """

    name = "dag-selection"
    knob = "lambda"
    lookahead: ClassVar[bool] = True

    def __init__(
        self,
        structure: Structure,
        prices: tuple[float, ...],
        lambda_: float,
        *,
        cost_unit: str = "macs",
        hidden: int = 32,
    ) -> None:
        super().__init__()
        if lambda_ not in prices:
            nearest = min(prices, key=lambda p: abs(p - lambda_))
            raise UsageError(
                f"λ = {lambda_:g} was not fitted.",
                todo=f"Fitted: {', '.join(f'{p:g}' for p in prices)}; the nearest is {nearest:g}.",
            )
        self.structure, self.prices, self.lambda_ = structure, tuple(prices), float(lambda_)
        self.cost_unit, self.hidden = cost_unit, hidden
        width = feature_width(structure.n_classes)
        self.scorers = nn.ModuleList(
            nn.ModuleDict(
                {str(v): selection_module(width, 1 + len(structure.successors[v]), hidden) for v in structure.deciders}
            )
            for _ in prices
        )

    def bind(self, structure: Structure) -> None:
        """The very graph it was fitted on."""
        if structure.successors != self.structure.successors or structure.n_classes != self.structure.n_classes:
            raise PolicyError(
                f"a policy fitted on hand-overs {self.structure.successors} was given to a graph with "
                f"{structure.successors}.",
                todo="Fit the policy on this graph's own log.",
            )

    def scores(self, node: int, signals: Signals) -> Tensor:
        """Minus the price of each action, up to a constant of the sample."""
        return self._scores(self.prices.index(self.lambda_), node, signals)

    def _scores(self, which: int, node: int, signals: Signals) -> Tensor:
        scorer: nn.ModuleDict = self.scorers[which]  # type: ignore[assignment]
        out: Tensor = scorer[str(node)](confidence_features(signals))
        return out

    @classmethod
    def fit(
        cls,
        log: CalibrationLog,
        *,
        prices: tuple[float, ...] = DEFAULT_PRICES,
        drop: float = 0.005,
        reference: int | None = None,
        steps: int = 400,
        seed: int = 0,
    ) -> Self:
        """Fit every λ on 70 % of the log; on the rest choose the cheapest within `drop` of the reference.

        Args:
            prices: λ values, in units of the reference's cost for one lost answer.
            drop: accuracy fraction that may be lost.
            reference: node whose answers count as the goal (default: the most accurate on the log).

        Raises:
            CalibrationError: fewer than 50 samples.
        """
        if len(log) < 50:
            raise CalibrationError(
                f"{len(log)} calibration samples are too few to fit a DAG's policies.", todo="Give 50 or more."
            )
        fitting, choosing = log.halves(0.7)
        goal = int(log.correct.float().mean(0).argmax()) if reference is None else reference
        policy = cls(log.structure, tuple(prices), prices[0])
        generator = torch.Generator().manual_seed(seed)
        seed_weights(policy, generator)
        for which, price in enumerate(prices):
            policy._fit_one(which, fitting, price, goal, steps)
        policy.requires_grad_(False)
        floor = float(choosing.correct[:, goal].float().mean()) - drop
        points = [evaluate_on(policy.at(price), choosing, price) for price in prices]
        return policy.at(cheapest_within(points, floor).setting)

    def _fit_one(self, which: int, log: CalibrationLog, price: float, goal: int, steps: int) -> None:
        correct = log.correct
        lost = (correct[:, [goal]] & ~correct).float() * price  # λ(L(ŷ_v) − L(ŷ_ref))₊ for 0/1 loss
        unit = log.node_macs.float() / float(log.node_macs[goal])
        to_go = torch.zeros_like(lost)  # cost from a node on, its own running not included
        for v in reversed(range(len(self.structure.names))):
            ways = self.structure.successors[v]
            to_go[:, v] = lost[:, v]
            if not ways:
                continue
            onward = [unit[w] + (to_go[:, w] if self.lookahead else lost[:, w]) for w in ways]
            costs = torch.stack([lost[:, v], *onward], 1)
            features = confidence_features(Signals(log.logits[:, v]))
            scorer: nn.ModuleDict = self.scorers[which]  # type: ignore[assignment]
            learn_actions(scorer[str(v)], features, costs, steps)
            with torch.no_grad():
                margins = edge_margins(scorer[str(v)](features))
                best, edge = margins.max(1)
                action = torch.where(best > 0, edge + 1, 0)
            to_go[:, v] = costs.gather(1, action[:, None]).squeeze(1)

    @classmethod
    def from_state(cls, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Rebuild from a checkpoint."""
        structure = Structure(
            tuple(settings["names"]), tuple(tuple(w) for w in settings["successors"]), settings["n_classes"]
        )
        policy = cls(
            structure,
            tuple(settings["prices"]),
            settings["lambda"],
            cost_unit=settings["cost_unit"],
            hidden=settings["hidden"],
        )
        policy.load_state_dict(tensors)
        return policy.requires_grad_(False)

    @property
    def knob_value(self) -> float:
        """λ in force."""
        return self.lambda_

    def at(self, value: float) -> Self:
        """Another λ of the fitted path."""
        other = type(self)(self.structure, self.prices, value, cost_unit=self.cost_unit, hidden=self.hidden)
        other.load_state_dict(self.state_dict())
        return other.requires_grad_(False)

    def describe(self) -> dict[str, Any]:
        """Graph, λ path and the λ in force."""
        return {
            "lambda": self.lambda_,
            "prices": list(self.prices),
            "cost_unit": self.cost_unit,
            "hidden": self.hidden,
            "names": list(self.structure.names),
            "successors": [list(w) for w in self.structure.successors],
            "n_classes": self.structure.n_classes,
        }

    def path_points(self, log: CalibrationLog) -> list[Point]:
        """Accuracy and cost of every λ on a log."""
        return [evaluate_on(self.at(price), log, price) for price in self.prices]


class Myopic(DagSelection):
    """Compares stopping with each hand-over as if the sample had to stop there: what foresight is worth."""

    name = "myopic"
    lookahead = False


def learn_actions(scorer: nn.Module, features: Tensor, costs: Tensor, steps: int) -> None:
    """Train a scorer by weighted logistic loss: min −Σ_i Σ_a (max_b cost_i,b − cost_i,a) · log softmax(s(x_i))_a.

    With two actions that is the paper's importance-weighted binary classification, W = |cost-to-go − cost of leaving|.
    With more, the best scorer's softmax is proportional to what each action saves over the dearest: its top is the
    cheapest on average.
    (The expected cost of the softmax itself saturates on the dearest mistakes and never learns the small ones.)

    Args:
        scorer: (n, F) → (n, A), changed in place.
        features: (n, F).
        costs: (n, A).
    """
    saved = costs.max(1, keepdim=True).values - costs
    saved = saved / saved.sum(1).mean().clamp_min(1e-9)
    optimiser = torch.optim.Adam(scorer.parameters(), lr=1e-2, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    with torch.enable_grad():
        for _ in range(steps):
            objective = -(scorer(features).log_softmax(1) * saved).sum(1).mean()
            optimiser.zero_grad()
            objective.backward()
            optimiser.step()
            schedule.step()
