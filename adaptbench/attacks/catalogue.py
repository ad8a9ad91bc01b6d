"""Where recipes are found: a path, then ``attacks/`` here, then those that ship with the package. No torch here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from adaptbench.attacks.recipe import Recipe, read_recipe
from adaptbench.attacks.registry import ATTACKS
from adaptbench.errors import RecipeError, UnknownNameError
from adaptbench.registry import did_you_mean

TORCHATTACKS = "torchattacks/"
LATEST = {"standard": "standard-3", "standard-kept": "standard-2-kept"}
"""Short names of versioned recipes; a case keeps its suite's word, title and hash are the versioned one's."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A line of ``adaptbench list attacks``."""

    name: str
    title: str
    cite: str
    access: str
    kind: str
    origin: str


def shipped_folder() -> Path:
    """Recipes in the wheel, or at the top of an editable checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "_attacks"
    return inside if inside.is_dir() else package.parent / "attacks"


def recipe_folders() -> list[Path]:
    """Where names are looked up, in order."""
    return [Path("attacks"), shipped_folder()]


def recipe_files() -> dict[str, Path]:
    """Name → file; a recipe here hides a shipped one of the same name."""
    recipes: dict[str, Path] = {}
    for folder in recipe_folders():
        if folder.is_dir():
            for place in sorted(folder.glob("*.yaml")):
                recipes.setdefault(place.stem, place)
    return recipes


def find_recipe(ref: str) -> tuple[str, Path]:
    """Name and file that a reference means.

    Raises:
        UnknownNameError: no such file and no such name.
    """
    place = Path(ref)
    if place.suffix in (".yaml", ".yml"):
        if place.is_file():
            return place.stem, place
        raise UnknownNameError(
            f"there is no recipe file '{ref}'.",
            todo="Check the path, or give a name that `adaptbench list attacks` shows.",
        )
    recipes = recipe_files()
    ref = ref if ref in recipes else LATEST.get(ref, ref)
    if ref in recipes:
        return ref, recipes[ref]
    known = [*recipes, *ATTACKS.names()]
    raise UnknownNameError(
        f"no attack is called '{ref}'.",
        todo=f"{did_you_mean(ref, known)}`adaptbench list attacks` shows all {len(known)}; "
        "torchattacks/NAME takes any class of torchattacks.",
    )


def list_attacks(broken: list[str] | None = None) -> Iterator[Listed]:
    """Every recipe that can be read, and every plug-in's attack.

    Args:
        broken: is given a line for each recipe that cannot be read.
    """
    for name, place in recipe_files().items():
        try:
            recipe: Recipe = read_recipe(place)
        except RecipeError as error:
            if broken is not None:
                broken.append(error.seen)
            continue
        yield Listed(name, recipe.title, recipe.cite, recipe.access.name, recipe.kind, str(place))
    for entry in ATTACKS:
        yield Listed(entry.name, entry.summary, "", "", "attack", entry.origin)
