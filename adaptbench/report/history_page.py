"""A history as one HTML page: the verdict, the steps, and a small line for each figure of each case."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from adaptbench.report import html, trends, words
from adaptbench.report.figures import sparkline
from adaptbench.report.tables import Builder, Column, Table, TableCell
from adaptbench.results.history import History, Series, Trend

_ORDER = {"counted": "Counted", "measured": "Measured", "modelled": "Modelled", "simulated": "Simulated"}


@dataclass(frozen=True, slots=True)
class Card:
    """One figure of one case.

    Args:
        title: the case. what: the figure. svg: its line. last: its last value. said: its last step; "" without one.
        kind: ``worse`` or ``better`` where it stepped. ends: its least and greatest value.
    """

    title: str
    what: str
    svg: Markup
    last: str
    said: str
    kind: str
    ends: str


@dataclass(frozen=True, slots=True)
class Part:
    """One suite or study on the page."""

    key: str
    title: str
    runs: Table
    steps: Table | None
    stepped: list[Card]
    still: list[tuple[str, list[Card]]]
    asides: list[str]


def write_history(history: History, out: Path) -> Path:
    """Write the page of a history.

    Raises:
        OutputError: ``out`` cannot be written.
    """
    return html.write(history_page(history), out)


def history_page(history: History) -> str:
    """The page as text; the same runs give the same bytes."""
    parts = [_part(f"t{place}", trend) for place, trend in enumerate(history.trends)]
    names = {part.key: part.title for part in parts}
    if history.unreadable:
        names["unreadable"] = "What could not be read"
    title = f"{parts[0].title}: history" if len(parts) == 1 else "History"
    runs = sum(len(trend.runs) for trend in history.trends)
    return html.render(
        "history.html.j2",
        title=title,
        kicker=[words.plural(runs, "run"), *_span(history)],
        contents=list(names.items()),
        names=names,
        sources=words.plural(runs, "run"),
        verdict=trends.verdict(history),
        parts=parts,
        unreadable=[trends.left_out(one) for one in history.unreadable],
    )


def _span(history: History) -> list[str]:
    days = sorted({trends.day(run) for trend in history.trends for run in trend.runs})
    return [" to ".join(dict.fromkeys((days[0], days[-1])))] if days else []


def _part(key: str, trend: Trend) -> Part:
    still = [
        (title, [_card(trend, series) for series in trend.series if series.kind == kind and not series.steps])
        for kind, title in _ORDER.items()
    ]
    return Part(
        key,
        trends.titled(trend),
        _runs(key, trend),
        _steps(key, trend),
        [_card(trend, series) for series in trend.moved],
        [(title, found) for title, found in still if found],
        trends.asides(trend),
    )


def _card(trend: Trend, series: Series) -> Card:
    name, what = trends.name_of(trend, series), trends.metric_of(series)
    present = [one for one in series.values if one is not None]
    last = trends.written(series, present[-1])
    said = kind = ""
    if series.steps:
        step = series.steps[-1]
        said = f"{trends.change(series, step)} at run {step.run + 1}, {trends.day(trend.runs[step.run])}"
        kind = "worse" if step.worse else "better"
    elif series.drift is not None:
        said, kind = f"drifted {trends.change(series, series.drift)}", "worse" if series.drift.worse else "better"
    low, high = (pick(present, key=lambda one: one.value) for pick in (min, max))
    ends = " to ".join(dict.fromkeys((trends.written(series, low), trends.written(series, high))))
    alt = f"{what} of {name} over {words.plural(len(present), 'run')}: {ends}, now {last}. {said}".strip()
    return Card(name, what, sparkline.line(series, alt), last, said, kind, ends)


def _runs(key: str, trend: Trend) -> Table:
    table = Builder(
        f"{key}-runs",
        f"{trends.titled(trend)}: the runs in order of time",
        (
            Column("run"),
            Column("started", numeric=False),
            Column("revision", numeric=False),
            Column("device", numeric=False),
            Column("read from", numeric=False),
        ),
    )
    for place, run in enumerate(trend.runs, 1):
        table.add(
            TableCell(str(place), value=place),
            f"{run.started:%Y-%m-%d %H:%M}",
            TableCell(words.clip(run.revision, 13) or words.DASH, value=run.revision),
            run.device[1] or words.DASH,
            str(run.path),
        )
    return table.build()


def _steps(key: str, trend: Trend) -> Table | None:
    table = Builder(
        f"{key}-steps",
        f"{trends.titled(trend)}: steps beyond noise, for the worse first",
        (
            Column("case", numeric=False),
            Column("figure", numeric=False),
            Column("run"),
            Column("started", numeric=False),
            Column("before"),
            Column("after"),
            Column("change"),
            Column("90 % interval"),
        ),
    )
    for series, step in trend.stepped:
        before, after = series.values[step.since], series.values[step.run]
        text = words.percent(step.change, signed=True) if series.relative else words.points(step.change)
        bounds = None if step.low is None or step.high is None else (step.low, step.high)
        table.add(
            TableCell(trends.name_of(trend, series), value=series.case),
            trends.metric_of(series),
            TableCell(str(step.run + 1), value=step.run + 1),
            trends.day(trend.runs[step.run]),
            TableCell(trends.written(series, before), value=None if before is None else before.value),
            TableCell(trends.written(series, after), value=None if after is None else after.value),
            TableCell(text, value=step.change, kind="bad" if step.worse else "good"),
            TableCell(words.interval(bounds) or "exact"),
        )
    return table.build(cards=True) if table.rows else None
