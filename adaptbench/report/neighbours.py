"""What an attacked row does to its batch, as a table."""

from __future__ import annotations

from adaptbench.report import words
from adaptbench.report.tables import Builder, Column, Table, TableCell, figure, share_cell, unit_cell
from adaptbench.report.view import View


def neighbour_table(view: View) -> Table | None:
    """A row a condition, batch size and number of attacked rows; None where no suite asked."""
    columns = [
        Column("condition", numeric=False),
        Column("batch", unit="samples"),
        Column("attacked rows"),
        Column("the batch takes", unit="s"),
        Column("longer by", unit="share"),
        Column("a clean neighbour bears", unit="s"),
        Column("MACs of the batch, more by", unit="share"),
    ]
    table = Builder("table-neighbours", "Clean batches with some attacked rows, timed in the same blocks", columns)
    for subject in view.subjects:
        timed = [record for record in view.timed(subject) if record.get("neighbours")]
        if timed:
            table.heading(subject.title)
        for record in timed:
            for entry in record["neighbours"]:
                none = TableCell(words.DASH, reason="no row is attacked: what the others are held against")
                size = record["batch_size"]
                table.add(
                    TableCell(view.condition_title(record)),
                    TableCell(words.count(size), value=size),
                    TableCell(words.count(entry["attacked"]), value=entry["attacked"]),
                    unit_cell(entry, "batch_s", words.seconds),
                    share_cell(entry, "batch_increase") if entry["attacked"] else none,
                    unit_cell(entry, "neighbour_s", words.seconds) if entry["attacked"] else none,
                    figure(entry, "batch_macs_increase", words.percent(entry.get("batch_macs_increase")))
                    if entry["attacked"]
                    else none,
                    kind=record["kind"],
                )
    return table.build() if table.rows else None
