"""Sample and window tables ↔ parquet, with fixed columns and types."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptbench.errors import RunError
from adaptbench.results.files import replaced
from adaptbench.results.schema import (
    LATER_COLUMNS,
    METERED_COLUMNS,
    NULLABLE_COLUMNS,
    PIXEL_COLUMNS,
    SAMPLE_COLUMNS,
    WINDOW_COLUMNS,
)

if TYPE_CHECKING:
    import pandas as pd

STEP_COLUMNS: dict[str, str] = {
    "case": "string",
    "prompt_id": "int64",
    "step": "int64",
    "place": "int64",
    "tokens": "int64",
    "exit": "int64",
    "macs": "int64",
    "drafted": "int64",
    "accepted": "int64",
    "tie": "bool",
    "latency_s": "float64",
}
"""Columns of ``steps.parquet``: what a decoder did at a time, one character or, of self-speculation, some."""
COLUMNS: dict[str, dict[str, str]] = {"samples": SAMPLE_COLUMNS, "windows": WINDOW_COLUMNS, "steps": STEP_COLUMNS}
FURTHER: dict[str, dict[str, str]] = {"samples": PIXEL_COLUMNS, "windows": {}, "steps": {}}
"""Columns that a table has where its rows are of that kind."""


_RISING, _UNLIKE = ("sample_id",), ("l2", "confidence")
"""Columns of samples whose values hardly repeat: a dictionary of them costs half the time of writing, for nothing."""


def _form(table: str) -> dict[str, Any]:
    """How a table is written: twice as fast, and a third smaller, as by default; every reader knows these encodings."""
    form: dict[str, Any] = {"compression": "zstd", "write_statistics": ["case"]}
    if table == "samples":
        encodings = dict.fromkeys(_RISING, "DELTA_BINARY_PACKED") | dict.fromkeys(_UNLIKE, "BYTE_STREAM_SPLIT")
        form |= {"column_encoding": encodings, "use_dictionary": [c for c in COLUMNS[table] if c not in encodings]}
    return form


def arrow_schema(columns: Mapping[str, str]) -> Any:
    """The pyarrow schema of a table."""
    import pyarrow as pa

    types = {"string": pa.string(), "int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_()}
    types["counts"] = pa.list_(pa.field("element", pa.int64(), nullable=False))
    return pa.schema([pa.field(name, types[kind], nullable=name in NULLABLE_COLUMNS) for name, kind in columns.items()])


def to_arrow(frame: pd.DataFrame, table: str) -> Any:
    """A frame as an arrow table of the fixed columns; absent nullable columns become null.

    Raises:
        RunError: a column is absent, unknown, of another type, or null where null has no meaning.
    """
    import pyarrow as pa

    columns = _columns(table, frame.columns)
    absent = [name for name in columns if name not in frame.columns and name not in NULLABLE_COLUMNS]
    unknown = [str(name) for name in frame.columns if name not in columns]
    if absent or unknown:
        what = f"no column {', '.join(absent)}" if absent else f"unknown column {', '.join(unknown)}"
        raise _bad(table, what)
    arrays = []
    schema = arrow_schema(columns)
    for field in schema:
        try:
            if field.name not in frame.columns:
                array = pa.nulls(len(frame), field.type)
            else:
                array = pa.array(frame[field.name], type=field.type, from_pandas=field.nullable)
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise _bad(table, f"column {field.name} is not {field.type} ({error})") from error
        if not field.nullable and array.null_count:
            raise _bad(table, f"column {field.name} has {array.null_count} nulls")
        arrays.append(array)
    content = pa.Table.from_arrays(arrays, schema=schema)
    if table == "samples" and (costless := _costless(content)):
        raise _bad(table, f"{costless} rows have no one cost: MACs, or what a meter read")
    return content


def _costless(content: Any) -> int:
    """Rows that have neither MACs nor a metered cost, or more than one of these."""
    import pyarrow.compute as pc

    told = [pc.cast(pc.is_valid(content[name]), "int8") for name in ("macs", *METERED_COLUMNS.values())]
    return int(pc.sum(pc.cast(pc.not_equal(pc.add(pc.add(told[0], told[1]), told[2]), 1), "int64")).as_py() or 0)


def _columns(table: str, present: Iterable[Any]) -> dict[str, str]:
    """The fixed columns, and those of the further ones that are there."""
    there = set(present)
    return COLUMNS[table] | {name: kind for name, kind in FURTHER[table].items() if name in there}


def write(target: Path, frame: pd.DataFrame, table: str) -> None:
    """Write one frame, all or nothing."""
    import pyarrow.parquet as pq

    content = to_arrow(frame, table)
    with replaced(target) as temporary:
        pq.write_table(content, temporary, **_form(table))


ROW_GROUP = 65_536
"""Rows of one case that are kept together, at most; no more are held while a table is made or read in parts."""


def concatenate(target: Path, sources: Iterable[Path], table: str) -> None:
    """Write the rows of many files, one after the other, all or nothing; holds one row group at a time.

    Each case has row groups of its own, so that reading one evaluation skips the others.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    sources = list(sources)
    schema = arrow_schema(_columns(table, pq.read_schema(sources[0]).names if sources else ()))
    held: list[Any] = []
    with replaced(target) as temporary, pq.ParquetWriter(temporary, schema, **_form(table)) as writer:

        def write_held() -> None:
            if held:
                writer.write_table(pa.concat_tables(held), row_group_size=ROW_GROUP)
                held.clear()

        for source in sources:
            for part in _row_groups(source, schema):
                if held and (_case(held[0]) != _case(part) or sum(map(len, held)) + len(part) > ROW_GROUP):
                    write_held()
                held.append(part)
        write_held()


