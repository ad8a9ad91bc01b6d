"""CIFAR ResNets whose stages halt; the arithmetic of halting is the core's."""

from __future__ import annotations

from torch import nn

from adaptbench.adaptive import ImageDomain
from adaptbench.adaptive.halting import HaltingNetwork
from adaptbench.models.resnet import WIDTHS, resnet


def halting_resnet(depth: int, n_classes: int, statistics: str = "cifar10", side: int = 32) -> HaltingNetwork:
    """A CIFAR ResNet whose three stages halt.

    Args:
        depth: 6n + 2. n_classes: C. statistics: whose pixel statistics the normaliser holds. side: pixels a side.
    """
    parts = dict(resnet(depth, n_classes, statistics).named_children())
    stages = [
        [unit for name, unit in parts.items() if name.startswith(f"stage{s}_")] for s in range(1, len(WIDTHS) + 1)
    ]
    return HaltingNetwork(
        stem=nn.Sequential(parts["normalise"], parts["stem"]),
        stages=list(zip(stages, WIDTHS, strict=True)),
        head=parts["head"],
        domain=ImageDomain((3, side, side)),
        n_classes=n_classes,
    )
