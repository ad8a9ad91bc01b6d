"""Accuracy against cost: the policy’s sweep, its operating point, and what it is held against."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adaptbench.report import words
from adaptbench.report.figures import svg
from adaptbench.report.figures.parts import Figure, Legend, Panel, errors
from adaptbench.report.tables import Builder, Column, Table, TableCell, share_cell, unit_cell
from adaptbench.report.view import Record, Subject, View, reference_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_REFERENCE = {
    "static": ("s", "square", svg.INK, "ink", "static reference"),
    "oracle": ("*", "star", svg.ORACLE, "oracle", "oracle (knows the labels)"),
    "myopic": ("^", "triangle", svg.PROMISE, "promise", "myopic policy"),
    "uniform": ("D", "dashes", svg.CONTROL, "control", "uniform threshold"),
}
_OTHER = ("P", "square", svg.CONTROL, "control", "")


def figure(view: View) -> Figure | None:
    """One panel a model, axes shared; None where nothing was swept and there is no reference."""
    shown = [subject for subject in view.subjects if view.sweep(subject) or view.references(subject)]
    if not shown:
        return None
    everything = {subject: _points(view, subject) for subject in shown}
    whole = [full for subject in shown if (full := view.static_macs(subject)) is not None]
    scale = _scale([record for records in everything.values() for record in records], whole)
    panels = tuple(_panel(view, subject, everything, scale) for subject in shown)
    caption = (
        "Accuracy against executed MACs as the policy’s knob turns; bars are 95 % confidence intervals. "
        "MACs are absolute and all panels share their axes; the upright line is what this model’s own static network "
        "costs, other models stand behind in grey."
    )
    return Figure("fig-curves", caption, panels, _legend(view, shown), _table(view, shown))


def _points(view: View, subject: Subject) -> list[Record]:
    clean = view.clean(subject)
    records = [*view.sweep(subject), *view.references(subject), *([clean] if clean else [])]
    return [record for record in records if _cost(record) is not None and words.exists(record.get("accuracy"))]


def _cost(record: Record) -> float | None:
    mean = record.get("macs_mean")
    return mean if words.exists(mean) else None


def _places(records: list[Record], scale: Scale) -> tuple[list[float], list[float]]:
    """Costs in units of the axis and accuracies in per cent; the records have them."""
    across = [record["macs_mean"] / scale.factor for record in records]
    return across, [100.0 * record["accuracy"] for record in records]


@dataclass(frozen=True, slots=True)
class Scale:
    """What all panels share: the axes, and the prefix of the MACs along them."""

    across: tuple[float, float]
    up: tuple[float, float]
    factor: float
    prefix: str


def _scale(records: list[Record], whole: list[float]) -> Scale:
    """From all points and the static networks' costs."""
    top = max([*whole, *(cost for record in records if (cost := _cost(record)) is not None)], default=1.0) or 1.0
    factor, prefix = words.decade(top)
    levels = [100 * record["accuracy"] for record in records] or [0.0, 100.0]
    for record in records:
        levels += [100 * bound for bound in record.get("accuracy_ci") or () if words.exists(bound)]
    pad = max(0.06 * (max(levels) - min(levels)), 0.5)
    return Scale((0.0, 1.06 * top / factor), (max(min(levels) - pad, 0.0), max(levels) + pad), factor, prefix)


def _panel(
    view: View,
    subject: Subject,
    everything: dict[Subject, list[Record]],
    scale: Scale,
) -> Panel:
    from matplotlib.ticker import MaxNLocator

    points = everything[subject]
    clean = view.clean(subject)
    with svg.canvas(f"acc-{subject.key}", _alt(subject, points, clean), height=270) as canvas:
        axes = canvas.axes
        axes.grid()
        if (full := view.static_macs(subject)) is not None:
            axes.axvline(full / scale.factor, color=svg.MUTED, linewidth=1.2, linestyle=(0, (2, 2)))
        for other, theirs in everything.items():
            if other != subject and other.data == subject.data:
                _line(axes, [record for record in theirs if record["kind"] == "sweep"], svg.RULE, scale, faint=True)
        by_condition: dict[str, list[Record]] = {}
        for record in points:
            if record["kind"] == "sweep":
                by_condition.setdefault(record["condition"], []).append(record)
        for condition, sweep in by_condition.items():
            attacked = view.condition(condition).get("kind") == "attack"
            _line(axes, sweep, svg.ATTACK if attacked else svg.CLEAN, scale)
        _references(axes, [record for record in points if record["kind"] == "reference"], scale)
        if clean is not None and clean in points:
            axes.plot(
                *_places([clean], scale), "o", markersize=9,
                markerfacecolor=svg.PAPER, markeredgecolor=svg.CLEAN, markeredgewidth=2.6, zorder=6,
            )  # fmt: skip
        axes.set(xlim=scale.across, ylim=scale.up, xlabel=f"{scale.prefix} MACs/sample".strip(), ylabel="accuracy, %")
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.yaxis.set_major_locator(MaxNLocator(5))
    return Panel(subject.title, canvas.svg)


