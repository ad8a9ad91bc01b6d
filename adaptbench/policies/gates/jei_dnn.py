"""Gates of JEI-DNN: four uncertainties in, a linear layer, stop from the best exit on."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from adaptbench.adaptive.log import CalibrationLog
from adaptbench.adaptive.outcome import Signals
from adaptbench.policies.gates.learned_cascade import stage_losses
from adaptbench.policies.gates.stop_gates import StopGates, relative_costs, weighted_logistic


class JeiGates(StopGates):
    """Linear gates on top probability, entropy, margin and powered entropy; label 1 from the best exit on.

    Chataoui, Coates, Regol, "Jointly-Learned Exit and Inference for a Dynamic Neural Network" (JEI-DNN), ICLR 2024:
    the best exit is argmin_k CE_k + λ·c_k/c_K; it and all later ones are to stop; binary cross-entropy, the two
    answers of a gate re-weighted to count alike.

    Deviates: the heads stay as they are (the paper alternates between gates and heads), so the gates are fitted once,
    to the end, by logistic regression; the powered entropy is that of p² / Σ p², our reading of the name.
    """

    name = "jei-dnn"
    path = (30.0, 5.0, 2.0, 1.0, 0.6, 0.4, 0.25, 0.15, 0.07, 0.02)

    @staticmethod
    def width(n_classes: int) -> int:
        """Four uncertainties."""
        return 4

    @staticmethod
    def features(signals: Signals) -> Tensor:
        """(n, 4): top probability, entropy / log C, gap between the two best, entropy of p² / Σp² over log C."""
        p = signals.probabilities
        top = p.topk(2, dim=-1).values
        powered = Signals(2 * signals.logits)  # softmax(2z) = p² / Σ p²
        return torch.stack([top[:, 0], signals.entropy, top[:, 0] - top[:, 1], powered.entropy], 1)

    @classmethod
    def fit(cls, log: CalibrationLog, *, price: float = 0.15, seed: int = 0) -> Self:
        """Gates for one price.

        Args:
            price: λ, nats of cross-entropy for the full chain's cost; larger stops earlier.

        Raises:
            CalibrationError: fewer than 50 samples.
            PolicyError: the log is not of a chain.
        """
        policy, features = cls._start(log, price)
        best = best_exit(log, price)
        for k in range(policy.deciders):
            stop = (best <= k).double()
            go = 1 - stop
            balanced = (stop / stop.sum().clamp_min(1), go / go.sum().clamp_min(1))
            policy._set_linear(k, *weighted_logistic(features[k], *balanced))
        return policy.requires_grad_(False)


def best_exit(log: CalibrationLog, price: float) -> Tensor:
    """(N,) int64: argmin_k CE_k + λ·c_k/c_K, the earliest of equals."""
    loss = stage_losses(log.logits, log.labels, "cross-entropy")
    return (loss + price * relative_costs(log)).argmin(1)
