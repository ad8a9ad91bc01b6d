"""One figure over the runs as a small line: in HTML with its interval and steps, in the terminal as bars."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup, escape

from adaptbench.results.history import Series, Value

WIDTH, HEIGHT = 260, 72
"""CSS pixels of a drawing; it scales with its column."""
_SIDE, _TOP = 8, 10
_BARS = "▁▂▃▄▅▆▇█"
_NO_BAR = "·"


def bars(values: Sequence[Value | None], width: int) -> str:
    """The last ``width`` values as bars of eight heights, from the least to the greatest; · where a run has none.

    >>> bars([Value(1.0), None, Value(3.0), Value(2.0)], 8)
    '▁·█▅'
    """
    shown = list(values)[-width:]
    present = [one.value for one in shown if one is not None]
    low, high = min(present, default=0.0), max(present, default=0.0)
    if low == high:
        return "".join(_NO_BAR if one is None else _BARS[3] for one in shown)
    places = [None if one is None else round((one.value - low) / (high - low) * (len(_BARS) - 1)) for one in shown]
    return "".join(_NO_BAR if place is None else _BARS[place] for place in places)


def line(series: Series, alt: str) -> Markup:
    """The drawing of one series: a band for intervals, a line through the runs that have it, a disc at each step."""
    present = [one for one in series.values if one is not None]
    ends = [end for one in present for end in (one.value, one.low, one.high) if end is not None]
    low, high = min(ends), max(ends)
    if high - low < 1e-12 * max(abs(high), 1e-300):
        low, high = low - 0.5 * (abs(low) or 1.0), high + 0.5 * (abs(high) or 1.0)
    last = max(len(series.values) - 1, 1)

    def at(run: int, value: float) -> tuple[float, float]:
        x = _SIDE + (WIDTH - 2 * _SIDE) * run / last
        return x, _TOP + (HEIGHT - 2 * _TOP) * (high - value) / (high - low)

    told = [(run, one) for run, one in enumerate(series.values) if one is not None]
    upper = [at(run, one.value if one.high is None else one.high) for run, one in told]
    lower = [at(run, one.value if one.low is None else one.low) for run, one in told]
    points = [at(run, one.value) for run, one in told]
    parts = [f'<path class="band" d="M{_path(upper)}L{_path(lower[::-1])}Z"/>'] if len(told) > 1 else []
    parts.append(f'<polyline class="trend" points="{_path(points)}"/>')
    parts += [f'<circle class="run" cx="{x:.1f}" cy="{y:.1f}" r="2"/>' for x, y in points]
    heights = {run: at(run, one.value) for run, one in told}
    for gap in series.gaps:
        x = at(gap.run, low)[0] - (WIDTH - 2 * _SIDE) / last / 2
        parts.append(f'<path class="gap" d="M{x:.1f} {_TOP - 6}V{HEIGHT - _TOP + 6}"/>')
    for step in series.steps:
        x, y = heights[step.run]
        kind = "worse" if step.worse else "better"
        parts.append(f'<circle class="step {kind}" cx="{x:.1f}" cy="{y:.1f}" r="5"/>')
    return Markup('<svg class="spark" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, escape(alt), Markup("".join(parts))
    )


def _path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
