"""What a suite's condition may be, found when the suite is read and not when its turn comes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from adaptbench.adaptive import Split
from adaptbench.attacks import Attack, load_attack
from adaptbench.bench.shift import SHIFT, check_shift
from adaptbench.errors import SuiteError
from adaptbench.registry import did_you_mean

CLEAN = "clean"


def check_condition(name: str, ref: str, settings: dict[str, Any]) -> None:
    """Refuse a condition that cannot be what it is called.

    Args:
        name: its id. ref: "clean", "shift", a recipe, or torchattacks/NAME. settings: laid over the recipe.

    Raises:
        SuiteError: something else is called clean, or clean inputs are given settings.
        AdaptBenchError: no such attack, or a setting out of its range.
    """
    if ref == CLEAN:
        if settings:
            raise SuiteError(
                f"clean inputs have no setting '{next(iter(settings))}'.",
                todo="Write `- clean`, or `- clean: {limit: 100}`.",
            )
        if name != CLEAN:
            raise SuiteError(
                f"the clean inputs are called '{name}'.",
                why="Every other condition is held against the condition 'clean'.",
                todo="Write `- clean`, without an id.",
            )
        return
    if name == CLEAN:
        raise SuiteError(
            f"'{ref}' is called 'clean'.",
            why="Recovery and increase would be counted against changed inputs.",
            todo="Give it another id, or none.",
        )
    if ref == SHIFT:
        check_shift(settings)
    else:
        load_attack(ref, settings)


def check_transfer(name: str, conditions: Mapping[str, tuple[str, dict[str, Any]]], models: int) -> None:
    """Refuse a condition whose pictures say nothing on another model than the one they were crafted on.

    Args:
        conditions: id → reference and settings. models: how many the suite has.

    Raises:
        SuiteError: no such condition, one that does not look at the model, or a suite of one model.
    """
    if name not in conditions:
        raise SuiteError(
            f"no condition is called '{name}'.",
            todo=f"{did_you_mean(name, list(conditions))}Conditions: {', '.join(conditions)}.",
        )
    ref, settings = conditions[name]
    attack = None if ref in (CLEAN, SHIFT) else load_attack(ref, settings)
    if attack is None or attack.kind == "control" or attack.access in ("transfer", "none"):
        raise SuiteError(
            f"the pictures of '{name}' are crafted on no model of this suite.",
            why="Carried to another model, they are what that model's own case has.",
            todo="Name an attack that looks at its target, or leave it out.",
        )
    if models < 2:
        raise SuiteError("there is one model, and none to carry pictures to.", todo="Name two models or more.")


def finer_than_data(attacks: Mapping[str, Attack], split: Split) -> list[str]:
    """A note on attacks that move no value by as much as two neighbouring values of the data differ.

    Args:
        attacks: by condition id. split: its pictures.
    """
    values = torch.unique(split.x).long()
    if len(values) < 2:
        return []
    gap = int((values[1:] - values[:-1]).min())
    fine = [name for name, attack in attacks.items() if _eps_linf(attack) < (gap - 0.01) / 255]
    if gap == 1 or not fine:
        return []
    return [
        f"{', '.join(fine)}: eps is below one step of the {len(values)} grey levels of {split.name} ({gap}/255); what "
        "is crafted lies between them, where none of its pictures do"
    ]


def _eps_linf(attack: Attack) -> float:
    settings = attack.settings
    norm = str(settings.get("constraint", settings.get("norm", "linf"))).lower()
    eps = settings.get("eps")
    in_l2 = norm != "linf" or attack.name.endswith("L2")
    return float("inf") if in_l2 or not isinstance(eps, int | float) else float(eps)
