"""What a suite's condition may be, found when the suite is read and not when its turn comes."""

from __future__ import annotations

from typing import Any

from adaptbench.attacks import load_attack
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
