"""What a value in a document may be, and how a foreign one is shown."""

from __future__ import annotations

from typing import Any


def has_form(value: Any, form: str, of: str = "") -> bool:
    """Whether a value is what a `Field` says of it."""
    if form == "count":
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63
    if form == "number":
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and abs(value) < 1e300  # NaN, infinite and 400-digit integers are none
    if not isinstance(value, {"text": str, "flag": bool, "map": dict, "list": list}[form]):
        return False
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return not of or all(has_form(part, of) for part in parts)


def is_interval(value: Any) -> bool:
    """Whether a value is [low, high], two numbers in order."""
    return (
        isinstance(value, (list, tuple))
        and len(value) == 2
        and all(has_form(end, "number") for end in value)
        and value[0] <= value[1]
    )


def shown(value: Any) -> str:
    """A foreign value for a message: not more than one may want to read."""
    if isinstance(value, int) and abs(value) >= 2**63:
        return "an integer of more than 64 bits"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
