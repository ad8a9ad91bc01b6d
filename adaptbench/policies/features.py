"""What a fitted policy sees of a prediction: sorted probabilities and three summaries; classes have no names."""

from __future__ import annotations

import torch
from torch import Tensor

from adaptbench.adaptive.outcome import Signals

MAX_SORTED = 10


def confidence_features(signals: Signals) -> Tensor:
    """(n, min(C, 10) + 3): probabilities in falling order, their first gap, normalised entropy, log-odds of the top.

    The log-odds keep apart what a saturated softmax no longer does; clamped to ±12 so that they stay finite.
    """
    p = signals.probabilities
    top = p.topk(min(p.shape[-1], MAX_SORTED), dim=-1).values
    lead = top[:, :1].clamp(1e-6, 1 - 1e-6)
    odds = (lead / (1 - lead)).log() / 12.0
    return torch.cat([top, top[:, :1] - top[:, 1:2], signals.entropy[:, None], odds], dim=1)


def feature_width(n_classes: int) -> int:
    """Columns of `confidence_features`."""
    return min(n_classes, MAX_SORTED) + 3
