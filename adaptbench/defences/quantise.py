"""Fewer grey levels: small changes of a picture are rounded away, until they are large enough to step over an edge."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from adaptbench.adaptive import AdaptiveModel
from adaptbench.adaptive.domain import pictures_of
from adaptbench.defences.base import InFront
from adaptbench.errors import UsageError


class _Rounded(torch.autograd.Function):
    """Rounds to n steps forward; backward, the gradient passes as if nothing had been rounded."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float, steps: int) -> Tensor:
        span = high - low
        return ((x - low) / span * steps).round() / steps * span + low

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, None, None, None]:
        return gradients[0], None, None, None


class Quantise(InFront):
    """Each value goes to the nearest of a few evenly spaced levels.

    Xu, Evans, Qi, "Feature Squeezing", NDSS 2018 (there as a detector, here as a transformation). Rounding has the
    derivative zero wherever it has one; the gradient passes straight through. No MACs.

    Args:
        levels: 2 … 256, the two bounds of the domain among them.

    Raises:
        UsageError: another number of levels.
    """

    name: ClassVar[str] = "quantise"

    def __init__(self, *, levels: int = 16) -> None:
        nn.Module.__init__(self)
        if isinstance(levels, bool) or not isinstance(levels, int) or not 2 <= levels <= 256:
            raise UsageError(f"levels = {levels!r} is no number of grey levels.", todo="Give 2 … 256; 16 is 4 bits.")
        self.levels = levels
        self.low, self.high = 0.0, 1.0

    def forward(self, x: Tensor) -> Tensor:
        """(n, C, H, W) → the same, on the levels."""
        return _Rounded.apply(x, self.low, self.high, self.levels - 1)  # type: ignore[no-any-return, no-untyped-call]

    def fit_into(self, model: AdaptiveModel) -> InFront:
        """With the net's own bounds."""
        own, domain = copy.copy(self), pictures_of(model.domain, f"the defence '{self.name}'")
        own.low, own.high = float(domain.low), float(domain.high)
        return own
