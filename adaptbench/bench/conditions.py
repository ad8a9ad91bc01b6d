"""What a suite's condition may be, found when the suite is read and not when its turn comes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from adaptbench.adaptive import Split
from adaptbench.attacks import Attack, load_attack
from adaptbench.errors import SuiteError

CLEAN = "clean"


def check_condition(name: str, ref: str, settings: dict[str, Any]) -> None:
    """Refuse a condition that cannot be what it is called.

    Args:
        name: its id. ref: "clean", a recipe, or torchattacks/NAME. settings: laid over the recipe.

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
    load_attack(ref, settings)


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
