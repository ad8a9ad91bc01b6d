"""Attacks put together from parts: white-box, on a surrogate, by queries, and the random control."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from importlib.metadata import version
from typing import Any, ClassVar

import torch

from adaptbench.adaptive import AdaptiveModel
from adaptbench.attacks import precision
from adaptbench.attacks.access import BlackBox, Transfer, unlike
from adaptbench.attacks.base import Attack, Task, Unaudited, lacking, one_path, to_bytes
from adaptbench.attacks.constraints import Constraint
from adaptbench.attacks.engine import Deadline, Optimiser, Start
from adaptbench.attacks.judging import Best, Judge, hard_pass
from adaptbench.attacks.mixtures import WeightedSum, with_label_kept
from adaptbench.attacks.objectives import GradientObjective, Objective
from adaptbench.attacks.purity import same_weights, untouched
from adaptbench.attacks.randomness import uniform_pixels
from adaptbench.attacks.recipe import Recipe
from adaptbench.attacks.searches import GradientSearch, OneDraw, Search
from adaptbench.attacks.soundness import slopes
from adaptbench.errors import CapabilityError


@dataclass(frozen=True, slots=True)
class Parts:
    """A recipe with its parts made."""

    name: str
    recipe: Recipe
    objective: Objective | None
    constraint: Constraint
    search: Search


def parts_of(parts: Parts) -> list[type]:
    """Classes of a recipe's parts, and of the terms of a sum."""
    terms = [term for term, *_ in parts.objective.terms] if isinstance(parts.objective, WeightedSum) else []
    made = [parts.objective, parts.constraint, parts.search, *terms]
    return [type(part) for part in made if part is not None]


def settings_of(part: object) -> dict[str, Any]:
    """What a part was set to; what came later is left out where it is as ever."""
    told = {f.name: (getattr(part, f.name), f) for f in fields(part) if f.init}  # type: ignore[arg-type]
    return {name: value for name, (value, f) in told.items() if not (f.metadata.get("unsaid") and value == f.default)}


USUAL = {"aim": "dearest", "label": "free", "seconds": None, "precision": "fp32"}
"""What a suite may ask of a whole recipe, and what is asked where nothing is said."""


def conditions_of(recipe: Recipe) -> dict[str, Any]:
    """Aim, label, time and precision where they are not the usual ones; hashes of what came before them stay."""
    return {key: value for key, preset in USUAL.items() if (value := getattr(recipe, key)) != preset}


class RecipeAttack(Attack):
    """An attack that a recipe describes."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
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
                flat |= settings_of(part)
        if not isinstance(self.parts.search, OneDraw):
            flat["keep"] = self.parts.recipe.keep
        own = getattr(self.parts.objective, "aim", None)
        return flat | conditions_of(self.parts.recipe) | ({"aim": own} if own else {})

    def _why_not(self, model: AdaptiveModel) -> str | None:
        return self.parts.objective.applies_to(model) if self.parts.objective is not None else None

    def applies_to(self, model: AdaptiveModel) -> str | None:
        """With the reason why the constraint means nothing on the model's pictures, or its device has no such steps."""
        reason = super().applies_to(model) or self.parts.constraint.applies_to(model.domain.shape)
        return reason or precision.applies_to(self.parts.recipe.precision, model)

    def _outside(self, change: torch.Tensor) -> torch.Tensor:
        return self.parts.constraint.outside(change)

    def _readings(self, change: torch.Tensor) -> dict[str, float]:
        return self.parts.constraint.readings(change)

    def _constraint(self, task: Task) -> Constraint:
        """The recipe's, placed for this run."""
        return self.parts.constraint.placed(task.seed, tuple(task.x.shape[1:]))

    def _code(self) -> list[type]:
        return parts_of(self.parts)

    def _best(self, task: Task, model: AdaptiveModel) -> Best:
        recipe = self.parts.recipe
        objective = self.parts.objective
        judge = objective.judge if isinstance(objective, GradientObjective) else Judge
        return Best(judge(model, task.x, task.y, aim=recipe.aim, label=recipe.label), recipe.keep)

    def _deadline(self, task: Task) -> Deadline:
        seconds = self.parts.recipe.seconds
        return Deadline(None if seconds is None else seconds * len(task.x))

    def _optimise(
        self,
        task: Task,
        model: AdaptiveModel,
        *,
        parts: Parts | None = None,
        best: Best | None = None,
        deadline: Deadline | None = None,
        start: Start = "as-set",
        dear: torch.Tensor | None = None,
    ) -> Unaudited:
        """The recipe's objective by its search, or a member's, under the recipe's conditions."""
        parts = parts or self.parts
        objective, search, recipe = parts.objective, parts.search, parts.recipe
        assert isinstance(objective, GradientObjective)
        assert isinstance(search, GradientSearch)
        return Optimiser(
            task,
            model,
            with_label_kept(objective) if recipe.label == "keep" else objective,
            self._constraint(task),
            search,
            recipe.keep,
            best=best or self._best(task, model),
            deadline=deadline or self._deadline(task),
            start=start,
            precision=recipe.precision,
            dear=dear,
        ).run()


