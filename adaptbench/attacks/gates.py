"""What was published against gates: GradAuto's guarded sum and GradMDM's power of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from adaptbench.adaptive import AdaptiveModel
from adaptbench.attacks.base import one_path
from adaptbench.attacks.objectives import Context, Goal, GradientObjective, along
from adaptbench.attacks.ranges import real

OPEN = 0.5


class _GateObjective(GradientObjective):
    """Means something where decisions are gates."""

    def applies_to(self, model: AdaptiveModel) -> str | None:
        """Gated nets only."""
        if reason := one_path(model):
            return reason
        return None if model.shape == "gated" else f"it was made for gates, and this is a {model.shape} model"


def gate_values(model: AdaptiveModel, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(n, D') sigmoids of the gates of the dearest path, (n, D) which decisions are on, (n,) whether all gates are."""
    margins = model.relax(x, last=False).margins
    gates = along(model, margins)
    return gates.sigmoid(), margins.detach() > 0, (gates.detach() > 0).all(1)


@dataclass(frozen=True, slots=True)
class GuardedGates(_GateObjective):
    """L⁻ = Σ max(0, ½ − g) of closed gates, guarded by L⁺ = −Σ max(0, g − ½) of open ones (GradAuto, ECCV 2022).

    The part of L⁻'s gradient that would close open gates is taken out.
    """

    name: ClassVar[str] = "guarded-gates"

    def measure(self, model: AdaptiveModel, x: Tensor, clean: Tensor, context: Context, y: Tensor) -> Goal:
        """The sum, and its guard."""
        gates, on, reached = gate_values(model, x)
        return Goal((OPEN - gates).clamp_min(0.0).sum(1), on, reached, -(gates - OPEN).clamp_min(0.0).sum(1))


@dataclass(frozen=True, slots=True)
class GatePower(_GateObjective):
    """−‖min(g, ½)‖_p, with p = 1 during the first steps (GradMDM, T-PAMI 2023).

    Args:
        p: of the norm. warm_up: share of the steps with p = 1.
    """

    name: ClassVar[str] = "gate-power"
    p: Annotated[float, real(1, 100)] = 3.5
    warm_up: Annotated[float, real(0, 1)] = 0.1

    def measure(self, model: AdaptiveModel, x: Tensor, clean: Tensor, context: Context, y: Tensor) -> Goal:
        """The norm."""
        gates, on, reached = gate_values(model, x)
        low = gates.clamp(1e-6, OPEN)
        early = context["progress"] < self.warm_up
        loss = torch.where(early, low.sum(1), low.pow(self.p).sum(1).pow(1 / self.p))
        return Goal(-loss, on, reached)
