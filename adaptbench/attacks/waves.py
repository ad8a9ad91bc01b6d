"""Signs of waves: stripes of one period at any angle."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from adaptbench.attacks.pattern_kinds import PatternKind, signs_of
from adaptbench.attacks.patterns import Draws
from adaptbench.attacks.ranges import real


@dataclass(frozen=True, slots=True)
class Waves(PatternKind):
    """The sign of one plane wave a channel, of a frequency, a direction and a phase drawn evenly.

    Args:
        highest: frequency, in cycles a pixel; half a cycle is as fine as pixels can show.
    """

    name: ClassVar[str] = "waves"
    highest: Annotated[float, real(0, 0.5, open_low=True)] = 0.5

    def draw(self, draws: Draws) -> Tensor:
        """Every channel's own."""
        c, h, w = draws.clean.shape[1:]
        frequency, angle, phase = draws.uniform(3, c, 1, 1).unbind(1)
        down = torch.arange(h, device=frequency.device).view(h, 1)
        across = torch.arange(w, device=frequency.device)
        way = torch.cos(math.pi * angle) * down + torch.sin(math.pi * angle) * across
        return signs_of(torch.sin(2 * math.pi * (self.highest * frequency * way + phase)))
