"""What each attacker takes back: dots, models × attacks, with what noise does as a band behind them."""

from __future__ import annotations

from collections.abc import Sequence

from adaptbench.report import words
from adaptbench.report.figures import tracks
from adaptbench.report.tables import Builder, Column, Table, TableCell, share_cell, unit_cell
from adaptbench.report.view import Record, Subject, View


def chart(view: View) -> Table | None:
    """A row a model and condition; None where nothing was attacked."""
    shown = {subject: _shown(view, subject) for subject in view.subjects}
    records = [record for rows in shown.values() for record in rows]
    if not records:
        return None
    span = _span(records)
    ticks = [tick for tick in (-0.5, 0.0, 0.5, 1.0) if span[0] <= tick <= span[1]]
    columns = [
        Column("condition", numeric=False),
        Column("taken back", unit="share of head-room", axis=tracks.axis(span, ticks)),
        Column("by its control", unit="share of head-room"),
        Column(view.metric_word, unit="share"),
        Column("inputs"),
    ]
    table = Builder("table-taken-back", "Taken back by every attack, model by model", columns)
    for subject, rows in shown.items():
        if not rows:
            continue
        table.heading(subject.title)
        for record in rows:
            control = view.control_of(subject, record) if record["kind"] == "attack" else None
            table.add(
                TableCell(view.condition_title(record), value=view.condition_title(record)),
                _dot(record, control, span),
                _control(view, record, control),
                share_cell(record, view.metric),
                TableCell(words.count(record["n"]), value=record["n"]),
                kind=record["kind"],
            )
    return table.build()


def _shown(view: View, subject: Subject) -> list[Record]:
    everything = (*view.controls(subject), *view.attacks(subject))
    return [record for record in everything if words.exists(record.get("recovery"))]


def _dot(record: Record, control: Record | None, span: tuple[float, float]) -> TableCell:
    band: Sequence[float | None] | None = None
    if control is not None and words.exists(control.get("recovery")):
        band = control.get("recovery_ci") or (control["recovery"], control["recovery"])
    bounds = record.get("recovery_ci")
    drawn = tracks.dot(record["recovery"], bounds, span=span, role=record["kind"], band=band)
    return TableCell(
        words.percent(record["recovery"]), value=record["recovery"], under=words.interval(bounds), markup=drawn
    )


def _control(view: View, record: Record, control: Record | None) -> TableCell:
    if record["kind"] == "control":
        return TableCell(words.DASH, reason="this is a control")
    if control is None or not words.exists(control.get("recovery")):
        return TableCell(words.DASH, reason="the run has no control of this size, or of as many queries")
    return TableCell(words.percent(control["recovery"]), value=control["recovery"], under=view.condition_title(control))


def _span(records: list[Record]) -> tuple[float, float]:
    ends = [0.0, 1.0]
    for record in records:
        ends += [record["recovery"], *(end for end in record.get("recovery_ci") or () if words.exists(end))]
    return max(min(ends), -0.5) - 0.02, min(max(ends), 1.5) + 0.02


def table(view: View) -> Table:
    """Further figures of every control and attack."""
    columns = [
        Column("model", numeric=False),
        Column("condition", numeric=False),
        Column("taken back", unit="share of head-room"),
        Column("per input, mean", unit="share of head-room"),
        Column("increase", unit="share of clean MACs"),
        Column("MACs/sample", unit="MACs"),
        Column("dearest path", unit="MACs"),
        Column("at the ceiling when clean", unit="share of inputs"),
        Column("efficacy, step"),
        Column("efficacy, trapezoid"),
        Column(f"{view.metric_word} change", unit="share"),
    ]
    made = Builder("table-recovery", "Taken back, increase and efficacy by model and condition", columns)
    for subject in view.subjects:
        for record in view.rows(subject):
            if record["kind"] == "clean":
                continue
            made.add(
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
                _change(record, f"{view.metric}_drop"),
                kind=record["kind"],
            )
    return made.build()


def _change(record: Record, name: str) -> TableCell:
    drop = record.get(name)
    return TableCell(words.points(-drop), value=-drop) if words.exists(drop) else share_cell(record, name)


def _plain(record: Record, name: str) -> TableCell:
    cell = share_cell(record, name)
    if cell.value is None:
        return cell
    return TableCell(
        words.number(record[name], 3), value=record[name], under=words.interval(record.get(f"{name}_ci"), 3, scale=1)
    )
