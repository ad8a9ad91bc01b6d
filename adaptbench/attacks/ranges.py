"""What a setting of an attack may be: one check for recipes, torchattacks and the Python classes. No torch here.

Distances are shares of the pixel range, so an eps of 8 is eight times black to white; what was meant is 8/255.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BeforeValidator

from adaptbench.attacks.fractions import parse_fraction

GREY_LEVEL = 1.0 / 255.0
UNSAID = {"unsaid": True}
"""Metadata of a field that stands among an attack's settings only where it is set: hashes of before stay."""
_HAIR = 1e-9
LARGEST = {"linf": 1.0, "l2": 400.0, "l1": 200_000.0}
"""The greatest distances there are: from black to white, over 224 × 224 × 3 values in L2 and L1."""
_SIGN = {"linf": "L∞", "l2": "L2", "l1": "L1"}


def number(value: Any) -> float:
    """A finite number, or a fraction as text.

    Raises:
        ValueError: anything else, true and false among it.
    """
    parsed = parse_fraction(value)
    if isinstance(parsed, bool) or not isinstance(parsed, int | float):
        raise ValueError("a number, or a fraction such as 8/255")
    try:
        given = float(parsed)
    except OverflowError:
        given = math.inf
    if not math.isfinite(given):
        raise ValueError("a finite number, or a fraction such as 8/255")
    return given


def whole(value: Any) -> int:
    """A whole number.

    Raises:
        ValueError: anything else; 2.0, "2" and true are no counts.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("a whole number")
    return value


def shown(value: Any) -> str:
    """A refused value in a message, short and printable whatever it is."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**18:
        return "an integer of more than 18 digits"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def within(low: float, high: float, *, open_low: bool = False) -> Callable[[Any], Any]:
    """A check that a number lies in a range.

    Args:
        low, high: both allowed; low is not where `open_low`.
    """

    def check(value: Any) -> Any:
        if value > high or value < low or (open_low and value == low):
            bound = f"greater than {low:g}" if open_low else f"at least {low:g}"
            raise ValueError(f"{bound} and at most {high:g}")
        return value

    return check


def radius(norm: str) -> Callable[[Any], float]:
    """A check of eps: how far the whole change may go.

    Args:
        norm: "linf", "l2" or "l1".
    """

    def check(value: Any) -> float:
        eps = _length(norm, number(value), "8/255")
        if eps < GREY_LEVEL - _HAIR:
            raise ValueError(
                f"{_SIGN[norm]} eps is at least 1/255: pictures have 8 bits, so below one grey level nothing can change"
            )
        return eps

    return check


def step_length(norm: str) -> Callable[[Any], float]:
    """A check of alpha: how far one step goes; below a grey level is allowed, steps add up."""
    return lambda value: _length(norm, number(value), "2/255")


def _length(norm: str, value: float, meant: str) -> float:
    largest = LARGEST[norm]
    if not 0 < value <= largest:
        near = f"; did you mean {value:g}/255?" if norm == "linf" and 1 < value <= 255 else ""
        near = near or (f"; papers write it as {meant}" if norm == "linf" else "")
        raise ValueError(f"{_SIGN[norm]} distances are greater than 0 and at most {largest:g}, in pixel range{near}")
    return value


def real(low: float, high: float, *, open_low: bool = False) -> BeforeValidator:
    """For a field: a finite number in a range."""
    check = within(low, high, open_low=open_low)
    return BeforeValidator(lambda value: check(number(value)))


def count(low: int, high: int) -> BeforeValidator:
    """For a field: a whole number in a range."""
    check = within(low, high)
    return BeforeValidator(lambda value: check(whole(value)))


LinfRadius = Annotated[float, BeforeValidator(radius("linf"))]
L2Radius = Annotated[float, BeforeValidator(radius("l2"))]
L1Radius = Annotated[float, BeforeValidator(radius("l1"))]
Steps = Annotated[int, count(1, 100_000)]
Queries = Annotated[int, count(2, 10_000_000)]
