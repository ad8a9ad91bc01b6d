"""Network selection over a DAG: cost-sensitive decisions, learned from the sinks back to the source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from adaptbench.adaptive.log import CalibrationLog
from adaptbench.adaptive.outcome import Signals
from adaptbench.adaptive.policy import Policy, edge_margins
from adaptbench.adaptive.replay import cheapest_within, evaluate_on
from adaptbench.adaptive.structure import Structure
from adaptbench.adaptive.topology import dominators
from adaptbench.errors import PolicyError, UsageError
from adaptbench.policies.gates.features import HISTORY_WIDTH, confidence_features, feature_width, history_features
from adaptbench.policies.gates.learned_cascade import seed_weights
from adaptbench.policies.gates.selection_module import selection_module

_WARM_STEPS = 60  # of a λ that starts from the one before it
FAMILY_PRICES = tuple(float(p) for p in np.geomspace(4.0, 1500.0, 16))  # log-loss needs dear mistakes to go on
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
        cost_unit: what T was counted in: "macs", or the unit that the log was priced in.
        history: whether scorers also see the predictions of nodes that every way here has visited.
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
        history: bool = True,
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
        self.uses_history = history
        self._before = dominators(structure.successors)
        width = feature_width(structure.n_classes) + (HISTORY_WIDTH if history else 0)
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
        out: Tensor = scorer[str(node)](self._features(node, signals))
        return out

    def _features(self, node: int, signals: Signals) -> Tensor:
        own = confidence_features(signals)
        return torch.cat([own, history_features(signals, self._before[node])], 1) if self.uses_history else own

    def _seen(self, log: CalibrationLog) -> dict[int, Tensor]:
        """By decider, what it sees of a log."""
        return {v: self._features(v, Signals(log.logits[:, v], history=log.logits)) for v in self.structure.deciders}

    @classmethod
    def fit(
        cls,
        log: CalibrationLog,
        *,
        prices: tuple[float, ...] = DEFAULT_PRICES,
        drop: float = 0.005,
        reference: int | None = None,
        steps: int = 200,
        seed: int = 0,
    ) -> Self:
        """Fit every λ on 70 % of the log; on the rest choose the cheapest within `drop` of the reference.

        T is taken from the log's `node_costs`, MACs unless it was priced otherwise.

        Args:
            prices: λ values, in units of the reference's cost for one lost answer.
            drop: accuracy fraction that may be lost.
            reference: node whose answers count as the goal (default: the most accurate on the log).

        Raises:
            CalibrationError: fewer than 50 samples.
        """
        fitting, choosing = log.halves(0.7)
        policy = cls.path(fitting, prices=prices, reference=reference, steps=steps, seed=seed)
        goal = _goal(fitting, reference)
        floor = float(choosing.correct[:, goal].float().mean()) - drop
        points = [evaluate_on(policy.at(price), choosing, price) for price in prices]
        return policy.at(cheapest_within(points, floor).setting)

    @classmethod
    def path(
        cls,
        log: CalibrationLog,
        *,
        prices: tuple[float, ...] = DEFAULT_PRICES,
        reference: int | None = None,
        steps: int = 200,
        seed: int = 0,
        history: bool = True,
    ) -> Self:
        """Every λ fitted on the whole log, each starting from the one before it; the first is in force.

        Raises:
            CalibrationError: fewer than 50 samples.
        """
        log.require(50, "fit a DAG's policies")
        policy = cls(log.structure, tuple(prices), prices[0], cost_unit=log.cost_unit, history=history)
        seed_weights(policy, torch.Generator().manual_seed(seed))
        features = policy._seen(log)
        order = sorted(range(len(prices)), key=lambda i: prices[i])
        for i, which in enumerate(order):
            if i:
                policy.scorers[which].load_state_dict(policy.scorers[order[i - 1]].state_dict())
            spent = steps if i == 0 else max(_WARM_STEPS, steps // 3)
            policy._fit_one(which, log, features, prices[which], _goal(log, reference), spent)
        return policy.requires_grad_(False)

    @classmethod
    def family(cls, log: CalibrationLog, *, seed: int = 0) -> list[Self]:
        """16 prices on a log grid, from "always leave" to "lose nothing"."""
        fitted = cls.path(log, prices=FAMILY_PRICES, seed=seed)
        return [fitted.only(price) for price in FAMILY_PRICES]

    def only(self, price: float) -> Self:
        """The policy of one fitted λ, without the others' weights."""
        other = type(self)(
            self.structure, (price,), price, cost_unit=self.cost_unit, hidden=self.hidden, history=self.uses_history
        )
        other.scorers[0].load_state_dict(self.scorers[self.prices.index(price)].state_dict())
        return other.requires_grad_(False)

    def _fit_one(
        self, which: int, log: CalibrationLog, seen: Mapping[int, Tensor], price: float, goal: int, steps: int
    ) -> None:
        correct = log.correct
        lost = (correct[:, [goal]] & ~correct).float() * price  # λ(L(ŷ_v) − L(ŷ_ref))₊ for 0/1 loss
        unit = (log.node_costs / log.node_costs[goal]).float()
        to_go = torch.zeros_like(lost)  # cost from a node on, its own running not included
        for v in reversed(range(len(self.structure.names))):
            ways = self.structure.successors[v]
            to_go[:, v] = lost[:, v]
            if not ways:
                continue
            onward = [unit[w] + (to_go[:, w] if self.lookahead else lost[:, w]) for w in ways]
            costs = torch.stack([lost[:, v], *onward], 1)
            features = seen[v]
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
        policy = cls(
            Structure.of(settings),
            tuple(settings["prices"]),
            settings["lambda"],
            cost_unit=settings["cost_unit"],
            hidden=settings["hidden"],
            history=settings.get("history", False),
        )
        policy.load_state_dict(tensors)
        return policy.requires_grad_(False)

    def describe(self) -> dict[str, Any]:
        """Graph, λ path and the λ in force."""
        return {
            "lambda": self.lambda_,
            "prices": list(self.prices),
            "cost_unit": self.cost_unit,
            "hidden": self.hidden,
            "history": self.uses_history,
            **self.structure.as_settings(),
        }


class Myopic(DagSelection):
    """Compares stopping with each hand-over as if the sample had to stop there: what foresight is worth."""

    name = "myopic"
    lookahead = False


def _goal(log: CalibrationLog, reference: int | None) -> int:
    """The node whose answers count: given, or the most accurate on the log."""
    return int(log.correct.float().mean(0).argmax()) if reference is None else reference


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
    optimiser = torch.optim.Adam(scorer.parameters(), lr=2e-2, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    with torch.enable_grad():
        for _ in range(steps):
            objective = -(scorer(features).log_softmax(1) * saved).sum(1).mean()
            optimiser.zero_grad()
            objective.backward()
            optimiser.step()
            schedule.step()
