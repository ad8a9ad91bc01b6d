"""Objectives of gates: GradAuto's guarded sum and GradMDM's power of it, as published, and one gate alone (ours)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from adaptbench.adaptive import AdaptiveModel
from adaptbench.attacks.base import one_path
from adaptbench.attacks.judging import Aim, GateJudge, Judge, Label
from adaptbench.attacks.objectives import Context, Goal, GradientObjective, along, hinges_of, scales
from adaptbench.attacks.ranges import count, real

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


@dataclass(frozen=True, slots=True)
class OneGate(_GateObjective):
    """max(0, κ − m_g(x') / s_g) of one gate g; whether it opens is all that is judged (ours).

    What a gate costs is left to attacks on all of them: this one says whether the gate can be opened at all.

    Args:
        gate: which, counted from 1 at the input; blocks that always run have none.
        kappa: how far past the boundary, in units of the clean margin.
        temperature: of the relaxation; at 1 the slope goes on through the gates before it.
    """

    name: ClassVar[str] = "one-gate"
    aim: ClassVar[Aim | None] = "one-gate"
    gate: Annotated[int, count(1, 100_000)] = 1
    kappa: Annotated[float, real(0, 100)] = 0.05
    temperature: Annotated[float, real(1e-6, 100)] = 1.0

    def applies_to(self, model: AdaptiveModel) -> str | None:
        """To gated nets that have this gate."""
        if reason := _GateObjective.applies_to(self, model):
            return reason
        gates = len(model.dearest_decisions)
        return None if self.gate <= gates else f"it is after gate {self.gate}, and the net has {gates}"

    def judge(self, model: AdaptiveModel, x: Tensor, y: Tensor, *, aim: Aim, label: Label) -> Judge:
        """The hard pass: is the gate open?"""
        return GateJudge(model, x, y, label=label, gate=self.gate)

    def prepare(self, model: AdaptiveModel, clean: Tensor) -> Context:
        """The scale of each decision of the dearest path."""
        return {"scale": scales(model, clean, self.temperature)}

    def measure(self, model: AdaptiveModel, x: Tensor, clean: Tensor, context: Context, y: Tensor) -> Goal:
        """The hinge of the gate."""
        relaxed = model.relax(x, temperature=self.temperature, last=False)
        margins = relaxed.margins.detach()
        loss = hinges_of(model, relaxed, context["scale"], self.kappa)[:, self.gate - 1]
        return Goal(loss, margins > 0, margins[:, self.gate - 1] > 0, margins=margins)
