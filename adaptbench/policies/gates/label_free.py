"""Confidence heads that never see a label: the last exit's answers stand in for the truth."""

from __future__ import annotations

from dataclasses import replace
from typing import Self

from torch import Tensor

from adaptbench.adaptive.log import CalibrationLog
from adaptbench.policies.gates.selection_module import cascade_objective
from adaptbench.policies.gates.stop_gates import StopGates, relative_costs, weighted_logistic


class LabelFree(StopGates):
    """Confidence heads h_k fitted to the last exit's answers; stop at the first h_k ≥ T.

    After PTEENet (2025), whose post-trained branches learn from the backbone's own pseudo-labels: the loss mixes
    Σ_k π_k·ℓ_k and λ·Σ_k π_k·c_k/c_K with π_k = h_k·Π_{j<k}(1 − h_j), ℓ_k = 1 where exit k's answer is not the last
    exit's. The heads start as predictors of that agreement.

    Deviates: the label heads are the net's own and stay frozen; the confidence heads see the exit's sorted
    probabilities through a linear layer rather than its features; ℓ_k is disagreement rather than cross-entropy.
    """

    name = "label-free"
    path = (2.0, 1.0, 0.5, 0.25, 0.12, 0.06, 0.03, 0.015, 0.007, 0.002)

    @classmethod
    def fit(cls, log: CalibrationLog, *, price: float = 0.05, iterations: int = 60, seed: int = 0) -> Self:
        """Heads for one price; the log's labels are not read.

        Args:
            price: λ, share of changed answers that the full chain's cost is worth; 0 keeps predictors of agreement.
            iterations: of L-BFGS on the mixed loss.

        Raises:
            CalibrationError: fewer than 50 samples.
            PolicyError: the log is not of a chain.
        """
        policy, features = cls._start(log, price)
        agrees = pseudo_labelled(log).correct.float()
        for k in range(policy.deciders):
            policy._set_linear(k, *weighted_logistic(features[k], agrees[:, k], 1 - agrees[:, k]))
        if price > 0:
            costs = relative_costs(log)

            def mixed(odds: Tensor) -> Tensor:
                stop = 0.02 + 0.96 * odds.sigmoid()  # squeezed: a saturated head has no gradient to learn from
                return cascade_objective(stop, 1 - agrees, costs, price=price, estimator="exact")

            policy._descend(features, mixed, iterations)
        return policy.requires_grad_(False)

    @classmethod
    def family(cls, log: CalibrationLog, *, seed: int = 0) -> list[Self]:
        """One fit a price of `path`, each at several T; which are kept is judged by agreement, not by labels."""
        return super().family(pseudo_labelled(log), seed=seed)


def pseudo_labelled(log: CalibrationLog) -> CalibrationLog:
    """The same log with the last exit's answers for labels."""
    return replace(log, labels=log.logits[:, -1].argmax(-1))
