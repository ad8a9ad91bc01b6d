"""What a model accepts: pictures with bounds, the normaliser inside; text lies in `tokens`, series in `series`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adaptbench.adaptive.series import SeriesDomain
from adaptbench.adaptive.tokens import TokenDomain
from adaptbench.errors import CapabilityError, DomainError


@dataclass(frozen=True, slots=True)
class ImageDomain:
    """Pictures (C, H, W) with values in [low, high].

    Raises (from `check`):
        DomainError: wrong shape, empty batch, not floating, out of bounds or not finite.
    """

    shape: tuple[int, int, int]
    low: float = 0.0
    high: float = 1.0

    def check(self, x: Tensor) -> None:
        """Refuse what the model was not made for."""
        if x.ndim != 4 or tuple(x.shape[1:]) != self.shape:
            raise DomainError(
                f"an input of shape {tuple(x.shape)} was given to a model that takes "
                f"(N, {', '.join(map(str, self.shape))}).",
                todo="Resize or reorder the pictures; a single one needs x[None].",
            )
        if len(x) == 0:
            raise DomainError("an empty batch was given.", todo="Give at least one picture.")
        if not x.is_floating_point():
            raise DomainError(
                f"an input of type {x.dtype} was given.",
                todo=f"Give floating values in [{self.low:g}, {self.high:g}] (uint8 pictures: x / 255).",
            )
        low, high = torch.aminmax(x.detach())
        # a hair of slack: tanh space and clamps round in float32
        if not (low >= self.low - 1e-6 and high <= self.high + 1e-6):
            raise DomainError(
                f"input values span [{low.item():.4g}, {high.item():.4g}]; "
                f"the model declares [{self.low:g}, {self.high:g}].",
                why="The normaliser is inside the model: an input normalised outside is normalised twice.",
                todo="Give raw pictures scaled to the declared bounds.",
            )

    def clamp(self, x: Tensor) -> Tensor:
        """The nearest input inside the bounds."""
        return x.clamp(self.low, self.high)

    def drawn(self, n: int, generator: torch.Generator) -> Tensor:
        """(n, C, H, W) noise within the bounds."""
        noise = torch.rand((n, *self.shape), generator=generator)
        return self.clamp(self.low + (self.high - self.low) * noise)


Domain = ImageDomain | TokenDomain | SeriesDomain


def pictures_of(domain: Domain, what: str) -> ImageDomain:
    """The domain, where it is one of pictures.

    Args:
        what: that needs pictures, for the message.

    Raises:
        CapabilityError: it is not.
    """
    if not isinstance(domain, ImageDomain):
        raise CapabilityError(
            f"{what} was asked of a model of {'series' if isinstance(domain, SeriesDomain) else 'text'}.",
            why="It changes the values of pixels, which have levels in [0, 1]; series have a unit of their own."
            if isinstance(domain, SeriesDomain)
            else "It changes the values of pixels; token ids are names, and a name has no neighbour by value.",
            todo="Take one that is made for series (docs/series.md)."
            if isinstance(domain, SeriesDomain)
            else "Take an attack or a defence that is made for text (docs/text.md).",
        )
    return domain


class Normalise(nn.Module):
    """(x − mean) / std, a channel at a time, as the first layer of a net.

    Args:
        mean, std: one value a channel, in the units of the declared domain.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, H, W)."""
        return (x - self.mean) / self.std


def pictures_like(weight: Tensor, domain: Domain, n: int = 1) -> Tensor:
    """(n, …) inputs drawn from a domain, the same every time, on a weight's device; pictures are of its type."""
    drawn = domain.drawn(n, torch.Generator().manual_seed(0))
    return drawn.to(weight) if drawn.is_floating_point() else drawn.to(weight.device)
