"""How far an attacked picture may be from the clean one; projection, change of variables, 8-bit rounding, audit."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from adaptbench.attacks.base import to_bytes
from adaptbench.attacks.ranges import L2Radius, LinfRadius
from adaptbench.attacks.rounding import rounded_within

GREY = 128 / 255
"""What shared changes are kept around: the middle, on the 8-bit grid."""
SLACK = 1e-6  # float32 pixels, half a millionth of a grey level


class Constraint(ABC):
    """A set of pictures around each clean one, (N, C, H, W) float in [0, 1]; the clean ones lie on the 8-bit grid."""

    name: ClassVar[str]
    start: ClassVar[float]
    """How near to the edge of the tanh variables the clean picture may start; 1 has no gradient."""
    pixelwise: ClassVar[bool] = True
    """A step has the same length in every pixel; where it has not, its length is one of the whole change."""

    @abstractmethod
    def project(self, x: Tensor, clean: Tensor) -> Tensor:
        """The nearest allowed picture."""

    @abstractmethod
    def steepest(self, gradient: Tensor) -> Tensor:
        """The direction of fastest increase, of length 1 in the constraint's norm."""

    @abstractmethod
    def draw(self, noise: Tensor, radius: float | None) -> Tensor:
        """A change of the given length (the ball's own, if None) in the direction of noise in [−1, 1)."""

    @abstractmethod
    def outside(self, change: Tensor, slack: float = SLACK) -> Tensor:
        """(N,) bool, which changes break the constraint; (N, C, H, W) in pixel range."""

    def applies_to(self, shape: tuple[int, ...]) -> str | None:
        """None, or the reason why it means nothing on pictures of shape (C, H, W)."""
        return None

    def placed(self, seed: int, shape: tuple[int, ...]) -> Constraint:
        """The same with everything drawn that chance decides once a run; (C, H, W)."""
        return self

    def readings(self, change: Tensor) -> dict[str, float]:
        """Means of distances that it is told by, where these are neither L∞ nor L2."""
        return {}

    def scatter(self, clean: Tensor, noise: Tensor) -> Tensor:
        """Pictures as far from the clean ones as may be, in the direction of noise in [−1, 1)."""
        return self.project(clean + self.draw(noise, None), clean)

    def lay(self, shared: Tensor, clean: Tensor) -> Tensor:
        """What a change that is shared makes of pictures.

        Args:
            shared: (1, C, H, W), allowed around a picture that is `GREY` all over; none moves a pixel by more than half
                its range. clean: (N, C, H, W).
        """
        return (clean + (shared - GREY)).clamp(0.0, 1.0)

    def box(self, clean: Tensor) -> tuple[Tensor, Tensor]:
        """Middle and half width of the range of each pixel."""
        return torch.full_like(clean, 0.5), torch.full_like(clean, 0.5)

    def squash(self, w: Tensor, clean: Tensor) -> Tensor:
        """Unbounded variables → allowed pictures, differentiable."""
        middle, half = self.box(clean)
        return middle + half * torch.tanh(w)

    def unsquash(self, x: Tensor, clean: Tensor) -> Tensor:
        """Variables that `squash` takes to x, kept off the flat ends of tanh."""
        middle, half = self.box(clean)
        return torch.atanh(((x - middle) / half).clamp(-self.start, self.start))

    def quantise(self, x: Tensor, clean: Tensor) -> Tensor:
        """(N, C, H, W) uint8: nearest; rounded towards the clean picture where that would leave the set."""
        near = to_bytes(self.project(x, clean))
        far = self.outside((near.double() - to_bytes(clean).double()) / 255.0)
        if far.any():
            base = (clean[far] * 255.0).round()
            near[far] = (base + (self.project(x[far], clean[far]) * 255.0 - base).trunc()).clamp(0, 255).byte()
        return near


