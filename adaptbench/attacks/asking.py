"""Recipes that ask: what they may say of their queries, and the attack that they are."""

from __future__ import annotations

from typing import Any

from adaptbench.attacks.access import READINGS, BlackBox
from adaptbench.attacks.base import Attack
from adaptbench.attacks.best_of import BestOf, BestOfAttack
from adaptbench.attacks.composed import Parts
from adaptbench.attacks.estimator import EstimatorEnergy
from adaptbench.attacks.queried import QuerySearch, SearchedAttack
from adaptbench.attacks.taught import Taught, TaughtAttack
from adaptbench.errors import RecipeError


def require_meter(access: Any, objective: Any, where: str) -> None:
    """Refuse readings of what is counted, and meters where something else is looked at."""
    if not isinstance(access, BlackBox):
        return
    if access.cost == "macs" and access.readings != READINGS:
        raise RecipeError(
            f"{where}, access.black-box.readings: MACs are counted, once.", todo="Leave it out, or write cost: seconds."
        )
    if access.cost != "macs" and access.returns != "cost":
        raise RecipeError(
            f"{where}, access.black-box: logits beside {access.cost} are no threat that is spoken for.",
            todo="Leave returns out, or write cost: macs.",
        )
    if access.cost != "macs" and isinstance(objective, EstimatorEnergy) and objective.fit_on == "disjoint":
        raise RecipeError(
            f"{where}, access.black-box.cost: an estimator on disjoint pictures is fitted on counted MACs here.",
            todo="Write cost: macs, or fit_on: own.",
        )


def queried_attack(parts: Parts, access: Any, where: str) -> Attack:
    """The attack of a search by queries.

    Raises:
        RecipeError: a search by queries that has none, or that is told what it would not look at.
    """
    search = parts.search
    assert isinstance(search, QuerySearch)
    if parts.objective is not None or not isinstance(access, BlackBox):
        raise RecipeError(
            f"{where}: the search '{search.name}' asks for costs and takes no objective.",
            todo="Leave objective out and write access: {black-box: {queries: 500}}.",
        )
    if access.returns != search.returns:
        raise RecipeError(
            f"{where}: the search '{search.name}' looks at {search.returns}; access returns {access.returns}.",
            why="What an attacker sees is part of the threat, and a figure stands for one threat.",
            todo=f"Write access: {{black-box: {{queries: {access.queries}, returns: {search.returns}}}}}.",
        )
    if isinstance(search, Taught) and access.cost != "macs":
        raise RecipeError(
            f"{where}, access.black-box.cost: what a search learns on other pictures is learned of counted MACs here.",
            todo="Write cost: macs, or take the search 'assorted'.",
        )
    if search.balls and parts.constraint.name not in search.balls:
        raise RecipeError(
            f"{where}: the search '{search.name}' cannot move in the constraint '{parts.constraint.name}'.",
            why="Its patterns of signs are put on the edge of a ball that has one radius for the whole picture.",
            todo=f"Constraints: {', '.join(search.balls)}.",
        )
    if parts.recipe.keep != "first":
        raise RecipeError(
            f"{where}, keep: the search '{search.name}' keeps the first of the dearest pictures; "
            f"seen: {parts.recipe.keep}.",
            todo="Leave keep out.",
        )
    if isinstance(search, Taught):
        return TaughtAttack(parts, access)
    return (BestOfAttack if isinstance(search, BestOf) else SearchedAttack)(parts, access)
