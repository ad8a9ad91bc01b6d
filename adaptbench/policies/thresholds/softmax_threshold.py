"""Confidence thresholds from residual accuracy, ε chosen at run time."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from adaptbench.adaptive.log import CalibrationLog
from adaptbench.adaptive.outcome import Signals
from adaptbench.adaptive.policy import ChainPolicy
from adaptbench.adaptive.structure import Structure
from adaptbench.errors import CalibrationError, PolicyError, UsageError
from adaptbench.policies.thresholds.temperature import fit_temperatures

_EPSILONS = (0.0, *np.geomspace(5e-4, 0.7, 40).tolist())
_NEVER = 2.0  # above every confidence and accuracy; finite, as checkpoints want it


class SoftmaxThreshold(ChainPolicy):
    """Leave at the first exit whose top softmax probability reaches that exit's threshold.

    Berestizshevsky & Even, "Dynamically Sacrificing Accuracy for Reduced Computation", 2019, algorithm 1. One
    calibration serves every ε: δ_k(ε) = min {δ : α_k(δ) ≥ α_k* − ε} is looked up, nothing is refitted.

    Deviates: α* counts only where at least `min_support` samples stand behind it (the paper takes any number), and
    samples of equal confidence are admitted together. `published` gives the rule as released.

    Args:
        confidence: (K−1, S) at which the residual accuracy first reaches a new height, rising, padded with 2.
        accuracy: (K−1, S) those heights, rising, padded with 2.
        best: (K−1,) α_k*.
        epsilon: accuracy an exit may lose against its own best, a fraction.
        top: confidence is the sum of so many largest probabilities (the released top-5 mode).
        temperature: (K−1,) that logits are divided by (default: 1).
    """

    name = "softmax-threshold"
    knob = "epsilon"
    support: ClassVar[int] = 200
    confidence: Tensor
    accuracy: Tensor
    best: Tensor
    thresholds: Tensor

    temperature: Tensor

    def __init__(
        self,
        confidence: Tensor,
        accuracy: Tensor,
        best: Tensor,
        epsilon: float = 0.01,
        *,
        top: int = 1,
        temperature: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.top = top
        self.register_buffer("confidence", confidence)
        self.register_buffer("accuracy", accuracy)
        self.register_buffer("best", best)
        self.register_buffer("temperature", torch.ones(len(best)) if temperature is None else temperature)
        self.register_buffer("thresholds", torch.zeros(len(best)), persistent=False)
        self._plain = bool((self.temperature == 1).all())
        self.set_epsilon(epsilon)

    def set_epsilon(self, epsilon: float) -> None:
        """Look the thresholds up for another ε, in place.

        Raises:
            UsageError: ε is not in [0, 1].
        """
        if not 0.0 <= epsilon <= 1.0:
            raise UsageError(
                f"ε = {epsilon} is no accuracy fraction.", todo="Give a value in [0, 1]; 0.01 is one point."
            )
        self.epsilon = float(epsilon)
        wanted = self.best - (self.epsilon + 1e-6)  # float32: an accuracy of just α* − ε must pass
        first = (self.accuracy < wanted[:, None]).sum(1, keepdim=True)
        self.thresholds.copy_(self.confidence.gather(1, first).squeeze(1))

    def bind(self, structure: Structure) -> None:
        """A chain with one threshold an exit but the last."""
        super().bind(structure)
        if len(self.best) != len(structure.names) - 1:
            raise PolicyError(
                f"{len(self.best)} thresholds were given to {len(structure.names)} exits.",
                why="Every exit but the last has a threshold; the last accepts everything.",
                todo="Fit the policy on this model's own log.",
            )

    def margin(self, node: int, signals: Signals) -> Tensor:
        """Threshold minus confidence: > 0 goes on, equal leaves."""
        if self.top == 1 and self._plain:
            return self.thresholds[node] - signals.confidence
        return self.thresholds[node] - top_mass(signals.logits / self.temperature[node], self.top)

    @classmethod
    def fit(
        cls,
        log: CalibrationLog,
        *,
        epsilon: float = 0.01,
        min_support: int | None = None,
        scaled: bool = False,
        seed: int = 0,
    ) -> Self:
        """Residual accuracies from a calibration log; a log judged by top-5 gives the top-5 mode.

        Args:
            min_support: samples that must stand behind α* (default: `support`).
            scaled: temperature-scale each exit first.

        Raises:
            CalibrationError: fewer than `min_support` samples in the log.

        >>> from adaptbench.testing import planted_graph, planted_split
        >>> net = planted_graph()
        >>> policy = SoftmaxThreshold.fit(net.log(planted_split()), epsilon=0.02)
        >>> early = net.under(policy).infer(planted_split("test", 200).images())
        >>> bool(early.macs.double().mean() < net.max_macs)
        True
        """
        min_support = cls.support if min_support is None else min_support
        if len(log) < min_support:
            raise CalibrationError(
                f"{len(log)} calibration samples; the best residual accuracy of an exit needs {min_support} behind it.",
                why="A few samples at the top confidences make α* = 1 by luck, and the thresholds over-strict.",
                todo="Give more calibration samples, or a smaller min_support and say so.",
            )
        temperature = fit_temperatures(log)[:-1] if scaled else torch.ones(log.logits.shape[1] - 1)
        scaled_logits = log.logits[:, :-1] / temperature[:, None] if scaled else log.logits[:, :-1]
        confidence, correct = top_mass(scaled_logits, log.top).double().numpy(), log.correct.numpy()
        steps = [residual_steps(confidence[:, k], correct[:, k], min_support) for k in range(confidence.shape[1])]
        width = max(len(c) for c, _, _ in steps) + 1
        table = torch.full((2, len(steps), width), _NEVER)
        for k, (c, a, _) in enumerate(steps):
            table[0, k, : len(c)] = torch.from_numpy(_not_above(c))
            table[1, k, : len(a)] = torch.from_numpy(a)
        heights = torch.tensor([best for _, _, best in steps], dtype=torch.float32)
        return cls(table[0], table[1], heights, epsilon, top=log.top, temperature=temperature)

    @classmethod
    def family(cls, log: CalibrationLog, *, seed: int = 0) -> list[Self]:
        """One calibration at 41 values of ε."""
        fitted = cls.fit(log, seed=seed)
        return [fitted.at(float(epsilon)) for epsilon in _EPSILONS]

    @classmethod
    def from_state(cls, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Rebuild from a checkpoint."""
        return cls(
            tensors["confidence"],
            tensors["accuracy"],
            tensors["best"],
            settings["epsilon"],
            top=settings.get("top", 1),
            temperature=tensors.get("temperature"),
        )

    def describe(self) -> dict[str, Any]:
        """ε and the thresholds that follow from it."""
        return {
            "epsilon": self.epsilon,
            "thresholds": [round(t, 6) for t in self.thresholds.tolist()],
            "top": self.top,
        }


