"""The small nets of the three systems, sized by a table: 8×8 digits, 28×28 garments, 32×32 colour pictures.

The table names channels and depths; MACs follow from it and are counted, never written down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from adaptbench.adaptive import Block, FeedForwardGates, GatedNetwork, ImageDomain, MultiExit, Normalise
from adaptbench.adaptive.halting import HaltingNetwork
from adaptbench.adaptive.pooling import MeanPool
from adaptbench.adaptive.token_network import TokenNetwork
from adaptbench.models.blocks import ResidualBlock, classifier, conv_bn, conv_classifier, residual_body
from adaptbench.models.vit import halting_vit, sampling_vit


@dataclass(frozen=True, slots=True)
class SmallNets:
    """The nets for one kind of picture.

    Args:
        shape: (C, H, W). n_classes: C.
        mean, std: of the training pixels in [0, 1], a channel each.
        kernel, stride: of the stem.
        widths: for each net of the ladder (stem width, blocks before halving, width after, blocks after).
        exits: of the multi-exit net (stem width, width after halving, hidden width of the first heads).
        gates: of the skipnet (stem width, width after halving, blocks on each side).
        vit: of the transformer (stem width, width, heads, blocks). samples: of its tokens, where they are sampled.
    """

    kind: ClassVar[str] = "small"
    shape: tuple[int, int, int]
    n_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    kernel: int
    stride: int
    widths: dict[str, tuple[int, int, int, int]]
    exits: tuple[int, int, int]
    gates: tuple[int, int, int]
    vit: tuple[int, int, int, int]
    samples: int

    @property
    def domain(self) -> ImageDomain:
        """Pictures in [0, 1]."""
        return ImageDomain(self.shape)

    def normalise(self) -> Normalise:
        """The normaliser that stands first in every net."""
        return Normalise(self.mean, self.std)

    def net(self, name: str) -> nn.Sequential:
        """One net of the ladder: stem, residual blocks, a strided step, residual blocks, linear."""
        width, before, wide, after = self.widths[name]
        return nn.Sequential(
            self.normalise(),
            conv_bn(self.shape[0], width, self.kernel, self.stride),
            *(ResidualBlock(width, width) for _ in range(before)),
            conv_bn(width, wide, stride=2) if not after else ResidualBlock(width, wide, stride=2),
            *(ResidualBlock(wide, wide) for _ in range(max(0, after - 1))),
            classifier(wide, self.n_classes, pool=2),
        )

    def ladder(self) -> dict[str, nn.Module]:
        """All nets of the ladder, fresh, cheapest first."""
        return {name: self.net(name) for name in self.widths}

    def multi_exit(self) -> MultiExit:
        """Four exits on one residual net: after the stem, after a block, after halving, at the end."""
        width, wide, hidden = self.exits
        stages = [
            nn.Sequential(self.normalise(), conv_bn(self.shape[0], width, self.kernel, self.stride)),
            ResidualBlock(width, width),
            nn.Sequential(ResidualBlock(width, wide, stride=2)),
            nn.Sequential(ResidualBlock(wide, wide), ResidualBlock(wide, wide)),
        ]
        heads = [
            conv_classifier(width, hidden, self.n_classes),
            conv_classifier(width, 2 * hidden, self.n_classes),
            classifier(wide, self.n_classes, pool=2),
            classifier(wide, self.n_classes, pool=2),
        ]
        return MultiExit(stages, heads, input_shape=self.shape)

    def skipnet(self) -> GatedNetwork:
        """Residual net with a feed-forward gate before every block that keeps its shape (after Wang et al. 2018)."""
        width, wide, depth = self.gates
        blocks = [
            *(Block(f"block{i + 1}", residual_body(width, width), after=nn.ReLU()) for i in range(depth)),
            Block(
                "down", residual_body(width, wide, 2), conv_bn(width, wide, 1, 2, relu=False), nn.ReLU(), gated=False
            ),
            *(Block(f"block{depth + i + 1}", residual_body(wide, wide), after=nn.ReLU()) for i in range(depth)),
        ]
        gates = [_gate(width) for _ in range(depth)] + [nn.Identity()] + [_gate(wide) for _ in range(depth)]
        return GatedNetwork(
            stem=nn.Sequential(self.normalise(), conv_bn(self.shape[0], width, self.kernel, self.stride)),
            blocks=blocks,
            head=classifier(wide, self.n_classes, pool=2),
            gates=FeedForwardGates(gates),
            domain=self.domain,
            n_classes=self.n_classes,
        )

    def act(self) -> HaltingNetwork:
        """Residual net of two stages that halt, of the skipnet's widths and units."""
        width, wide, depth = self.gates
        return HaltingNetwork(
            stem=nn.Sequential(self.normalise(), conv_bn(self.shape[0], width, self.kernel, self.stride)),
            stages=[
                ([ResidualBlock(width, width) for _ in range(depth + 1)], width),
                ([ResidualBlock(width if j == 0 else wide, wide, 2 if j == 0 else 1) for j in range(depth + 1)], wide),
            ],
            head=classifier(wide, self.n_classes, pool=2),
            domain=self.domain,
            n_classes=self.n_classes,
        )

    def a_vit(self) -> TokenNetwork:
        """A transformer whose tokens leave between its blocks; two convolutions make a token of every place."""
        first, width, heads, depth = self.vit
        side = _halved(_halved(self.shape[1]) if self.stride == 2 else self.shape[1])
        return halting_vit(
            nn.Sequential(
                self.normalise(),
                conv_bn(self.shape[0], first, self.kernel, self.stride),
                conv_bn(first, width, stride=2),
            ),
            width,
            side * side,
            width=width,
            heads=heads,
            depth=depth,
            domain=self.domain,
            n_classes=self.n_classes,
        )

    def ats(self) -> TokenNetwork:
        """The same transformer, its tokens sampled."""
        return sampling_vit(self.a_vit(), self.samples)


def _halved(side: int) -> int:
    """Of a padded convolution of stride two."""
    return (side + 1) // 2


def _gate(channels: int) -> nn.Sequential:
    """Pooled features to one margin; batch norm keeps it straddling zero, so that a gate never dies on one side."""
    return nn.Sequential(
        MeanPool(2),
        nn.Flatten(),
        nn.Linear(4 * channels, 16),
        nn.ReLU(),
        nn.Linear(16, 1, bias=False),
        nn.BatchNorm1d(1),
    )


SMALL_NETS = {
    "digits": SmallNets(
        shape=(1, 8, 8),
        n_classes=10,
        mean=(0.305,),
        std=(0.376,),
        kernel=3,
        stride=1,
        widths={"small": (4, 0, 8, 0), "medium": (8, 0, 16, 1), "large": (16, 1, 32, 2)},
        exits=(12, 24, 8),
        gates=(12, 24, 3),
        vit=(16, 32, 2, 4),
        samples=64,
    ),
    "fashion-mnist": SmallNets(
        shape=(1, 28, 28),
        n_classes=10,
        mean=(0.286,),
        std=(0.353,),
        kernel=5,
        stride=2,
        widths={"small": (12, 0, 24, 0), "medium": (16, 1, 32, 0), "large": (20, 2, 40, 2)},
        exits=(20, 40, 16),
        gates=(16, 32, 3),
        vit=(24, 64, 2, 6),
        samples=294,
    ),
}
