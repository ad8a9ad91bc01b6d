"""Imitating an oracle that knows the loss of every exit: the soft best stop is distilled into gates."""

from __future__ import annotations

from typing import Any, Literal, Self

from torch import Tensor

from adaptbench.adaptive.log import CalibrationLog
from adaptbench.errors import UsageError
from adaptbench.policies.gates.learned_cascade import stage_losses
from adaptbench.policies.gates.selection_module import stopping_distribution
from adaptbench.policies.gates.stop_gates import StopGates, relative_costs, weighted_logistic

Divergence = Literal["forward", "reverse"]


class DistilledOracle(StopGates):
    """Gates whose stopping distribution π imitates q*_k ∝ exp(−(CE_k + λ·c_k/c_K) / β) by KL divergence.

    Chen, Dai, Li, Gao, Song, "Learning to Stop While Learning to Predict" (MAML-stop), ICML 2020, second stage, with
    the price of cost added. Forward, KL(q* ‖ π), falls apart into one weighted logistic regression an exit: stop with
    weight q*_k, go on with weight Σ_{l>k} q*_l. Reverse, KL(π ‖ q*), starts there and goes on by L-BFGS.

    Deviates: the nets stay as they are (the first stage trains them against q*), the gates see the present exit's
    confidences only, and exits with negligible q* stay in the graph.

    Args:
        n_classes, deciders, t, price: as of `StopGates`.
        beta: β > 0; small, and q* is the hard oracle.
        divergence: "forward" or "reverse".

    Raises:
        UsageError: another divergence, or β not positive.
    """

    name = "distilled-oracle"
    path = (20.0, 5.0, 2.0, 1.0, 0.5, 0.3, 0.2, 0.1, 0.05, 0.01)

    def __init__(
        self,
        n_classes: int,
        deciders: int,
        *,
        t: float = 0.5,
        price: float = 0.0,
        beta: float = 0.05,
        divergence: Divergence = "forward",
    ) -> None:
        if divergence not in ("forward", "reverse"):
            raise UsageError(f"no divergence is called '{divergence}'.", todo="Use 'forward' or 'reverse'.")
        if not beta > 0:
            raise UsageError(f"β = {beta} is no temperature.", todo="Give a value above 0.")
        super().__init__(n_classes, deciders, t=t, price=price)
        self.beta, self.divergence = float(beta), divergence

    @classmethod
    def fit(
        cls,
        log: CalibrationLog,
        *,
        price: float = 0.2,
        beta: float = 0.05,
        divergence: Divergence = "forward",
        iterations: int = 60,
        seed: int = 0,
    ) -> Self:
        """Gates for one price.

        Args:
            price: λ, nats of cross-entropy for the full chain's cost.
            beta: β in nats.
            divergence: "forward" or "reverse".
            iterations: of L-BFGS, for the reverse divergence.

        Raises:
            CalibrationError: fewer than 50 samples.
            PolicyError: the log is not of a chain.
        """
        policy, features = cls._start(log, price, beta=beta, divergence=divergence)
        target = soft_oracle(log, price, beta)
        later = target.flip(1).cumsum(1).flip(1)  # Σ_{l≥k} q*_l
        for k in range(policy.deciders):
            policy._set_linear(k, *weighted_logistic(features[k], target[:, k], later[:, k + 1]))
        if divergence == "reverse":
            wanted = target.clamp_min(1e-8).log()

            def divergence_of(odds: Tensor) -> Tensor:
                chances = stopping_distribution(odds.sigmoid())
                return (chances * (chances.clamp_min(1e-8).log() - wanted)).sum(1).mean()

            policy._descend(features, divergence_of, iterations)
        return policy.requires_grad_(False)

    def describe(self) -> dict[str, Any]:
        """Sizes, t, the price, β and the divergence."""
        return {**super().describe(), "beta": self.beta, "divergence": self.divergence}


def soft_oracle(log: CalibrationLog, price: float, beta: float) -> Tensor:
    """(N, K) q*: how good a stop each exit was, given the label."""
    loss = stage_losses(log.logits, log.labels, "cross-entropy")
    return (-(loss + price * relative_costs(log)) / beta).softmax(1)
