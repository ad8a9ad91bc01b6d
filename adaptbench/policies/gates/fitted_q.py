"""Exit selection as a decision process, solved on logged logits by fitted Q, last node first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor

from adaptbench.adaptive.log import CalibrationLog
from adaptbench.adaptive.outcome import Signals
from adaptbench.adaptive.policy import Policy
from adaptbench.adaptive.replay import cheapest_within, evaluate_on
from adaptbench.adaptive.structure import Structure
from adaptbench.errors import PolicyError, UsageError
from adaptbench.policies.gates.features import confidence_features, feature_width

DEFAULT_PRICES = (2.0, 1.0, 0.5, 0.35, 0.25, 0.18, 0.12, 0.08, 0.05, 0.03, 0.015, 0.005, 0.001)
_KNOTS = 3

Target = Literal["replay", "bootstrap"]


class FittedQ(Policy):
    """Stop where Q(v, stop) is at least the Q of every way on.

    The deterministic form of deep-Q exit selection: state = node and its confidences, reward of stopping = 1 for a
    right answer, of going on −μ·Δcost. Every node's logits are logged, so the transitions are known exactly and one
    backward pass of fitted Q replaces exploration and replay memory. Q is a ridge regression on piecewise-linear
    functions of each feature.

    Related: `dag-selection` has the same process and backward order, and forgives mistakes that the reference makes
    too. It learns which action is best, weighing samples by what is at stake (classification); here the worth of each
    action is regressed and compared, which spends capacity on values but gives calibrated ones.

    Args:
        structure: of the graph.
        prices: μ path, falling; price: the one in force.
        target: of going on. "replay": what the sample got there under the Q fitted below, exact even where a node's
            confidences do not tell all; "bootstrap": the largest Q at the next node, as in deep-Q learning.
        cost_unit: what cost was counted in.
    """

    name = "fitted-q"
    knob = "price"
    shift: Tensor
    scale: Tensor
    knots: Tensor

    def __init__(
        self,
        structure: Structure,
        prices: Sequence[float],
        price: float,
        *,
        target: Target = "replay",
        cost_unit: str = "macs",
    ) -> None:
        super().__init__()
        if target not in ("bootstrap", "replay"):
            raise UsageError(f"no target is called '{target}'.", todo="Use 'bootstrap' or 'replay'.")
        if price not in prices:
            nearest = min(prices, key=lambda p: abs(p - price))
            raise UsageError(f"μ = {price:g} was not fitted.", todo=f"The nearest that was is {nearest!r}.")
        self.structure, self.prices, self.price = structure, tuple(prices), float(price)
        self.target, self.cost_unit = target, cost_unit
        width, size = feature_width(structure.n_classes), len(structure.names)
        self.register_buffer("shift", torch.zeros(size, width))
        self.register_buffer("scale", torch.ones(size, width))
        self.register_buffer("knots", torch.zeros(size, width, _KNOTS))
        columns = 1 + width * (1 + _KNOTS)
        for v in structure.deciders:
            self.register_buffer(f"weights{v}", torch.zeros(len(prices), columns, 1 + len(structure.successors[v])))

    def bind(self, structure: Structure) -> None:
        """The very graph it was fitted on."""
        if structure.successors != self.structure.successors or structure.n_classes != self.structure.n_classes:
            raise PolicyError(
                f"a policy fitted on hand-overs {self.structure.successors} was given to a graph with "
                f"{structure.successors}.",
                todo="Fit the policy on this graph's own log.",
            )

    def basis(self, node: int, logits: Tensor) -> Tensor:
        """(n, 1 + F·(1 + knots)): 1, the standardised features, and each of them beyond each knot."""
        features = (confidence_features(Signals(logits)) - self.shift[node]) * self.scale[node]
        beyond = (features[..., None] - self.knots[node]).clamp_min(0).flatten(1)
        return torch.cat([torch.ones_like(features[:, :1]), features, beyond], 1)

    def _weights(self, node: int) -> Tensor:
        weights: Tensor = getattr(self, f"weights{node}")
        return weights

    def scores(self, node: int, signals: Signals) -> Tensor:
        """Q of stopping and of each way on."""
        worth: Tensor = self.basis(node, signals.logits) @ self._weights(node)[self.prices.index(self.price)]
        return worth

    @classmethod
    def fit(
        cls,
        log: CalibrationLog,
        *,
        prices: Sequence[float] = DEFAULT_PRICES,
        drop: float = 0.005,
        target: Target = "replay",
        ridge: float = 0.03,
        seed: int = 0,
    ) -> Self:
        """Q for every price; in force the cheapest within `drop` of the most accurate node.

        Args:
            prices: μ, accuracy fraction that the dearest way's cost is worth.
            drop: accuracy fraction that may be lost.
            target: of going on, see the class.
            ridge: penalty of ‖w‖² beside the mean squared error, the intercept free.

        Raises:
            CalibrationError: fewer than 50 samples.
        """
        log.require(50, "fit Q on")
        prices = sorted(map(float, prices), reverse=True)
        policy = cls(log.structure, prices, prices[0], target=target, cost_unit=log.cost_unit)
        bases = [policy._place_knots(v, log.logits[:, v]) for v in range(len(log.structure.names))]
        policy._induce(log, bases, ridge * len(log))
        points = [evaluate_on(policy.at(price), log, price) for price in prices]
        return policy.at(cheapest_within(points, log.best_accuracy - drop).setting)

    def _place_knots(self, node: int, logits: Tensor) -> Tensor:
        """Centre, scale and knots at quantiles of the features; the basis (N, B) float64."""
        features = confidence_features(Signals(logits))
        self.shift[node] = features.mean(0)
        self.scale[node] = 1 / features.std(0).clamp_min(1e-3)
        standard = (features - self.shift[node]) * self.scale[node]
        at = torch.linspace(0, 1, _KNOTS + 2)[1:-1]
        self.knots[node] = torch.quantile(standard, at, dim=0).T
        return self.basis(node, logits).double()

    def _induce(self, log: CalibrationLog, bases: list[Tensor], ridge: float) -> None:
        """From the sinks to the source, all prices at once."""
        mu = torch.tensor(self.prices, dtype=torch.float64)
        costs = log.node_costs / _dearest(log.structure, log.node_costs)
        right = log.correct.double()
        worth: dict[int, Tensor] = {}  # (N, P) of standing at a node, its own running paid
        for v in reversed(range(len(bases))):
            here = right[:, v, None].expand(-1, len(mu))
            ways = self.structure.successors[v]
            if not ways:
                worth[v] = here
                if self.target == "bootstrap":  # smoothed like every other node's Q
                    worth[v] = bases[v] @ ridge_fit(bases[v], here, ridge)
                continue
            targets = torch.stack([here, *(worth[w] - mu * costs[w] for w in ways)], 2)  # (N, P, A)
            fitted = ridge_fit(bases[v], targets.flatten(1), ridge)
            q = (bases[v] @ fitted).view_as(targets)
            self._weights(v).copy_(fitted.view(-1, *targets.shape[1:]).transpose(0, 1))
            best = q.max(2)
            worth[v] = (
                best.values if self.target == "bootstrap" else targets.gather(2, best.indices[..., None]).squeeze(2)
            )

    @classmethod
    def family(cls, log: CalibrationLog, *, seed: int = 0) -> list[Self]:
        """Every price of the path, cheap to dear."""
        path = cls.fit(log, seed=seed)
        return [path.at(price) for price in path.prices]

    @classmethod
    def from_state(cls, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Rebuild from a checkpoint."""
        policy = cls(
            Structure.of(settings),
            settings["prices"],
            settings["price"],
            target=settings["target"],
            cost_unit=settings["cost_unit"],
        )
        policy.load_state_dict(tensors)
        return policy

    def describe(self) -> dict[str, Any]:
        """Graph, μ path, the μ in force and the target."""
        return {
            "price": self.price,
            "prices": list(self.prices),
            "target": self.target,
            "cost_unit": self.cost_unit,
            **self.structure.as_settings(),
        }


def ridge_fit(basis: Tensor, targets: Tensor, ridge: float) -> Tensor:
    """(B, M) that minimises ‖basis·w − targets‖² + ridge·‖w‖², the first (constant) column's weight free.

    Args:
        basis: (N, B) float64, ones first. targets: (N, M) float64.
    """
    penalty = torch.full((basis.shape[1],), ridge, dtype=torch.float64)
    penalty[0] = 1e-9
    weights: Tensor = torch.linalg.solve(basis.T @ basis + torch.diag(penalty), basis.T @ targets)
    return weights


def _dearest(structure: Structure, node_costs: Tensor) -> Tensor:
    """The cost of the dearest way from the entry, in the unit of node_costs."""
    from_here = node_costs.clone()
    for v in reversed(range(len(structure.names))):
        if ways := structure.successors[v]:
            from_here[v] = node_costs[v] + torch.stack([from_here[w] for w in ways]).max()
    dearest: Tensor = from_here[0]
    return dearest