def _line(axes: Axes, records: list[Record], colour: str, scale: Scale, *, faint: bool = False) -> None:
    if not records:
        return
    import seaborn as sns

    across, up = _places(records, scale)
    sns.lineplot(
        x=across, y=up, ax=axes, color=colour, sort=False, estimator=None, legend=False,
        linewidth=1.1 if faint else 1.9, marker=None if faint else "o", markersize=4.5, markeredgewidth=0,
    )  # fmt: skip
    if not faint:
        arms = [[100 * arm for arm in errors(record["accuracy"], record.get("accuracy_ci"))] for record in records]
        widths = [
            [arm / scale.factor for arm in errors(record["macs_mean"], record.get("macs_mean_ci"))]
            for record in records
        ]
        axes.errorbar(
            across, up, yerr=list(zip(*arms, strict=True)), xerr=list(zip(*widths, strict=True)),
            fmt="none", ecolor=colour, elinewidth=1.0, alpha=0.55,
        )  # fmt: skip


def _references(axes: Axes, records: list[Record], scale: Scale) -> None:
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(reference_name(record), []).append(record)
    for name, group in groups.items():
        marker, _, colour, _, _ = _REFERENCE.get(name, _OTHER)
        across, up = _places(group, scale)
        if len(group) > 1:
            axes.plot(across, up, marker=marker, markersize=4, color=colour, linestyle=(0, (3, 2.5)), linewidth=1.2)
        else:
            axes.plot(
                across, up, marker, color=colour, markersize=11 if marker == "*" else 7, markeredgewidth=0, zorder=5
            )


def _legend(view: View, shown: list[Subject]) -> tuple[Legend, ...]:
    signs = []
    if any(view.sweep(subject) for subject in shown):
        signs.append(Legend("clean", "line", "sweep of the knob"))
    signs.append(Legend("clean", "ring", "operating point"))
    if any(view.static_macs(subject) is not None for subject in shown):
        signs.append(Legend("muted", "dashes", "cost of the model’s own static network"))
    drawn = [Counter(reference_name(record) for record in view.references(subject)) for subject in shown]
    for name in dict.fromkeys(name for counts in drawn for name in counts):
        _, shape, _, role, label = _REFERENCE.get(name, _OTHER)
        if shape == "dashes" and all(counts[name] < 2 for counts in drawn):
            shape = "diamond"
        signs.append(Legend(role, shape, label or name))
    if len(shown) > 1:
        signs.append(Legend("rule", "line", "the other models"))
    return tuple(signs)


def _alt(subject: Subject, points: list[Record], clean: Record | None) -> str:
    parts = [f"Accuracy against cost of {subject.title}."]
    sweep = [record for record in points if record["kind"] == "sweep"]
    if sweep:
        first, last = sweep[0], sweep[-1]
        parts.append(
            f"The sweep goes from {words.percent(first['accuracy'])} at {words.macs(_cost(first))} MACs a sample "
            f"to {words.percent(last['accuracy'])} at {words.macs(_cost(last))}."
        )
    if clean is not None and _cost(clean) is not None:
        accuracy = words.percent(clean.get("accuracy"))
        parts.append(f"Operating point: {accuracy} at {words.macs(_cost(clean))} MACs a sample.")
    return " ".join(parts)


def _table(view: View, shown: list[Subject]) -> Table:
    columns = [
        Column("model", numeric=False),
        Column("what", numeric=False),
        Column("knob", numeric=False),
        Column("value"),
        Column("accuracy", unit="share"),
        Column("MACs/sample", unit="MACs"),
        Column("its model’s static network", unit="MACs"),
        Column("of that network", unit="%"),
    ]
    table = Builder("table-curves", "Points of the accuracy–cost curves", columns)
    for subject in shown:
        clean, full = view.clean(subject), view.static_macs(subject)
        for record in [*([clean] if clean else []), *view.sweep(subject), *view.references(subject)]:
            what = {"clean": "operating point", "reference": f"reference: {reference_name(record)}"}.get(
                record["kind"], "sweep"
            )
            value, cost = record.get("knob_value"), _cost(record)
            has_knob = record["kind"] == "sweep"
            table.add(
                subject.title,
                what,
                str(record.get("knob") or "") if has_knob else "",
                TableCell(f"{value:g}" if words.exists(value) else str(value or ""), value=value) if has_knob else "",
                share_cell(record, "accuracy"),
                unit_cell(record, "macs_mean", words.macs),
                TableCell(words.macs(full), value=full)
                if full is not None
                else TableCell(words.DASH, reason="no static reference"),
                TableCell(f"{words.number(100 * cost / full, 1)} %", value=100 * cost / full)
                if cost is not None and full
                else TableCell(words.DASH, reason="no static reference"),
            )
    return table.build()
