"""Attacks put together from parts: white-box, on a surrogate, and the random control."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Self

import torch

from adaptbench.adaptive import AdaptiveModel
from adaptbench.attacks.access import Transfer
from adaptbench.attacks.base import Attack, Found, Task, one_path
from adaptbench.attacks.constraints import Constraint
from adaptbench.attacks.engine import Optimiser
from adaptbench.attacks.objectives import GradientObjective, Objective
from adaptbench.attacks.purity import same_weights, untouched
from adaptbench.attacks.randomness import uniform_pixels
from adaptbench.attacks.ranges import shown
from adaptbench.attacks.recipe import Recipe
from adaptbench.attacks.searches import GradientSearch, RandomDraw, Search
from adaptbench.errors import CapabilityError, RecipeError


@dataclass(frozen=True, slots=True)
class Parts:
    """A recipe with its parts made."""

    name: str
    recipe: Recipe
    objective: Objective | None
    constraint: Constraint
    search: Search


class RecipeAttack(Attack):
    """An attack that a recipe describes."""

    parts: Parts

    @classmethod
    def _from(cls, parts: Parts, *more: Any) -> Self:
        attack = cls.__new__(cls)
        attack._take(parts, *more)
        return attack

    def _take(self, parts: Parts) -> None:
        Attack.__init__(self)
        recipe = parts.recipe
        self.parts, self.name, self.title, self.cite = parts, parts.name, recipe.title, recipe.cite
        self.kind, self.deviates = recipe.kind, recipe.deviates
        self.access = recipe.access.name  # type: ignore[assignment]  # checked when the recipe was read
        self.requires = parts.objective.requires if parts.objective is not None else frozenset()

    @property
    def settings(self) -> dict[str, Any]:
        """Names of the parts and everything they were set to."""
        flat: dict[str, Any] = {"access": self.access}
        parts = {"objective": self.parts.objective, "constraint": self.parts.constraint, "search": self.parts.search}
        for field, part in parts.items():
            if part is not None:
                flat[field] = part.name
                flat |= {f.name: getattr(part, f.name) for f in fields(part)}  # type: ignore[arg-type]
        if not isinstance(self.parts.search, RandomDraw):
            flat["keep"] = self.parts.recipe.keep
        return flat

    def _why_not(self, model: AdaptiveModel) -> str | None:
        return self.parts.objective.applies_to(model) if self.parts.objective is not None else None

    def _outside(self, linf: torch.Tensor, l2: torch.Tensor) -> torch.Tensor:
        return self.parts.constraint.outside(linf, l2)

    def _optimise(self, task: Task, model: AdaptiveModel) -> Found:
        objective, search = self.parts.objective, self.parts.search
        assert isinstance(objective, GradientObjective)
        assert isinstance(search, GradientSearch)
        return Optimiser(task, model, objective, self.parts.constraint, search, self.parts.recipe.keep).run()


class ComposedAttack(RecipeAttack):
    """White-box: gradients of the target, its own hard pass as the judge."""

    def _craft(self, task: Task) -> Found:
        return self._optimise(task, task.model)


class TransferAttack(RecipeAttack):
    """White-box on a surrogate; the target is only evaluated, by whoever asked for the craft."""

    via: Transfer

    def _take(self, parts: Parts, via: Transfer) -> None:  # type: ignore[override]  # one part more
        super()._take(parts)
        self.via, self.surrogate = via, via.surrogate
        self.requires = frozenset()

    @property
    def settings(self) -> dict[str, Any]:
        """With the surrogate's name."""
        return {**super().settings, "surrogate": self.via.surrogate}

    def _why_not(self, model: AdaptiveModel) -> str | None:
        return one_path(model)

    def _craft(self, task: Task) -> Found:
        if task.surrogate is None:
            raise CapabilityError(
                f"'{self.name}' needs the surrogate '{self.via.surrogate}', and nothing was given that finds it.",
                todo="Call craft(…, surrogate=lambda name: adaptbench.load_model(name, data)).",
            )
        other = task.surrogate(self.via.surrogate)
        objective = self.parts.objective
        assert objective is not None
        reason = objective.applies_to(other)
        if other.domain != task.model.domain:
            reason = f"it takes {other.domain}, the target {task.model.domain}"
        elif missing := sorted(objective.requires - other.capabilities):
            reason = f"it offers no {missing[0].replace('_', ' ')}"
        elif other.needs_labels:
            reason = "it is an oracle"
        if reason:
            raise CapabilityError(
                f"the surrogate '{self.via.surrogate}' cannot stand in for the target: {reason}.",
                todo="Name another one: {surrogate: …}.",
            )
        with untouched(other):
            found = self._optimise(task, other)
        if same_weights(other, task.model):
            found.details["notes"] = [
                *found.details.get("notes", []),
                "the surrogate has the target's weights: this is a white-box attack, not a transfer",
            ]
        return found


class Noise(RecipeAttack):
    """One random draw on the ball: what an attack of equal norm must beat.

    Args:
        shape: "uniform" or "sign".
        settings: as for `load_attack`: eps, …
    """

    def __init__(self, *, shape: str = "uniform", **settings: Any) -> None:
        if shape not in ("uniform", "sign"):
            raise RecipeError(f"noise of shape {shown(shape)} is not known.", todo="Shapes: uniform, sign.")
        self._take(recipe_parts("noise" if shape == "uniform" else "noise-sign", settings))

    def _craft(self, task: Task) -> Found:
        search, constraint = self.parts.search, self.parts.constraint
        assert isinstance(search, RandomDraw)
        noise = uniform_pixels(task.ids, tuple(task.x.shape[1:]), task.seed)
        x = search.draw(task.x, constraint, noise)
        task.progress(len(x), len(x))
        return Found(constraint.quantise(x, task.x))


class ILFO(ComposedAttack):
    """Haque, Chauhan, Liu, Yang, CVPR 2020, as in ``attacks/ilfo.yaml``; settings: eps, steps, lr, kappa.

    >>> ILFO(eps=4 / 255, steps=50).settings["steps"]
    50
    """

    def __init__(self, **settings: Any) -> None:
        self._take(recipe_parts("ilfo", settings))


class DeepSloth(ComposedAttack):
    """Hong, Kaya, Modoranu, Dumitraş, ICLR 2021, as in ``attacks/deepsloth.yaml``; settings: eps, step, steps, init."""

    def __init__(self, **settings: Any) -> None:
        self._take(recipe_parts("deepsloth", settings))


def shipped(name: str, settings: dict[str, Any]) -> RecipeAttack:
    """A recipe with settings laid over it."""
    from adaptbench.attacks.loading import load_attack  # loading builds these classes

    attack = load_attack(name, settings)
    assert isinstance(attack, RecipeAttack)
    return attack


def recipe_parts(name: str, settings: dict[str, Any]) -> Parts:
    """Parts of a recipe with settings laid over it."""
    return shipped(name, settings).parts
