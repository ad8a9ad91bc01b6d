"""From a reference and a suite's settings to an attack object."""

from __future__ import annotations

import inspect
from dataclasses import MISSING, fields
from typing import Any

from pydantic import TypeAdapter, ValidationError

from adaptbench.attacks.access import BlackBox, Transfer
from adaptbench.attacks.amortised import AmortisedAttack
from adaptbench.attacks.asking import queried_attack, require_meter
from adaptbench.attacks.base import Attack
from adaptbench.attacks.bomb import BombAttack
from adaptbench.attacks.catalogue import TORCHATTACKS, find_recipe
from adaptbench.attacks.composed import USUAL, ComposedAttack, Parts, RandomAttack, TransferAttack, conditions_of
from adaptbench.attacks.ensemble import EnsembleAttack, Stage
from adaptbench.attacks.ereba import EstimatedAttack
from adaptbench.attacks.ereba_disjoint import DisjointAttack
from adaptbench.attacks.estimator import FIT_PICTURES, EstimatorEnergy
from adaptbench.attacks.generator import Generator
from adaptbench.attacks.objectives import GradientObjective
from adaptbench.attacks.queried import QuerySearch
from adaptbench.attacks.ranges import GREY_LEVEL, shown
from adaptbench.attacks.recipe import Recipe, RecipePart, make_recipe, read_recipe
from adaptbench.attacks.registry import ATTACKS, CONSTRAINTS, OBJECTIVES, SEARCHES
from adaptbench.attacks.searches import GradientSearch, OneDraw, SignDescent
from adaptbench.attacks.series import SeriesBall, SeriesDescent, SeriesDraw, series_attack
from adaptbench.attacks.textual import word_attack
from adaptbench.attacks.torchattack import TorchAttack
from adaptbench.attacks.universal import Shared, SharedByClass, UniversalAttack
from adaptbench.attacks.word_edits import WordEdits
from adaptbench.attacks.word_search import WordSearch
from adaptbench.errors import RecipeError, UnknownNameError
from adaptbench.registry import Registry, did_you_mean

_REGISTRIES = {"objective": OBJECTIVES, "constraint": CONSTRAINTS, "search": SEARCHES}
_SHARED: dict[str, type] = {"all": Shared, "class": SharedByClass}
_ACCESS: dict[str, type | None] = {"white-box": None, "none": None, "black-box": BlackBox, "transfer": Transfer}


def load_attack(ref: str, overrides: dict[str, Any] | None = None) -> Attack:
    """The attack that a suite names.

    Args:
        ref: a recipe's name or file, ``torchattacks/CLASS``, or a plug-in's name.
        overrides: settings by their own name, ``{"eps": "16/255", "steps": 20}``, or whole parts,
            ``{"constraint": {"l2": {"eps": 0.5}}}``; for torchattacks the keywords of the class, and ``deadline_s``.

    Raises:
        UnknownNameError: no such attack.
        RecipeError: a recipe or setting that does not name a possible attack.
        MissingExtraError: torchattacks is not installed.

    >>> load_attack("ilfo", {"eps": "4/255", "steps": 50}).settings["steps"]
    50
    """
    overrides = dict(overrides or {})
    if ref.startswith(TORCHATTACKS):
        return TorchAttack(ref.removeprefix(TORCHATTACKS), **overrides)
    if ref in ATTACKS:
        return _plugin(ref, overrides)
    name, place = find_recipe(ref)
    return build(name, override(read_recipe(place), overrides, name), str(place))


def _plugin(ref: str, settings: dict[str, Any]) -> Attack:
    kind = ATTACKS.load(ref)
    try:
        inspect.signature(kind).bind(**settings)
    except TypeError as error:
        raise RecipeError(
            f"the attack '{ref}' cannot be made of these settings: {error}.",
            todo=f"It takes: {', '.join(inspect.signature(kind).parameters) or 'none'}.",
        ) from None
    attack: Attack = kind(**settings)
    return attack


