"""What the gradient pushes: a loss a sample, minimised; a batch sums them, so that samples stay apart."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from adaptbench.adaptive import AdaptiveModel, Relaxation
from adaptbench.attacks.base import one_path
from adaptbench.attacks.judging import Aim, Judge, Label
from adaptbench.attacks.ranges import UNSAID, real

Context = dict[str, Tensor]
"""What an objective remembers of each clean picture; batch first. The loop adds "progress", (n,) in [0, 1)."""


@dataclass(frozen=True, slots=True)
class Goal:
    """An objective's value at a point.

    Args:
        loss: (n,) to be minimised, differentiable.
        on: (n, D) bool hard decisions there, where the objective knows them.
        reached: (n,) bool, the whole dearest path is open there.
        margins: (n, D) what `on` was read off.
        guard: (n,) a second loss that steps should not raise: the gradient of the first loses what points against it.
    """

    loss: Tensor
    on: Tensor | None = None
    reached: Tensor | None = None
    guard: Tensor | None = None
    margins: Tensor | None = None


class Objective(ABC):
    """A part of an attack with a name, the capabilities that it uses and the models that it means nothing on."""

    name: ClassVar[str]
    requires: ClassVar[frozenset[str]] = frozenset({"gradients"})
    per_pixel: ClassVar[bool] = False
    """Asks how sure exits are, or what they cost, never for a class: it means the same where every pixel has one."""

    def applies_to(self, model: AdaptiveModel) -> str | None:
        """None, or the reason why not."""
        return one_path(model)

    def account(self, model: AdaptiveModel, clean: Tensor, pictures: Tensor) -> dict[str, float]:
        """What else there is to say of the result, for the details. clean: float; pictures: uint8; (N, C, H, W)."""
        return {}


class GradientObjective(Objective):
    """Differentiable in the picture, through the model.

    Attributes:
        aim: what its judge looks at where that is not the recipe's own aim.
    """

    aim: ClassVar[Aim | None] = None

    def prepare(self, model: AdaptiveModel, clean: Tensor) -> Context:
        """What `measure` needs of the clean pictures."""
        return {}

    def judge(self, model: AdaptiveModel, x: Tensor, y: Tensor, *, aim: Aim, label: Label) -> Judge:
        """Who says by the hard pass which picture is best: by cost, unless the objective is after something else.

        Args:
            x: (N, C, H, W) float, the clean pictures. y: (N,) labels. aim, label: of the recipe.
        """
        return Judge(model, x, y, aim=aim, label=label)

    @abstractmethod
    def measure(self, model: AdaptiveModel, x: Tensor, clean: Tensor, context: Context, y: Tensor) -> Goal:
        """The loss at x; clean, context and y are those of the same samples."""


@dataclass(frozen=True, slots=True)
class HingeMargins(GradientObjective):
    """Σ_d max(0, κ − m_d(x') / s_d) over the decisions of the dearest path (ILFO, Haque et al., CVPR 2020).

    Margins are probabilities for one policy, log-odds or gate logits for the next. s_d is the sample's own clean margin
    |m_d(x)|, at least a tenth of the mean over its decisions: −1 is the clean picture, 0 the boundary, and κ a fraction
    of the way between them, whatever the unit; nothing depends on the batch.

    Where a head is saturated (p = 1 in float32) its margin has no gradient. A small pull of all heads but the last
    towards the uniform distribution, `unmask`, then shows the way; elsewhere it hardly matters.

    Args:
        kappa: how far past the boundary. unmask: weight of the pull.
        c: weight of the hinge against ‖x' − x‖₂; None leaves the distance to the constraint.
        temperature: of the relaxation (straight-through gates use it).
    """

    name: ClassVar[str] = "hinge-margins"
    per_pixel: ClassVar[bool] = True
    kappa: Annotated[float, real(0, 100)] = 0.05
    unmask: Annotated[float, real(0, 100)] = 0.01
    c: Annotated[float, real(0, 1e6, open_low=True)] | None = None
    temperature: Annotated[float, real(1e-6, 100)] = 0.1

    def prepare(self, model: AdaptiveModel, clean: Tensor) -> Context:
        """The scale of each decision of the dearest path."""
        return {"scale": scales(model, clean, self.temperature)}

    def measure(self, model: AdaptiveModel, x: Tensor, clean: Tensor, context: Context, y: Tensor) -> Goal:
        """Hinge, the pull, and the distance if it has a price."""
        relaxed = model.relax(x, temperature=self.temperature, last=False)
        loss = hinges_of(model, relaxed, context["scale"], self.kappa).sum(1)
        if self.unmask and len(model.exit_names) > 1:
            loss = loss + self.unmask * uniform_pull(relaxed)
        if self.c is not None:
            loss = (x - clean).flatten(1).square().sum(1).add(1e-12).sqrt() + self.c * loss
        return at_dearest(model, relaxed, loss)


@dataclass(frozen=True, slots=True)
class UniformHeads(GradientObjective):
    """Σ_{k<K} H(uniform, p_k(x')), the last exit left out (DeepSloth, Hong et al., ICLR 2021).

    Args:
        exits: "all" of them, or the "first" only.
    """

    name: ClassVar[str] = "uniform-heads"
    per_pixel: ClassVar[bool] = True
    requires: ClassVar[frozenset[str]] = frozenset({"gradients", "exit_logits"})
    exits: Literal["all", "first"] = field(default="all", metadata=UNSAID)

    def applies_to(self, model: AdaptiveModel) -> str | None:
        """Not to gated nets: they have one head."""
        if len(model.exit_names) < 2 and model.min_macs < model.max_macs:
            return "it has one exit, so there is no internal head to confuse; hinge-margins (ilfo) pushes its gates"
        return one_path(model)

    def measure(self, model: AdaptiveModel, x: Tensor, clean: Tensor, context: Context, y: Tensor) -> Goal:
        """Cross-entropy to uniform."""
        relaxed = model.relax(x, last=False)
        pull = uniform_pull(relaxed) if self.exits == "all" else uniform_pull(relaxed, 1)
        return at_dearest(model, relaxed, pull)


@dataclass(frozen=True, slots=True)
class ExpectedMacs(GradientObjective):
    """−E[MACs] / max MACs of the relaxed model.

    Args:
        temperature: of the relaxation; small is sharper and flatter.
    """

    name: ClassVar[str] = "expected-macs"
    per_pixel: ClassVar[bool] = True
    temperature: Annotated[float, real(1e-6, 100)] = 0.1

    def measure(self, model: AdaptiveModel, x: Tensor, clean: Tensor, context: Context, y: Tensor) -> Goal:
        """The relaxed cost."""
        relaxed = model.relax(x, temperature=self.temperature, last=False)
        return at_dearest(model, relaxed, -relaxed.expected_macs / model.max_macs)


def pushed(model: AdaptiveModel, like: Tensor) -> Tensor:
    """(D,) bool on the device of `like`: the decisions of the dearest path."""
    return model.dearest_decisions.to(like.device)


def along(model: AdaptiveModel, decisions: Tensor) -> Tensor:
    """(n, D') what was given of each decision, (n, D), of those of the dearest path."""
    way = pushed(model, decisions)
    return decisions if bool(way.all()) else decisions[:, way]


def uniform_pull(relaxed: Relaxation, first: int | None = None) -> Tensor:
    """(n,) Σ over all exits but the last (the `first` ones of them) of H(uniform, p) / log C: 1 a head when uniform."""
    logs = relaxed.exit_logits[:, :-1][:, :first].log_softmax(-1)
    return -logs.mean(-1).sum(1) / math.log(logs.shape[-1])


def scales(model: AdaptiveModel, clean: Tensor, temperature: float) -> Tensor:
    """(n, D') |clean margin| of each decision of the dearest path, at least a tenth of the sample's mean."""
    with torch.no_grad():
        size = along(model, model.relax(clean, temperature=temperature, last=False).margins).abs()
    return torch.maximum(size, 0.1 * size.mean(1, keepdim=True)).clamp_min(1e-6)


def hinges_of(model: AdaptiveModel, relaxed: Relaxation, scale: Tensor, kappa: float) -> Tensor:
    """(n, D') max(0, κ − m_d / s_d) of each decision of the dearest path. scale: (n, D'), of `scales`."""
    margins = along(model, relaxed.margins)
    return (kappa - margins / scale).clamp_min(0.0)


def at_dearest(model: AdaptiveModel, relaxed: Relaxation, loss: Tensor) -> Goal:
    """A loss with the decisions of its pass, and whether they are those of the dearest path."""
    margins = relaxed.margins.detach()
    on = margins > 0
    return Goal(loss, on, along(model, on).all(1), margins=margins)
