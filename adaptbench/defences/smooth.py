"""Blurring the picture: what changes from pixel to pixel, as most crafted noise does, is averaged out."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adaptbench.adaptive import AdaptiveModel
from adaptbench.defences.base import InFront
from adaptbench.errors import UsageError

KINDS = ("gaussian", "mean", "median")


class Smooth(InFront):
    """A Gaussian, mean or median filter over a square of pixels, the edge repeated outside.

    Xu, Evans, Qi, "Feature Squeezing", NDSS 2018, smooth locally by a median of 2 × 2 or 3 × 3. Gaussian and mean are
    two one-dimensional convolutions a channel and have their own gradient; they cost 2 · size · C · H · W MACs. The
    median's gradient goes to the pixel that was chosen; it compares and does not multiply, so it counts no MACs, and
    its time is seen by meters only.

    Args:
        size: of the square, odd. kind: "gaussian", "mean" or "median".
        sigma: of the Gaussian, in pixels (default: size / 4).

    Raises:
        UsageError: a size that is even or below 3, another kind, or a sigma that is not above 0 or not of a Gaussian.
    """

    name: ClassVar[str] = "smooth"
    window: Tensor

    def __init__(self, *, size: int = 3, kind: str = "gaussian", sigma: float | None = None) -> None:
        nn.Module.__init__(self)
        if isinstance(size, bool) or not isinstance(size, int) or size < 3 or size % 2 == 0:
            raise UsageError(f"size = {size!r} is no filter around a pixel.", todo="Give an odd number from 3 on.")
        if kind not in KINDS:
            raise UsageError(f"there is no filter of kind {kind!r}.", todo=f"Kinds: {', '.join(KINDS)}.")
        if sigma is not None and (kind != "gaussian" or isinstance(sigma, bool) or not sigma > 0):
            raise UsageError(f"sigma = {sigma!r} with a {kind} filter.", todo="Give a Gaussian a sigma above 0.")
        self.size, self.kind, self.sigma = size, kind, sigma
        places = torch.arange(size) - size // 2
        bell = torch.exp(-0.5 * (places / (sigma or size / 4)) ** 2) if kind == "gaussian" else torch.ones(size)
        self.register_buffer("window", bell / bell.sum())

    def forward(self, x: Tensor) -> Tensor:
        """(n, C, H, W) → the same, blurred."""
        reach, channels = self.size // 2, x.shape[1]
        if self.kind == "median":
            wide = F.pad(x, (reach,) * 4, mode="replicate")
            _, _, height, width = x.shape
            shifted = [wide[..., i : i + height, j : j + width] for i in range(self.size) for j in range(self.size)]
            return torch.stack(shifted).median(0).values
        across = self.window.view(1, 1, 1, -1).expand(channels, -1, -1, -1)
        x = F.conv2d(F.pad(x, (reach, reach, 0, 0), mode="replicate"), across, groups=channels)
        return F.conv2d(F.pad(x, (0, 0, reach, reach), mode="replicate"), across.transpose(2, 3), groups=channels)

    def fit_into(self, model: AdaptiveModel) -> InFront:
        """Itself, where the pictures are at least as large as the square."""
        if self.size > min(model.domain.shape[1:]):
            raise UsageError(
                f"a filter of {self.size} pixels was put before pictures of {model.domain.shape[1:]}.",
                todo="Give a smaller size.",
            )
        return self
