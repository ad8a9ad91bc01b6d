"""The saving that MACs promise, beside what the clock and the power sensor see of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adaptbench.report import modes, words
from adaptbench.report.tables import Builder, Column, Table, TableCell, share_cell
from adaptbench.report.view import Record, View, missing


@dataclass(frozen=True, slots=True)
class Saving:
    """A saving as a share of the static reference; ``reason`` where it does not exist."""

    share: float | None
    bounds: Sequence[float] | None = None
    reason: str = ""


def realised(record: Record, what: str) -> Saving:
    """The saving in ``time`` (nodes and policy) or ``energy`` (whole windows), as the record has it.

    A modelled energy follows from the MACs, so that it can realise nothing: it is not shown as a saving.
    """
    if what == "energy" and words.provenance_kind(record.get("energy_provenance")) == "modelled":
        return Saving(None, reason="energy was modelled, not measured")
    return _stored(record, f"saving_{what}")


def _stored(record: Record, field: str) -> Saving:
    value = record.get(field)
    if not words.exists(value):
        return Saving(None, reason=missing(record, field))
    return Saving(value, record.get(f"{field}_ci"))


def savings_of(record: Record) -> tuple[Saving, Saving, Saving]:
    """Promised by the MACs of the timed inputs, seen by the clock, seen by the power sensor."""
    return _stored(record, "saving_macs"), realised(record, "time"), realised(record, "energy")


def table(view: View) -> Table | None:
    """Every timed case; None where no saving is told."""
    columns = [
        Column("model", numeric=False),
        Column("condition", numeric=False),
        Column("batch"),
        *modes.columns(view),
        Column("saving in MACs", unit="share"),
        Column("saving in time", unit="share"),
        Column("saving in measured energy", unit="share"),
        Column("time ÷ MACs", unit="ratio"),
        Column("energy ÷ MACs", unit="ratio"),
        Column("harness, of the window", unit="share"),
        Column("inputs timed"),
    ]
    made = Builder("table-savings", "Promised and realised saving", columns)
    for subject in view.subjects:
        for record in view.timed(subject):
            cells = [_cell(saving) for saving in savings_of(record)]
            energy = realised(record, "energy")
            made.add(
                subject.title,
                view.condition_title(record),
                TableCell(words.count(record["batch_size"]), value=record["batch_size"]),
                *modes.cells(view, record),
                *cells,
                share_cell(record, "realised_saving_time", 0),
                share_cell(record, "realised_saving_energy", 0)
                if energy.share is not None
                else TableCell(words.DASH, reason=energy.reason),
                share_cell(record, "executor_share", 0),
                TableCell(words.count(record["n_timed"]), value=record["n_timed"])
                if words.exists(record.get("n_timed"))
                else TableCell(words.DASH, reason=missing(record, "saving_time")),
                kind=record["kind"],
            )
    told = slice(3 + len(modes.columns(view)), 6 + len(modes.columns(view)))
    return made.build() if any(cell.value is not None for row in made.rows for cell in row.cells[told]) else None


def _cell(saving: Saving) -> TableCell:
    if saving.share is None:
        return TableCell(words.DASH, reason=saving.reason)
    return TableCell(words.percent(saving.share), value=saving.share, under=words.interval(saving.bounds))
