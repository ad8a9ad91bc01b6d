"""Adaptive pooling at the price of plain pooling, where both are the same to the bit.

On a processor torch's adaptive kernels take two to three times as long as those of fixed windows. Where the side
divides, a window is fixed. A maximum is the same either way; a mean is where dividing by the window's area at once, or
by its sides one after the other, rounds alike: where the area is a power of two.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class MeanPool(nn.AdaptiveAvgPool2d):
    """`nn.AdaptiveAvgPool2d` to side × side. No weights."""

    def __init__(self, side: int) -> None:
        super().__init__(side)
        self.side = side

    def forward(self, input: Tensor) -> Tensor:
        """(n, C, H, W) → (n, C, side, side), the same to the bit in single and double precision."""
        window = _window(input, self.side)
        # of one place for all, the adaptive kernel is a mean that adds up in another order
        if not window or self.side == 1 or (window & (window - 1)):
            return super().forward(input)
        return F.avg_pool2d(input, window)


class MaxPool(nn.AdaptiveMaxPool2d):
    """`nn.AdaptiveMaxPool2d` to side × side. No weights."""

    def __init__(self, side: int) -> None:
        super().__init__(side)
        self.side = side

    def forward(self, input: Tensor) -> Tensor:
        """(n, C, H, W) → (n, C, side, side), the same to the bit."""
        window = _window(input, self.side)
        return F.max_pool2d(input, window) if window else super().forward(input)


def _window(x: Tensor, side: int) -> int:
    """Side of the window where all are alike, on a processor in single or double precision; else 0."""
    if x.ndim != 4 or x.device.type != "cpu" or x.dtype.itemsize < 4 or x.shape[2] != x.shape[3]:
        return 0
    return 0 if x.shape[2] % side else x.shape[2] // side
