"""Objectives made of others: a weighted and scheduled sum that shares one pass, and the answer kept by a margin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from pydantic import BeforeValidator
from torch import Tensor

from adaptbench.adaptive import AdaptiveModel, Relaxation
from adaptbench.attacks.decisions import answer_margin
from adaptbench.attacks.objectives import Context, Goal, GradientObjective
from adaptbench.attacks.ranges import number, real
from adaptbench.attacks.terms import term


@dataclass(frozen=True, slots=True)
class LabelMargin(GradientObjective):
    """max(0, κ − margin of the clean answer) at the dearest path's exit, in units of the spread of its logits (ours).

    Args:
        kappa: how much margin is enough.
    """

    name: ClassVar[str] = "label-margin"
    requires: ClassVar[frozenset[str]] = frozenset({"gradients", "exit_logits"})
    kappa: Annotated[float, real(0, 100)] = 0.5

    def prepare(self, model: AdaptiveModel, clean: Tensor) -> Context:
        """What the model answers now, and where the dearest path ends."""
        exit_index = model.infer(clean[:1], force=model.paths()[1]).exit
        return {"answer": model.infer(clean).predictions, "exit": exit_index.expand(len(clean)).clone()}

    def measure(self, model: AdaptiveModel, x: Tensor, clean: Tensor, context: Context, y: Tensor) -> Goal:
        """The hinge."""
        relaxed = model.relax(x)
        margin = answer_margin(relaxed, context["exit"], context["answer"])
        return Goal((self.kappa - margin).clamp_min(0.0))


def _terms(value: Any) -> Any:
    """A list of ``{objective: {settings}, weight: 1, from: 0, until: 1}``."""
    if not isinstance(value, list | tuple) or not value:
        raise ValueError("a list such as [{hinge-margins: {}}, {label-margin: {}, weight: 0.5}]")
    for written in value:
        rest = [key for key in written if key not in ("weight", "from", "until")] if isinstance(written, dict) else []
        if len(rest) != 1:
            raise ValueError(f"a term is {{objective: {{settings}}, weight: 1, from: 0, until: 1}}; seen: {written!r}")
        for key, high in (("weight", 1e6), ("from", 1.0), ("until", 1.0)):
            if not 0 <= number(written.get(key, 0)) <= high:
                raise ValueError(f"{key} lies between 0 and {high:g}; seen: {written[key]!r}")
        if number(written.get("from", 0)) >= number(written.get("until", 1)):
            raise ValueError(f"a term counts from one share of the steps until a later one; seen: {written!r}")
    return value


Term = tuple[GradientObjective, float, float, float]
"""An objective, its weight, and the shares of the steps from and until which it counts."""


class WeightedSum(GradientObjective):
    """Σ_i w_i · loss_i, each from a share of the steps until another; terms at one temperature share one pass."""

    name: ClassVar[str] = "sum"

    def __init__(self, terms: list[Term]) -> None:
        self.terms = terms
        self._whole: set[float] = set()

    @property
    def requires(self) -> frozenset[str]:  # type: ignore[override]  # of the terms, not of the class
        """What the terms need."""
        return frozenset().union(*(objective.requires for objective, *_ in self.terms))

    def applies_to(self, model: AdaptiveModel) -> str | None:
        """The first reason of a term."""
        return next((reason for objective, *_ in self.terms if (reason := objective.applies_to(model))), None)

    def prepare(self, model: AdaptiveModel, clean: Tensor) -> Context:
        """Of each term, under its number."""
        return {
            f"{i}.{key}": value
            for i, (objective, *_) in enumerate(self.terms)
            for key, value in objective.prepare(model, clean).items()
        }

    def measure(self, model: AdaptiveModel, x: Tensor, clean: Tensor, context: Context, y: Tensor) -> Goal:
        """The sum; decisions are those of the first term that knows them."""
        shared: Any = SharedPass(model, self._whole)
        progress = context["progress"]
        total = torch.zeros(len(x), device=x.device)
        goals: list[Goal] = []
        for i, (objective, weight, begin, end) in enumerate(self.terms):
            own = {k.removeprefix(f"{i}."): v for k, v in context.items() if k.startswith(f"{i}.")}
            goal = objective.measure(shared, x, clean, own | {"progress": progress}, y)
            active = (progress >= begin) & ((progress < end) | (end >= 1))
            total = total + weight * active * goal.loss
            goals.append(goal)
        knowing = next((g for g in goals if g.on is not None), goals[0])
        return Goal(total, knowing.on, knowing.reached, margins=knowing.margins)


@dataclass
class Mixed(WeightedSum):
    """A `WeightedSum` that a recipe writes down.

    Args:
        of: terms: ``{hinge-margins: {kappa: 0.05}, weight: 1, from: 0, until: 1}``.
    """

    name: ClassVar[str] = "mixed"
    of: Annotated[list[dict[str, Any]], BeforeValidator(_terms)]

    def __post_init__(self) -> None:
        super().__init__([_term(dict(written)) for written in self.of])


class SharedPass:
    """A model whose relaxed pass over one picture tensor runs once a temperature; everything else is the model's.

    Args:
        model: whose pass it is.
        whole: temperatures at which a term asked for the last exit; there the pass includes it for all terms. It grows
            as terms ask, so that the first step may run a pass twice, and no later one.
    """

    def __init__(self, model: AdaptiveModel, whole: set[float]) -> None:
        self._model, self._whole = model, whole
        self._passes: dict[tuple[int, float, bool], tuple[Tensor, Relaxation]] = {}

    def relax(self, x: Tensor, *, temperature: float = 0.1, last: bool = True) -> Relaxation:
        """As the model's."""
        if last:
            self._whole.add(temperature)
        whole = temperature in self._whole
        key = (id(x), temperature, whole)
        if key not in self._passes:
            self._passes[key] = (x, self._model.relax(x, temperature=temperature, last=whole))
        return self._passes[key][1]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def with_label_kept(objective: GradientObjective) -> WeightedSum:
    """An objective beside `LabelMargin` of equal weight."""
    return WeightedSum([(objective, 1.0, 0.0, 1.0), (LabelMargin(), 1.0, 0.0, 1.0)])


def _term(written: dict[str, Any]) -> Term:
    from adaptbench.attacks.registry import OBJECTIVES  # the registry names this module

    keys = (("weight", 1), ("from", 0), ("until", 1))
    weight, begin, end = (number(written.pop(key, preset)) for key, preset in keys)
    ((name, settings),) = written.items()
    objective = term(OBJECTIVES, name, settings)
    if not isinstance(objective, GradientObjective):
        raise ValueError(f"'{name}' has no gradient, so it cannot be a term")
    return objective, weight, begin, end
