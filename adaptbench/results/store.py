"""The run directory: written cell by cell so that a kill loses at most one cell, read as one thing.

While a suite runs, every evaluation and every timed case is a *cell*: small files under ``cells/``, named by content
key, whose ``.json`` arrives last and makes it count. At the end the cells are put together in plan order. Cells stay,
so that the same suite run again computes only what changed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adaptbench.errors import OutputError, RunError
from adaptbench.results import tables
from adaptbench.results.files import read_json, sweep, writable, write_bytes, write_json
from adaptbench.results.schema import (
    SCHEMA_VERSION,
    Record,
    complete,
    validate_manifest,
    validate_records,
    validate_summary,
)

if TYPE_CHECKING:
    import pandas as pd

MANIFEST, SUMMARY, SAMPLES, WINDOWS = "manifest.json", "summary.json", "samples.parquet", "windows.parquet"
CELLS, CRAFTED = "cells", "crafted"
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class Cell:
    """What was committed under one key.

    Args:
        record: figures, free in form.
        samples: rows for ``samples.parquet``.
        windows: rows for ``windows.parquet``.
    """

    record: Record
    samples: pd.DataFrame | None
    windows: pd.DataFrame | None


class RunWriter:
    """Writes a run directory. Cells may be committed in any order and by several processes.

    Args:
        path: the directory; made where it does not exist.

    Raises:
        OutputError: it cannot be written to, or holds something else than a run.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with writable(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            present = {entry.name for entry in self.path.iterdir() if not entry.name.startswith(".")}
            if present and not present & {MANIFEST, CELLS, CRAFTED}:
                raise OutputError(
                    f"{self.path}: the directory holds other files ({', '.join(sorted(present)[:3])} …).",
                    why="A run would mix with them.",
                    todo="Name a new or empty directory with --out.",
                )
            for folder in (CELLS, CRAFTED):
                (self.path / folder).mkdir(exist_ok=True)

    def begin(self, manifest: Mapping[str, Any]) -> None:
        """Leave the manifest, marked as not ended, so that a reader of a killed run learns how to resume it."""
        write_json(self.path / MANIFEST, {"schema": SCHEMA_VERSION, "kind": "run", **manifest, "ended": None})

    def has(self, key: str) -> bool:
        """True where a whole cell of this schema is committed under the key."""
        return self._header(key) is not None

    def commit(
        self,
        key: str,
        record: Mapping[str, Any],
        samples: pd.DataFrame | None = None,
        windows: pd.DataFrame | None = None,
    ) -> None:
        """Write a cell, all or nothing; a cell that is there already is replaced.

        Args:
            key: content key: whatever the cell's content hangs on must be in it.
            record: figures of the cell; JSON values.
            samples: rows with the columns of `schema.SAMPLE_COLUMNS`.
            windows: rows with the columns of `schema.WINDOW_COLUMNS`.

        Raises:
            OutputError: the directory cannot be written to.
            RunError: columns or values that the schema does not allow.
        """
        sizes: dict[str, int] = {}
        with writable(self.path / CELLS):
            self._file(key, "json").unlink(missing_ok=True)  # a half-replaced cell must not count
        for table, frame in (("samples", samples), ("windows", windows)):
            if frame is not None:
                target = self._file(key, f"{table}.parquet")
                tables.write(target, frame, table)
                sizes[table] = target.stat().st_size
        header = {"schema": SCHEMA_VERSION, "key": key, "files": sizes, "record": dict(record)}
        write_json(self._file(key, "json"), header)

    def load(self, key: str) -> Cell:
        """What was committed under a key.

        Raises:
            RunError: nothing was, or not all of it.
        """
        header = self._require(key)
        frames = {
            table: tables.read(self._file(key, f"{table}.parquet"), table) if table in header["files"] else None
            for table in tables.COLUMNS
        }
        return Cell(header["record"], frames["samples"], frames["windows"])

    def record(self, key: str) -> Record:
        """The record of a cell, without its tables.

        Raises:
            RunError: no such cell.
        """
        record: Record = self._require(key)["record"]
        return record

    def discard_cells(self) -> None:
        """Forget every cell (``--fresh``); crafted inputs stay, they are found by content."""
        with writable(self.path / CELLS):
            for file in (self.path / CELLS).iterdir():
                file.unlink()

    def commit_crafted(self, arrays: Mapping[str, NDArray[Any]]) -> str:
        """Keep crafted inputs under the hash of their bytes.

        Args:
            arrays: ``x_adv`` uint8 (N, C, H, W), ``sample_id`` int64 (N,), ``gallery_clean`` uint8 (G, C, H, W).

        Returns:
            The file's name in ``crafted/``.
        """
        from safetensors.numpy import save

        content: bytes = save({name: np.ascontiguousarray(array) for name, array in sorted(arrays.items())})
        name = f"{hashlib.sha256(content).hexdigest()}.safetensors"
        if not (self.path / CRAFTED / name).exists():
            write_bytes(self.path / CRAFTED / name, content)
        return name

    def crafted(self, name: str) -> dict[str, NDArray[Any]]:
        """Crafted inputs that were kept.

        Raises:
            RunError: no such file, or not a safetensors file.
        """
        return _crafted(self.path, name)

    def finish(
        self, manifest: Mapping[str, Any], keys: Sequence[str], cases: Sequence[Mapping[str, Any]] | None = None
    ) -> Run:
        """Put the cells together, in the order given; the manifest comes last and makes the run complete.

        Args:
            manifest: the final manifest, with ``ended``.
            keys: cells of this run, in plan order; their tables are concatenated in it.
            cases: records for the summary, in order; None takes the cells' own records that name a case.

        Raises:
            RunError: a cell is missing, or a record is not valid.
            OutputError: the directory cannot be written to.
        """
        document = {"schema": SCHEMA_VERSION, "kind": "run", **manifest}
        validate_manifest(document)
        if not document.get("ended"):
            raise RunError("manifest: 'ended' is not set.", why="A run without it reads as killed.")
        headers = {key: self._require(key) for key in keys}
        if cases is None:
            cases = [header["record"] for header in headers.values() if header["record"].get("case")]
        records = [complete(dict(record)) for record in cases]
        validate_records(records, SUMMARY)
        for table, name in (("samples", SAMPLES), ("windows", WINDOWS)):
            sources = [self._file(key, f"{table}.parquet") for key in headers if table in headers[key]["files"]]
            tables.concatenate(self.path / name, sources, table)
        write_json(self.path / SUMMARY, {"schema": SCHEMA_VERSION, "cases": records})
        write_json(self.path / MANIFEST, document)
        for folder in (self.path, self.path / CELLS, self.path / CRAFTED):
            sweep(folder)
        return Run.open(self.path)

    def _file(self, key: str, suffix: str) -> Path:
        stem = key if _SAFE.fullmatch(key) else hashlib.sha256(key.encode()).hexdigest()
        return self.path / CELLS / f"{stem}.{suffix}"

    def _header(self, key: str) -> dict[str, Any] | None:
        file = self._file(key, "json")
        if not file.is_file():
            return None
        try:
            header = read_json(file)
        except RunError:
            return None  # cut short by a failing disk: as good as absent
        if not isinstance(header, dict) or header.get("schema") != SCHEMA_VERSION or header.get("key") != key:
            return None
        for table, size in header.get("files", {}).items():
            part = self._file(key, f"{table}.parquet")
            if not part.is_file() or part.stat().st_size != size:
                return None
        return header

    def _require(self, key: str) -> dict[str, Any]:
        header = self._header(key)
        if header is None:
            raise RunError(
                f"{self.path}: cell '{key}' was not committed.",
                why="The run is not complete without it.",
                todo="Run the same command again: it computes only what is missing.",
            )
        return header


@dataclass(frozen=True, slots=True)
class Run:
    """A complete run directory, open for reading.

    Args:
        path: the directory.
        manifest: parsed ``manifest.json``.
        cases: parsed records of ``summary.json``, in plan order.
    """

    path: Path
    manifest: dict[str, Any]
    cases: list[Record]

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Open a run directory.

        Raises:
            RunError: missing, foreign, incomplete (the message says what resumes it) or of another schema.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise RunError(
                f"{folder}: there is no such directory.",
                why="A run is a directory that `adaptbench run` leaves behind.",
                todo="Check the path, or run a suite: `adaptbench run bench`.",
            )
        if not (folder / MANIFEST).is_file():
            raise RunError(
                f"{folder}: no {MANIFEST} in it: not a run directory.",
                why="A run is a directory that `adaptbench run` leaves behind.",
                todo="Name the directory given to --out, by default runs/<suite>.",
            )
        manifest = validate_manifest(read_json(folder / MANIFEST), str(folder / MANIFEST))
        lacking = [name for name in (SUMMARY, SAMPLES, WINDOWS) if not (folder / name).is_file()]
        if lacking or not manifest.get("ended"):
            command = manifest.get("command") or "adaptbench run SUITE"
            raise RunError(
                f"{folder}: the run is incomplete; it was stopped before its end.",
                why="Figures of some cases would be missing.",
                todo=f"`{command}` goes on where it stopped.",
            )
        cases = validate_summary(read_json(folder / SUMMARY), str(folder / SUMMARY))
        return cls(folder, manifest, cases)

    def case(self, case: str) -> Record:
        """The record of a case.

        Raises:
            RunError: no such case.
        """
        for record in self.cases:
            if record["case"] == case:
                return record
        raise (
            RunError(f"{self.path}: no case '{case}'.", todo=f"It has {len(self.cases)}: {self.cases[0]['case']} …")
            if self.cases
            else RunError(f"{self.path}: the run has no cases.")
        )

    def samples(self, evaluations: Sequence[str] | None = None) -> pd.DataFrame:
        """Per-sample rows of some evaluations, or of all; columns of `schema.SAMPLE_COLUMNS`."""
        return tables.read(self.path / SAMPLES, "samples", evaluations)

    def windows(self, cases: Sequence[str] | None = None) -> pd.DataFrame:
        """Windows of some cases, or of all; columns of `schema.WINDOW_COLUMNS`."""
        return tables.read(self.path / WINDOWS, "windows", cases)

    def crafted(self, name: str) -> dict[str, NDArray[Any]]:
        """Crafted inputs by file name, as in a record's ``crafted``.

        Returns:
            ``x_adv`` uint8 (N, C, H, W), ``sample_id`` int64 (N,), ``gallery_clean`` uint8 (G, C, H, W).

        Raises:
            RunError: no such file, or not a safetensors file.
        """
        return _crafted(self.path, name)


def _crafted(folder: Path, name: str) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    file = folder / CRAFTED / name
    if Path(name).name != name or not file.is_file():
        raise RunError(
            f"{folder}: no crafted inputs '{name}'.",
            why="They lie in crafted/, one file a content hash.",
            todo="Copy the whole run directory, or run the suite again.",
        )
    try:
        arrays: dict[str, NDArray[Any]] = load_file(file)
    except SafetensorError as error:
        raise RunError(f"{file}: not a safetensors file ({error}).", todo="Run the suite again.") from error
    return arrays
