"""Recovery over the queries that an attacker may make, one panel a model."""

from __future__ import annotations

from adaptbench.report import words
from adaptbench.report.figures import svg
from adaptbench.report.figures.parts import Figure, Legend, Panel
from adaptbench.report.tables import Builder, Column, Table, TableCell
from adaptbench.report.view import View
from adaptbench.results.query_curves import Curve, query_curves


def figure(view: View) -> Figure | None:
    """None where no attack of the run asks at two budgets."""
    curves = query_curves(view.manifest, view.records, lambda evaluation: _costs(view, evaluation))
    if not curves:
        return None
    panels = tuple(
        _panel(subject.key, subject.title, mine)
        for subject in view.subjects
        if (mine := [c for c in curves if c.model == subject.model])
    )
    caption = (
        "Head-room taken back over queries an input, each budget a run of its own; bars are 95 % intervals, inputs and "
        "seeds drawn again. Level lines are attacks that look inside and ask nothing."
    )
    legend = (
        Legend("attack", "line", "attacks that ask"),
        Legend("control", "dashes", "chance at equal queries"),
        Legend("muted", "dashes", "attacks that look inside"),
    )
    return Figure("fig-queries", caption, panels, legend, _table(view, curves))


def _costs(view: View, evaluation: str) -> dict[int, int] | None:
    rows = view.run.samples([evaluation])
    if not len(rows) or rows["macs"].isna().any():  # metered costs have a table of their own
        return None
    return dict(zip(rows["sample_id"].tolist(), rows["macs"].tolist(), strict=True))


def _panel(key: str, title: str, curves: list[Curve]) -> Panel:
    asking = [c for c in curves if c.points[0].queries is not None]
    alt = f"Recovery over queries on {title}: " + "; ".join(
        f"{c.name} {words.percent(c.points[-1].recovery)} at {c.points[-1].queries}" for c in asking
    )
    with svg.canvas(f"queries-{key}", alt, height=330) as canvas:
        axes = canvas.axes
        axes.grid()
        for curve in curves:
            up = [100 * p.recovery for p in curve.points]
            if curve.points[0].queries is None:
                axes.axhline(up[0], color=svg.MUTED, linewidth=1.2, linestyle=(0, (2, 2)))
                continue
            across = [p.queries or 0 for p in curve.points]
            colour = svg.CONTROL if curve.kind == "control" else svg.ATTACK
            arms = [[100 * max(p.recovery - p.low, 0) for p in curve.points]]
            arms.append([100 * max(p.high - p.recovery, 0) for p in curve.points])
            axes.errorbar(
                across, up, yerr=arms, color=colour, marker="o", markersize=4, linewidth=1.5, elinewidth=0.8,
                linestyle=(0, (3, 2.5)) if curve.kind == "control" else "-",
            )  # fmt: skip
            axes.annotate(curve.name, (across[-1], up[-1]), xytext=(4, 0), textcoords="offset points", fontsize=7)
        budgets = sorted({p.queries for c in asking for p in c.points if p.queries is not None})
        axes.set_xscale("log")
        axes.set_xticks(budgets, [str(budget) for budget in budgets])
        axes.set_xticks([], minor=True)  # its labels are powers of ten in a markup of their own
        axes.set(xlabel="queries an input", ylabel="taken back, %")
    return Panel(title, canvas.svg)


def _table(view: View, curves: list[Curve]) -> Table:
    columns = [
        Column("model", numeric=False),
        Column("attack", numeric=False),
        Column("queries"),
        Column("taken back", unit="share"),
        Column("95 %", numeric=False),
        Column("by seed", numeric=False),
        Column("inputs"),
    ]
    table = Builder("table-queries", "Recovery over queries", columns)
    for curve in curves:
        for point in curve.points:
            table.add(
                view.model_title(curve.model),
                curve.name,
                TableCell(str(point.queries), value=point.queries)
                if point.queries is not None
                else TableCell(words.DASH, reason="it looks inside and asks nothing"),
                TableCell(words.percent(point.recovery), value=point.recovery),
                words.interval([point.low, point.high]),
                words.listing(words.percent(r) for r in point.by_seed),
                TableCell(str(point.n), value=point.n),
            )
    return table.build()
