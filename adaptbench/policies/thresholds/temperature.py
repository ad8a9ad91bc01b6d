"""Temperature scaling: one scalar an exit that makes its confidence honest (Guo et al. 2017)."""

from __future__ import annotations

import torch
from torch import Tensor

from adaptbench.adaptive.log import CalibrationLog

_LOWEST, _HIGHEST = -3.0, 3.0  # of log T: e³ ≈ 20
_HALVINGS = 40


def fit_temperatures(log: CalibrationLog) -> Tensor:
    """(V,) T > 0 that minimises the cross-entropy of softmax(z / T) at each node, by bisection of its derivative.

    The loss is convex in 1/T, so the derivative in log T changes sign once.
    """
    logs = []
    for v in range(log.logits.shape[1]):
        z = log.logits[:, v].double()
        target = z.gather(1, log.labels[:, None]).squeeze(1)
        low, high = _LOWEST, _HIGHEST
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            inverse = float(torch.exp(torch.tensor(-middle, dtype=torch.float64)))
            # d CE / d(1/T) = E[z_expected − z_label]: positive where the net is still too sure
            slope = ((z * inverse).softmax(1) * z).sum(1).sub(target).mean()
            low, high = (middle, high) if slope > 0 else (low, middle)
        logs.append((low + high) / 2)
    return torch.tensor(logs).exp().float()
