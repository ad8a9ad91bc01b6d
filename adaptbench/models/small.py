"""The small nets of the three systems, sized by a plan: 8×8 digits, 28×28 garments, 32×32 colour pictures.

A plan names channels and depths; MACs follow from it and are counted, never written down.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from adaptbench.adaptive import Block, FeedForwardGates, GatedNetwork, ImageDomain, MultiExit, Normalise
from adaptbench.models.blocks import ResidualBlock, classifier, conv_bn, conv_classifier, residual_body


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes for one kind of picture.

    Args:
        shape: (C, H, W). n_classes: C.
        mean, std: of the training pixels in [0, 1], a channel each.
        kernel, stride: of the stem.
        ladder: for each net (stem width, blocks before halving, width after, blocks after).
        multi_exit: (stem width, width after halving, hidden width of the first heads).
        gated: (stem width, width after halving, blocks on each side).
    """

    shape: tuple[int, int, int]
    n_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    kernel: int
    stride: int
    ladder: dict[str, tuple[int, int, int, int]]
    multi_exit: tuple[int, int, int]
    gated: tuple[int, int, int]

    @property
    def domain(self) -> ImageDomain:
        """Pictures in [0, 1]."""
        return ImageDomain(self.shape)

    def normalise(self) -> Normalise:
        """The normaliser that stands first in every net."""
        return Normalise(self.mean, self.std)


PLANS = {
    "digits": Plan(
        shape=(1, 8, 8),
        n_classes=10,
        mean=(0.305,),
        std=(0.376,),
        kernel=3,
        stride=1,
        ladder={"small": (4, 0, 8, 0), "medium": (8, 0, 16, 1), "large": (16, 1, 32, 2)},
        multi_exit=(12, 24, 8),
        gated=(12, 24, 3),
    ),
    "fashion-mnist": Plan(
        shape=(1, 28, 28),
        n_classes=10,
        mean=(0.286,),
        std=(0.353,),
        kernel=5,
        stride=2,
        ladder={"small": (12, 0, 24, 0), "medium": (16, 1, 32, 0), "large": (20, 2, 40, 2)},
        multi_exit=(20, 40, 16),
        gated=(16, 32, 3),
    ),
}


def ladder_net(plan: Plan, name: str) -> nn.Sequential:
    """One net of the ladder: stem, residual blocks, a strided step, residual blocks, linear."""
    width, before, wide, after = plan.ladder[name]
    return nn.Sequential(
        plan.normalise(),
        conv_bn(plan.shape[0], width, plan.kernel, plan.stride),
        *(ResidualBlock(width, width) for _ in range(before)),
        conv_bn(width, wide, stride=2) if not after else ResidualBlock(width, wide, stride=2),
        *(ResidualBlock(wide, wide) for _ in range(max(0, after - 1))),
        classifier(wide, plan.n_classes, pool=2),
    )


def ladder(plan: Plan) -> dict[str, nn.Module]:
    """All nets of the ladder, cheapest first."""
    return {name: ladder_net(plan, name) for name in plan.ladder}


def multi_exit(plan: Plan) -> MultiExit:
    """Four exits on one residual net: after the stem, after a block, after halving, at the end."""
    width, wide, hidden = plan.multi_exit
    stages = [
        nn.Sequential(plan.normalise(), conv_bn(plan.shape[0], width, plan.kernel, plan.stride)),
        ResidualBlock(width, width),
        nn.Sequential(ResidualBlock(width, wide, stride=2)),
        nn.Sequential(ResidualBlock(wide, wide), ResidualBlock(wide, wide)),
    ]
    heads = [
        conv_classifier(width, hidden, plan.n_classes),
        conv_classifier(width, 2 * hidden, plan.n_classes),
        classifier(wide, plan.n_classes, pool=2),
        classifier(wide, plan.n_classes, pool=2),
    ]
    return MultiExit(stages, heads, input_shape=plan.shape)


def skipnet(plan: Plan) -> GatedNetwork:
    """Residual net with a feed-forward gate before every block that keeps its shape (after Wang et al. 2018)."""
    width, wide, depth = plan.gated
    blocks = [
        *(Block(f"block{i + 1}", residual_body(width, width), after=nn.ReLU()) for i in range(depth)),
        Block("down", residual_body(width, wide, 2), conv_bn(width, wide, 1, 2, relu=False), nn.ReLU(), gated=False),
        *(Block(f"block{depth + i + 1}", residual_body(wide, wide), after=nn.ReLU()) for i in range(depth)),
    ]
    gates = [_gate(width) for _ in range(depth)] + [nn.Identity()] + [_gate(wide) for _ in range(depth)]
    return GatedNetwork(
        stem=nn.Sequential(plan.normalise(), conv_bn(plan.shape[0], width, plan.kernel, plan.stride)),
        blocks=blocks,
        head=classifier(wide, plan.n_classes, pool=2),
        gates=FeedForwardGates(gates),
        domain=plan.domain,
        n_classes=plan.n_classes,
    )


def _gate(channels: int) -> nn.Sequential:
    """Pooled features to one margin; batch norm keeps it straddling zero, so that a gate never dies on one side."""
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * channels, 16),
        nn.ReLU(),
        nn.Linear(16, 1, bias=False),
        nn.BatchNorm1d(1),
    )
