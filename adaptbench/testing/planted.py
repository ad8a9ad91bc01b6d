"""A problem with a known answer for testing policies: planted classes, and nets that get better as they cost more."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from adaptbench.adaptive.constructors import Cascade, NetworkDag
from adaptbench.adaptive.splits import Role, Split

Graph = Literal["chain", "dag"]
CLASSES = 4
SHAPE = (1, 4, 4)
_SIDE = 16


def planted_split(role: Role = "calibration", n: int = 300) -> Split:
    """Pictures (n, 1, 4, 4): a template a class, under noise of a strength of its own: some are easy."""
    generator = torch.Generator().manual_seed({"train": 1, "calibration": 2, "test": 3}[role])
    y = torch.randint(CLASSES, (n,), generator=generator)
    noise = torch.rand(n, 1, generator=generator) * 1.5 * torch.randn(n, _SIDE, generator=generator)
    x = (0.5 + 0.15 * (_templates()[y] + noise)).clamp(0, 1)
    pixels = (x * 255).round().to(torch.uint8).view(n, *SHAPE)
    ids = torch.arange(n) + 10_000 * ("train", "calibration", "test").index(role)
    return Split("planted", role, pixels, y, ids, tuple(f"class{c}" for c in range(CLASSES)))


def planted_graph(shape: Graph = "chain") -> NetworkDag:
    """Three nets of 64, 320 and 1280 MACs whose weights are the templates, the cheaper the more blurred.

    Args:
        shape: "chain": one after another; "dag": every net may hand over to every later one.
    """
    generator = torch.Generator().manual_seed(4)
    nets: dict[str, nn.Module] = {}
    for name, hidden, blur in (("small", 0, 1.2), ("middle", 16, 0.5), ("large", 64, 0.0)):
        wanted = _templates() + blur * torch.randn(CLASSES, _SIDE, generator=generator)
        nets[name] = _net(wanted / 2, hidden, generator)
    return Cascade(nets, input_shape=SHAPE) if shape == "chain" else NetworkDag(nets, input_shape=SHAPE)


def _templates() -> Tensor:
    return torch.randn(CLASSES, _SIDE, generator=torch.Generator().manual_seed(0))


def _net(weight: Tensor, hidden: int, generator: torch.Generator) -> nn.Sequential:
    """Linear in the picture, through a wider layer that changes nothing but the cost."""
    layers = [nn.Linear(_SIDE, hidden), nn.Linear(hidden, CLASSES)] if hidden else [nn.Linear(_SIDE, CLASSES)]
    with torch.no_grad():
        for layer in layers:
            layer.bias.zero_()
        last = 6 * weight
        if hidden:
            spread = torch.linalg.qr(torch.randn(hidden, _SIDE, generator=generator)).Q
            layers[0].weight.copy_(spread)
            layers[0].bias.copy_(-spread @ torch.full((_SIDE,), 0.5))
            layers[1].weight.copy_(last @ spread.T)
        else:
            layers[0].weight.copy_(last)
            layers[0].bias.copy_(-last @ torch.full((_SIDE,), 0.5))
    return nn.Sequential(nn.Flatten(), *layers)
