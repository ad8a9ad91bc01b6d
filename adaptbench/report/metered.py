"""What a meter read of black boxes that tell no MACs, as a table of its own: no MACs stand beside it."""

from __future__ import annotations

from adaptbench.report import words
from adaptbench.report.tables import Builder, Column, Table, TableCell, share_cell, unit_cell
from adaptbench.report.view import Record, View
from adaptbench.results.schema import METERED_COLUMNS

_WRITERS = {"seconds": words.seconds, "joules": words.joules}


def metered_table(view: View) -> Table | None:
    """A row a condition of every model whose cost is metered; None where there is none."""
    columns = [
        Column("condition", numeric=False),
        Column("cost of an input, metered", unit="s or J"),
        Column("clean, the same inputs", unit="s or J"),
        Column("nothing left out", unit="s or J"),
        Column("dearest seen", unit="s or J"),
        Column("standard error of one input", unit="s or J"),
        Column("dearer by", unit="share"),
        Column("taken back", unit="share of head-room"),
        Column("up to the dearest seen", unit="share of head-room"),
        Column("accuracy", unit="share"),
    ]
    table = Builder("table-metered", "Metered costs of black boxes that tell no MACs", columns)
    for subject in view.subjects:
        unit = str(view.model(subject.model).get("cost_unit") or "")
        if unit not in METERED_COLUMNS:
            continue
        table.heading(f"{subject.title}, in {unit}")
        own, write = METERED_COLUMNS[unit], _WRITERS[unit]
        for record in view.rows(subject):
            table.add(
                TableCell(view.condition_title(record)),
                unit_cell(record, own, write),
                *(_known(record, f"{own}_{name}", write, reason) for name, reason in _BESIDE),
                share_cell(record, "cost_increase"),
                share_cell(record, "cost_recovery"),
                share_cell(record, "cost_recovery_seen"),
                share_cell(record, "accuracy"),
                kind=record["kind"],
            )
    return table.build() if table.rows else None


_BESIDE = (
    ("clean", "these are the clean inputs"),
    ("max", "nobody says what the box costs when nothing is left out"),
    ("seen", "these are the clean inputs"),
    ("noise", "it was not kept"),
)


def _known(record: Record, name: str, write: words.Writer, reason: str) -> TableCell:
    value = record.get(name)
    return TableCell(write(value), value=value) if words.exists(value) else TableCell(words.DASH, reason=reason)
