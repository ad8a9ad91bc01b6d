"""A small net that makes a change for a picture in one pass: what an attacker trains who has no time later on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptbench.attacks.disjoint import FEWEST
from adaptbench.attacks.ranges import UNSAID, Steps, count, real
from adaptbench.attacks.searches import Search

SIZE = 1.5
"""Root mean square of a change in the variables of tanh: near the edge of the ball, and never beyond any slope."""


@dataclass(frozen=True, slots=True)
class Generator(Search):
    """x' = middle + half width · tanh(w(x) + G(x)), w(x) the clean picture's own variable: none leaves box or ball.

    G is trained by Adam on the mean loss of batches, its step falling to 0 in a straight line.

    Args:
        steps: of training. lr: of the first of them. batch: pictures a step.
        pictures: of the crafting set that are used, at most. width: channels at full resolution.
        refine: steps down the objective's gradient from the generator's picture, the dearest of all kept (see
            `refined`). refine_step: how far each goes, in radii of the ball.
    """

    name: ClassVar[str] = "generator"
    steps: Steps = 400
    lr: Annotated[float, real(0, 1, open_low=True)] = 0.003
    batch: Annotated[int, count(1, 4096)] = 32
    pictures: Annotated[int, count(FEWEST, 1_000_000)] = 2000
    width: Annotated[int, count(1, 512)] = 16
    refine: Annotated[int, count(0, 1000)] = field(default=0, metadata=UNSAID)
    refine_step: Annotated[float, real(0, 2, open_low=True)] = field(default=1.0, metadata=UNSAID)


class PictureGenerator(nn.Module):
    """(N, C, H, W) in [0, 1] → as many changes of one size: convolutions at full and half size, and one map for all.

    Args:
        shape: (C, H, W). width: channels at full size; twice as many at half of it.
    """

    def __init__(self, shape: tuple[int, int, int], width: int) -> None:
        super().__init__()
        self.into = nn.Conv2d(shape[0], width, 3, padding=1)
        self.down = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.middle = nn.ModuleList(nn.Conv2d(2 * width, 2 * width, 3, padding=1) for _ in range(2))
        self.out = nn.Conv2d(3 * width, shape[0], 3, padding=1)
        self.shared = nn.Parameter(torch.zeros(1, *shape))  # convolutions know no place; a change for all is one

    def forward(self, x: Tensor) -> Tensor:
        """Changes in the variables of `Constraint.squash`."""
        wide = F.relu(self.into(2 * x - 1))
        half = F.relu(self.down(wide))
        for layer in self.middle:
            half = half + F.relu(layer(half))
        back = F.interpolate(half, size=wide.shape[-2:], mode="nearest")
        change = self.out(torch.cat([wide, back], 1)) + self.shared
        size = change.square().mean((1, 2, 3), keepdim=True).add(1e-12).sqrt()
        laid: Tensor = SIZE * change / size
        return laid
