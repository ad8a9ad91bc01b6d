"""Which control stands beside an attack: chance at as many queries for those that ask, one draw for the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

Row = TypeVar("Row", bound=Mapping[str, Any])
Conditions = Mapping[str, Mapping[str, Any]]


def queries_of(condition: Mapping[str, Any]) -> int | None:
    """The budget of a condition that asks for costs; None for the others."""
    queries = (condition.get("settings") or {}).get("queries")
    return queries if isinstance(queries, int) and not isinstance(queries, bool) else None


def equal_control(name: str, conditions: Conditions) -> str | None:
    """The control with the same queries and the same ball as a black-box attack; None where the suite has none."""
    attack = conditions.get(name) or {}
    if queries_of(attack) is None:
        return None
    wanted = _terms(attack)
    return next((n for n, c in conditions.items() if c.get("kind") == "control" and _terms(c) == wanted), None)


def beside(record: Mapping[str, Any], rows: Sequence[Row], conditions: Conditions) -> Row | None:
    """The control's record for an attack's, on the same number of inputs; None where there is none.

    Args:
        record: of the attack. rows: of the same model. conditions: of the manifest.
    """
    if queries_of(conditions.get(record["condition"]) or {}) is not None:
        name = equal_control(record["condition"], conditions)
        return next((r for r in rows if r["condition"] == name and r["n"] == record["n"]), None)
    drawn = [
        r
        for r in rows
        if r["kind"] == "control"
        and queries_of(conditions.get(r["condition"]) or {}) is None
        and "data" not in (conditions.get(r["condition"], {}).get("settings") or {})  # other pictures: of no norm
    ]
    return drawn[0] if drawn else None


def _terms(condition: Mapping[str, Any]) -> tuple[Any, ...]:
    settings = condition.get("settings") or {}
    return queries_of(condition), settings.get("constraint"), settings.get("eps")
