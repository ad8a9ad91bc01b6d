"""Kinds of patterns of signs that a search may ask about, each drawn without looking at an answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from adaptbench.attacks.patterns import Draws, coarse, contours
from adaptbench.attacks.ranges import real


class PatternKind(ABC):
    """Draws directions of change; an input's own by seed and id, as every draw of a `Campaign` is.

    It may look at the attacker's own picture (`Draws.clean`), and asks nothing.
    """

    name: ClassVar[str]

    @abstractmethod
    def draw(self, draws: Draws) -> Tensor:
        """One pattern an input.

        Returns:
            (N, C, H, W) float, ±1.
        """


@dataclass(frozen=True, slots=True)
class ContourSigns(PatternKind):
    """`contours`: coarse signs that follow the bright and dark parts of the picture."""

    name: ClassVar[str] = "contours"

    def draw(self, draws: Draws) -> Tensor:
        """Of three kinds."""
        return contours(draws)


@dataclass(frozen=True, slots=True)
class CoarseSigns(PatternKind):
    """`coarse`: squares and stripes, whatever the picture shows.

    Args:
        finest: the smallest side of a square, a share of the picture's. stripes: share of patterns.
    """

    name: ClassVar[str] = "coarse"
    finest: Annotated[float, real(0, 1)] = 1 / 7
    stripes: Annotated[float, real(0, 1)] = 0.5

    def draw(self, draws: Draws) -> Tensor:
        """At a scale of its own."""
        return coarse(draws, self.finest, self.stripes)


def signs_of(values: Tensor) -> Tensor:
    """±1 each; of nothing, 1."""
    return torch.where(values < 0, -1.0, 1.0)
