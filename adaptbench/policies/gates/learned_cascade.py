"""Selection modules that learn when to stop a cascade."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptbench.adaptive.log import CalibrationLog
from adaptbench.adaptive.outcome import Signals
from adaptbench.adaptive.policy import ChainPolicy
from adaptbench.adaptive.replay import Point, cheapest_within, evaluate_on
from adaptbench.adaptive.structure import Structure
from adaptbench.errors import PolicyError, UsageError
from adaptbench.policies.gates.features import confidence_features, feature_width
from adaptbench.policies.gates.selection_module import Estimator, cascade_objective, selection_module

FAMILY_PRICES = tuple(float(p) for p in np.geomspace(0.003, 1.5, 18))


class LearnedCascade(ChainPolicy):
    """Stop after net k where its selection module says so with probability ≥ t.

    Guan, Liu, Liu, Peng, "Energy-efficient Amortized Inference with Cascaded Deep Classifiers", IJCAI 2018.
    The module sees the label probabilities only; one hidden layer is our choice where the paper is silent.

    Args:
        n_classes: C.
        deciders: nets that have a next one.
        threshold: t in (0, 1), the global knob; 0.5 as trained.
        hidden: width of the modules.
        cost_unit: what λ was paid in.
    """

    name = "learned-cascade"
    knob = "t"

    def __init__(
        self,
        n_classes: int,
        deciders: int,
        threshold: float = 0.5,
        hidden: int = 32,
        *,
        cost_unit: str = "macs",
    ) -> None:
        super().__init__()
        if not 0.0 < threshold < 1.0:
            raise UsageError(f"t = {threshold} is no probability to stop at.", todo="Give a value between 0 and 1.")
        self.n_classes, self.hidden, self.threshold = n_classes, hidden, float(threshold)
        self.cost_unit = cost_unit
        self.selectors = nn.ModuleList(selection_module(feature_width(n_classes), 1, hidden) for _ in range(deciders))

    def bind(self, structure: Structure) -> None:
        """A chain with one module a net but the last."""
        super().bind(structure)
        if len(self.selectors) != len(structure.names) - 1 or self.n_classes != structure.n_classes:
            raise PolicyError(
                f"{len(self.selectors)} selection modules for {self.n_classes} classes were given to a cascade of "
                f"{len(structure.names)} nets and {structure.n_classes} classes.",
                todo="Fit the policy on this cascade's own log.",
            )

    def stop_logit(self, node: int, signals: Signals) -> Tensor:
        """(n,) log-odds of stopping."""
        out: Tensor = self.selectors[node](confidence_features(signals)).squeeze(1)
        return out

    def margin(self, node: int, signals: Signals) -> Tensor:
        """Log-odds of t minus log-odds of stopping: > 0 goes on, equal stops."""
        return math.log(self.threshold / (1 - self.threshold)) - self.stop_logit(node, signals)

    def stop_probabilities(self, logits: Tensor) -> Tensor:
        """(N, K−1) from the logits of every net (N, K, C), in [0.02, 0.98] for training.

        Squeezed, not clipped: a clipped module that says "go on" to everybody has no gradient to learn from.
        """
        return self._squeezed([confidence_features(Signals(logits[:, k])) for k in range(len(self.selectors))])

    def _squeezed(self, features: Sequence[Tensor]) -> Tensor:
        odds = [selector(f).squeeze(1) for selector, f in zip(self.selectors, features, strict=True)]
        return 0.02 + 0.96 * torch.stack(odds, 1).sigmoid()

    @classmethod
    def fit(
        cls,
        log: CalibrationLog,
        *,
        price: float = 0.05,
        estimator: Estimator = "exact",
        loss: str = "zero-one",
        steps: int = 600,
        lr: float = 1e-2,
        seed: int = 0,
    ) -> Self:
        """Selection modules for frozen nets, on logged logits (θ frozen; joint training is the zoo's recipe).

        Args:
            price: λ, of the last net's cost.
            estimator: "exact" or "reinforce".
            loss: "zero-one" or "cross-entropy" as ℓ; a confident mistake dominates the latter.
            steps: full-batch Adam steps.

        Raises:
            CalibrationError: fewer than 50 samples.
        """
        return cls._trained(log, None, price, estimator, loss, steps, lr, seed)

    @classmethod
    def _trained(
        cls,
        log: CalibrationLog,
        start: LearnedCascade | None,
        price: float,
        estimator: Estimator = "exact",
        loss: str = "zero-one",
        steps: int = 600,
        lr: float = 1e-2,
        seed: int = 0,
    ) -> Self:
        """As `fit`; start: modules to go on from."""
        log.require(50, "fit selection modules")
        generator = torch.Generator().manual_seed(seed)
        policy = cls(log.structure.n_classes, len(log.structure.names) - 1, cost_unit=log.cost_unit)
        if start is None:
            seed_weights(policy, generator)
        else:
            policy.load_state_dict(start.state_dict())
        costs = (log.exit_costs / log.node_costs[-1]).float()
        losses = (~log.correct).float() if loss == "zero-one" else stage_losses(log.logits, log.labels, loss)
        features = [confidence_features(Signals(log.logits[:, k])) for k in range(len(policy.selectors))]
        optimiser = torch.optim.Adam(policy.parameters(), lr=lr, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        with torch.enable_grad():
            for step in range(steps):
                objective = cascade_objective(
                    policy._squeezed(features),
                    losses,
                    costs,
                    price=price,
                    estimator=estimator,
                    generator=generator,
                    entropy_bonus=1e-2 * (1 - step / steps),
                )
                optimiser.zero_grad()
                objective.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                schedule.step()
        return policy.requires_grad_(False)

    @classmethod
    def sweep(
        cls, log: CalibrationLog, prices: list[float], *, drop: float = 0.0, **settings: Any
    ) -> tuple[Self, list[Point]]:
        """One fit a λ on 70 % of the log; the rest chooses the cheapest that keeps the best member's accuracy.

        Args:
            prices: λ values.
            drop: accuracy that may be lost against the best member, a fraction.

        Returns:
            The chosen policy and every λ's point on the choosing part.
        """
        fitting, choosing = log.halves(0.7)
        fits = cls.path(fitting, prices, **settings)
        points = [evaluate_on(fits[price], choosing, price) for price in prices]
        best_member = float(choosing.correct.float().mean(0).max())
        return fits[cheapest_within(points, best_member - drop).setting], points

    @classmethod
    def path(
        cls, log: CalibrationLog, prices: Sequence[float], *, steps: int = 600, **settings: Any
    ) -> dict[float, Self]:
        """One fit a λ on the whole log, from dear to cheap, each from the last.

        At a low λ alone "never stop at the first net" is a local optimum; hence the order.
        """
        fits: dict[float, Self] = {}
        previous: Self | None = None
        for price in sorted(prices, reverse=True):
            previous = fits[price] = cls._trained(
                log, previous, price, steps=steps if previous is None else max(1, steps // 2), **settings
            )
        return fits

    @classmethod
    def family(cls, log: CalibrationLog, *, seed: int = 0) -> list[Self]:
        """18 prices on a log grid by the exact gradient."""
        fits = cls.path(log, FAMILY_PRICES, seed=seed, steps=300)
        return [fits[price] for price in sorted(fits, reverse=True)]

    @classmethod
    def from_state(cls, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Rebuild from a checkpoint."""
        policy = cls(
            settings["n_classes"],
            settings["deciders"],
            settings["t"],
            settings["hidden"],
            cost_unit=settings.get("cost_unit", "macs"),
        )
        policy.load_state_dict(tensors)
        return policy.requires_grad_(False)

    def describe(self) -> dict[str, Any]:
        """Sizes and t."""
        return {
            "t": self.threshold,
            "n_classes": self.n_classes,
            "deciders": len(self.selectors),
            "hidden": self.hidden,
            "cost_unit": self.cost_unit,
        }


def stage_losses(logits: Tensor, labels: Tensor, kind: str) -> Tensor:
    """(N, K) ℓ of each net: "zero-one", or "cross-entropy" with gradients.

    Raises:
        UsageError: another word.
    """
    if kind == "zero-one":
        return (logits.argmax(-1) != labels[:, None]).float()
    if kind == "cross-entropy":
        n, k, _ = logits.shape
        return F.cross_entropy(logits.flatten(0, 1), labels.repeat_interleave(k), reduction="none").view(n, k)
    raise UsageError(f"no loss is called '{kind}'.", todo="Use 'zero-one' or 'cross-entropy'.")


def seed_weights(module: nn.Module, generator: torch.Generator) -> None:
    """Linear layers drawn anew from a generator of one's own, so that a fit does not depend on the global state."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            bound = 1 / math.sqrt(layer.in_features)
            with torch.no_grad():
                layer.weight.uniform_(-bound, bound, generator=generator)
                layer.bias.uniform_(-bound, bound, generator=generator)
