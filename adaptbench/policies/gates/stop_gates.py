"""Gates that learned when to stop: a probability of stopping at each exit of a chain, and one threshold for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from adaptbench.adaptive.log import CalibrationLog
from adaptbench.adaptive.outcome import Signals
from adaptbench.adaptive.policy import ChainPolicy
from adaptbench.adaptive.structure import Structure
from adaptbench.errors import CapabilityError, PolicyError, UsageError
from adaptbench.policies.gates.features import confidence_features, feature_width
from adaptbench.policies.thresholds.score_thresholds import chain_point, evenly

_SURE = 6.0  # log-odds of a gate that saw one answer only
_LEVELS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95)  # t tried for a family
_MEMBERS = 25


class StopGates(ChainPolicy):
    """Stop at the first exit whose gate says so with probability ≥ t. Subclasses say how the gates are fitted.

    Args:
        n_classes: C. deciders: exits that have a next one.
        t: in (0, 1), the global knob; 0.5 as fitted.
        price: λ that the gates were fitted for, in units of the full chain's cost.
    """

    knob = "t"
    path: ClassVar[tuple[float, ...]] = ()
    """Prices of the family, dear (cheap policies) first."""
    shift: Tensor
    scale: Tensor

    def __init__(self, n_classes: int, deciders: int, *, t: float = 0.5, price: float = 0.0) -> None:
        super().__init__()
        if not 0.0 < t < 1.0:
            raise UsageError(f"t = {t} is no probability to stop at.", todo="Give a value between 0 and 1.")
        self.n_classes, self.deciders = n_classes, deciders
        self.t, self.price = float(t), float(price)
        width = self.width(n_classes)
        self.gates = nn.ModuleList(nn.Linear(width, 1) for _ in range(deciders))
        self.register_buffer("shift", torch.zeros(deciders, width))
        self.register_buffer("scale", torch.ones(deciders, width))

    @staticmethod
    def width(n_classes: int) -> int:
        """Columns of `features`."""
        return feature_width(n_classes)

    @staticmethod
    def features(signals: Signals) -> Tensor:
        """(n, F) what a gate sees."""
        return confidence_features(signals)

    def bind(self, structure: Structure) -> None:
        """A chain with one gate an exit but the last."""
        super().bind(structure)
        if self.deciders != len(structure.names) - 1 or self.n_classes != structure.n_classes:
            raise PolicyError(
                f"{self.deciders} gates for {self.n_classes} classes were given to a chain of "
                f"{len(structure.names)} exits and {structure.n_classes} classes.",
                todo="Fit the policy on this model's own log.",
            )

    def stop_logit(self, node: int, signals: Signals) -> Tensor:
        """(n,) log-odds of stopping."""
        out: Tensor = self.gates[node]((self.features(signals) - self.shift[node]) * self.scale[node]).squeeze(1)
        return out

    def margin(self, node: int, signals: Signals) -> Tensor:
        """Log-odds of t minus log-odds of stopping: > 0 goes on, equal stops."""
        return math.log(self.t / (1 - self.t)) - self.stop_logit(node, signals)

    @classmethod
    def fit(cls, log: CalibrationLog, *, price: float = 0.1, seed: int = 0) -> Self:
        """Gates for one price; each kind says how."""
        raise CapabilityError(f"{cls.__name__} is not fitted.", todo="Subclasses of StopGates define fit().")

    @classmethod
    def _start(cls, log: CalibrationLog, price: float, **settings: Any) -> tuple[Self, list[Tensor]]:
        """A policy whose gates see standardised features, and those features (N, F) of each decider.

        Raises:
            CalibrationError: fewer than 50 samples.
            PolicyError: the log is not of a chain.
        """
        log.require(50, "fit gates on")
        policy = cls(log.structure.n_classes, len(log.structure.names) - 1, price=price, **settings)
        policy.bind(log.structure)
        seen = [cls.features(Signals(log.logits[:, k])) for k in range(policy.deciders)]
        for k, features in enumerate(seen):
            policy.shift[k] = features.mean(0)
            policy.scale[k] = 1 / features.std(0).clamp_min(1e-3)
        return policy, [(f - policy.shift[k]) * policy.scale[k] for k, f in enumerate(seen)]

    def _set_linear(self, node: int, weight: np.ndarray, bias: float) -> None:
        """The coefficients of a linear gate on standardised features."""
        gate: nn.Linear = self.gates[node]  # type: ignore[assignment]
        with torch.no_grad():
            gate.weight.copy_(torch.from_numpy(weight).float()[None])
            gate.bias.fill_(bias)

    def _descend(self, features: list[Tensor], loss_of: Callable[[Tensor], Tensor], iterations: int) -> None:
        """Go on from the present gates by L-BFGS; loss_of takes log-odds of stopping (N, K−1).

        The penalty is that of `weighted_logistic`.
        """
        parameters = list(self.gates.parameters())
        optimiser = torch.optim.LBFGS(parameters, max_iter=iterations, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimiser.zero_grad()
            odds = torch.cat([gate(f) for gate, f in zip(self.gates, features, strict=True)], 1)
            size = torch.cat([p.flatten() for p in parameters if p.ndim > 1]).square().sum()
            value = loss_of(odds) + size / (2 * len(odds))
            value.backward()  # type: ignore[no-untyped-call]
            return value

        with torch.enable_grad():
            optimiser.step(loss)  # type: ignore[no-untyped-call]

    @classmethod
    def family(cls, log: CalibrationLog, *, seed: int = 0) -> list[Self]:
        """One fit a price of `path`, each at several t: those that no other beats on the log, cheap to dear."""
        return cls._front([cls.fit(log, price=price, seed=seed) for price in cls.path], log)

    @classmethod
    def _front(cls, fits: list[Self], log: CalibrationLog) -> list[Self]:
        correct = log.correct.numpy()
        tried: list[tuple[float, float, int, float]] = []
        for i, policy in enumerate(fits):
            with torch.no_grad():
                odds = [policy.stop_logit(k, Signals(log.logits[:, k])) for k in range(policy.deciders)]
            chances = torch.stack(odds, 1).double().sigmoid().numpy()
            for t in _LEVELS:
                point = chain_point(log, correct, chances >= t, t)
                tried.append((point.cost_mean, -point.accuracy, i, t))
        front: list[tuple[float, float, int, float]] = []
        for entry in sorted(tried):
            if not front or entry[1] < front[-1][1]:
                front.append(entry)
        keep = evenly([entry[0] for entry in front], _MEMBERS)
        return [fits[front[k][2]].at(front[k][3]) for k in keep]

    def describe(self) -> dict[str, Any]:
        """Sizes, t and the price."""
        return {
            "n_classes": self.n_classes,
            "deciders": self.deciders,
            "t": self.t,
            "price": self.price,
        }


def relative_costs(log: CalibrationLog) -> Tensor:
    """(K,) float32 c_k / c_K of a chain."""
    return (log.exit_costs / log.exit_costs[-1]).float()


def weighted_logistic(features: Tensor, stop: Tensor, go: Tensor, *, strength: float = 1.0) -> tuple[np.ndarray, float]:
    """Linear log-odds of stopping: min Σ −stop·log s(x) − go·log(1 − s(x)) + ‖w‖²/(2·strength), by scikit-learn.

    Args:
        features: (N, F) standardised.
        stop, go: (N,) weights ≥ 0 of the two answers for each sample; rescaled to a mean of 1 a sample.

    Returns:
        weight (F,), bias. Where one answer has no weight at all: that answer with log-odds 6, and a slope of 1e-3
        along the first feature so that attacks still find a way.
    """
    x = features.double().numpy()
    weights = torch.cat([stop, go]).double().numpy()
    one, other = float(stop.sum()), float(go.sum())
    if min(one, other) <= 1e-6 * max(one, other, 1e-12):
        slope = np.zeros(x.shape[1])
        slope[0] = 1e-3
        return slope, _SURE if one > other else -_SURE
    kept = weights > 0
    labels = np.repeat([1, 0], len(x))
    fitted = LogisticRegression(C=strength, max_iter=2000).fit(
        np.concatenate([x, x])[kept], labels[kept], sample_weight=weights[kept] * (len(x) / (one + other))
    )
    return fitted.coef_[0], float(fitted.intercept_[0])
