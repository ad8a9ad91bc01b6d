"""What an audit runs, as a suite: written into the bundle, executed by the bench like any other."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from adaptbench.attacks import Attack, load_attack
from adaptbench.attacks.catalogue import TORCHATTACKS, find_recipe, shipped_folder
from adaptbench.attacks.fractions import parse_fraction
from adaptbench.attacks.registry import ATTACKS
from adaptbench.auditing.grounds import PICTURES, Ground
from adaptbench.bench.suite import LoadedSuite, checked
from adaptbench.errors import UsageError
from adaptbench.experiment.source import Source
from adaptbench.located_yaml import parse
from adaptbench.report import words
from adaptbench.results.files import write_text

PAIRS = {"standard": ("standard", "standard-kept")}
"""A recipe and its variant that keeps every answer: either is reported, apart from the other."""
FILE, RECIPES = "suite.yaml", "recipes"


def attacks_of(attacks: str | Sequence[str] | None, ground: Ground = PICTURES) -> list[str]:
    """Recipes that are meant, each once, in order.

    Args:
        attacks: names, as a list or parted by commas; ``standard`` brings ``standard-kept``; None: the ground's own.

    Raises:
        UsageError: none.
    """
    wanted = ground.attacks if attacks is None else attacks
    given = wanted.split(",") if isinstance(wanted, str) else list(wanted)
    named = [name.strip() for name in given if name.strip()]
    if not named:
        raise UsageError("no attack was named.", todo="Write --attacks standard, or leave it out.")
    return list(dict.fromkeys(one for name in named for one in PAIRS.get(name, (name,))))


def suite_of(
    *,
    net: str,
    policy: str | Mapping[str, Any] | None,
    data: str,
    attacks: Sequence[str],
    ground: Ground,
    reach: Mapping[str, float],
    limit: int,
    seed: int,
    given: Collection[str],
    bundle: Path,
) -> LoadedSuite:
    """The suite of an audit: the clean inputs, controls that go as far, and the attacks.

    Args:
        attacks: controls first, as the bundle has them, see `recipes_into`.
        ground: of the inputs. reach: how far attacks go that keep the audit's own bound, by the setting that says it.
        given: names that are handed over and stand in no registry.
        bundle: where the file will lie.

    Raises:
        SuiteError: a model, policy, data set or attack that does not exist.
    """
    contents: dict[str, Any] = {
        "title": f"audit of {net} on {data}",
        "data": data,
        "models": [net if policy is None else {net: policy}],
        "conditions": ["clean", *(_condition(ref, ground, reach, bundle) for ref in attacks)],
        "limit": limit,
        "seeds": [seed],
        "strict": False,  # what no formula covers is a finding, not the end
    }
    text = yaml.safe_dump(contents, sort_keys=False, allow_unicode=True, width=120)
    located = parse(f"# written by adaptbench audit\n{text}", FILE)
    return checked(Source("audit", dict(located.value), located, folder=bundle), given)


def recipes_into(bundle: Path, attacks: Sequence[str], ground: Ground = PICTURES) -> list[str]:
    """The controls and the attacks as the bundle's suite names them: what does not ship is copied beside it.

    A control is looked up as an attack is: where the working directory holds a recipe of its name, that one runs,
    is kept, and is not run twice.

    Raises:
        UnknownNameError: no such attack. UsageError: two of them would be one condition.
    """
    named: list[str] = []
    meant: dict[str, Path] = {}
    copied: dict[str, str] = {}
    for ref in [*ground.controls, *attacks]:
        if ref.startswith(TORCHATTACKS) or ref in ATTACKS:
            named.append(ref)
            continue
        name, place = find_recipe(ref)
        place = place.resolve()
        if (other := meant.setdefault(name, place)) != place and other.read_bytes() != place.read_bytes():
            raise UsageError(
                f"{other} and {place} are both called '{name}'.",
                why="A condition of an audit is called as its recipe is, and the bundle keeps it under that name.",
                todo="Rename one of the files.",
            )
        if other != place:
            continue  # the same recipe, by another way
        if not _ships(name, place):
            copied[name] = place.read_text(encoding="utf-8")
            ref = f"{RECIPES}/{name}.yaml"
        elif ref.endswith((".yaml", ".yml")):
            ref = name
        named.append(ref)
    shutil.rmtree(bundle / RECIPES, ignore_errors=True)  # of an audit that lay here before
    for name, text in copied.items():
        write_text(bundle / RECIPES / f"{name}.yaml", text)
    return list(dict.fromkeys(named))


def _ships(name: str, place: Path) -> bool:
    """True for a shipped recipe, and for a copy of it: a checkout's own folder beside an installed wheel."""
    shipped = shipped_folder() / f"{name}.yaml"
    return shipped.is_file() and shipped.read_bytes() == place.read_bytes()


def _condition(ref: str, ground: Ground, reach: Mapping[str, float], bundle: Path) -> Any:
    own = ref.startswith(f"{RECIPES}/")
    settings: dict[str, Any] = {"id": Path(ref).stem} if own else {}
    attack = load_attack(str(bundle / ref) if own else ref)
    if takes_eps(attack) if ground is PICTURES else ground.bounds(attack.settings):
        settings |= {name: _spelled(value) if ground is PICTURES else value for name, value in reach.items()}
    return {ref: settings} if settings else ref


def takes_eps(attack: Attack) -> bool:
    """True where an attack stays in an L∞ ball: what an audit's eps speaks of; others keep their own bound."""
    settings = attack.settings
    return "eps" in settings and PICTURES.bounds(settings) and not attack.name.endswith("L2")


def _spelled(eps: float) -> str | float:
    """As grey levels where they are whole, so that the file reads as papers do."""
    return words.eps(eps) if parse_fraction(words.eps(eps)) == eps else eps