def override(recipe: Recipe, settings: dict[str, Any], name: str) -> Recipe:
    """A recipe with a suite's settings in place of its own.

    Raises:
        RecipeError: a setting that no part of this recipe has.
    """
    free = [*recipe.constraint.settings, "precision"]
    if recipe.fixed and (others := sorted(settings.keys() - set(free))):
        raise RecipeError(
            f"the attack '{name}' is fixed and takes no '{others[0]}'.",
            why="Its name stands for one composition, so that a figure can be cited by it.",
            todo=f"Set only {', '.join(free)}, or copy it to attacks/ under another name.",
        )
    whole = {key: value for key, value in settings.items() if key in Recipe.model_fields}
    recipe = make_recipe(_content(recipe) | whole, name)
    content, homes = _content(recipe), _settings_of(recipe)
    for key, value in settings.items():
        if key in whole:
            continue
        if key not in homes:
            known = [*homes, *USUAL]
            raise RecipeError(
                f"the attack '{name}' has no setting '{key}'.",
                todo=f"{did_you_mean(key, known)}Settings: {', '.join(homes)}; of the whole: {', '.join(USUAL)}.",
            )
        (part_settings,) = content[homes[key]].values()
        part_settings[key] = value
    return make_recipe(content, name)


def _content(recipe: Recipe) -> dict[str, Any]:
    """A recipe as YAML would give it."""
    members = [
        {field: _written(getattr(m, field)) for field in ("objective", "search")} | {"start": m.start, "on": m.on}
        for m in recipe.members
    ]
    return recipe.model_dump() | {"members": members} | {f: _written(part) for f, part in recipe.parts().items()}


def _written(part: RecipePart | None) -> dict[str, Any] | None:
    return None if part is None else {part.name: dict(part.settings)}


def _settings_of(recipe: Recipe) -> dict[str, str]:
    """Setting → the field whose part has it."""
    homes: dict[str, str] = {}
    for field, part in recipe.parts().items():
        kind = _class_of(field, part.name, "")
        for setting in fields(kind) if kind is not None else ():
            if setting.init:
                homes.setdefault(setting.name, field)
    return homes


def build(name: str, recipe: Recipe, where: str) -> Attack:
    """Put the parts together.

    Raises:
        RecipeError: a part that is unknown, has a wrong setting, or does not go with the others.
    """
    made = {field: _make(field, part.name, part.settings, where) for field, part in recipe.parts().items()}
    if recipe.members:
        return _ensemble(name, recipe, made["constraint"], where)
    require_meter(made["access"], made.get("objective"), where)
    parts = Parts(name, recipe, made.get("objective"), made["constraint"], made["search"])
    if isinstance(parts.constraint, WordEdits) or isinstance(parts.search, WordSearch):
        return word_attack(parts, made["access"], where)
    if isinstance(parts.constraint, SeriesBall) or isinstance(parts.search, SeriesDescent | SeriesDraw):
        return series_attack(parts, where)
    return _of_pixels(parts, made, where)


def _of_pixels(parts: Parts, made: dict[str, Any], where: str) -> Attack:
    access, objective, recipe = made["access"], parts.objective, parts.recipe
    _require_movement(parts, where)
    _require_gradients(parts, where)
    if isinstance(parts.search, Generator):
        return _amortised(parts, made, where)
    if "shared" in made:
        return _shared(parts, access, made["shared"], where)
    if isinstance(parts.search, QuerySearch):
        return queried_attack(parts, access, where)
    if isinstance(parts.search, OneDraw):
        if objective is not None or recipe.access.name != "none":
            raise RecipeError(
                f"{where}: the search '{parts.search.name}' aims at nothing.",
                todo="Leave objective out and write access: none.",
            )
        return RandomAttack(parts)
    if not isinstance(parts.search, GradientSearch) or objective is None:
        raise RecipeError(
            f"{where}: the search '{parts.search.name}' needs an objective.",
            todo=f"Objectives: {', '.join(OBJECTIVES.names())}.",
        )
    if isinstance(objective, EstimatorEnergy):
        if not isinstance(access, BlackBox):
            raise RecipeError(
                f"{where}: an estimator is fitted on queries.", todo="Write access: {black-box: {queries: 500}}."
            )
        if access.returns != "cost":
            raise RecipeError(f"{where}: an estimator is fitted on costs.", todo="Leave access.returns out.")
        return (DisjointAttack if objective.fit_on == "disjoint" else EstimatedAttack)(parts, access)
    if isinstance(access, Transfer):
        return TransferAttack(parts, access)
    if recipe.access.name != "white-box" or not isinstance(objective, GradientObjective):
        raise RecipeError(
            f"{where}: the objective '{objective.name}' takes gradients, and access is {recipe.access.name}.",
            todo="Write access: white-box, or use the objective 'estimator'.",
        )
    return ComposedAttack(parts)


