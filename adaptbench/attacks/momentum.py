"""Descent with momentum whose step halves when it stops paying, as in APGD (Croce & Hein, ICML 2020)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from adaptbench.attacks.constraints import Constraint
from adaptbench.attacks.ranges import Steps
from adaptbench.attacks.searches import GradientSearch, State
from adaptbench.errors import RecipeError

MOMENTUM = 0.75
PAYING = 0.75
"""Of the steps between two checkpoints, this share must have lowered the loss."""


@dataclass(frozen=True, slots=True)
class MomentumDescent(GradientSearch):
    """x ← P(x + ¾ (P(x − η d) − x) + ¼ (x − x₋₁)), d the steepest direction; η starts at 2 ε, a sample's own.

    At checkpoints (22 % of the steps, then ever closer) a sample's η is halved, and it goes back to its best point, if
    less than ¾ of its steps since the last one lowered the loss, or if neither η nor the best loss has changed since.

    Args:
        steps: how many. There is no other setting: the step length follows from the constraint.
    """

    name: ClassVar[str] = "momentum"
    steps: Steps = 100

    def begin(self, clean: Tensor, constraint: Constraint, noise: Tensor) -> State:
        """The clean picture."""
        eps = getattr(constraint, "eps", None)
        if eps is None:
            raise RecipeError(
                f"the search 'momentum' takes its step from the constraint's eps, and '{constraint.name}' has none.",
                todo="Bound the change, for example by constraint: {linf: {eps: 8/255}}.",
            )
        n = len(clean)
        endless = torch.full((n,), torch.inf, device=clean.device)
        eta = torch.full((n,), 2.0 * eps, device=clean.device)
        return {
            "variable": clean.clone(),
            "clean": clean,
            "before": clean.clone(),
            "best": clean.clone(),
            "best_gradient": torch.zeros_like(clean),
            "best_loss": endless,
            "last_loss": endless.clone(),
            "eta": eta,
            "eta_then": torch.full_like(eta, torch.inf),
            "best_then": endless.clone(),
            "paid": torch.zeros(n, dtype=torch.int64, device=clean.device),
        }

    def point(self, state: State, constraint: Constraint) -> Tensor:
        """The variable is the picture."""
        return state["variable"]

    def advance(self, state: State, gradient: Tensor, age: Tensor, constraint: Constraint) -> None:
        """Bookkeeping of the point that the gradient is of, then the step."""
        loss, x = state["loss"], state["variable"]
        state["paid"] = state["paid"] + (loss < state["last_loss"]).long()
        state["last_loss"] = loss
        ahead = loss < state["best_loss"]
        state["best_loss"] = torch.where(ahead, loss, state["best_loss"])
        state["best"] = torch.where(_wide(ahead), x, state["best"])
        state["best_gradient"] = torch.where(_wide(ahead), gradient, state["best_gradient"])
        at, span = self._checkpoints(age)
        stuck = (state["eta"] == state["eta_then"]) & (state["best_loss"] == state["best_then"])
        halve = at & ((state["paid"] < PAYING * span) | stuck)
        state["eta_then"] = torch.where(at, state["eta"], state["eta_then"])
        state["best_then"] = torch.where(at, state["best_loss"], state["best_then"])
        state["paid"] = torch.where(at, 0, state["paid"])
        state["eta"] = torch.where(halve, state["eta"] / 2, state["eta"])
        back = _wide(halve)
        before = torch.where(back, state["best"], state["before"])
        x = torch.where(back, state["best"], x)
        gradient = torch.where(back, state["best_gradient"], gradient)
        clean = state["clean"]
        step = constraint.project(x - _wide(state["eta"]) * constraint.steepest(gradient), clean)
        trust = _wide(torch.where(age == 0, 1.0, MOMENTUM))
        state["before"] = x
        state["variable"] = constraint.project(x + trust * (step - x) + (1 - trust) * (x - before), clean)

    def _checkpoints(self, age: Tensor) -> tuple[Tensor, Tensor]:
        """(n,) bool, a checkpoint at this age; (n,) steps since the one before."""
        places = checkpoints(self.steps)
        spans = torch.zeros(self.steps + 1, dtype=torch.int64)
        for before, place in zip([0, *places], places, strict=False):
            spans[place] = place - before
        span = spans.to(age.device)[age.clamp_max(self.steps)]
        return span > 0, span


def checkpoints(steps: int) -> list[int]:
    """Steps before which η may be halved: shares 0, 0.22, then each gap 0.03 less than the last, at least 0.06.

    >>> checkpoints(100)
    [22, 41, 57, 70, 80, 87, 93, 99]
    """
    shares = [0.0, 0.22]
    while shares[-1] < 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    places = [math.ceil(round(share * steps, 6)) for share in shares[1:]]
    return sorted({place for place in places if 0 < place < steps})


def _wide(value: Tensor) -> Tensor:
    return value.view(-1, 1, 1, 1)
