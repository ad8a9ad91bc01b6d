"""Numbers in words: one place for units, signs, intervals and the dash that stands for what is missing.

Nothing heavy is imported, so that the command line's table uses the same helpers as the page.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from typing import Any, TypeGuard

from adaptbench.results.energy import kind_of

DASH = "–"
"""What a figure that does not exist looks like; never 0."""

_MINUS = "\u2212"
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
_CARDINALS = (
    "No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten", "Eleven", "Twelve",
)  # fmt: skip
_DECADES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p"))
_OF_SECONDS = _DECADES[3:]  # nobody reads kiloseconds
_IN_MINUTES, _IN_HOURS = 120, 7200


def exists(value: object) -> TypeGuard[float]:
    """Whether ``value`` is a finite number (a bool is not one)."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def number(value: float | None, digits: int = 2, *, signed: bool = False) -> str:
    """``value`` with a fixed number of decimals and a true minus sign; the dash if it does not exist."""
    if value is None or not math.isfinite(value):
        return DASH
    text = f"{abs(value):,.{digits}f}".replace(",", "\u2009")
    is_zero = not any(sign in text for sign in "123456789")
    if value < 0 and not is_zero:
        return _MINUS + text
    return "+" + text if signed and not is_zero else text


def count(value: float | None) -> str:
    """A whole number, thousands apart by thin spaces."""
    return number(value, 0)


def percent(share: float | None, digits: int = 1, *, signed: bool = False) -> str:
    """A share (1.0 = all) in per cent: ``97.8 %``."""
    if share is None or not math.isfinite(share):
        return DASH
    return f"{number(100 * share, digits, signed=signed)} %"


def points(share: float | None, digits: int = 1) -> str:
    """A difference of two shares, in percentage points: ``−0.6 points``."""
    if share is None or not math.isfinite(share):
        return DASH
    return f"{number(100 * share, digits, signed=True)} points"


def macs(value: float | None) -> str:
    """Multiply–accumulates: ``0.41 M``, ``85.3 k``, ``4.10 G``."""
    return _scaled(value, "", floor=0.1, smallest=1.0).rstrip()


def decade(largest: float) -> tuple[float, str]:
    """(factor, prefix) for an axis of MACs: M from 0.1 M on, else k, else none."""
    return next(((factor, prefix) for factor, prefix in _DECADES[:4] if largest >= 0.1 * factor), (1.0, ""))


def joules(value: float | None) -> str:
    """Energy in J: ``0.12 mJ``."""
    return _scaled(value, "J")


def watts(value: float | None) -> str:
    """Power in W: ``4.20 W``."""
    return _scaled(value, "W", floor=1.0)


def seconds(value: float | None) -> str:
    """Time in s: ``0.31 ms``, ``105 s``; from two minutes on ``4 min 05 s``, from two hours on ``3 h 20 min``."""
    if value is None or not math.isfinite(value) or (total := round(abs(value))) < _IN_MINUTES:
        return _scaled(value, "s", decades=_OF_SECONDS)
    sign, minutes = _MINUS if value < 0 else "", round(total / 60)
    if total < _IN_HOURS:
        return f"{sign}{total // 60} min {total % 60:02d} s"
    return f"{sign}{number(minutes // 60, 0)} h {minutes % 60:02d} min"


def one_scale(values: Iterable[float | None], unit: str) -> Callable[[float | None], str]:
    """A writer for a whole column, with one prefix and as many decimals for all, so that figures compare by eye.

    Args:
        values: everything that will stand in the column.
        unit: ``J``, ``s``, ``W`` …
    """
    sizes = [abs(value) for value in values if value is not None and math.isfinite(value) and value != 0]
    largest, smallest = max(sizes, default=1.0), min(sizes, default=1.0)
    decades = _OF_SECONDS if unit == "s" else _DECADES
    factor, prefix = next((pair for pair in decades if largest >= 0.1 * pair[0]), decades[-1])
    digits = min(max(1 - math.floor(math.log10(smallest / factor)), 0), 4)

    def write(value: float | None) -> str:
        return DASH if value is None or not math.isfinite(value) else f"{number(value / factor, digits)} {prefix}{unit}"

    return write


Writer = Callable[[float | None], str]
"""Writes a figure, or the dash."""