def _require_gradients(parts: Parts, where: str) -> None:
    """Refuse aim, label and time where no gradient of the target is followed, precision where none of any net is."""
    follows, name = isinstance(parts.objective, GradientObjective), parts.recipe.access.name
    conditions = set() if follows and name == "white-box" else set(conditions_of(parts.recipe))
    if follows and name == "transfer":
        conditions -= {"precision"}
    if conditions:
        raise RecipeError(
            f"{where}: {', '.join(sorted(conditions))} cannot be asked of an attack without gradients of the target.",
            todo="Leave it out, or write access: white-box and an objective.",
        )


def _ensemble(name: str, recipe: Recipe, constraint: Any, where: str) -> Attack:
    members = []
    for i, member in enumerate(recipe.members):
        place = f"{where}, members[{i}]"
        wanted = member.objective
        objective = _make("objective", wanted.name, wanted.settings, place) if wanted is not None else None
        search = _make("search", member.search.name, member.search.settings, place)
        if not isinstance(objective, GradientObjective) or not isinstance(search, GradientSearch):
            raise RecipeError(
                f"{place}: a member is an objective with a gradient and a search that follows it.",
                todo="Write {objective: hinge-margins, search: {momentum: {steps: 50}}}.",
            )
        part = Parts(name, recipe, objective, constraint, search)
        _require_movement(part, place)
        members.append(Stage(part, member.start, member.on))
    if recipe.access.name != "white-box":
        raise RecipeError(f"{where}: members take gradients of the target.", todo="Write access: white-box.")
    if any(objective.aim for objective in (member.parts.objective for member in members)):  # type: ignore[union-attr]
        raise RecipeError(
            f"{where}: members are judged by cost, and one of them by something else.",
            todo="Make a recipe of that one: {objective: {one-gate: {gate: 7}}, search: {momentum: {steps: 100}}}.",
        )
    if recipe.shared is not None:
        raise RecipeError(f"{where}: members each have a change of their own.", todo="Leave 'shared' or members out.")
    return EnsembleAttack(members)


def _bomb(parts: Parts, access: Any, shared: Shared, where: str) -> BombAttack:
    """Refuse what would stay near other pictures: one picture stands in the place of all."""
    objective = parts.objective
    assert isinstance(objective, EstimatorEnergy)
    fits = isinstance(access, BlackBox) and access.returns == "cost" and isinstance(parts.search, GradientSearch)
    if not fits or parts.constraint.name != "none" or shared.name != "all":
        raise RecipeError(
            f"{where}, shared: an estimator leads to one picture in the place of all others, which stays near none.",
            todo="Write access: {black-box: {queries: 500}}, constraint: none, shared: all.",
        )
    if objective.fit_on != "disjoint" or objective.fit_pictures != FIT_PICTURES:
        raise RecipeError(
            f"{where}, objective.estimator: what is shared is fitted on as many crafting pictures as 'shared' says.",
            todo="Write fit_on: disjoint, leave fit_pictures out, and write shared: {all: {pictures: …}}.",
        )
    return BombAttack(parts, access, shared)


