"""Writes the directory of a suite's run or of a study, cell by cell, so that a kill loses at most one cell.

Every evaluation, timed case, fit and graph is a *cell*: small files under ``cells/``, named by content key, whose
``.json`` arrives last and makes it count. At the end the cells are put together in plan order. Cells stay, so that the
same file run again computes only what changed. What is damaged is computed again.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adaptbench.errors import OutputError, RunError
from adaptbench.results import tables
from adaptbench.results.files import digest, read_json, sealed, sweep, unbroken, writable, write_bytes, write_json
from adaptbench.results.schema import (
    CELL_SCHEMAS,
    SCHEMA_VERSION,
    Record,
    complete,
    validate_manifest,
    validate_records,
)
from adaptbench.results.store import (
    CELLS,
    CRAFTED,
    FILES,
    MANIFEST,
    READY,
    SAMPLES,
    STEPS,
    SUMMARY,
    WINDOWS,
    Run,
    called,
    is_whole,
    place_of,
    read_crafted,
)

if TYPE_CHECKING:
    import pandas as pd

MAKING = ".making"
"""Folder of a directory that is put together."""
TENSORS = "safetensors"
"""Suffix of a cell's tensors."""
_TABLES = {"samples": SAMPLES, "windows": WINDOWS, "steps": STEPS}
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class Cell:
    """What was committed under one key.

    Args:
        record: figures, free in form.
        samples: rows for ``samples.parquet``.
        windows: rows for ``windows.parquet``.
        tensors: what is neither.
    """

    record: Record
    samples: pd.DataFrame | None
    windows: pd.DataFrame | None
    tensors: dict[str, NDArray[Any]] | None


