"""Signs of blurred noise: round patches of one sign, of a size that is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from adaptbench.attacks.pattern_kinds import PatternKind, signs_of
from adaptbench.attacks.patterns import Draws
from adaptbench.attacks.ranges import real


@dataclass(frozen=True, slots=True)
class BlurredNoise(PatternKind):
    """The sign of uniform noise after a Gaussian blur, whose width is drawn evenly on a scale of logarithms.

    Args:
        finest, coarsest: standard deviation of the blur, a share of the picture's shorter side.
    """

    name: ClassVar[str] = "blurred-noise"
    finest: Annotated[float, real(0, 1, open_low=True)] = 1 / 28
    coarsest: Annotated[float, real(0, 1, open_low=True)] = 1 / 5

    def __post_init__(self) -> None:
        if self.finest > self.coarsest:
            raise ValueError(f"finest is at most coarsest; seen: {self.finest:g} and {self.coarsest:g}")

    def draw(self, draws: Draws) -> Tensor:
        """Every channel's own noise, one width for all of them."""
        c, h, w = draws.clean.shape[1:]
        noise = draws.uniform(c, h, w) - 0.5
        share = self.finest * (self.coarsest / self.finest) ** draws.uniform(1)
        width = (share * min(h, w)).view(-1, 1, 1)
        return signs_of(_kernel(h, width)[:, None] @ noise @ _kernel(w, width)[:, None])


def _kernel(length: int, width: Tensor) -> Tensor:
    """(N, length, length): what each place takes from each, not normalised, since signs are all that is left.

    Args:
        width: (N, 1, 1) in pixels.
    """
    places = torch.arange(length, device=width.device, dtype=width.dtype)
    return torch.exp(-((places[:, None] - places) ** 2) / (2 * width**2))
