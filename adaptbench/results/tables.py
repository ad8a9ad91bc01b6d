"""Sample and window tables ↔ parquet, with fixed columns and types."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptbench.errors import RunError
from adaptbench.results.files import replaced
from adaptbench.results.schema import NULLABLE_COLUMNS, SAMPLE_COLUMNS, WINDOW_COLUMNS

if TYPE_CHECKING:
    import pandas as pd

COLUMNS: dict[str, dict[str, str]] = {"samples": SAMPLE_COLUMNS, "windows": WINDOW_COLUMNS}


def arrow_schema(columns: Mapping[str, str]) -> Any:
    """The pyarrow schema of a table."""
    import pyarrow as pa

    types = {"string": pa.string(), "int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_()}
    return pa.schema([pa.field(name, types[kind], nullable=name in NULLABLE_COLUMNS) for name, kind in columns.items()])


def to_arrow(frame: pd.DataFrame, table: str) -> Any:
    """A frame as an arrow table of the fixed columns; absent nullable columns become null.

    Raises:
        RunError: a column is absent, unknown, of another type, or null where null has no meaning.
    """
    import pyarrow as pa

    columns = COLUMNS[table]
    absent = [name for name in columns if name not in frame.columns and name not in NULLABLE_COLUMNS]
    unknown = [str(name) for name in frame.columns if name not in columns]
    if absent or unknown:
        what = f"no column {', '.join(absent)}" if absent else f"unknown column {', '.join(unknown)}"
        raise _bad(table, what)
    arrays = []
    for field in arrow_schema(columns):
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
    return pa.Table.from_arrays(arrays, schema=arrow_schema(columns))


def write(target: Path, frame: pd.DataFrame, table: str) -> None:
    """Write one frame, all or nothing."""
    import pyarrow.parquet as pq

    content = to_arrow(frame, table)
    with replaced(target) as temporary:
        pq.write_table(content, temporary, compression="zstd")


def concatenate(target: Path, sources: Iterable[Path], table: str) -> None:
    """Write the rows of many files, one after the other, all or nothing; holds one of them at a time.

    Each source becomes row groups of its own, so that reading one evaluation skips the others.
    """
    import pyarrow.parquet as pq

    schema = arrow_schema(COLUMNS[table])
    with replaced(target) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for source in sources:
            writer.write_table(pq.read_table(source, schema=schema))


def read(source: Path, table: str, cases: Sequence[str] | None = None) -> pd.DataFrame:
    """Rows as a frame, of some cases or of all; nullable integers stay integers (``Int64``).

    Raises:
        RunError: not a parquet file of this table.
    """
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        filters = None if cases is None else [("case", "in", list(cases) or [""])]
        content = pq.read_table(source, filters=filters)
    except (pa.ArrowException, OSError) as error:
        raise RunError(
            f"{source}: not a readable {table} table ({error}).",
            why="It was cut short, or another program wrote it.",
            todo="Run the suite again; finished cases are not computed twice.",
        ) from error
    if lacking := [name for name in COLUMNS[table] if name not in content.column_names]:
        raise _bad(f"{source}", f"no column {', '.join(lacking)}")
    frame: pd.DataFrame = content.to_pandas()
    if table == "samples":
        frame["queries"] = pd.array(content["queries"].to_pylist(), dtype="Int64")
    return frame


def _bad(place: str, what: str) -> RunError:
    return RunError(
        f"{place}: {what}.",
        why="Readers lean on fixed columns.",
        todo="It is a fault of adaptbench or of a plug-in that wrote the table.",
    )
