"""Which joules may be added up, and how modelled ones are written: nothing here knows a meter by its name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

MODELLED_DIGITS = 12
"""Significant digits of modelled joules a sample; `adaptbench.meters.modelled` writes no more.

A formula's joules are the same in every run. What is left beyond comes from how often a window repeated the work.
"""

DECLARED = frozenset({"quantity", "scope", "whole_run"})
"""What a meter's class declares of it, in the manifest beside what it says of itself."""


def kind_of(provenance: object) -> str:
    """``measured``, ``modelled``, or an empty string where nothing is stated."""
    head = str(provenance or "").partition(":")[0].strip().lower()
    return head if head in ("measured", "modelled") else ""


def apart(components: Iterable[tuple[object, object, object]]) -> str:
    """Why the components of a meter may not be added up; an empty string where they may.

    Args:
        components: (component, provenance, scope) of rows that hold joules.
    """
    kinds: dict[str, str] = {}
    scopes: dict[str, str] = {}
    for component, provenance, scope in components:
        if kind := kind_of(provenance):
            kinds.setdefault(kind, str(component))
            scopes.setdefault(str(scope or ""), str(component))
    if len(kinds) > 1:
        return f"its joules are in part measured ({kinds['measured']}), in part modelled ({kinds['modelled']})"
    if len(scopes) > 1:
        parts = ", ".join(f"{component}: {scope or 'not said'}" for scope, component in sorted(scopes.items()))
        return f"its components are of different things ({parts}), so that a sum would count some joules twice"
    return ""


def no_sensor(meters: Mapping[str, Mapping[str, Any]], used: Iterable[str]) -> str:
    """Why joules of single cases are modelled: no sensor was asked for, or those that were did not answer.

    Args:
        meters: of the manifest. used: those that the joules are from.

    >>> no_sensor({"modelled": {"quantity": "energy", "found": True}}, ["modelled"])
    'no power sensor was asked for'
    """
    asked = {name: meter for name, meter in meters.items() if of_cases(meter) and name not in set(used)}
    if not asked:
        return "no power sensor was asked for"
    silent = [f"{name}: {meter.get('reason') or 'it gave no joules'}" for name, meter in asked.items()]
    return f"no power sensor answered ({'; '.join(silent)})"


def of_cases(meter: Mapping[str, Any]) -> bool:
    """Whether a meter of the manifest reads joules of single cases."""
    return meter.get("quantity") == "energy" and not meter.get("whole_run")


def rounded(per_sample: float) -> float:
    """Joules a sample of a formula, without the rounding that the number of repetitions brings in.

    >>> rounded(4.7600000000000012e-06)
    4.76e-06
    """
    return float(f"{per_sample:.{MODELLED_DIGITS}g}")