def _row_groups(source: Path, schema: Any) -> Iterator[Any]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(source, memory_map=False) as file:
        for group in range(file.num_row_groups):
            part = _filled(file.read_row_group(group), schema).cast(schema)
            if len(part):
                yield part


def _filled(content: Any, schema: Any) -> Any:
    """A table of an older file with columns that came later, null."""
    import pyarrow as pa

    for field in schema:
        if field.name in LATER_COLUMNS and field.name not in content.column_names:
            content = content.append_column(field, pa.nulls(len(content), field.type))
    return content


def _case(part: Any) -> Any:
    """The first row's case, where all have it: whatever is mixed stays as its file has it."""
    return part["case"][0].as_py()


def parts(source: Path, table: str, cases: Sequence[str] | None = None) -> Iterator[pd.DataFrame]:
    """Rows as frames of one row group each, of some cases or of all: a table of any length in the memory of one group.

    Raises:
        RunError: not a parquet file of this table.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(source) as file:
            _check_columns(source, file.schema_arrow.names, table)
            wanted = None if cases is None else set(cases)
            column = file.schema_arrow.names.index("case")
            for group in range(file.num_row_groups):
                seen = file.metadata.row_group(group).column(column).statistics
                if wanted is not None and seen is not None and seen.min == seen.max and seen.min not in wanted:
                    continue
                content = file.read_row_group(group)
                if wanted is not None:
                    content = content.filter(pc.is_in(content["case"], pa.array(sorted(wanted), pa.string())))
                if len(content):
                    yield _frame(content, table)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(source, table, error) from error


def read(source: Path, table: str, cases: Sequence[str] | None = None) -> pd.DataFrame:
    """Rows as a frame, of some cases or of all; nullable integers stay integers (``Int64``).

    Raises:
        RunError: not a parquet file of this table.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        filters = None if cases is None else [("case", "in", list(cases) or [""])]
        content = pq.read_table(source, filters=filters)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(source, table, error) from error
    _check_columns(source, content.column_names, table)
    return _frame(content, table)


def _frame(content: Any, table: str) -> pd.DataFrame:
    import pandas as pd

    content = _filled(content, arrow_schema(COLUMNS[table]))
    frame: pd.DataFrame = content.to_pandas()
    if table == "samples":
        for name in ("queries", "macs_unpadded"):
            frame[name] = content[name].to_pandas(types_mapper=lambda _: pd.Int64Dtype())
    return frame


def _check_columns(source: Path, names: Sequence[str], table: str) -> None:
    if lacking := [name for name in COLUMNS[table] if name not in names and name not in LATER_COLUMNS]:
        raise _bad(f"{source}", f"no column {', '.join(lacking)}")


def _unreadable(source: Path, table: str, error: Exception) -> RunError:
    return RunError(
        f"{source}: not a readable {table} table ({error}).",
        why="It was cut short, or another program wrote it.",
        todo="Run the suite again; finished cases are not computed twice.",
    )


def _bad(place: str, what: str) -> RunError:
    return RunError(
        f"{place}: {what}.",
        why="Readers lean on fixed columns.",
        todo="It is a fault of adaptbench or of a plug-in that wrote the table.",
    )
