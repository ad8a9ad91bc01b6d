"""How the batches of timed cases were executed, in tables: shown where a run has more than one way."""

from __future__ import annotations

from adaptbench.report import words
from adaptbench.report.tables import Column, TableCell
from adaptbench.report.view import Record, View
from adaptbench.results.identity import COMPACTED, mode_of


def columns(view: View) -> list[Column]:
    """What stands beside the batch."""
    return [Column("mode", numeric=False)] if len(view.modes) > 1 else []


def cells(view: View, record: Record) -> list[TableCell]:
    """Of `columns`."""
    if len(view.modes) < 2:
        return []
    mode = mode_of(record)
    return [TableCell(mode, value=mode) if mode else TableCell(words.DASH, reason="not timed")]


def clause(mode: str | None) -> str:
    """``, queues`` after a batch size; empty where survivors of a batch stay together, or nothing was timed."""
    return "" if mode in (None, COMPACTED) else f", {mode}"
