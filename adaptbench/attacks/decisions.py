"""Further objectives: one decision at a time, heads by logits or the deployed rule's weights, early wrong answers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from adaptbench.adaptive import AdaptiveModel, Relaxation
from adaptbench.attacks.objectives import (
    Context,
    Goal,
    GradientObjective,
    UniformHeads,
    along,
    at_dearest,
    hinges_of,
    scales,
)
from adaptbench.attacks.ranges import real

FLOOR = 0.05
"""Weight of a head that nobody leaves at, so that none is forgotten."""


@dataclass(frozen=True, slots=True)
class NextClosed(GradientObjective):
    """max(0, κ − m_d(x') / s_d) of the first decision of the dearest path that is still closed (ours).

    Where decisions pull apart (gates, DAGs) their sum has a gradient that serves none; one after the other is opened
    instead, while those that are open already are guarded by a hundredth of the sum.

    Args:
        kappa, temperature: as of hinge-margins.
    """

    name: ClassVar[str] = "next-closed"
    kappa: Annotated[float, real(0, 100)] = 0.05
    temperature: Annotated[float, real(1e-6, 100)] = 0.1

    def prepare(self, model: AdaptiveModel, clean: Tensor) -> Context:
        """The scale of each decision of the dearest path."""
        return {"scale": scales(model, clean, self.temperature)}

    def measure(self, model: AdaptiveModel, x: Tensor, clean: Tensor, context: Context, y: Tensor) -> Goal:
        """The hinge of one decision, a hundredth of the others'."""
        relaxed = model.relax(x, temperature=self.temperature, last=False)
        hinges = hinges_of(model, relaxed, context["scale"], self.kappa)
        closed = along(model, relaxed.margins.detach()) <= 0
        first = closed & (closed.long().cumsum(1) == 1)
        return at_dearest(model, relaxed, (hinges * first).sum(1) + 0.01 * hinges.sum(1))


@dataclass(frozen=True, slots=True)
class NearMargins(GradientObjective):
    """Σ_d log(1 + h_d / k), h_d = max(0, κ − m_d(x') / s_d) of hinge-margins: the nearer, the harder the push (ours).

    Gates far from opening have as much slope in a sum of hinges as gates that nearly open, and take the small change of
    the picture for nothing. Here the slope is 1 / (k + h_d). The knee k moves from `knee` to `until` in equal ratios:
    at first all gates count alike, in the end those that can still be won.

    Args:
        kappa: as of hinge-margins. knee, until: k before the first and after the last step, in units of s_d.
        temperature: of the relaxation; at 1 the slope of a gate goes on through the gates before it.
    """

    name: ClassVar[str] = "near-margins"
    kappa: Annotated[float, real(0, 100)] = 0.05
    knee: Annotated[float, real(0, 100, open_low=True)] = 0.2
    until: Annotated[float, real(0, 100, open_low=True)] = 0.2
    temperature: Annotated[float, real(1e-6, 100)] = 1.0

    def prepare(self, model: AdaptiveModel, clean: Tensor) -> Context:
        """The scale of each decision of the dearest path."""
        return {"scale": scales(model, clean, self.temperature)}

    def measure(self, model: AdaptiveModel, x: Tensor, clean: Tensor, context: Context, y: Tensor) -> Goal:
        """The sum of logarithms."""
        relaxed = model.relax(x, temperature=self.temperature, last=False)
        hinges = hinges_of(model, relaxed, context["scale"], self.kappa)
        knee = self.knee * (self.until / self.knee) ** context["progress"]
        return at_dearest(model, relaxed, torch.log1p(hinges / knee[:, None]).sum(1))


@dataclass(frozen=True, slots=True)
class LogitGap(GradientObjective):
    """Σ_k (z₁ − z₂) / (z₁ − z₂ of the clean picture), all heads but the last: odds of the two likeliest classes (ours).

    A head that is sure (p = 1 in float32) has no gradient in probabilities; its logits have one.
    """

    name: ClassVar[str] = "logit-gap"
    requires: ClassVar[frozenset[str]] = frozenset({"gradients", "exit_logits"})

    def applies_to(self, model: AdaptiveModel) -> str | None:
        """Not to gated nets: they have one head."""
        return UniformHeads().applies_to(model)

    def prepare(self, model: AdaptiveModel, clean: Tensor) -> Context:
        """The clean gap of each head, at least a tenth of the mean."""
        with torch.no_grad():
            gaps = _gaps(model.relax(clean, last=False))
        return {"gap": torch.maximum(gaps, 0.1 * gaps.mean(1, keepdim=True)).clamp_min(1e-6)}

    def measure(self, model: AdaptiveModel, x: Tensor, clean: Tensor, context: Context, y: Tensor) -> Goal:
        """The sum of relative gaps."""
        relaxed = model.relax(x, last=False)
        return at_dearest(model, relaxed, (_gaps(relaxed) / context["gap"]).sum(1))


@dataclass(frozen=True, slots=True)
class WeightedHeads(GradientObjective):
    """Σ_k w_k H(uniform, p_k(x')), w_k the deployed rule's probability of leaving there at x' (ours, after DeepSloth).

    Heads at which the rule would not leave anyway hardly count.

    Args:
        temperature: of the relaxation that the weights come from.
    """

    name: ClassVar[str] = "weighted-heads"
    requires: ClassVar[frozenset[str]] = frozenset({"gradients", "exit_logits"})
    temperature: Annotated[float, real(1e-6, 100)] = 0.1

    def applies_to(self, model: AdaptiveModel) -> str | None:
        """To chains of exits only: elsewhere reach does not say where an input leaves."""
        chain = model.shape in ("multi-exit", "cascade") and len(model.exit_names) == len(model.node_names)
        reason = UniformHeads().applies_to(model)
        return reason or (None if chain else f"it weighs the exits of a chain, and this is a {model.shape} model")

    def measure(self, model: AdaptiveModel, x: Tensor, clean: Tensor, context: Context, y: Tensor) -> Goal:
        """Cross-entropy to uniform, in units of log C."""
        relaxed = model.relax(x, temperature=self.temperature, last=False)
        logs = relaxed.exit_logits[:, :-1].log_softmax(-1)
        pulls = -logs.mean(-1) / math.log(logs.shape[-1])
        reach = relaxed.reach.detach()
        weight = (reach[:, :-1] - reach[:, 1:]).clamp_min(0.0) + FLOOR
        return at_dearest(model, relaxed, (weight.to(pulls) * pulls).sum(1))


@dataclass(frozen=True, slots=True)
class CheapAndWrong(GradientObjective):
    """E[MACs] / max MACs + w · max(0, κ + (z_y − max_{j≠y} z_j) / s) at the cheapest exit: early, and wrong (ours).

    Args:
        weight: of the wrong answer. kappa: how far past the boundary, in units of the clean margin.
        temperature: of the relaxation.
    """

    name: ClassVar[str] = "cheap-and-wrong"
    requires: ClassVar[frozenset[str]] = frozenset({"gradients", "exit_logits"})
    weight: Annotated[float, real(0, 1e6)] = 1.0
    kappa: Annotated[float, real(0, 100)] = 0.2
    temperature: Annotated[float, real(1e-6, 100)] = 1.0

    def prepare(self, model: AdaptiveModel, clean: Tensor) -> Context:
        """The exit of the cheapest path."""
        exit_index = model.infer(clean[:1], force=model.paths()[0]).exit
        return {"exit": exit_index.expand(len(clean)).clone()}

    def measure(self, model: AdaptiveModel, x: Tensor, clean: Tensor, context: Context, y: Tensor) -> Goal:
        """The relaxed cost, and the margin of the label."""
        relaxed = model.relax(x, temperature=self.temperature)
        margin = answer_margin(relaxed, context["exit"], y)
        loss = relaxed.expected_macs / model.max_macs + self.weight * (self.kappa + margin).clamp_min(0.0)
        return Goal(loss, relaxed.margins.detach() > 0)


def answer_margin(relaxed: Relaxation, exits: Tensor, classes: Tensor) -> Tensor:
    """(n,) z_c − the best other logit at an exit, in units of the spread of its logits.

    Args:
        exits: (n,) int64 which exit. classes: (n,) int64 c.
    """
    logits = relaxed.exit_logits[torch.arange(len(exits), device=exits.device), exits]
    own = logits.gather(1, classes[:, None]).squeeze(1)
    others = logits.scatter(1, classes[:, None], -torch.inf).amax(1)
    return (own - others) / logits.detach().std(1).clamp_min(1e-6)


def _gaps(relaxed: Relaxation) -> Tensor:
    top = relaxed.exit_logits[:, :-1].topk(2, dim=-1).values
    return top[..., 0] - top[..., 1]