class RunWriter:
    """Writes a directory. Cells may be committed in any order.

    Args:
        path: the directory; made where it does not exist. kind: of `store.FILES`.

    Attributes:
        damaged: files of cells and crafted inputs that were found damaged, relative to the directory.

    Raises:
        OutputError: it cannot be written to, or holds something else than a run.
    """

    def __init__(self, path: str | Path, kind: str = "suite") -> None:
        self.path, self.kind = Path(path), kind
        self.damaged: list[str] = []
        with writable(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            present = {entry.name for entry in self.path.iterdir() if not entry.name.startswith(".")}
            if present and not present & {MANIFEST, CELLS, CRAFTED}:
                raise OutputError(
                    f"{self.path}: the directory holds other files ({', '.join(sorted(present)[:3])} …).",
                    why="A run would mix with them.",
                    todo="Name a new or empty directory with --out.",
                )
            self._refuse_another_kind()
            for folder in (CELLS, CRAFTED) if kind == "suite" else (CELLS,):
                (self.path / folder).mkdir(exist_ok=True)
            self._settle()

    @classmethod
    def look(cls, path: str | Path) -> RunWriter | None:
        """The cells that lie in a directory, for `has`, `record` and `load` alone: nothing is made, moved or removed.

        Returns:
            None where there are none.
        """
        writer = cls.__new__(cls)
        writer.path, writer.kind, writer.damaged = Path(path), "suite", []
        return writer if (writer.path / CELLS).is_dir() else None

    def _refuse_another_kind(self) -> None:
        manifest = self._manifest()
        there = manifest.get("kind") if manifest else None
        if there in FILES and there != self.kind:
            raise OutputError(
                f"{self.path}: the directory holds the run of a {called(there)}, not of a {called(self.kind)}.",
                why="They would overwrite each other.",
                todo="Name another directory with --out.",
            )

    def _settle(self) -> None:
        """Move the files of a run that was complete, and not yet in place, to where they belong."""
        ready, making = self.path / READY, self.path / MAKING
        if making.is_dir():
            shutil.rmtree(making, ignore_errors=True)  # of a process that was killed
        if ready.is_dir():
            for name in (*FILES[self.kind], MANIFEST):
                if (ready / name).is_file():
                    (ready / name).replace(self.path / name)
            ready.rmdir()

    def begin(self, manifest: Mapping[str, Any]) -> None:
        """Leave the manifest, marked as not ended, so that a reader of a killed run learns how to resume it.

        Where a complete run lies in the directory, it stays as it is until the new one is complete.
        """
        if not self._holds_a_run():
            write_json(self.path / MANIFEST, {**self._document(manifest), "ended": None})

    def _holds_a_run(self) -> bool:
        """Whether readers find a complete run here, damaged or not."""
        manifest = self._manifest()
        whole = all(place_of(self.path, name).is_file() for name in FILES[self.kind])
        return whole and manifest is not None and bool(manifest.get("ended"))

    def _manifest(self) -> dict[str, Any] | None:
        try:
            return validate_manifest(read_json(place_of(self.path, MANIFEST)))
        except RunError:
            return None

    def _document(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        return {"schema": SCHEMA_VERSION, "kind": self.kind, **manifest}

    def has(self, key: str) -> bool:
        """True where a whole cell of this schema is committed under the key; a damaged one is noted in `damaged`."""
        return self._header(key) is not None

    def commit(
        self,
        key: str,
        record: Mapping[str, Any],
        samples: pd.DataFrame | None = None,
        windows: pd.DataFrame | None = None,
        tensors: Mapping[str, NDArray[Any]] | None = None,
        steps: pd.DataFrame | None = None,
    ) -> None:
        """Write a cell, all or nothing; a cell that is there already is replaced.

        Args:
            key: content key: whatever the cell's content hangs on must be in it.
            record: figures of the cell; JSON values.
            samples: rows with the columns of `schema.SAMPLE_COLUMNS`.
            windows: rows with the columns of `schema.WINDOW_COLUMNS`.
            tensors: arrays by name.
            steps: rows with the columns of `tables.STEP_COLUMNS`.

        Raises:
            OutputError: the directory cannot be written to.
            RunError: columns or values that the schema does not allow.
        """
        seals: dict[str, Any] = {}
        with writable(self.path / CELLS):
            self._file(key, "json").unlink(missing_ok=True)  # a half-replaced cell must not count
        for table, frame in (("samples", samples), ("windows", windows), ("steps", steps)):
            if frame is not None:
                target = self._file(key, f"{table}.parquet")
                tables.write(target, frame, table)
                seals[f"{table}.parquet"] = sealed(target)
        if tensors is not None:
            target = self._file(key, TENSORS)
            write_bytes(target, _packed(tensors))
            seals[TENSORS] = sealed(target)
        header = {"schema": SCHEMA_VERSION, "key": key, "files": seals, "record": dict(record)}
        write_json(self._file(key, "json"), {**header, "digest": digest(header)})

    def load(self, key: str) -> Cell:
        """What was committed under a key.

        Raises:
            RunError: nothing was, or not all of it.
        """
        header = self._require(key)
        frames = {
            table: tables.read(self._file(key, part), table)
            if (part := f"{table}.parquet") in header["files"]
            else None
            for table in tables.COLUMNS
        }
        kept = self._file(key, TENSORS).read_bytes() if TENSORS in header["files"] else None
        return Cell(header["record"], frames["samples"], frames["windows"], None if kept is None else _unpacked(kept))

    def record(self, key: str) -> Record:
        """The record of a cell, without its tables.

        Raises:
            RunError: no such cell.
        """
        record: Record = self._require(key)["record"]
        return record

    def discard(self, keys: Sequence[str]) -> None:
        """Forget some cells."""
        with writable(self.path / CELLS):
            for key in keys:
                self._file(key, "json").unlink(missing_ok=True)

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
        content = _packed(arrays)
        name = f"{hashlib.sha256(content).hexdigest()}.safetensors"
        if not is_whole(self.path, name):
            write_bytes(self.path / CRAFTED / name, content)
        return name

    def has_crafted(self, name: Any) -> bool:
        """True where a file of crafted inputs is there and whole; a damaged one is noted in `damaged`."""
        whole = isinstance(name, str) and is_whole(self.path, name)
        if not whole and isinstance(name, str) and (self.path / CRAFTED / name).is_file():
            self._note(f"{CRAFTED}/{name}")
        return whole

    def has_whole(self, key: str) -> bool:
        """True where a cell is whole, and the pictures that it names are too."""
        if not self.has(key):
            return False
        crafted = self.record(key)["crafted"]
        return crafted is None or self.has_crafted(crafted)

    def crafted(self, name: str) -> dict[str, NDArray[Any]]:
        """Crafted inputs that were kept.

        Raises:
            RunError: no such file, or damaged.
        """
        return read_crafted(self.path, name)

    def finish(
        self, manifest: Mapping[str, Any], keys: Sequence[str], cases: Sequence[Mapping[str, Any]] | None = None
    ) -> Run:
        """Put a suite's cells together, in the order given; the manifest comes last and makes the run complete.

        Args:
            manifest: the final manifest, with ``ended``.
            keys: cells of this run, in plan order; their tables are concatenated in it.
            cases: records for the summary, in order; None takes the cells' own records that name a case.

        Raises:
            RunError: a cell is missing, or a record is not valid.
            OutputError: the directory cannot be written to.
        """
        if cases is None:
            cases = [record for record in map(self.record, keys) if record.get("case")]
        records = [complete(dict(record)) for record in cases]
        validate_records(records, SUMMARY)
        self._assemble(manifest, keys, SUMMARY, {"schema": SCHEMA_VERSION, "cases": records})
        return Run.open(self.path)

    def finish_record(self, manifest: Mapping[str, Any], keys: Sequence[str], figures: Mapping[str, Any]) -> None:
        """The same for a study, or a suite of a kind of its own, whose figures are one record.

        Args:
            manifest: the final manifest, with ``ended``. keys: cells whose tables are kept. figures: the record's file.
        """
        self._assemble(manifest, keys, FILES[self.kind][0], figures)

    def _assemble(
        self, manifest: Mapping[str, Any], keys: Sequence[str], name: str, figures: Mapping[str, Any]
    ) -> None:
        document = self._document(manifest)
        validate_manifest(document)
        if not document.get("ended"):
            raise RunError("manifest: 'ended' is not set.", why="A run without it reads as killed.")
        headers = {key: self._require(key) for key in keys}
        making = self.path / MAKING
        with writable(making):
            making.mkdir(exist_ok=True)
        for table, file in _TABLES.items():
            if file in FILES[self.kind]:
                part = f"{table}.parquet"
                sources = [self._file(key, part) for key in headers if part in headers[key]["files"]]
                tables.concatenate(making / file, sources, table)
        write_json(making / name, figures)
        seal(making, document, self.kind)
        with writable(self.path):
            making.rename(self.path / READY)  # from here on readers find the new run, whatever happens
            self._settle()
        for folder in (self.path, self.path / CELLS, self.path / CRAFTED):
            sweep(folder)

    def _file(self, key: str, suffix: str) -> Path:
        stem = key if _SAFE.fullmatch(key) else hashlib.sha256(key.encode()).hexdigest()
        return self.path / CELLS / f"{stem}.{suffix}"

    def _header(self, key: str) -> dict[str, Any] | None:
        """What a cell says of itself; None where there is none, of another version, or damaged."""
        file = self._file(key, "json")
        if not file.is_file():
            return None
        try:
            header: dict[str, Any] = read_json(file)
        except RunError:
            header = {}
        if not isinstance(header, dict):
            header = {}
        if header.get("schema", SCHEMA_VERSION) not in CELL_SCHEMAS or (header and "digest" not in header):
            return None  # of another version
        if header.get("key") != key or header.get("digest") != digest(header):
            self._note(f"{CELLS}/{file.name}")
            return None
        for suffix, seal in header["files"].items():
            part = self._file(key, suffix)
            if not unbroken(part, seal):
                self._note(f"{CELLS}/{part.name}")
                return None
        return header

    def _note(self, name: str) -> None:
        if name not in self.damaged:
            self.damaged.append(name)

    def _require(self, key: str) -> dict[str, Any]:
        header = self._header(key)
        if header is None:
            raise RunError(
                f"{self.path}: cell '{key}' was not committed.",
                why="The run is not complete without it.",
                todo="Run the same command again: it computes only what is missing.",
            )
        return header


def seal(folder: Path, manifest: Mapping[str, Any], kind: str = "suite") -> None:
    """Write the manifest with the hashes of the files beside it, and its own: the run is complete.

    Raises:
        OutputError: the directory cannot be written to.
    """
    document = {**manifest, "files": {name: sealed(folder / name) for name in FILES[kind]}}
    write_json(folder / MANIFEST, {**document, "digest": digest(document)})


def _packed(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    from safetensors.numpy import save

    # ascontiguousarray would give an array without axes one
    content: bytes = save({name: np.asarray(array, order="C") for name, array in sorted(arrays.items())})
    return content


def _unpacked(content: bytes) -> dict[str, NDArray[Any]]:
    from safetensors.numpy import load

    return {name: array.copy() for name, array in load(content).items()}  # of its own memory, which may be written