class ComposedAttack(RecipeAttack):
    """White-box: gradients of the target, its own hard pass as the judge."""

    hashed_as = "adaptbench.attacks.composed.ComposedAttack"

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        recipe = parts.recipe
        on_cost = parts.objective is not None and parts.objective.per_pixel
        self.per_pixel = on_cost and (recipe.aim, recipe.label) == ("dearest", "free")

    def _craft(self, task: Task) -> Unaudited:
        with task.model.steady():
            made = self._optimise(task, task.model)
        assert self.parts.objective is not None
        made.details |= self.parts.objective.account(task.model, task.x, made.x_adv)
        return made

    def _against_itself(self, task: Task) -> dict[str, Any]:
        assert isinstance(self.parts.objective, GradientObjective)
        with task.model.steady():
            return slopes(task, task.model, self.parts.objective)


class TransferAttack(RecipeAttack):
    """White-box on a surrogate; the target is only evaluated, by whoever asked for the craft."""

    hashed_as = "adaptbench.attacks.composed.TransferAttack"

    def __init__(self, parts: Parts, via: Transfer) -> None:
        super().__init__(parts)
        self.via, self.surrogate = via, via.surrogate
        self.requires = frozenset()

    @property
    def settings(self) -> dict[str, Any]:
        """With the surrogate's name."""
        return {**super().settings, "surrogate": self.via.surrogate}

    def _why_not(self, model: AdaptiveModel) -> str | None:
        return one_path(model)

    def _craft(self, task: Task) -> Unaudited:
        if task.surrogate is None:
            raise CapabilityError(
                f"'{self.name}' needs the surrogate '{self.via.surrogate}', and nothing was given that finds it.",
                todo="Call craft(…, surrogate=lambda name: adaptbench.load_model(name, data)).",
            )
        other = task.surrogate(self.via.surrogate)
        objective = self.parts.objective
        assert objective is not None
        reason = unlike(other, task.model) or lacking(objective.requires, other) or objective.applies_to(other)
        if other.needs_labels:
            reason = "it is an oracle"
        if reason:
            raise CapabilityError(
                f"the surrogate '{self.via.surrogate}' cannot stand in for the target: {reason}.",
                todo="Name another one: {surrogate: …}.",
            )
        with untouched(other):
            if self.via.data is not None:  # labels name the target's classes; here its own answers stand for them
                task = replace(task, y=hard_pass(other, to_bytes(task.x))[1])
            unaudited = self._optimise(task, other)
        if self.via.data is not None:
            unaudited.details["surrogate_data"] = self.via.data
        if same_weights(other, task.model):
            unaudited.details["notes"] = [
                *unaudited.details.get("notes", []),
                "the surrogate has the target's weights: this is a white-box attack, not a transfer",
            ]
        return unaudited


class QueriedAttack(RecipeAttack):
    """Asks the target what pictures cost, and sees nothing else of it.

    Attributes:
        takes_metered: it can work on costs that a meter reads, which are noisy.
    """

    takes_metered: ClassVar[bool] = False

    def __init__(self, parts: Parts, via: BlackBox) -> None:
        super().__init__(parts)
        self.via = via
        self.requires |= {"queries"}
        self.deterministic = via.cost == "macs"

    @property
    def settings(self) -> dict[str, Any]:
        """With the budget, what is returned where that is more than the cost, and the meter where it is not counted."""
        more = {} if self.via.returns == "cost" else {"returns": self.via.returns}
        metered = {} if self.via.cost == "macs" else {"cost": self.via.cost, "readings": self.via.readings}
        return {**super().settings, "queries": self.via.queries, **more, **metered}

    def _why_not(self, model: AdaptiveModel) -> str | None:
        if model.meter is None:
            return one_path(model)
        if not self.takes_metered:
            return f"it wants counted MACs, and what this box costs is metered in {model.meter.unit}"
        told = self.via.returns != "cost"
        return f"it wants logits beside counted MACs, and the cost is metered in {model.meter.unit}" if told else None


class RandomAttack(RecipeAttack):
    """One random draw on the ball: what an attack of equal norm must beat."""

    hashed_as = "adaptbench.attacks.composed.Noise"
    per_pixel = True

    @property
    def versions(self) -> dict[str, str]:
        """With the packages that the draw is made by."""
        search = self.parts.search
        assert isinstance(search, OneDraw)
        return {**super().versions, **{name: version(name) for name in search.packages}}

    def _craft(self, task: Task) -> Unaudited:
        search, constraint = self.parts.search, self._constraint(task)
        assert isinstance(search, OneDraw)
        noise = uniform_pixels(task.ids, tuple(task.x.shape[1:]), task.seed)
        x = search.draw(task.x, constraint, noise)
        task.progress(len(x), len(x))
        pictures = constraint.quantise(x, task.x)
        return Unaudited(pictures, details=search.account(task.model, task.x, pictures))
