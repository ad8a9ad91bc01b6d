"""How a picture moves: from a variable to a picture, and from a gradient to the next variable. State is per sample."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from adaptbench.adaptive import AdaptiveModel
from adaptbench.attacks.constraints import Constraint
from adaptbench.attacks.ranges import Steps, real

State = dict[str, Tensor]
"""Tensors with the batch first; "variable" is what gradients are taken of, "clean" the pictures."""


class Search(ABC):
    """Moves a batch of pictures. A sample's moves depend on nothing but that sample."""

    name: ClassVar[str]


class GradientSearch(Search):
    """Needs a gradient a step."""

    steps: int

    @abstractmethod
    def begin(self, clean: Tensor, constraint: Constraint, noise: Tensor) -> State:
        """Where to start; noise: like clean, in [−1, 1), a sample's own."""

    @abstractmethod
    def point(self, state: State, constraint: Constraint) -> Tensor:
        """The picture that the variable stands for; differentiable."""

    def variable(self, picture: Tensor, clean: Tensor, constraint: Constraint) -> Tensor:
        """What `point` takes to a picture, for a start elsewhere than `begin` chose."""
        return picture

    @abstractmethod
    def advance(self, state: State, gradient: Tensor, age: Tensor, constraint: Constraint) -> None:
        """One step down; age: (n,) int64 steps made before this one. Changes state in place.

        ``state["loss"]`` is the (n,) loss at the point that the gradient was taken of.
        """


@dataclass(frozen=True, slots=True)
class SignDescent(GradientSearch):
    """x ← project(x − step · steepest direction): the sign under L∞, the unit gradient under L2 (Madry et al. 2018).

    Args:
        step: length in the constraint's norm.
        steps: how many.
        init: radius of the random start; 0 starts at the clean picture.
    """

    name: ClassVar[str] = "sign-descent"
    step: Annotated[float, real(0, 400, open_low=True)] = 2 / 255
    steps: Steps = 20
    init: Annotated[float, real(0, 400)] = 0.0

    def begin(self, clean: Tensor, constraint: Constraint, noise: Tensor) -> State:
        """The clean picture, or uniform within `init` of each pixel."""
        start = constraint.project(clean + self.init * noise, clean) if self.init else clean.clone()
        return {"variable": start, "clean": clean}

    def point(self, state: State, constraint: Constraint) -> Tensor:
        """The variable is the picture."""
        return state["variable"]

    def advance(self, state: State, gradient: Tensor, age: Tensor, constraint: Constraint) -> None:
        """Step and project."""
        moved = state["variable"] - self.step * constraint.steepest(gradient)
        state["variable"] = constraint.project(moved, state["clean"])


@dataclass(frozen=True, slots=True)
class AdamTanh(GradientSearch):
    """Adam (Kingma & Ba 2015) on w, x = middle + half width · tanh w: none leaves box or ball (Carlini & Wagner 2017).

    Written out, not torch.optim's, because a sample that retires takes its moments and its step count along.

    Args:
        lr: in w. steps: at most.
    """

    name: ClassVar[str] = "adam-tanh"
    lr: Annotated[float, real(0, 10, open_low=True)] = 0.1
    steps: Steps = 300

    def begin(self, clean: Tensor, constraint: Constraint, noise: Tensor) -> State:
        """The clean picture, a little inside where it lies on the edge."""
        w = constraint.unsquash(clean, clean)
        return {"variable": w, "clean": clean, "first": torch.zeros_like(w), "second": torch.zeros_like(w)}

    def variable(self, picture: Tensor, clean: Tensor, constraint: Constraint) -> Tensor:
        """Into tanh space."""
        return constraint.unsquash(picture, clean)

    def point(self, state: State, constraint: Constraint) -> Tensor:
        """From tanh space."""
        return constraint.squash(state["variable"], state["clean"])

    def advance(self, state: State, gradient: Tensor, age: Tensor, constraint: Constraint) -> None:
        """β = (0.9, 0.999), ε = 1e-8, bias corrected a sample."""
        state["first"] = 0.9 * state["first"] + 0.1 * gradient
        state["second"] = 0.999 * state["second"] + 0.001 * gradient.square()
        count = (age + 1).view(-1, 1, 1, 1).to(gradient.dtype)
        first = state["first"] / (1 - 0.9**count)
        second = state["second"] / (1 - 0.999**count)
        state["variable"] = state["variable"] - self.lr * first / (second.sqrt() + 1e-8)


class OneDraw(Search):
    """A picture for each clean one, by chance or by a fixed rule: nothing is optimised."""

    packages: ClassVar[tuple[str, ...]] = ()
    """Whose version decides what comes out."""

    @abstractmethod
    def draw(self, clean: Tensor, constraint: Constraint, noise: Tensor) -> Tensor:
        """(N, C, H, W) pictures; noise: like clean, in [−1, 1), a sample's own."""

    def account(self, model: AdaptiveModel, clean: Tensor, pictures: Tensor) -> dict[str, float]:
        """What else there is to say of the result, for the details. clean: float; pictures: uint8; (N, C, H, W)."""
        return {}


@dataclass(frozen=True, slots=True)
class RandomDraw(OneDraw):
    """One draw on the edge of the ball: the control.

    Args:
        shape: "uniform" pixels, scaled so that the largest change is on the ball; "sign": every pixel ±; "gaussian"
            ones, scaled alike, so that in L2 every direction is as likely as any other.
    """

    name: ClassVar[str] = "random"
    shape: Literal["uniform", "sign", "gaussian"] = "uniform"

    def draw(self, clean: Tensor, constraint: Constraint, noise: Tensor) -> Tensor:
        """(N, C, H, W) pictures."""
        if self.shape == "sign":
            noise = torch.where(noise < 0, -1.0, 1.0)
        elif self.shape == "gaussian":
            noise = torch.erfinv(noise.clamp(-1 + 1e-6, 1 - 1e-6))
            noise = noise / noise.flatten(1).abs().amax(1).clamp_min(1e-12).view(-1, 1, 1, 1)
        return constraint.scatter(clean, noise)
