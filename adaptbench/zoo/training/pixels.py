"""Nets that answer every pixel: all exits together, on pictures that stay where their labels are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptbench.adaptive import PixelExits
from adaptbench.adaptive.splits import IGNORED
from adaptbench.errors import UsageError
from adaptbench.zoo.training.loop import fit
from adaptbench.zoo.training.phase import Phase
from adaptbench.zoo.training.session import Session


@dataclass(frozen=True, slots=True)
class PixelTraining:
    """A segmentation net and all its exits from scratch, Σ of their mean cross-entropies over labelled pixels.

    Args:
        weights: of the exits.
    """

    phase: Phase
    weights: tuple[float, ...] = (0.4, 0.6, 0.8, 1.0)

    def __call__(self, net: PixelExits, needed: Sequence[Any], session: Session) -> None:
        """No part is needed.

        Raises:
            UsageError: pictures would be moved or resized away from their labels.
        """
        if self.phase.augment != "none" or self.phase.sizes:
            raise UsageError(
                f"augment='{self.phase.augment}' and sizes={self.phase.sizes} were asked of pictures with a label for "
                "every pixel.",
                why="Pictures alone are moved, and labels would lie beside what they name.",
                todo="Leave both out.",
            )
        session.run("", fit, net, self.phase, all_exits(self.weights))


def all_exits(weights: Sequence[float]) -> Any:
    """Σ wₖ · cross-entropy of exit k over the pixels that count. weights: one an exit."""

    def loss(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        assert isinstance(net, PixelExits)
        value = torch.zeros((), device=x.device)
        for weight, logits in zip(weights, net.answers(x).unbind(1), strict=True):
            value = value + weight * F.cross_entropy(logits.float(), y.long(), ignore_index=IGNORED)
        return value

    return loss
