"""A recipe file: the four parts of an attack by name, its source, and where it departs from it. No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator

from adaptbench.errors import RecipeError, SuiteError
from adaptbench.located_yaml import read
from adaptbench.registry import did_you_mean

Keep = Literal["first", "nearest", "deepest", "last"]
Precision = Literal["fp32", "bf16"]
SHARED = ("none", "all", "class")
ACCESS = ("white-box", "black-box", "transfer", "none")


class RecipePart(BaseModel):
    """A name with settings: ``linf`` or ``linf: {eps: 8/255}``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    settings: dict[str, Any] = {}


def _part(value: Any) -> Any:
    if isinstance(value, RecipePart) or value is None:
        return value
    if isinstance(value, str):
        return RecipePart(name=value)
    if isinstance(value, dict) and len(value) == 1:
        ((name, settings),) = value.items()
        if settings is None or (isinstance(settings, dict) and all(isinstance(k, str) for k in settings)):
            return RecipePart(name=str(name), settings=settings or {})
    raise ValueError(f"write a name, or a name with settings as in {{linf: {{eps: 8/255}}}}; seen: {value!r}")


def _shared(value: Any) -> Any:
    part = _part(value)
    return None if part is not None and part.name == "none" else part


PartField = Annotated[RecipePart, BeforeValidator(_part)]


On = Literal["all", "exits", "gates", "stepwise-gates", "planned-gates"]
"""The decisions that a member of several is for: any, those of gates or all others; of gates those that are asked block
by block, or those planned from the picture before anything runs."""


class Member(BaseModel):
    """One of several attacks that a recipe runs in turn, each on what the others left below the ceiling.

    Args:
        objective, search: as in a recipe. start: where pictures begin: "as-set", "noise", "best" or "dear", on the way
            towards the dearest of crafting pictures, which then are needed.
        on: the kind of decisions that it is for.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    objective: PartField | None = None
    search: PartField
    start: Literal["as-set", "noise", "best", "dear"] = "as-set"
    on: On = "all"


class Recipe(BaseModel):
    """What a file in ``attacks/`` says.

    Args:
        title, cite: for reports. kind: "control" or "attack".
        access: "white-box", "black-box: {queries: 500}", "transfer: {surrogate: NAME}" or "none".
        objective, constraint, search: names from the registries with settings.
        shared: "all": one change for all pictures, "class": one a class; crafted on pictures of their own.
        members: in place of objective and search, several of them; the worst case a sample is kept.
        keep: which of equally costly pictures is returned, see `adaptbench.attacks.judging.Keep`.
        aim: "dearest", or "cheap-and-wrong". label: "free", or "keep" for pictures answered as the clean one is.
        fixed: a suite may set nothing but the constraint's own numbers and precision, so that the name can be cited.
        seconds: an input, after which the rest stays as it is; None is as long as it takes.
        precision: of the gradients' passes: "fp32", or "bf16" under autocast; what is kept is executed in fp32.
        deviates: a sentence for each departure from the source.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    cite: str = ""
    kind: Literal["control", "attack"] = "attack"
    access: PartField = RecipePart(name="white-box")
    objective: PartField | None = None
    constraint: PartField
    search: PartField | None = None
    shared: Annotated[RecipePart | None, BeforeValidator(_shared)] = None
    members: tuple[Member, ...] = ()
    keep: Keep = "first"
    aim: Literal["dearest", "cheap-and-wrong"] = "dearest"
    label: Literal["free", "keep"] = "free"
    seconds: float | None = None
    precision: Precision = "fp32"
    fixed: bool = False
    deviates: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one_way(self) -> Recipe:
        if self.members and (self.search is not None or self.objective is not None):
            raise ValueError("members stand in the place of objective and search; write one or the other")
        if not self.members and self.search is None:
            raise ValueError("a search is missing (or several members)")
        if self.members and self.keep != "first":
            raise ValueError("members keep the first of the best pictures; leave keep out")
        if self.aim == "cheap-and-wrong" and self.label == "keep":
            raise ValueError("an answer cannot be wrong and kept; leave label out")
        if self.seconds is not None and not 0 < self.seconds < float("inf"):
            raise ValueError("seconds is a number above 0")
        return self

    def parts(self) -> dict[str, RecipePart]:
        """The parts that are there, by field."""
        by_field = {
            "access": self.access,
            "objective": self.objective,
            "constraint": self.constraint,
            "search": self.search,
            "shared": self.shared,
        }
        return {field: part for field, part in by_field.items() if part is not None}


def read_recipe(place: Path) -> Recipe:
    """A recipe from a YAML file.

    Raises:
        RecipeError: not readable, not YAML, or a field that is unknown, missing or wrong; says which.
    """
    try:
        content = read(place).value
    except SuiteError as error:
        raise RecipeError(error.seen, why=error.why, todo=error.todo) from None
    if not isinstance(content, dict):
        raise RecipeError(
            f"{place} holds {type(content).__name__}, not fields.", todo="Start from one of the shipped recipes."
        )
    return make_recipe(content, str(place))


def make_recipe(content: dict[str, Any], where: str) -> Recipe:
    """Check fields.

    Args:
        content: as YAML gives it. where: file name for messages.

    Raises:
        RecipeError: a field that is unknown, missing or wrong.
    """
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        raise _explain(error, where, list(Recipe.model_fields)) from None
    for field, part, known in (("access", recipe.access, ACCESS), ("shared", recipe.shared, SHARED)):
        if part is not None and part.name not in known:
            raise RecipeError(
                f"{where}, {field}: nothing is called '{part.name}'.",
                todo=f"{did_you_mean(part.name, known)}There are: {', '.join(known)}.",
            )
    return recipe


def _explain(error: ValidationError, where: str, known: list[str]) -> RecipeError:
    first = error.errors()[0]
    field = ".".join(str(step) for step in first["loc"])
    if first["type"] == "extra_forbidden":
        return RecipeError(
            f"{where}: a recipe has no field '{field}'.",
            todo=f"{did_you_mean(field, known)}Fields: {', '.join(known)}.",
        )
    if first["type"] == "missing":
        return RecipeError(f"{where}: the field '{field}' is missing.", todo="Look at a shipped recipe for its form.")
    if first["type"] == "literal_error" and field == "keep":
        return RecipeError(f"{where}, keep: seen {first['input']!r}.", todo=f"One of: {', '.join(get_args(Keep))}.")
    return RecipeError(f"{where}, {field}: {first['msg'].removeprefix('Value error, ')}.", todo="Mend this field.")
