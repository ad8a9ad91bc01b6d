"""DenseNet with a CIFAR stem, and exits after its dense blocks.

Huang, Liu, van der Maaten, Weinberger, "Densely Connected Convolutional Networks", CVPR 2017 (DenseNet-BC).
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

import torch
from torch import Tensor, nn

from adaptbench.adaptive import MultiExit, Normalise, Policy
from adaptbench.models.blocks import classifier
from adaptbench.models.exit_heads import attach_exits, eenet_head
from adaptbench.models.resnet import STATISTICS

BLOCKS_121 = (6, 12, 24, 16)
EXPANSION = 4


def _pre_activated(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """Batch norm, ReLU, convolution."""
    return nn.Sequential(
        nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    )


class DenseLayer(nn.Module):
    """Adds `growth` channels to what it reads: 1×1 to 4·growth, then 3×3.

    Args:
        inputs: channels before. growth: k.
    """

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        inner = EXPANSION * growth
        self.body = nn.Sequential(_pre_activated(inputs, inner, 1), _pre_activated(inner, growth, 3))

    def forward(self, h: Tensor) -> Tensor:
        """(n, inputs, H, W) → (n, inputs + growth, H, W)."""
        return torch.cat([h, self.body(h)], 1)


def densenet(
    n_classes: int,
    *,
    blocks: tuple[int, ...] = BLOCKS_121,
    growth: int = 32,
    compression: float = 0.5,
    statistics: str = "cifar10",
) -> nn.Sequential:
    """A DenseNet-BC: normalise, stem, block1, transition1, …, norm, head; DenseNet-121 by default.

    The stem is one 3×3 convolution to 2·growth channels without pooling, as is usual on 32×32 pictures.

    Args:
        n_classes: C. blocks: layers of each dense block. growth: k. compression: channels kept by a transition.
        statistics: whose pixel statistics the normaliser holds.
    """
    width = 2 * growth
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    parts["normalise"] = Normalise(*STATISTICS[statistics])
    parts["stem"] = nn.Conv2d(3, width, 3, padding=1, bias=False)
    for b, layers in enumerate(blocks, start=1):
        parts[f"block{b}"] = nn.Sequential(*(DenseLayer(width + i * growth, growth) for i in range(layers)))
        width += layers * growth
        if b < len(blocks):
            kept = int(width * compression)
            parts[f"transition{b}"] = nn.Sequential(_pre_activated(width, kept, 1), nn.AvgPool2d(2))
            width = kept
    parts["norm"] = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU())
    parts["head"] = classifier(width, n_classes)
    net = nn.Sequential(parts)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
    return net


def multi_exit_densenet(
    n_classes: int,
    *,
    blocks: tuple[int, ...] = BLOCKS_121,
    growth: int = 32,
    statistics: str = "cifar10",
    input_shape: tuple[int, int, int] = (3, 32, 32),
    policy: Policy | None = None,
) -> MultiExit:
    """A DenseNet with an EENet head after every dense block but the last, behind its transition; K = 4 for 121 layers.

    Ilhan et al., WACV 2024. Their released "DenseNet-121" grows by 12 channels a layer (about 1 M weights); growth=12
    builds it, the default is the DenseNet-121 of its own paper.
    """
    net = densenet(n_classes, blocks=blocks, growth=growth, statistics=statistics)
    after = [f"transition{b}" for b in range(1, len(blocks))]
    head = partial(eenet_head, reduction=EXPANSION)
    return attach_exits(net, head, after=after, input_shape=input_shape, policy=policy)
