"""Changes in whole grey levels that a bound on their sum, or on the sum of their squares, still holds."""

from __future__ import annotations

import torch
from torch import Tensor

_HAIR = 1e-4  # levels: 2.9999 is 3


def rounded_within(wanted: Tensor, power: int, budget: float) -> Tensor:
    """The nearest levels; where they cost too much, those that were rounded up the furthest are cut instead.

    Cutting all of them would lose half a level in each value, most of a small bound that is spread over a picture.

    Args:
        wanted: (N, D) float64 grey levels within the bound. power: 1 or 2. budget: of Σ |level|^power.

    Returns:
        (N, D) float64 whole levels within the bound.
    """
    size = wanted.abs()
    low = (size + _HAIR).floor()
    part = size - low
    near = low + (part >= 0.5)
    saved = near**power - low**power
    order = torch.where(near > low, part, torch.inf).argsort(dim=1, stable=True)
    by_part = saved.gather(1, order)
    excess = (near**power).sum(1, keepdim=True) - budget
    cut = (by_part.cumsum(1) - by_part) < excess
    back = torch.zeros_like(cut).scatter_(1, order, cut)
    return wanted.sign() * torch.where(back, low, near)
