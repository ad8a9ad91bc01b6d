"""Logs with a known answer: made from wanted correctness and wanted confidences, no net behind them."""

from __future__ import annotations

import numpy as np
import torch

from adaptbench.adaptive import CalibrationLog, Structure


def chain(nodes: int, classes: int) -> Structure:
    ways = tuple((v + 1,) if v < nodes - 1 else () for v in range(nodes))
    return Structure(tuple(f"n{v}" for v in range(nodes)), ways, classes)


def logits_for(confidence: np.ndarray, predicted: np.ndarray, classes: int) -> torch.Tensor:
    """(..., C) logits whose softmax is `confidence` on `predicted` and level elsewhere."""
    confidence = np.clip(confidence, 1 / classes + 1e-6, 1 - 1e-6)
    logits = np.zeros((*confidence.shape, classes))
    np.put_along_axis(
        logits, predicted[..., None], np.log(confidence * (classes - 1) / (1 - confidence))[..., None], -1
    )
    return torch.tensor(logits, dtype=torch.float32)


def log_of(confidence, correct, *, macs, structure=None, classes=4, seed=0) -> CalibrationLog:
    """From (N, V) confidences and correctness."""
    confidence, correct = np.asarray(confidence, float), np.asarray(correct, bool)
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, len(confidence))
    wrong = (labels[:, None] + rng.integers(1, classes, confidence.shape)) % classes
    predicted = np.where(correct, labels[:, None], wrong)
    return CalibrationLog(
        logits_for(confidence, predicted, classes),
        torch.tensor(labels),
        structure or chain(confidence.shape[1], classes),
        torch.tensor(macs),
        "synthetic",
        "calibration",
        "",
    )


def random_log(n: int, nodes: int, seed: int, *, classes: int = 4, levels: int | None = None) -> CalibrationLog:
    """Right more often where confident; with `levels`, confidences tie."""
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.3, 0.999, (n, nodes))
    if levels:
        confidence = np.round(confidence * levels) / levels
    correct = rng.random((n, nodes)) < 0.2 + 0.8 * confidence
    return log_of(confidence, correct, macs=[10 * (v + 1) ** 2 for v in range(nodes)], classes=classes, seed=seed)