def _amortised(parts: Parts, made: dict[str, Any], where: str) -> AmortisedAttack:
    """Refuse what a generator cannot be asked: it makes one picture for each, unseen, and looks at no outcome."""
    recipe, objective = parts.recipe, parts.objective
    follows = isinstance(objective, GradientObjective) and not isinstance(objective, EstimatorEnergy)
    if recipe.access.name != "white-box" or not follows or "shared" in made:
        raise RecipeError(
            f"{where}: the search 'generator' is trained by gradients of the target, on pictures of its own.",
            todo="Write access: white-box and an objective such as expected-macs, and leave 'shared' out.",
        )
    if parts.constraint.name not in ("linf", "l2"):
        raise RecipeError(
            f"{where}: the search 'generator' cannot move in the constraint '{parts.constraint.name}'.",
            todo="Constraints: linf, l2.",
        )
    if recipe.keep != "last":
        raise RecipeError(
            f"{where}, keep: a generator's picture is returned whatever it costs; seen: {recipe.keep}.",
            why="To look first would be a pass of the net for each picture, which is what it does without.",
            todo="Write keep: last.",
        )
    if conditions := sorted(conditions_of(recipe).keys() - {"precision"}):
        raise RecipeError(f"{where}: {', '.join(conditions)} cannot be asked of a generator.", todo="Leave it out.")
    return AmortisedAttack(parts)


def _shared(parts: Parts, access: Any, shared: Shared, where: str) -> UniversalAttack | BombAttack:
    if isinstance(parts.objective, EstimatorEnergy):
        return _bomb(parts, access, shared, where)
    follows = isinstance(parts.search, GradientSearch) and isinstance(parts.objective, GradientObjective)
    if parts.recipe.access.name != "white-box" or not follows:
        raise RecipeError(
            f"{where}, shared: one change for all is made by gradients of the target.",
            todo="Write access: white-box, an objective and a search that follows it, or leave 'shared' out.",
        )
    if conditions := sorted(conditions_of(parts.recipe).keys() - {"precision"}):
        raise RecipeError(
            f"{where}: {', '.join(conditions)} cannot be asked of a change that is shared.",
            todo="Leave it out.",
        )
    return UniversalAttack(parts, shared)


def _require_movement(parts: Parts, where: str) -> None:
    """Refuse steps of another scale than the ball, and steps that together move no pixel by half a grey level."""
    search = parts.search
    if not isinstance(search, SignDescent) or not parts.constraint.pixelwise:
        return
    place = f"{where}, search.sign-descent"
    for key, value in (("step", search.step), ("init", search.init)):
        if value > 1:
            raise RecipeError(
                f"{place}.{key}: at most 1, in pixel range; did you mean {value:g}/255? Seen: {value:g}.",
                todo="Mend this setting.",
            )
    if search.init + search.steps * search.step < GREY_LEVEL / 2:
        raise RecipeError(
            f"{place}: {search.steps} steps of {search.step:g} move no pixel by half a grey level.",
            why="Pictures have 8 bits, so nothing can change.",
            todo="Take longer or more steps.",
        )


def _class_of(field: str, name: str, where: str) -> type | None:
    if field == "access":
        return _ACCESS[name]
    if field == "shared":
        return _SHARED[name]
    registry: Registry = _REGISTRIES[field]
    try:
        kind: type = registry.load(name)
    except UnknownNameError as error:
        todo = f"{did_you_mean(name, registry.names())}There are: {', '.join(registry.names())}."
        raise RecipeError(f"{where}, {field}: {error.seen}", todo=todo) from None
    return kind


def _make(field: str, name: str, settings: dict[str, Any], where: str) -> Any:
    kind = _class_of(field, name, where)
    place = f"{where}, {field}.{name}"
    known = {f.name: f for f in fields(kind) if f.init} if kind is not None else {}
    for key in settings:
        if key not in known:
            has = f"Settings: {', '.join(known)}." if known else "It takes none."
            raise RecipeError(f"{place}: no setting is called '{key}'.", todo=f"{did_you_mean(key, known)}{has}")
    if kind is None:
        return None
    for key, spec in known.items():
        if spec.default is MISSING and spec.default_factory is MISSING and key not in settings:
            raise RecipeError(f"{place}: the setting '{key}' is missing.", todo=f"Write {name}: {{{key}: …}}.")
    try:
        return TypeAdapter(kind).validate_python(settings)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join([place, *map(str, first["loc"])])  # a part that refuses its settings together names none
        raise RecipeError(
            f"{where}: {first['msg'].removeprefix('Value error, ')}; seen: {shown(first['input'])}.",
            todo="Mend this setting.",
        ) from None
