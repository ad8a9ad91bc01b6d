"""Objectives of the published attacks on multi-exit text nets; they mean the same on any chain of exits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from adaptbench.adaptive import AdaptiveModel
from adaptbench.attacks.base import one_path
from adaptbench.attacks.objectives import Context, Goal, GradientObjective, at_dearest
from adaptbench.attacks.ranges import real


class _OfAChain(GradientObjective):
    requires: ClassVar[frozenset[str]] = frozenset({"gradients", "exit_logits"})

    def applies_to(self, model: AdaptiveModel) -> str | None:
        """To nets whose exits follow one another."""
        if len(model.exit_names) < 2 or len(model.dearest_decisions) != len(model.exit_names) - 1:
            return "its exits do not follow one another"
        return one_path(model)


@dataclass(frozen=True, slots=True)
class WaffleScore(_OfAChain):
    """−(1/K) Σ_i [1 − Σ_c |p_ic − 1/C| / (C − 1)] over all exits (WAFFLE, Coalson et al., NeurIPS 2023).

    Scores of different C are not comparable: of three classes a certain answer has ⅓, of two 0.
    """

    name: ClassVar[str] = "waffle"

    def measure(self, model: AdaptiveModel, x: Tensor, clean: Tensor, context: Context, y: Tensor) -> Goal:
        """The score of every exit, whichever is taken."""
        relaxed = model.relax(x)
        p = relaxed.exit_logits.softmax(-1)
        classes = p.shape[-1]
        return at_dearest(model, relaxed, (p - 1 / classes).abs().sum(-1).div(classes - 1).mean(1) - 1)


@dataclass(frozen=True, slots=True)
class SameScore(_OfAChain):
    """α · L_cross + (1 − α) · L_uniform, exits weighted from the one taken on (SAME, Chen et al., ACL 2023).

    L_uniform is the cross-entropy to uniform. L_cross asks an exit for its second class wherever it answers as the exit
    before: rules that wait for agreement are kept waiting. With e the exit taken, exits before e − 1 weigh 0.1, later
    ones 1.2^(i − e + 1).

    Args:
        alpha: weight of L_cross. early: weight of exits long passed. base: of the later ones' weights.
    """

    name: ClassVar[str] = "same"
    alpha: Annotated[float, real(0, 1)] = 0.8
    early: Annotated[float, real(0, 10)] = 0.1
    base: Annotated[float, real(1, 10)] = 1.2

    def measure(self, model: AdaptiveModel, x: Tensor, clean: Tensor, context: Context, y: Tensor) -> Goal:
        """Both losses at the weights of the exit taken at x."""
        relaxed = model.relax(x)
        z = relaxed.exit_logits
        taken = (relaxed.margins.detach() > 0).long().cumprod(1).sum(1)
        i = torch.arange(z.shape[1], device=z.device)
        behind = i[None] - taken[:, None] + 1
        weights = torch.where(behind < 0, self.early, self.base ** behind.clamp_min(0).to(z.dtype))
        uniform = -z.log_softmax(-1).mean(-1)
        best = z.detach().topk(2, -1).indices
        wanted = best[..., 0].clone()
        for k in range(1, z.shape[1]):
            wanted[:, k] = torch.where(best[:, k, 0] == wanted[:, k - 1], best[:, k, 1], best[:, k, 0])
        cross = F.cross_entropy(z.flatten(0, 1), wanted.flatten(), reduction="none").view_as(uniform)
        return at_dearest(model, relaxed, ((self.alpha * cross + (1 - self.alpha) * uniform) * weights).sum(1))
