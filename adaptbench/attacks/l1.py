"""The L1 ball: few values change, each by as much as it likes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from adaptbench.attacks.constraints import SLACK, Constraint
from adaptbench.attacks.ranges import L1Radius, real
from adaptbench.attacks.rounding import rounded_within


@dataclass(frozen=True, slots=True)
class L1(Constraint):
    """‖x' − x‖₁ ≤ eps.

    Args:
        eps: the sum of all changes, in pixel range: 8 turns eight values from black to white.
        share: of the values, those with the largest slopes, that a step moves (Tramèr & Boneh, NeurIPS 2019).
    """

    name: ClassVar[str] = "l1"
    start: ClassVar[float] = 0.99
    pixelwise: ClassVar[bool] = False
    eps: L1Radius = 8.0
    share: Annotated[float, real(0, 1, open_low=True)] = 0.01

    def project(self, x: Tensor, clean: Tensor) -> Tensor:
        """The nearest picture in ball and box together."""
        return clean + l1_projection(x - clean, clean, self.eps)

    def steepest(self, gradient: Tensor) -> Tensor:
        """Equal parts in the steepest values: the very steepest alone would take a step a value."""
        flat = gradient.flatten(1)
        size = max(1, math.ceil(self.share * flat.shape[1]))
        top = flat.abs().topk(size, 1).indices
        chosen = torch.zeros_like(flat).scatter_(1, top, flat.gather(1, top).sign() / size)
        return chosen.view_as(gradient)

    def draw(self, noise: Tensor, radius: float | None) -> Tensor:
        """On the ball."""
        return noise / _sum(noise).clamp_min(1e-12) * (self.eps if radius is None else radius)

    def outside(self, change: Tensor, slack: float = SLACK) -> Tensor:
        """Beyond eps; the slack is a value's, and many are added up."""
        flat = change.flatten(1)
        return flat.abs().sum(1) > self.eps * (1 + 1e-6) + slack * math.sqrt(flat.shape[1])

    def readings(self, change: Tensor) -> dict[str, float]:
        """The norm itself, and how many values it is spread over."""
        flat = change.flatten(1).abs()
        return {"l1_mean": float(flat.sum(1).mean()), "values_changed_mean": float((flat > 0).double().sum(1).mean())}

    def squash(self, w: Tensor, clean: Tensor) -> Tensor:
        """Into the box, then along the ray to the clean picture."""
        change = 0.5 + 0.5 * torch.tanh(w) - clean
        return clean + change * (self.eps / _sum(change).clamp_min(1e-12)).clamp_max(1.0)

    def quantise(self, x: Tensor, clean: Tensor) -> Tensor:
        """Whole grey levels, as many as fit into eps."""
        base = (clean.double() * 255.0).round()
        wanted = (self.project(x.double(), clean.double()) * 255.0 - base).flatten(1)
        levels = rounded_within(wanted, 1, math.floor(self.eps * 255.0 + 1e-3)).view_as(base)
        return (base + levels).clamp(0, 255).to(torch.uint8)


def l1_projection(change: Tensor, clean: Tensor, eps: float) -> Tensor:
    """The nearest change that sums to at most eps and keeps the picture in [0, 1].

    Each value shrinks by one λ and is cut at the box; the sum over λ is piecewise linear, so that λ is read off at the
    kink where it passes eps (Croce & Hein, ICML 2021).

    Args:
        change, clean: (N, C, H, W), the clean picture in [0, 1].
    """
    flat, base = change.flatten(1), clean.flatten(1)
    size = flat.abs()
    room = torch.where(flat < 0, base, 1.0 - base)
    inside = torch.minimum(size, room)
    kinks = torch.cat([(size - room).clamp_min(0.0), size], 1)
    turns = torch.cat([torch.ones_like(size), -torch.ones_like(size)], 1)  # values that begin, or cease, to shrink
    kinks, order = kinks.sort(1)
    shrinking = turns.gather(1, order).cumsum(1)
    fallen = torch.zeros_like(kinks)
    fallen[:, 1:] = (shrinking[:, :-1] * kinks.diff(dim=1)).cumsum(1)
    sums = inside.sum(1, keepdim=True) - fallen
    last = (sums >= eps).sum(1, keepdim=True).sub(1).clamp_min(0)
    beyond = (sums.gather(1, last) - eps).clamp_min(0.0)
    cut = kinks.gather(1, last) + beyond / shrinking.gather(1, last).clamp_min(1.0)
    cut = torch.where(sums[:, :1] > eps, cut, torch.zeros_like(cut))
    kept = torch.minimum((size - cut).clamp_min(0.0), room)
    return (flat.sign() * kept).view_as(change)


def _sum(change: Tensor) -> Tensor:
    return change.flatten(1).abs().sum(1).view(-1, 1, 1, 1)
