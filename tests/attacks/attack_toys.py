"""Tiny adaptive models of the four shapes, and one trained to save on faint synthetic pictures."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

import adaptbench as ab
from adaptbench.adaptive import Block, Cascade, FeedForwardGates, GatedNetwork, ImageDomain, MultiExit, NetworkDag
from adaptbench.policies import UniformThreshold

SHAPE = (1, 6, 6)
CLASSES = 4


def faint_pictures(n, seed):
    """A template a class at ±0.12 of contrast, noise on top; 8-bit."""
    templates = torch.sign(torch.randn(CLASSES, 36, generator=torch.Generator().manual_seed(11)))
    draw = torch.Generator().manual_seed(seed)
    y = torch.randint(CLASSES, (n,), generator=draw)
    x = 0.5 + 0.12 * templates[y] + 0.05 * torch.randn(n, 36, generator=draw)
    return (x.clamp(0, 1) * 255).round().div(255).view(n, *SHAPE), y


def trained_multi_exit():
    """Three exits, confident on what it was trained on: nearly everything leaves first."""
    torch.manual_seed(0)
    centre = _Shift()
    stages = [
        nn.Sequential(centre, nn.Flatten()),
        nn.Sequential(nn.Linear(36, 48), nn.ReLU()),
        nn.Sequential(nn.Linear(48, 64), nn.ReLU()),
    ]
    heads = [nn.Linear(36, CLASSES), nn.Linear(48, CLASSES), nn.Linear(64, CLASSES)]
    model = MultiExit(stages, heads, input_shape=SHAPE)
    x, y = faint_pictures(512, 1)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    model.train()
    for _ in range(60):
        logits = model.dense_logits(x)
        loss = sum(F.cross_entropy(logits[:, k], y) for k in range(3))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.policy = UniformThreshold(0.9)
    return model.eval()


def random_model(shape):
    """Untrained, of one of the four shapes; decisions vary over inputs."""
    torch.manual_seed(3)
    if shape == "multi-exit":
        model = MultiExit(
            [nn.Sequential(_Shift(), nn.Flatten()), nn.Sequential(nn.Linear(36, 40), nn.Tanh())],
            [nn.Linear(36, CLASSES), nn.Linear(40, CLASSES)],
            input_shape=SHAPE,
        )
        model.policy = UniformThreshold(0.5)
        return model.eval()
    if shape == "gated":
        return _gated().eval()
    if shape == "planned":
        return _gated(ab.PlanGates(nn.Sequential(_Shift(), nn.Flatten(), nn.Linear(36, 3)))).eval()
    nets = {
        f"net{k}": nn.Sequential(
            _Shift(), nn.Flatten(), nn.Linear(36, 8 * 2**k), nn.Tanh(), nn.Linear(8 * 2**k, CLASSES)
        )
        for k in range(3)
    }
    model = (Cascade if shape == "cascade" else NetworkDag)(nets, input_shape=SHAPE)
    model.policy = UniformThreshold(0.35)
    return model.eval()


def _gated(gates=None):
    blocks = [Block(f"block{k}", nn.Sequential(nn.Linear(16, 16), nn.Tanh())) for k in range(3)]
    return GatedNetwork(
        stem=nn.Sequential(_Shift(), nn.Flatten(), nn.Linear(36, 16)),
        blocks=blocks,
        head=nn.Linear(16, CLASSES),
        gates=gates or FeedForwardGates([nn.Linear(16, 1) for _ in blocks]),
        domain=ImageDomain(SHAPE),
        n_classes=CLASSES,
    )


class _Shift(nn.Module):
    def forward(self, x):
        return (x - 0.5) * 8
