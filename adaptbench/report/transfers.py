"""The transfer matrix as a table: rows are crafted on, columns are judged, the diagonal is the white box."""

from __future__ import annotations

from adaptbench.report import words
from adaptbench.report.tables import Builder, Column, Table, TableCell, share_cell
from adaptbench.report.view import View
from adaptbench.results.transfers import Matrix, matrices


def transfer_tables(view: View) -> list[Table]:
    """One a condition and seed; none where the run carried nothing over."""
    return [_table(view, matrix, place) for place, matrix in enumerate(matrices([dict(r) for r in view.records]))]


def _table(view: View, matrix: Matrix, place: int) -> Table:
    seed = f", seed {matrix.seed}" if matrix.seed else ""
    on = [Column(f"on {view.model_title(model)}", unit="share of head-room") for model in matrix.models]
    caption = f"{matrix.condition}{seed}: share of the head-room taken back, by the model that it was crafted on"
    table = Builder(f"table-transfer-{place}", caption, [Column("crafted on", numeric=False), *on])
    for source in matrix.models:
        cells = [_cell(matrix, source, judged) for judged in matrix.models]
        table.add(TableCell(view.model_title(source), value=source), *cells)
    return table.build()


def _cell(matrix: Matrix, source: str, judged: str) -> TableCell:
    record = matrix.cells.get((source, judged))
    if record is None:
        return TableCell(words.DASH, reason="not run: “Things to know” says why")
    return share_cell(record, "recovery")