@dataclass(frozen=True, slots=True)
class Linf(Constraint):
    """max |x' − x| ≤ eps."""

    name: ClassVar[str] = "linf"
    start: ClassVar[float] = 0.9
    eps: LinfRadius = 8 / 255

    def project(self, x: Tensor, clean: Tensor) -> Tensor:
        """Clip the change, then the picture."""
        return (clean + (x - clean).clamp(-self.eps, self.eps)).clamp(0.0, 1.0)

    def steepest(self, gradient: Tensor) -> Tensor:
        """The sign."""
        return gradient.sign()

    def draw(self, noise: Tensor, radius: float | None) -> Tensor:
        """Scaled so that the largest pixel is on the ball."""
        top = noise.abs().flatten(1).amax(1).clamp_min(1e-12).view(-1, 1, 1, 1)
        return noise / top * (self.eps if radius is None else radius)

    def outside(self, change: Tensor, slack: float = SLACK) -> Tensor:
        """Beyond eps."""
        return change.flatten(1).abs().amax(1) > self.eps + slack

    def box(self, clean: Tensor) -> tuple[Tensor, Tensor]:
        """Of ball and picture range together."""
        low, high = (clean - self.eps).clamp_min(0.0), (clean + self.eps).clamp_max(1.0)
        return (low + high) / 2, (high - low) / 2

    def quantise(self, x: Tensor, clean: Tensor) -> Tensor:
        """Whole grey levels, at most as many as fit into eps."""
        levels = math.floor(self.eps * 255.0 + 1e-3)
        base = (clean * 255.0).round()
        change = (self.project(x, clean) * 255.0 - base).round().clamp(-levels, levels)
        return (base + change).clamp(0, 255).to(torch.uint8)


@dataclass(frozen=True, slots=True)
class L2(Constraint):
    """‖x' − x‖₂ ≤ eps."""

    name: ClassVar[str] = "l2"
    start: ClassVar[float] = 0.99
    pixelwise: ClassVar[bool] = False
    eps: L2Radius = 0.5

    def project(self, x: Tensor, clean: Tensor) -> Tensor:
        """Clip the picture, then shorten the change; the box is convex, so this stays inside it."""
        return _shorten(x.clamp(0.0, 1.0), clean, self.eps)

    def steepest(self, gradient: Tensor) -> Tensor:
        """The gradient at length 1."""
        return gradient / _length(gradient).clamp_min(1e-12)

    def draw(self, noise: Tensor, radius: float | None) -> Tensor:
        """On the sphere."""
        return self.steepest(noise) * (self.eps if radius is None else radius)

    def outside(self, change: Tensor, slack: float = SLACK) -> Tensor:
        """Beyond eps."""
        length: Tensor = change.flatten(1).norm(dim=1)
        return length > self.eps + slack

    def squash(self, w: Tensor, clean: Tensor) -> Tensor:
        """Into the box, then along the ray to the clean picture."""
        return _shorten(0.5 + 0.5 * torch.tanh(w), clean, self.eps)

    def quantise(self, x: Tensor, clean: Tensor) -> Tensor:
        """Whole grey levels, as many as fit into eps."""
        base = (clean.double() * 255.0).round()
        wanted = (self.project(x.double(), clean.double()) * 255.0 - base).flatten(1)
        levels = rounded_within(wanted, 2, (self.eps * 255.0) ** 2 * (1 + 1e-9)).view_as(base)
        return (base + levels).clamp(0, 255).to(torch.uint8)


@dataclass(frozen=True, slots=True)
class Unbounded(Constraint):
    """Any picture; the objective may still price the distance."""

    name: ClassVar[str] = "none"
    start: ClassVar[float] = 0.999

    def project(self, x: Tensor, clean: Tensor) -> Tensor:
        """Into the range of pictures."""
        return x.clamp(0.0, 1.0)

    def steepest(self, gradient: Tensor) -> Tensor:
        """The sign."""
        return gradient.sign()

    def draw(self, noise: Tensor, radius: float | None) -> Tensor:
        """Uniform noise of the given size; without one, of full range."""
        return noise * (1.0 if radius is None else radius)

    def outside(self, change: Tensor, slack: float = SLACK) -> Tensor:
        """Nothing is."""
        return torch.zeros(len(change), dtype=torch.bool, device=change.device)


def _length(change: Tensor) -> Tensor:
    # a hair inside the root: its slope at zero is infinite
    return (change.flatten(1).square().sum(1) + 1e-24).sqrt().view(-1, 1, 1, 1)


def _shorten(x: Tensor, clean: Tensor, eps: float) -> Tensor:
    change = x - clean
    return clean + change * (eps / _length(change)).clamp_max(1.0)
