"""What the dearest inputs cost, clean and attacked, as a table: means hide who has to wait longest."""

from __future__ import annotations

from adaptbench.report import words
from adaptbench.report.tables import Builder, Column, Table, TableCell, share_cell, unit_cell
from adaptbench.report.view import Record, View, missing

_FIGURES = ("macs_p99", "macs_cvar", "budget_violation")


def _asked(record: Record) -> TableCell:
    if words.exists(record.get("macs_budget")):
        return unit_cell(record, "macs_budget", words.macs, interval=False)
    return TableCell(words.DASH, reason=missing(record, "budget_violation"))


def tail_table(view: View) -> Table | None:
    """A row a condition; None where no record has such a figure."""
    columns = [
        Column("condition", numeric=False),
        Column("mean", unit="MACs an input"),
        Column("99th percentile", unit="MACs"),
        Column("mean of the dearest 5 %", unit="MACs"),
        Column("mean cost asked for", unit="MACs an input"),
        Column("dearer than that", unit="share of inputs"),
    ]
    table = Builder("table-tails", "What the dearest inputs cost, executed MACs", columns)
    for subject in view.subjects:
        rows = [record for record in view.rows(subject) if any(words.exists(record.get(name)) for name in _FIGURES)]
        if rows:
            table.heading(subject.title)
        for record in rows:
            table.add(
                TableCell(view.condition_title(record)),
                unit_cell(record, "macs_mean", words.macs),
                unit_cell(record, "macs_p99", words.macs),
                unit_cell(record, "macs_cvar", words.macs),
                _asked(record),
                share_cell(record, "budget_violation"),
                kind=record["kind"],
            )
    return table.build(drop_empty=(4, 5)) if table.rows else None
