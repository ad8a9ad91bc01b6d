"""``adaptbench history``: what every figure did from run to run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adaptbench.commands.options import Json, Quiet, Verbose
from adaptbench.commands.voice import Voice, print_document
from adaptbench.errors import RunError
from adaptbench.terminal import console

if TYPE_CHECKING:
    from rich.text import Text

    from adaptbench.results.history import Series, Trend

_TREND, _NAME, _FIGURE = 10, 27, 8
"""Columns of the terminal: bars, the figure's name, a value. With the last step they fit into 80."""


def history(
    places: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Runs, kept summaries, or folders with these in them.")
    ],
    out: Annotated[Path | None, typer.Option("--out", help="HTML file with a small line for each figure.")] = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Trend of each figure over runs, in order of their time, and where it stepped beyond noise.

    What cannot be read is named and left out. Exit codes: 0 done, whatever stepped (`check` is the gate), 2 nothing to
    read.
    """
    _follow(places, out, Voice(verbose=verbose, quiet=quiet, json=as_json))


def _follow(places: Sequence[Path], out: Path | None, voice: Voice) -> None:
    from adaptbench.report import trends
    from adaptbench.results.history import history as follow

    found = follow(places)
    if not found.trends:
        first = trends.left_out(found.unreadable[0]) if found.unreadable else "no folder was named"
        more = f" (and {len(found.unreadable) - 1} more)" if len(found.unreadable) > 1 else ""
        raise RunError(
            f"{first}{more}.",
            why="There is no run to follow.",
            todo="Name run directories, files that `adaptbench baseline` kept, or a folder with these in it.",
        )
    page = None
    if out is not None:
        from adaptbench.report.history_page import write_history

        page = write_history(found, out)
    if voice.json:
        print_document("history", trends.document(found) | {"page": None if page is None else str(page)})
        return
    say = console()
    say.print(trends.verdict(found), soft_wrap=True)
    if not voice.quiet:
        for trend in found.trends:
            _show(trend, verbose=voice.verbose)
        for one in found.unreadable:
            console(stderr=True).print(f"left out: {trends.left_out(one)}", soft_wrap=True)
    if page is not None:
        say.print(f"page     {page}", soft_wrap=True)


def _show(trend: Trend, *, verbose: bool) -> None:
    from adaptbench.report import trends, words

    say = console()
    first, last = (trends.day(trend.runs[place]) for place in (0, -1))
    days = first if first == last else f"{first} to {last}"
    say.print(f"\n{trends.titled(trend)} · {words.plural(len(trend.runs), 'run')} · {days}", soft_wrap=True)
    shown = list(trend.series) if verbose else _stepped(trend)
    if shown:
        say.print(_table(trend, shown))
    still = len(trend.series) - len(shown)
    if still and len(trend.runs) > 1:
        say.print(f"{words.plural(still, 'figure')} without a step (-v shows them)", style="dim", soft_wrap=True)
    for aside in trends.asides(trend):
        say.print(f"· {aside}", soft_wrap=True)


def _stepped(trend: Trend) -> list[Series]:
    """The series that stepped, by case, those with the gravest step first."""
    ranked = trend.moved
    cases = list(dict.fromkeys(series.case for series in ranked))
    return sorted(ranked, key=lambda series: cases.index(series.case))


def _table(trend: Trend, shown: Sequence[Series]) -> Text:
    """A line for each case, a line under it for each of its figures."""
    from rich.text import Text

    from adaptbench.report import trends, words
    from adaptbench.report.figures.sparkline import bars

    heads = f"{'':<{_NAME}} {'first':>{_FIGURE}} {'last':>{_FIGURE}}  {'trend':<{_TREND}}  last step"
    text = Text(heads, style="dim")
    previous = ""
    for series in shown:
        name = trends.name_of(trend, series)
        if name != previous:
            text.append(f"\n{words.printable(name)}", style="bold")
            previous = name
        present = [value for value in series.values if value is not None]
        first, last = (trends.written(series, value) for value in (present[0], present[-1]))
        line = f"\n  {trends.metric_of(series):<{_NAME - 2}} {first:>{_FIGURE}} {last:>{_FIGURE}}  "
        text.append(line + f"{bars(series.values, _TREND):<{_TREND}}  ", style="default not dim")
        if series.steps:
            step = series.steps[-1]
            amount = trends.change(series, step).partition(" [")[0]
            text.append(f"run {step.run + 1}: {amount}", style="red" if step.worse else "green")
        elif series.drift is not None:
            text.append("drifted", style="yellow")
    return text
