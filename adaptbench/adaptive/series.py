"""Series as a net takes them: channels over time, with values in a unit of their own and no levels between them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from adaptbench.errors import DomainError, UsageError


@dataclass(frozen=True, slots=True)
class SeriesDomain:
    """Series (C, T) of float32 within [low, high], in `unit`; distances are told in it, and nothing is rounded.

    Args:
        shape: (C, T). low, high: that a sensor can give. unit: of the values, for messages and records ("g", "mV").

    Raises:
        UsageError: no shape (C, T), or bounds that are no range.
        DomainError: (from `check`) wrong shape, empty batch, not floating, out of bounds or not finite.

    >>> SeriesDomain((3, 128), -2.0, 2.0, "g").drawn(2, torch.Generator()).shape
    torch.Size([2, 3, 128])
    """

    shape: tuple[int, int]
    low: float
    high: float
    unit: str = ""

    def __post_init__(self) -> None:
        sizes = tuple(self.shape)
        fits = len(sizes) == 2 and all(isinstance(n, int) and n > 0 for n in sizes)
        if not fits or not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise UsageError(
                f"series of shape {sizes} within [{self.low:g}, {self.high:g}] are none.",
                todo="Give (channels, steps) and the range of the sensor: SeriesDomain((9, 128), -2.0, 2.0).",
            )

    def check(self, x: Tensor) -> None:
        """Refuse what the model was not made for."""
        if x.ndim != 3 or tuple(x.shape[1:]) != tuple(self.shape):
            raise DomainError(
                f"an input of shape {tuple(x.shape)} was given to a model that takes series "
                f"(N, {', '.join(map(str, self.shape))}).",
                todo="Cut windows of that length, channels first; a single one needs x[None].",
            )
        if len(x) == 0:
            raise DomainError("an empty batch was given.", todo="Give at least one series.")
        if not x.is_floating_point():
            raise DomainError(
                f"an input of type {x.dtype} was given.", todo="Give floating values, in the series' unit."
            )
        low, high = torch.aminmax(x.detach())
        slack = 1e-6 * (self.high - self.low)
        if not (low >= self.low - slack and high <= self.high + slack):
            raise DomainError(
                f"input values span [{low.item():.4g}, {high.item():.4g}]; "
                f"the model declares [{self.low:g}, {self.high:g}]{f' {self.unit}' if self.unit else ''}.",
                why="The normaliser is inside the model: a series normalised outside is normalised twice.",
                todo="Give raw values, clipped to the sensor's range; or declare the range that there is.",
            )

    def clamp(self, x: Tensor) -> Tensor:
        """The nearest series inside the bounds."""
        return x.clamp(self.low, self.high)

    def drawn(self, n: int, generator: torch.Generator) -> Tensor:
        """(n, C, T) noise within the bounds."""
        noise = torch.rand((n, *self.shape), generator=generator)
        return self.clamp(self.low + (self.high - self.low) * noise)
