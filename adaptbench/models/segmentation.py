"""A small segmentation net with an exit for every pixel after each of its stages: residual, dilated, one fine skip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from adaptbench.adaptive import ImageDomain, Normalise, PixelExits
from adaptbench.models.blocks import conv_bn

Scales = tuple[Tensor, Tensor]
"""Features at half the input's side, (N, F, H/2, W/2), and at a quarter, (N, D, H/4, W/4)."""


class DilatedBlock(nn.Module):
    """ReLU(shortcut(h) + body(h)), both 3×3 convolutions of the body dilated (Yu & Koltun, ICLR 2016).

    Args:
        inputs, outputs: channels. stride: of the first convolution and the shortcut. dilation: of the body.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, padding=dilation, dilation=dilation, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=dilation, dilation=dilation, bias=False),
            nn.BatchNorm2d(outputs),
        )
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else conv_bn(inputs, outputs, 1, stride, relu=False)
        self.relu = nn.ReLU()

    def forward(self, h: Tensor) -> Tensor:
        """(N, inputs, H, W) → (N, outputs, H/stride, W/stride)."""
        out: Tensor = self.relu(self.shortcut(h) + self.body(h))
        return out


class Entry(nn.Module):
    """The first stage: fine features at half the side, coarse ones at a quarter.

    Args:
        normalise: stands first. fine, coarse: channels.
    """

    def __init__(self, normalise: nn.Module, channels: int, fine: int, coarse: int) -> None:
        super().__init__()
        self.fine = nn.Sequential(normalise, conv_bn(channels, fine, stride=2), DilatedBlock(fine, fine))
        self.coarse = DilatedBlock(fine, coarse, stride=2)

    def forward(self, x: Tensor) -> Scales:
        """(N, C, H, W) → features at both scales."""
        fine = self.fine(x)
        return fine, self.coarse(fine)


class Deeper(nn.Module):
    """A further stage: the coarse features go on, the fine ones are handed through.

    Args:
        blocks: on the coarse features.
    """

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)

    def forward(self, features: Scales) -> Scales:
        """Features at both scales → the same."""
        fine, coarse = features
        return fine, self.blocks(coarse)


class PixelHead(nn.Module):
    """Logits at every pixel: coarse features, enlarged and added to the fine ones; one convolution; enlarged again.

    Args:
        fine, coarse: channels. n_classes: C.
    """

    def __init__(self, fine: int, coarse: int, n_classes: int) -> None:
        super().__init__()
        self.narrow = conv_bn(coarse, fine, 1, relu=False)
        self.mix = conv_bn(fine, fine)
        self.classes = nn.Conv2d(fine, n_classes, 1)

    def forward(self, features: Scales) -> Tensor:
        """Features at both scales → (N, C, H, W) of the input's side."""
        fine, coarse = features
        h = F.relu(fine + _twice(self.narrow(coarse)))
        return _twice(self.classes(self.mix(h)))


def _twice(h: Tensor) -> Tensor:
    """(N, C, H, W) → (N, C, 2H, 2W), bilinear."""
    return F.interpolate(h, scale_factor=2, mode="bilinear", align_corners=False)


@dataclass(frozen=True, slots=True)
class PixelNets:
    """The nets for one data set with a label for every pixel.

    Args:
        shape: (C, H, W), sides a multiple of four. n_classes: C.
        mean, std: about those of the training pixels in [0, 1], a channel each.
        fine: channels at half the side. coarse: channels at a quarter, a stage each.
        dilations: of the blocks of each further stage.
    """

    kind: ClassVar[str] = "pixels"
    shape: tuple[int, int, int]
    n_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fine: int = 12
    coarse: tuple[int, ...] = (24, 24, 32, 40)
    dilations: tuple[tuple[int, ...], ...] = ((2,), (2,), (4, 1))

    @property
    def domain(self) -> ImageDomain:
        """Pictures in [0, 1]."""
        return ImageDomain(self.shape)

    def exits(self) -> PixelExits:
        """Four stages, an exit for every pixel after each."""
        stages: list[nn.Module] = [Entry(Normalise(self.mean, self.std), self.shape[0], self.fine, self.coarse[0])]
        for before, width, dilations in zip(self.coarse[:-1], self.coarse[1:], self.dilations, strict=True):
            inputs = [before, *[width] * (len(dilations) - 1)]
            stages.append(Deeper(*(DilatedBlock(i, width, dilation=d) for i, d in zip(inputs, dilations, strict=True))))
        heads = [PixelHead(self.fine, width, self.n_classes) for width in self.coarse]
        return PixelExits(stages, heads, input_shape=self.shape)


PIXEL_NETS = {"pasted-digits": PixelNets((3, 32, 32), 11, (0.496, 0.505, 0.507), (0.236, 0.238, 0.239))}
"""Data set → nets."""