def column(values: Iterable[float | None], unit: str) -> tuple[str, Writer]:
    """A unit for a column's heading, and a writer of bare figures in it, all with as many decimals.

    The prefix is that of the column's geometric middle, so that neither end is all noughts.

    Args:
        values: everything that will stand in the column.
        unit: ``MACs``, ``s``, ``J``.

    >>> unit, write = column([7232.0, 1_132_224.0], "MACs")
    >>> unit, write(7232.0), write(1_132_224.0)
    ('kMACs', '7.2', '1\u2009132.2')
    """
    sizes = [abs(value) for value in values if value is not None and math.isfinite(value) and value != 0]
    smallest, largest = min(sizes, default=1.0), max(sizes, default=1.0)
    middle = math.sqrt(smallest) * math.sqrt(largest)
    decades = {"MACs": _DECADES[:4], "s": _OF_SECONDS}.get(unit, _DECADES)
    factor, prefix = next((pair for pair in decades if middle >= pair[0]), decades[-1])
    digits = min(max(1 - math.floor(math.log10(smallest / factor)), 0), 3) if unit != "MACs" or factor > 1 else 0

    def write(value: float | None) -> str:
        return DASH if value is None or not math.isfinite(value) else number(value / factor, digits)

    return f"{prefix}{unit}", write


def macs_unit(values: Iterable[float]) -> tuple[str, float]:
    """(unit, factor) for an axis of MACs: the prefix of the geometric middle of what stands on it."""
    sizes = [value for value in values if value > 0]
    middle = math.sqrt(min(sizes, default=1.0)) * math.sqrt(max(sizes, default=1.0))
    factor, prefix = next((pair for pair in _DECADES[:4] if middle >= pair[0]), _DECADES[3])
    return f"{prefix}MACs", factor


def interval(bounds: Sequence[float | None] | None, digits: int = 1, *, scale: float = 100.0) -> str:
    """A confidence interval, ``[90.3, 93.8]``, in per cent unless ``scale`` says otherwise; empty if there is none."""
    if bounds is None or len(bounds) != 2:
        return ""
    low, high = bounds
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"[{number(scale * low, digits)}, {number(scale * high, digits)}]"


def eps(value: float | None) -> str:
    """An L∞ size in [0, 1] pixel units as grey levels: ``8/255``."""
    if value is None or not math.isfinite(value):
        return DASH
    levels = 255 * value
    return f"{number(levels, 0 if abs(levels - round(levels)) < 1e-3 else 2)}/255"


def size_of(settings: Mapping[str, Any], size: float | None) -> str:
    """The largest change of one value: in grey levels, of series in their own unit."""
    if settings.get("constraint") == "series-linf":
        return DASH if size is None or not math.isfinite(size) else f"±{size:g}"
    return eps(size)


def provenance_kind(provenance: str | None) -> str:
    """``measured``, ``modelled`` or, where nothing answered, an empty string."""
    return kind_of(provenance)


def listing(things: Iterable[str], last: str = "and") -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    items = list(things)
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} {last} {items[-1]}"


def cardinal(amount: int) -> str:
    """A small number as a word, to open a sentence with."""
    return _CARDINALS[amount] if 0 <= amount < len(_CARDINALS) else count(amount)


def plural(amount: int, one: str, many: str | None = None) -> str:
    """``1 model``, ``3 models``."""
    return f"{count(amount)} {one if amount == 1 else many or one + 's'}"


def plural_of(amount: float, one: str) -> str:
    """``1 point``, ``0.5 points``: a figure that need not be whole, with as many decimals as it has."""
    return f"{amount:g} {one}{'' if amount == 1 else 's'}"


def clip(text: str, width: int) -> str:
    """``text`` cut to ``width`` characters, with an ellipsis where something is gone."""
    return text if len(text) <= width else text[: width - 1].rstrip() + "…"


def printable(text: str) -> str:
    """``text`` with what no page or terminal should obey made visible: control characters, lone surrogates, bidi marks.

    Line ends and tabs stay.
    """
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def _scaled(
    value: float | None,
    unit: str,
    *,
    floor: float = 0.1,
    smallest: float = 0.0,
    decades: Sequence[tuple[float, str]] = _DECADES,
) -> str:
    """The largest prefix that leaves at least ``floor`` before the unit; two significant digits at least."""
    if value is None or not math.isfinite(value):
        return DASH
    size = abs(value)
    if size == 0 or (smallest and 1 <= size < 1000):
        return f"{number(value, 0 if size == round(size) else 1)} {unit}"
    for factor, prefix in decades:
        if factor >= smallest and size >= floor * factor:
            return f"{number(value / factor, _decimals(size / factor))} {prefix}{unit}"
    return f"{_MINUS if value < 0 else ''}{size:.1e} {unit}".replace("e-", f"e{_MINUS}")


def _decimals(size: float) -> int:
    return 2 if size < 9.995 else 1 if size < 99.95 else 0
