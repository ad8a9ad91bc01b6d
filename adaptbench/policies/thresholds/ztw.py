"""Recycled predictions: a weighted geometric mean of the exits so far answers, one threshold decides."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptbench.adaptive.log import CalibrationLog
from adaptbench.adaptive.outcome import Signals
from adaptbench.adaptive.policy import ChainPolicy
from adaptbench.adaptive.replay import cheapest_within
from adaptbench.adaptive.structure import Structure
from adaptbench.errors import PolicyError
from adaptbench.policies.thresholds.score_thresholds import chain_point, score_table

_NEVER = 1.5  # above every probability


class GeometricEnsemble(ChainPolicy):
    """Stop at the first exit k where max_c q_k reaches t; q_k answers, at the final exit its own head does.

    Wołczyk et al., "Zero Time Waste: Recycling Predictions in Early Exit Neural Networks", NeurIPS 2021:
    log q_k = mean_{j≤k} (e^{w_kj} log p_j) + b_k up to a constant, w and b trained by cross-entropy with all else
    frozen, one threshold for all exits.

    Deviates: the connections from head to head belong to the net and are not added; w and b are fitted on the
    calibration log rather than the training set, by L-BFGS, with a small penalty that draws them to w = 0, b = 0.

    Args:
        exits: K. n_classes: C.
        threshold: t, a probability; above 1 nothing leaves early.
    """

    name = "ztw"
    knob = "threshold"
    uses_history = True

    def __init__(self, exits: int, n_classes: int, threshold: float = 0.9) -> None:
        super().__init__()
        self.exits, self.n_classes, self.threshold = exits, n_classes, float(threshold)
        self.log_weights = nn.ParameterList(nn.Parameter(torch.zeros(k + 1)) for k in range(exits - 1))
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(n_classes)) for _ in range(exits - 1))

    def bind(self, structure: Structure) -> None:
        """A chain of as many exits and classes."""
        super().bind(structure)
        if (self.exits, self.n_classes) != (len(structure.names), structure.n_classes):
            raise PolicyError(
                f"an ensemble of {self.exits} exits and {self.n_classes} classes was given to {len(structure.names)} "
                f"exits and {structure.n_classes} classes.",
                todo="Fit the policy on this model's own log.",
            )

    def predict(self, node: int, signals: Signals) -> Tensor:
        """(n, C) log q_k; the final head's own logits at the end."""
        if node == self.exits - 1:
            return signals.logits
        if signals.history is None:
            raise ValueError("an ensemble needs the history of the exits visited")
        return self._ensemble(node, signals.history[:, : node + 1].log_softmax(-1))

    def _ensemble(self, node: int, log_p: Tensor) -> Tensor:
        weights = self.log_weights[node].exp() / (node + 1)
        mean = log_p.transpose(1, 2) @ weights
        log_q: Tensor = (mean + self.biases[node]).log_softmax(-1)
        return log_q

    def margin(self, node: int, signals: Signals) -> Tensor:
        """Threshold minus score: > 0 goes on, equal leaves."""
        return self.threshold - self.score(node, signals)

    def score(self, node: int, signals: Signals) -> Tensor:
        """(n,) the ensemble's top probability."""
        return self.predict(node, signals).amax(-1).exp()

    @classmethod
    def fit(
        cls,
        log: CalibrationLog,
        *,
        drop: float = 0.005,
        penalty: float = 1e-3,
        iterations: int = 50,
        grid: int = 100,
        seed: int = 0,
    ) -> Self:
        """Weights by cross-entropy, then the cheapest t within `drop` of the most accurate node.

        Args:
            drop: accuracy fraction that may be lost.
            penalty: of ‖w‖² and ‖b‖², added to the mean cross-entropy.
            iterations: of L-BFGS an exit.
            grid: quantiles of the top probabilities tried for t.

        Raises:
            CalibrationError: fewer than 50 samples.
            PolicyError: the log is not of a chain.
        """
        log.require(50, "fit an ensemble")
        policy = cls(len(log.structure.names), log.structure.n_classes)
        policy.bind(log.structure)
        log_p = log.logits.log_softmax(-1)
        for k in range(policy.exits - 1):
            policy._fit_exit(k, log_p[:, : k + 1], log.labels, penalty, iterations)
        policy.requires_grad_(False)
        tops, correct = score_table(policy, log)
        points = [chain_point(log, correct, tops >= t, t) for t in _candidates(tops, grid)]
        return policy.at(cheapest_within(points, log.best_accuracy - drop).setting)

    def _fit_exit(self, node: int, log_p: Tensor, labels: Tensor, penalty: float, iterations: int) -> None:
        learned = [self.log_weights[node], self.biases[node]]
        optimiser = torch.optim.LBFGS(learned, max_iter=iterations, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimiser.zero_grad()
            size = torch.cat(learned).square().sum()
            value: Tensor = F.nll_loss(self._ensemble(node, log_p), labels) + penalty * size
            value.backward()  # type: ignore[no-untyped-call]
            return value

        with torch.enable_grad():
            optimiser.step(loss)  # type: ignore[no-untyped-call]

    @classmethod
    def family(cls, log: CalibrationLog, *, seed: int = 0) -> list[Self]:
        """One ensemble at about 25 thresholds, cheap to dear."""
        policy = cls.fit(log, seed=seed)
        return [policy.at(t) for t in _candidates(score_table(policy, log)[0], 25)]

    def describe(self) -> dict[str, Any]:
        """Sizes and the threshold."""
        return {"threshold": self.threshold, "exits": self.exits, "n_classes": self.n_classes}


def _candidates(tops: np.ndarray, grid: int) -> list[float]:
    """Quantiles of the top probabilities over all exits, rising, and one that nobody reaches."""
    at = np.linspace(0, 1, grid)
    return [*np.unique(np.quantile(tops, at, method="nearest")).tolist(), _NEVER]
