"""Nets in a foreign style: written for these tests, knowing nothing of adaptbench, trained in a second."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import adaptbench as ab
from adaptbench.attacks.base import Attack, Task, Unaudited
from adaptbench.attacks.fractions import parse_fraction


class TwoHeads(nn.Module):
    """Returns a list of logits, as early-exit repositories do."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU())
        self.early = nn.Linear(24, 10)
        self.deep = nn.Sequential(nn.Linear(24, 96), nn.BatchNorm1d(96), nn.ReLU(), nn.Linear(96, 48), nn.ReLU())
        self.late = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> list[Tensor]:
        h = self.trunk(x)
        return [self.early(h), self.late(self.deep(h))]


def trained(module: nn.Module, *, scale: float = 1.0, shift: float = 0.0, epochs: int = 12) -> nn.Module:
    """On digits, by all heads; pictures are given as scale · x + shift."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for layer in module.modules():
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()
        train = ab.load_data("digits").split("train")
        x, y = scale * train.images() + shift, train.y
        optimiser = torch.optim.Adam(module.parameters(), lr=5e-3)
        module.train()
        for _ in range(epochs):
            for rows in torch.randperm(len(x)).split(64):
                optimiser.zero_grad()
                sum(nn.functional.cross_entropy(z, y[rows]) for z in module(x[rows])).backward()
                optimiser.step()
    return module.eval()


def adapted(module: nn.Module, threshold: float = 0.9) -> ab.MultiExit:
    """As its owner would hand it over."""
    return ab.from_logits_list(module, input_shape=(1, 8, 8), policy=ab.policies.UniformThreshold(threshold))


def build() -> ab.MultiExit:
    """A factory."""
    return adapted(trained(TwoHeads()))


class Leaver(Attack):
    """An attack that says 8/255 and moves four times as far."""

    name = "leaver"
    title = "leaves its ball"

    def __init__(self, eps: str | float = "8/255") -> None:
        super().__init__()
        self.eps = float(parse_fraction(eps))

    @property
    def settings(self) -> dict[str, Any]:
        """With the bound that is not kept."""
        return {"constraint": "linf", "eps": self.eps}

    def _craft(self, task: Task) -> Unaudited:
        sign = torch.rand(task.x.shape, generator=torch.Generator().manual_seed(0)).sub(0.5).sign()
        return Unaudited(((task.x.cpu() + 4 * self.eps * sign).clamp(0, 1) * 255).round().to(torch.uint8))
