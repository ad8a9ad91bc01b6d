"""What a fitted policy sees of a prediction: sorted probabilities and three summaries; classes have no names."""

from __future__ import annotations

import math
from collections.abc import Sequence

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


HISTORY_WIDTH = 4


def history_features(signals: Signals, before: Sequence[int]) -> Tensor:
    """(n, 4): how this prediction stands to those of earlier nodes.

    Share of earlier nodes that predict the same class (soft: the probability they give it, averaged and at worst), the
    top of the average of all predictions, and its entropy. Without earlier nodes: this node's own.

    Args:
        signals: with history.
        before: nodes that every way here has visited.
    """
    p = signals.probabilities
    if not before or signals.history is None:
        lead = p.amax(-1)
        return torch.stack([lead, lead, lead, signals.entropy], 1)
    earlier = signals.history[:, list(before)].softmax(-1)
    chosen = p.argmax(-1)[:, None, None].expand(-1, len(before), 1)
    agreed = earlier.gather(-1, chosen).squeeze(-1)
    mean = (earlier.sum(1) + p) / (len(before) + 1)
    spread = -(mean * mean.clamp_min(1e-12).log()).sum(-1) / math.log(mean.shape[-1])
    return torch.stack([agreed.mean(1), agreed.amin(1), mean.amax(-1), spread], 1)