class PublishedThreshold(SoftmaxThreshold):
    """The rule as released: any number of samples may stand behind α*, one lucky one included.

    The released driver calibrates on the training split; a log of it is taken, and its card says so.
    """

    name = "softmax-threshold-published"
    support = 1


def top_mass(logits: Tensor, top: int) -> Tensor:
    """(…,) sum of the `top` largest softmax probabilities. logits: (…, C)."""
    p = logits.softmax(-1)
    return p.amax(-1) if top == 1 else p.topk(min(top, p.shape[-1]), dim=-1).values.sum(-1)


def residual_steps(
    confidence: np.ndarray, correct: np.ndarray, min_support: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """Where the accuracy of everything at or above a confidence first reaches a new height.

    Args:
        confidence: (N,) of one exit. correct: (N,) bool.
        min_support: samples that must stand at or above for the height to count towards the best.

    Returns:
        confidences (S,) rising, accuracies (S,) strictly rising, and α*, the best with support.
    """
    levels = np.unique(confidence)
    order = np.argsort(confidence, kind="stable")
    right = correct[order][::-1].cumsum()[::-1]
    first = np.searchsorted(confidence[order], levels, side="left")
    support = len(confidence) - first
    alpha = right[first] / support
    best = float(alpha[support >= min_support].max())
    running = np.maximum.accumulate(alpha)
    new = np.concatenate([[True], running[1:] > running[:-1]])
    return levels[new], alpha[new], best


def _not_above(confidence: np.ndarray) -> np.ndarray:
    """float32 that never exceeds the float64 it came from: a calibration sample must reach its own threshold."""
    single = confidence.astype(np.float32)
    return np.where(single > confidence, np.nextafter(single, np.float32(-np.inf)), single)
