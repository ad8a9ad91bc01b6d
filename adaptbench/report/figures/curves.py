"""Accuracy, or mIoU, against cost, all models in one plot: sweep, operating point, plain net, static and oracle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adaptbench.report import words
from adaptbench.report.figures import svg
from adaptbench.report.figures.parts import Figure, Legend, Panel, errors
from adaptbench.report.tables import Builder, Column, Table, TableCell, share_cell, unit_cell
from adaptbench.report.verdict import plain_accuracy
from adaptbench.report.view import Record, Subject, View, reference_name
from adaptbench.results.quality import ACCURACY

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.ticker import Locator

_REFERENCE = {
    "static": ("s", "square", svg.INK, "ink", "static reference, run whole"),
    "oracle": ("*", "star", svg.INK, "ink", "oracle, which knows the labels"),
    "myopic": ("^", "triangle", svg.CONTROL, "control", "myopic policy"),
    "uniform": ("D", "diamond", svg.CONTROL, "control", "one threshold for all"),
}
_OTHER = ("P", "square", svg.CONTROL, "control", "")
_MARKS = ("o", "v", "P", "X")
_SIZES = {"wide": (860.0, 420.0, 7), "narrow": (350.0, 330.0, 4)}


@dataclass(frozen=True, slots=True)
class _Model:
    subject: Subject
    colour: str
    role: str
    mark: str
    points: list[Record]
    plain: tuple[float, float | None] | None
    """(MACs, accuracy) of the plain net; the accuracy None where nothing tells it."""


def figure(view: View) -> Figure | None:
    """One plot a data set; None where nothing was swept and there is no reference."""
    shown = [subject for subject in view.subjects if view.sweep(subject) or view.references(subject)]
    if not shown:
        return None
    panels = []
    for place, data in enumerate(dict.fromkeys(subject.data for subject in shown)):
        models = [_model(view, subject, at) for at, subject in enumerate(shown) if subject.data == data]
        references = list(
            {id(r): r for model in models for r in view.references(model.subject) if _is_point(view, r)}.values()
        )
        several = len({subject.data for subject in shown}) > 1
        drawn = {size: _draw(view, f"acc{place}{size[0]}", models, references, size) for size in _SIZES}
        panels.append(Panel(data if several else "", drawn["wide"], drawn["narrow"]))
    caption = (
        f"{_named(view)} against executed MACs a sample, on a logarithmic scale. A line is a model whose knob turns; "
        "the disc is the point that this run measures and attacks, with its 95 % interval; the hollow square in its "
        "colour is "
        f"its own plain net, a tick on the axis where the plain net’s {view.metric_word} is not known. Further left is "
        "cheaper."
    )
    return Figure("fig-curves", caption, tuple(panels), _legend(view, shown), _table(view, shown))


def _model(view: View, subject: Subject, place: int) -> _Model:
    clean, full = view.clean(subject), view.static_macs(subject)
    series = place % len(svg.SERIES)
    points = [record for record in (*view.sweep(subject), *([clean] if clean else [])) if _is_point(view, record)]
    plain = None if full is None else (full, plain_accuracy(view, subject)[0])
    mark = _MARKS[place // len(svg.SERIES) % len(_MARKS)]
    return _Model(subject, svg.SERIES[series], f"s{series}", mark, points, plain)


def _is_point(view: View, record: Record) -> bool:
    return (_cost(record) or 0) > 0 and words.exists(record.get(view.metric))


def _named(view: View) -> str:
    """The metric at the beginning of a sentence."""
    return view.metric_word[0].upper() + view.metric_word[1:] if view.metric == ACCURACY else view.metric_word


def _cost(record: Record) -> float | None:
    mean = record.get("macs_mean")
    return mean if words.exists(mean) else None


def _draw(view: View, key: str, models: Sequence[_Model], references: Sequence[Record], size: str) -> Markup:
    width, height, amount = _SIZES[size]
    everything = [record for model in models for record in model.points] + list(references)
    costs = [record["macs_mean"] for record in everything] + [model.plain[0] for model in models if model.plain]
    unit, factor = words.macs_unit(costs)
    with svg.canvas(key, _alt(view, models), height=height, width=width) as canvas:
        axes = canvas.axes
        axes.grid()
        _references(axes, references, factor, view.metric)
        for model in models:
            _line(axes, model, factor, view)
        axes.set_xscale("log")
        low, high = min(costs) / factor / 1.25, max(costs) / factor * 1.25
        axes.set_xlim(low, high)
        _log_ticks(axes, low, high, amount)
        axes.set_ylim(*_up(view.metric, everything, [model.plain[1] for model in models if model.plain]))
        for model in models:
            if model.plain and model.plain[1] is None:
                axes.plot([model.plain[0] / factor], [axes.get_ylim()[0]], marker=2, markersize=11, color=model.colour,
                          markeredgewidth=2.2, clip_on=False)  # fmt: skip
        axes.set(xlabel=f"{unit} a sample", ylabel=f"{view.metric_word}, %")
        axes.yaxis.set_major_locator(_few(amount))
    return canvas.svg


def _few(amount: int) -> Locator:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(amount - 1)


def _up(metric: str, records: Sequence[Record], plain: Sequence[float | None]) -> tuple[float, float]:
    levels = [100 * record[metric] for record in records] + [100 * level for level in plain if level is not None]
    levels = levels or [0.0, 100.0]
    pad = max(0.07 * (max(levels) - min(levels)), 0.5)
    return max(min(levels) - pad, 0.0), max(levels) + pad


def _log_ticks(axes: Axes, low: float, high: float, amount: int) -> None:
    """Plain numbers at 1, 2 and 5 of each decade, thinned until they fit."""
    import math

    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        ticks = [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high]
        if len(ticks) <= amount:
            break
    axes.set_xticks(ticks, [f"{tick:,.10g}".replace(",", "\u2009") for tick in ticks])
    axes.set_xticks([], minor=True)


def _line(axes: Axes, model: _Model, factor: float, view: View) -> None:
    import seaborn as sns

    sweeps: dict[str, list[Record]] = {}
    for record in model.points:
        if record["kind"] == "sweep":
            sweeps.setdefault(record["condition"], []).append(record)
    for condition, swept in sweeps.items():
        attacked = view.condition(condition).get("kind") == "attack"
        sns.lineplot(
            x=[record["macs_mean"] / factor for record in swept], y=[100 * record[view.metric] for record in swept],
            ax=axes, color=model.colour, sort=False, estimator=None, legend=False, linewidth=1.7, marker=model.mark,
            markersize=4, markeredgewidth=0, linestyle=(0, (3, 2)) if attacked else "-",
        )  # fmt: skip
    for record in model.points:
        if record["kind"] == "clean":
            low, high = (100 * arm for arm in errors(record[view.metric], record.get(f"{view.metric}_ci")))
            axes.errorbar(
                [record["macs_mean"] / factor], [100 * record[view.metric]], yerr=[[low], [high]], fmt=model.mark,
                markersize=10, color=model.colour, markeredgecolor=svg.PAPER, markeredgewidth=1.5, elinewidth=1.3,
                zorder=6,
            )  # fmt: skip
    if model.plain and model.plain[1] is not None:
        axes.plot([model.plain[0] / factor], [100 * model.plain[1]], "s", markersize=9, markerfacecolor="none",
                  markeredgecolor=model.colour, markeredgewidth=2, zorder=4)  # fmt: skip


def _references(axes: Axes, records: Sequence[Record], factor: float, metric: str) -> None:
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(reference_name(record), []).append(record)
    for name, group in groups.items():
        marker, _, colour, _, _ = _REFERENCE.get(name, _OTHER)
        across = [record["macs_mean"] / factor for record in group]
        up = [100 * record[metric] for record in group]
        big = {"*": 13, "s": 7}.get(marker, 4.5)
        line = (0, (3, 2.5)) if len(group) > 1 and marker in ("D", "P") else "none"
        axes.plot(across, up, marker=marker, linestyle=line, linewidth=1, color=colour, markersize=big,
                  markeredgewidth=0, zorder=5 if colour == svg.INK else 2)  # fmt: skip


def _legend(view: View, shown: list[Subject]) -> tuple[Legend, ...]:
    signs = [
        Legend(f"s{place % len(svg.SERIES)}", "dot" if view.sweep(subject) else "disc", subject.title)
        for place, subject in enumerate(shown)
    ]
    if any(view.static_macs(subject) is not None for subject in shown):
        signs.append(Legend("muted", "frame", "its own plain net"))
    drawn = dict.fromkeys(reference_name(record) for subject in shown for record in view.references(subject))
    for name in sorted(drawn, key=lambda name: list(_REFERENCE).index(name) if name in _REFERENCE else len(_REFERENCE)):
        _, shape, _, role, label = _REFERENCE.get(name, _OTHER)
        signs.append(Legend(role, shape, label or name))
    return tuple(signs)


def _alt(view: View, models: Sequence[_Model]) -> str:
    told = []
    for model in models:
        clean = view.clean(model.subject)
        if clean is not None and _is_point(view, clean):
            against = f", its plain net costs {words.macs(model.plain[0])}" if model.plain else ""
            told.append(
                f"{model.subject.title}: {words.percent(clean[view.metric])} at {words.macs(clean['macs_mean'])} "
                f"MACs a sample{against}"
            )
    return f"{_named(view)} against cost. {'; '.join(told)}."


def _table(view: View, shown: list[Subject]) -> Table:
    columns = [
        Column("model", numeric=False),
        Column("what", numeric=False),
        Column("knob", numeric=False),
        Column("value"),
        Column(view.metric_word, unit="share"),
        Column("MACs/sample", unit="MACs"),
        Column("its model’s plain net", unit="MACs"),
        Column("of that net", unit="%"),
    ]
    table = Builder("table-curves", f"Points of {view.metric_word} against cost", columns)
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
                share_cell(record, view.metric),
                unit_cell(record, "macs_mean", words.macs),
                TableCell(words.macs(full), value=full)
                if full is not None
                else TableCell(words.DASH, reason="no plain net"),
                TableCell(f"{words.number(100 * cost / full, 1)} %", value=100 * cost / full)
                if cost is not None and full
                else TableCell(words.DASH, reason="no plain net"),
            )
    return table.build()
