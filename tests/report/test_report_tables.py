from hypothesis import given
from hypothesis import strategies as st

from adaptbench.report import words
from adaptbench.report.tables import Builder, Column, TableCell, scaled_interval, share_cell


def test_each_reason_gets_one_letter_and_cells_point_at_it():
    table = Builder("t", "", [Column("a"), Column("b")])
    table.add(TableCell(words.DASH, reason="no sensor"), TableCell("1", value=1))
    table.add(TableCell(words.DASH, reason="no driver"), TableCell(words.DASH, reason="no sensor"))
    built = table.build()
    assert [(note.mark, note.text) for note in built.footnotes] == [("a", "no sensor"), ("b", "no driver")]
    assert built.mark(built.rows[1].cells[1]) == "a"
    assert built.mark(built.rows[0].cells[1]) == ""


@given(st.integers(1, 800))
def test_letters_do_not_repeat(amount):
    table = Builder("t", "", [Column("a")])
    for place in range(amount):
        table.add(TableCell(words.DASH, reason=str(place)))
    marks = [note.mark for note in table.build().footnotes]
    assert len(set(marks)) == amount
    assert all(mark.isalpha() and mark.islower() for mark in marks)


def test_a_column_nobody_filled_is_dropped_with_its_reasons():
    table = Builder("t", "", [Column("a"), Column("b")])
    table.heading("group")
    table.add(TableCell("1", value=1), TableCell(words.DASH, reason="modelled elsewhere"))
    built = table.build(drop_empty=[1])
    assert [column.title for column in built.columns] == ["a"]
    assert built.footnotes == ()
    assert built.grouped


def test_a_null_figure_takes_the_reason_of_the_record():
    cell = share_cell({"recovery": None, "recovery_missing": "every clean input already costs the maximum"}, "recovery")
    assert (cell.text, cell.value) == (words.DASH, None)
    assert cell.reason == "every clean input already costs the maximum"


def test_an_interval_shares_its_unit_and_a_point_has_none():
    assert scaled_interval([1e-4, 2e-4], words.joules) == "[0.10, 0.20] mJ"
    assert scaled_interval([1e-6, 2e-3], words.joules) == "[1.00 µJ, 2.00 mJ]"
    assert scaled_interval([1e-4, 1e-4], words.joules) == ""
    assert scaled_interval(None, words.joules) == ""
