"""Tables as data: cells with a text to read, a value to sort and download, and the reason where there is none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from adaptbench.report import words
from adaptbench.report.view import Record, missing
from adaptbench.results.quality import ACCURACY, MIOU, metric_of


@dataclass(frozen=True, slots=True)
class TableCell:
    """One cell."""

    text: str
    value: float | int | str | None = None
    """Full precision, for sorting and the CSV; None: the text says it all (or there is no figure)."""
    reason: str = ""
    """Why the figure is missing; becomes a footnote."""
    share: float | None = None
    """A bar behind the figure, 0 to 1."""
    under: str = ""
    """A second, quieter line: the interval."""
    href: str = ""
    """Where the text leads to on the page, ``#id``."""
    kind: str = ""
    """``good``, ``bad`` or ``unclear``: said in colour beside the words."""
    markup: Markup | None = None
    """A drawing beside the text, which says the same."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column."""

    title: str
    numeric: bool = True
    unit: str = ""
    """Said in the CSV's header, so that its numbers are not bare."""
    axis: Markup | None = None
    """The scale of the drawings in its cells."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row, or a heading over the rows that follow it."""

    cells: tuple[TableCell, ...]
    kind: str = ""
    heading: str = ""
    anchor: str = ""
    """The row's id on the page."""


@dataclass(frozen=True, slots=True)
class Footnote:
    """A reason, and the letter that points at it."""

    mark: str
    text: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table with a name of its own on the page."""

    key: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    footnotes: tuple[Footnote, ...] = ()
    cards: bool = False
    """Whether a narrow window shows a card a row."""
    filtered: bool = False
    """Whether rows can be filtered by what they say."""

    @property
    def grouped(self) -> bool:
        """Whether headings part the rows; such a table keeps its order."""
        return any(row.heading for row in self.rows)

    def mark(self, cell: TableCell) -> str:
        """The footnote letter of a cell, or nothing."""
        return next((note.mark for note in self.footnotes if note.text == cell.reason), "")


@dataclass(slots=True)
class Builder:
    """Collects rows; drops columns that nobody filled when asked to; numbers the reasons."""

    key: str
    caption: str
    columns: Sequence[Column]
    rows: list[Row] = field(default_factory=list)

    def heading(self, text: str) -> None:
        """A heading over the next rows."""
        self.rows.append(Row((), "heading", text))

    def add(self, *cells: TableCell | str, kind: str = "", anchor: str = "") -> None:
        """A row; a string is a cell that is only text."""
        made = tuple(cell if isinstance(cell, TableCell) else TableCell(cell) for cell in cells)
        self.rows.append(Row(made, kind, anchor=anchor))

    def build(self, *, drop_empty: Sequence[int] = (), cards: bool = False, filtered: bool = False) -> Table:
        """The table, without those of the columns ``drop_empty`` in which no cell has a figure."""
        body = [row for row in self.rows if not row.heading]
        empty = {place for place in drop_empty if all(row.cells[place].text in ("", words.DASH) for row in body)}
        rows = tuple(
            Row(
                tuple(cell for place, cell in enumerate(row.cells) if place not in empty),
                row.kind,
                row.heading,
                row.anchor,
            )
            for row in self.rows
        )
        columns = tuple(column for place, column in enumerate(self.columns) if place not in empty)
        reasons = dict.fromkeys(cell.reason for row in rows for cell in row.cells if cell.reason)
        notes = tuple(Footnote(_letters(place), reason) for place, reason in enumerate(reasons))
        return Table(self.key, self.caption, columns, rows, notes, cards, filtered)


def figure(record: Record, name: str, text: str, *, under: str = "", share: float | None = None) -> TableCell:
    """The cell of a record's figure; the dash and the reason where it does not exist."""
    value = record.get(name)
    if not words.exists(value):
        return TableCell(words.DASH, reason=missing(record, name))
    return TableCell(text, value=value, under=under, share=share)


def share_cell(record: Record, name: str, digits: int = 1) -> TableCell:
    """A share in per cent with its interval."""
    text = words.percent(record.get(name), digits)
    return figure(record, name, text, under=words.interval(record.get(f"{name}_ci"), digits))


def quality_cell(record: Record) -> TableCell:
    """Accuracy in a table of several runs; where mIoU judges, which is another figure, none, and what it is."""
    if metric_of(record) == ACCURACY:
        return share_cell(record, ACCURACY)
    reason = f"every pixel is answered: {words.percent(record.get(MIOU))} mIoU"
    return TableCell(words.DASH, reason=reason if words.exists(record.get(MIOU)) else missing(record, MIOU))


def scaled_interval(bounds: Sequence[float | None] | None, unit: Any) -> str:
    """An interval whose bounds are written by a unit helper: ``[0.11, 0.13] mJ``; empty if there is none."""
    if bounds is None or len(bounds) != 2:
        return ""
    first, last = bounds
    if not (words.exists(first) and words.exists(last)) or math.isclose(first, last, rel_tol=1e-9):
        return ""  # no spread: the figure says it already
    low, high = unit(first), unit(last)
    low_number, _, low_unit = low.partition(" ")
    high_number, _, high_unit = high.partition(" ")
    same = low_unit == high_unit
    return f"[{low_number}, {high_number}] {high_unit}".rstrip() if same else f"[{low}, {high}]"


def unit_cell(record: Record, name: str, unit: Any, *, interval: bool = True) -> TableCell:
    """A figure written by a unit helper (``words.macs``, ``words.joules`` …), with its interval."""
    under = scaled_interval(record.get(f"{name}_ci"), unit) if interval else ""
    return figure(record, name, unit(record.get(name)), under=under)


def _letters(place: int) -> str:
    head, tail = divmod(place, 26)
    return (_letters(head - 1) if head else "") + chr(ord("a") + tail)
