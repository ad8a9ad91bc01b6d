"""Drawings that stand in a table's cell and stretch with it: dots on a scale, bars side by side.

They are of HTML, not of SVG: a narrow window makes them shorter and leaves the writing as large as it was. Whoever
cannot see them reads the figure beside them.
"""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from adaptbench.report import words


def dot(
    value: float,
    bounds: Sequence[float | None] | None,
    *,
    span: tuple[float, float],
    role: str,
    band: Sequence[float | None] | None = None,
) -> Markup:
    """One figure on a scale: its interval as an arm, a control's as a band behind it.

    Args:
        value: in the scale's own unit. bounds: its interval, or None.
        span: both ends of the scale. role: ``clean``, ``control`` or ``attack``. band: the control's interval.
    """
    parts = [Markup('<i class="zero" style="left:{}%"></i>').format(_place(0.0, span))]
    if low_high := _pair(band):
        parts.append(_between("band", *low_high, span))
    parts.append(_between(f"stem {role}", min(0.0, value), max(0.0, value), span))
    if low_high := _pair(bounds):
        parts.append(_between(f"arm {role}", *low_high, span))
    parts.append(Markup('<b class="{}" style="left:{}%"></b>').format(role, _place(value, span)))
    return Markup('<span class="dots" aria-hidden="true">{}</span>').format(Markup("").join(parts))


def axis(span: tuple[float, float], ticks: Sequence[float]) -> Markup:
    """The scale's ticks, in per cent."""
    marks = Markup("").join(
        Markup('<i style="left:{}%">{}</i>').format(_place(tick, span), words.percent(tick, 0)) for tick in ticks
    )
    return Markup('<span class="axis" aria-hidden="true">{}</span>').format(marks)


def bars(lengths: Sequence[tuple[float | None, str]]) -> Markup:
    """Bars under one another, the longest as long as the cell.

    Args:
        lengths: (length, role); a length that does not exist has no bar.
    """
    longest = max((length for length, _ in lengths if length is not None), default=0.0) or 1.0
    drawn = Markup("").join(
        Markup('<i class="{}" style="width:{:.1f}%"></i>').format(role, 100 * length / longest)
        for length, role in lengths
        if length is not None
    )
    return Markup('<span class="bars" aria-hidden="true">{}</span>').format(drawn)


def _between(name: str, low: float, high: float, span: tuple[float, float]) -> Markup:
    left, right = float(_place(low, span)), float(_place(high, span))
    return Markup('<i class="{}" style="left:{:.1f}%;width:{:.1f}%"></i>').format(name, left, right - left)


def _place(value: float, span: tuple[float, float]) -> str:
    low, high = span
    return f"{min(max(100 * (value - low) / (high - low), 0.0), 100.0):.1f}"


def _pair(bounds: Sequence[float | None] | None) -> tuple[float, float] | None:
    if not bounds or len(bounds) != 2:
        return None
    low, high = bounds
    return (low, high) if words.exists(low) and words.exists(high) else None
