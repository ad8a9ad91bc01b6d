"""ILFO against halting nets: the ponder cost itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from adaptbench.adaptive import AdaptiveModel
from adaptbench.adaptive.halting import HaltingNetwork
from adaptbench.attacks.objectives import Context, Goal, GradientObjective, along


@dataclass(frozen=True, slots=True)
class PonderCost(GradientObjective):
    """Σ over stages of max(0, ρ_max − ρ), ρ = N + R (ILFO on SACT, Haque et al., CVPR 2020).

    N, a number of units, has no gradient. R = 1 − Σ h before the last unit has one, and none where the first unit
    halts: there the objective is flat, and hinge-margins is not.
    """

    name: ClassVar[str] = "ponder-cost"

    def applies_to(self, model: AdaptiveModel) -> str | None:
        """Halting nets only."""
        if not isinstance(model, HaltingNetwork):
            return f"it raises the ponder cost of halting nets, and this is another {model.shape} model"
        return None

    def measure(self, model: AdaptiveModel, x: Tensor, clean: Tensor, context: Context, y: Tensor) -> Goal:
        """What is missing to the dearest ponder cost."""
        assert isinstance(model, HaltingNetwork)
        _, margins = model.unmasked(x)
        cost = model.ponder(margins)
        missing = (cost.new_tensor(model.deepest) - cost).clamp_min(0.0).sum(1)
        on = margins.detach() > 0
        return Goal(missing, on, along(model, on).all(1))
