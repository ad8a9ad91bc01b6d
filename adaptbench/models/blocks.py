"""Layers that the small convolutional nets share."""

from __future__ import annotations

from torch import Tensor, nn

from adaptbench.adaptive.pooling import MeanPool


def conv_bn(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, *, relu: bool = True) -> nn.Sequential:
    """Convolution without bias, batch norm, ReLU; "same" padding."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    if relu:
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)


def residual_body(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """The two convolutions of a basic residual block (He et al. 2016), without the sum and the last ReLU."""
    return nn.Sequential(conv_bn(inputs, outputs, stride=stride), conv_bn(outputs, outputs, relu=False))


class ResidualBlock(nn.Module):
    """ReLU(shortcut(h) + body(h)); a 1×1 convolution as shortcut where the shape changes.

    Args:
        inputs, outputs: channels.
        stride: of the first convolution and the shortcut.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.body = residual_body(inputs, outputs, stride)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else conv_bn(inputs, outputs, 1, stride, relu=False)
        self.relu = nn.ReLU()

    def forward(self, h: Tensor) -> Tensor:
        """(N, inputs, H, W) → (N, outputs, H/stride, W/stride)."""
        out: Tensor = self.relu(self.shortcut(h) + self.body(h))
        return out


def classifier(channels: int, n_classes: int, pool: int = 1) -> nn.Sequential:
    """Average pooling to pool × pool, then a linear layer."""
    return nn.Sequential(MeanPool(pool), nn.Flatten(), nn.Linear(channels * pool * pool, n_classes))


def conv_classifier(channels: int, hidden: int, n_classes: int, pool: int = 2) -> nn.Sequential:
    """An exit head for early features: a strided convolution, pooling, a linear layer."""
    return nn.Sequential(conv_bn(channels, hidden, stride=2), classifier(hidden, n_classes, pool))
