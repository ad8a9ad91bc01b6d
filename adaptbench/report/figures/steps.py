"""Taken back over the steps of each search that told its cost on the way, one panel a model."""

from __future__ import annotations

from adaptbench.report import words
from adaptbench.report.figures import svg
from adaptbench.report.figures.parts import Figure, Legend, Panel
from adaptbench.report.tables import Builder, Column, Table, TableCell
from adaptbench.report.view import View
from adaptbench.results.step_curves import StepCurve, step_curves

_DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)))
_ROOM = 1.35
"""Between two labels of an axis in logarithms."""
_NOT_KEPT = "inputs on the way are not kept one by one"


def figure(view: View) -> Figure | None:
    """None where no attack of the run told its cost at two steps."""
    curves = step_curves(view.manifest, view.records)
    if not curves:
        return None
    panels = tuple(
        _panel(view, subject.key, subject.title, mine)
        for subject in view.subjects
        if (mine := [curve for curve in curves if curve.model == subject.model])
    )
    caption = (
        "Head-room taken back by the best input so far, over the steps that a search takes an input. The last point is "
        "what the attack returned, with its 95 % interval; on the way only means were told. A curve that still "
        "rises says that more steps would take more; a level one says nothing about another search, and inputs on the "
        "dearest path take no further steps."
    )
    legend = (Legend("attack", "line", "attacks that look inside"),)
    return Figure("fig-steps", caption, panels, legend, _table(view, curves))


def _panel(view: View, key: str, title: str, curves: list[StepCurve]) -> Panel:
    alt = f"Taken back over steps on {title}: " + "; ".join(
        f"{_name(view, c)} {words.percent(c.points[-1].recovery)} after {c.points[-1].steps}" for c in curves
    )
    with svg.canvas(f"steps-{key}", alt, height=270) as canvas:
        axes = canvas.axes
        axes.grid()
        for place, curve in enumerate(curves):
            across = [point.steps for point in curve.points]
            up = [100 * point.recovery for point in curve.points]
            axes.plot(
                across, up, color=svg.ATTACK, marker="o", markersize=3.5, linewidth=1.5,
                linestyle=_DASHES[place % len(_DASHES)],
            )  # fmt: skip
            last = curve.points[-1]
            if last.low is not None and last.high is not None:
                arms = [[100 * max(last.recovery - last.low, 0)], [100 * max(last.high - last.recovery, 0)]]
                axes.errorbar(across[-1:], up[-1:], yerr=arms, color=svg.ATTACK, elinewidth=1, linestyle="none")
            axes.annotate(
                _name(view, curve), (across[-1], up[-1]), xytext=(5, -3), textcoords="offset points", fontsize=8,
                color=svg.INK,
            )  # fmt: skip
        steps = sorted({point.steps for curve in curves for point in curve.points})
        axes.set_xscale("log")
        told = _apart(steps)
        axes.set_xticks(told, [str(step) for step in told])
        axes.set_xticks([], minor=True)
        axes.set_xlim(steps[0] * 0.9, steps[-1] * 3)  # room for the names
        axes.set(xlabel="steps an input", ylabel="taken back, %")
    return Panel(title, canvas.svg)


def _apart(steps: list[int]) -> list[int]:
    """Those whose labels have room on the axis, the last among them.

    >>> _apart([1, 2, 5, 10, 20, 30, 50, 60])
    [1, 2, 5, 10, 20, 30, 60]
    """
    kept: list[int] = []
    for step in reversed(steps):
        if not kept or kept[-1] >= _ROOM * step:
            kept.append(step)
    return kept[::-1]


def _name(view: View, curve: StepCurve) -> str:
    return view.condition_title({"condition": curve.condition, "seed": curve.seed})


def _table(view: View, curves: list[StepCurve]) -> Table:
    columns = [
        Column("model", numeric=False),
        Column("attack", numeric=False),
        Column("steps"),
        Column("taken back", unit="share of head-room"),
        Column("95 %", numeric=False),
        Column("inputs"),
    ]
    table = Builder("table-steps", "Taken back over the steps of a search", columns)
    for curve in curves:
        for point in curve.points:
            known = point.low is not None
            table.add(
                view.model_title(curve.model),
                _name(view, curve),
                TableCell(words.count(point.steps), value=point.steps),
                TableCell(words.percent(point.recovery), value=point.recovery),
                words.interval([point.low, point.high]) if known else TableCell(words.DASH, reason=_NOT_KEPT),
                TableCell(words.count(curve.n), value=curve.n),
            )
    return table.build()
