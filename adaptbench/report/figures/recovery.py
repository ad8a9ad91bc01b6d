"""What each attacker takes back: a forest plot, one panel a model."""

from __future__ import annotations

from adaptbench.report import words
from adaptbench.report.figures import svg
from adaptbench.report.figures.parts import KIND_COLOURS, Figure, Panel, errors, kind_legend, row_titles
from adaptbench.report.tables import Builder, Column, TableCell, share_cell, unit_cell
from adaptbench.report.view import Record, Subject, View

_ROW = 36


def figure(view: View) -> Figure | None:
    """Recovery by model and condition; None where nothing was attacked."""
    shown = {
        subject: [
            record
            for record in (*view.controls(subject), *view.attacks(subject))
            if words.exists(record.get("recovery"))
        ]
        for subject in view.subjects
    }
    records = [record for rows in shown.values() for record in rows]
    if not records:
        return None
    span = _span(records)
    panels = tuple(_panel(view, subject, rows, span) for subject, rows in shown.items() if rows)
    caption = (
        "Share of the head-room (dearest path minus clean cost) that each condition takes back, ratio of means, "
        "with 95 % confidence intervals. 0 % leaves the cost as it was; 100 % takes every input along the dearest path."
    )
    return Figure("fig-recovery", caption, panels, kind_legend(records, "dot"), _table(view).build())


def _span(records: list[Record]) -> tuple[float, float]:
    ends = [0.0, 1.0]
    for record in records:
        ends += [record["recovery"], *(end for end in record.get("recovery_ci") or () if words.exists(end))]
    return 100 * max(min(ends), -0.5) - 4, 100 * min(max(ends), 1.5) + 4


def _panel(view: View, subject: Subject, records: list[Record], span: tuple[float, float]) -> Panel:
    alt = f"Recovery on {subject.title}: " + "; ".join(
        f"{view.condition_title(record)} {words.percent(record['recovery'])} "
        f"{words.interval(record.get('recovery_ci'))}".strip()
        for record in records
    )
    places = list(range(len(records), 0, -1))
    with svg.canvas(f"rec-{subject.key}", alt, height=_ROW * len(records) + 48) as canvas:
        axes = canvas.axes
        axes.grid(axis="x")
        axes.axvline(0, color=svg.MUTED, linewidth=0.8)
        for place, record in zip(places, records, strict=True):
            value, colour = 100 * record["recovery"], KIND_COLOURS[record["kind"]]
            low, high = (100 * arm for arm in errors(record["recovery"], record.get("recovery_ci")))
            axes.plot([0, value], [place, place], color=colour, linewidth=1.2, alpha=0.45)
            axes.errorbar(
                [value], [place], xerr=[[low], [high]], fmt="o", markersize=6, color=colour, elinewidth=1.8, capsize=3
            )
        row_titles(axes, [view.condition_title(record) for record in records], [place + 0.42 for place in places])
        axes.set(xlim=span, ylim=(0.5, len(records) + 0.75), yticks=[], xlabel="taken back, % of the head-room")
        axes.spines["left"].set_visible(False)
    return Panel(subject.title, canvas.svg)


def _table(view: View) -> Builder:
    columns = [
        Column("model", numeric=False),
        Column("condition", numeric=False),
        Column("recovery", unit="share of head-room"),
        Column("per input, mean", unit="share of head-room"),
        Column("increase", unit="share of clean MACs"),
        Column("MACs/sample", unit="MACs"),
        Column("dearest path", unit="MACs"),
        Column("at the ceiling when clean", unit="share of inputs"),
        Column("efficacy, step"),
        Column("efficacy, trapezoid"),
        Column("accuracy change", unit="share"),
    ]
    table = Builder("table-recovery", "Recovery, increase and efficacy by model and condition", columns)
    for subject in view.subjects:
        for record in view.rows(subject):
            if record["kind"] == "clean":
                continue
            table.add(
                subject.title,
                view.condition_title(record),
                share_cell(record, "recovery"),
                share_cell(record, "recovery_per_input_mean"),
                share_cell(record, "increase"),
                unit_cell(record, "macs_mean", words.macs),
                unit_cell(record, "macs_max", words.macs),
                share_cell(record, "at_ceiling"),
                _plain(record, "efficacy_step"),
                _plain(record, "efficacy_trapezoid"),
                _change(record),
                kind=record["kind"],
            )
    return table


def _change(record: Record) -> TableCell:
    drop = record.get("accuracy_drop")
    return TableCell(words.points(-drop), value=-drop) if words.exists(drop) else share_cell(record, "accuracy_drop")


def _plain(record: Record, name: str) -> TableCell:
    cell = share_cell(record, name)
    if cell.value is None:
        return cell
    return TableCell(
        words.number(record[name], 3), value=record[name], under=words.interval(record.get(f"{name}_ci"), 3, scale=1)
    )
