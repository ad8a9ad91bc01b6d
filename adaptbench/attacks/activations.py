"""Sponge examples: how large activations are, and how many of them are not zero (Shumailov et al., EuroS&P 2021).

Density is a modelled quantity: it stands for what hardware would pay that skips zeros. No MAC count here skips them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from adaptbench.adaptive import AdaptiveModel
from adaptbench.attacks.objectives import Context, Goal, GradientObjective

ACTIVATIONS = frozenset({
    F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, F.relu6, F.hardswish, F.gelu, F.silu,
    F.leaky_relu, F.elu, F.celu, F.selu, F.softplus,
})  # fmt: skip
PART = 256


class Watched(TorchFunctionMode):
    """Tells of what comes out of every activation function while it is on; nothing is hung onto the model.

    Args:
        told: called with each result.
    """

    def __init__(self, told: Callable[[Tensor], None]) -> None:
        super().__init__()
        self.told = told

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """As called; torch takes this mode off meanwhile, so that a function inside another is told once."""
        out = func(*args, **(kwargs or {}))
        if func in ACTIVATIONS:
            self.told(out)
        return out


@dataclass(frozen=True, slots=True)
class ActivationNorm(GradientObjective):
    """−Σ_l ‖a_l‖₂ over what comes out of activation functions, every node of the model run.

    Not after the cost that is counted here: a net with one path costs what it costs.
    """

    name: ClassVar[str] = "activation-norm"

    def applies_to(self, model: AdaptiveModel) -> str | None:
        """To every net with an activation function that torch knows by name, static ones among them."""
        blank = torch.zeros(2, *model.domain.shape, device=next(model.parameters(), torch.zeros(())).device)
        return None if len(_norms(model, blank)) else "no activation function of torch's was called in it"

    def measure(self, model: AdaptiveModel, x: Tensor, clean: Tensor, context: Context, y: Tensor) -> Goal:
        """The norms' sum, downwards."""
        return Goal(-torch.stack(_norms(model, x)).sum(0))

    def account(self, model: AdaptiveModel, clean: Tensor, pictures: Tensor) -> dict[str, float]:
        """Density before and after."""
        return densities(model, clean, pictures)


def _norms(model: AdaptiveModel, x: Tensor) -> list[Tensor]:
    """(n,) of each activation that holds all samples."""
    norms: list[Tensor] = []

    def keep(out: Tensor) -> None:
        if len(out) == len(x):
            norms.append(out.flatten(1).square().sum(1).add(1e-12).sqrt())

    with Watched(keep):
        model.dense_logits(x)
    return norms


def density(model: AdaptiveModel, x: Tensor) -> float:
    """Share of activations that are not zero, of what the hard pass runs on some pictures; NaN where there are none.

    Args:
        x: (N, C, H, W) in [0, 1].
    """
    alive = everything = 0

    def count(out: Tensor) -> None:
        nonlocal alive, everything
        alive += int(out.detach().count_nonzero())
        everything += out.numel()

    model.infer(x[:1])  # what counts its MACs, once, runs every part
    for part in torch.split(x, PART):
        with Watched(count):
            model.infer(part)
    return alive / everything if everything else float("nan")


def densities(model: AdaptiveModel, clean: Tensor, pictures: Tensor) -> dict[str, float]:
    """``activation_density_clean`` and ``activation_density``, for the details of an attack.

    Args:
        clean: (N, C, H, W) float. pictures: (N, C, H, W) uint8.
    """
    found = {"activation_density_clean": clean, "activation_density": pictures.to(clean.device).float() / 255.0}
    return {name: density(model, x) for name, x in found.items()}
