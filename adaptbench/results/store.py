"""The run directory: written cell by cell so that a kill loses at most one cell, read as one thing.

While a suite runs, every evaluation and every timed case is a *cell*: small files under ``cells/``, named by content
key, whose ``.json`` arrives last and makes it count. At the end the cells are put together in plan order. Cells stay,
so that the same suite run again computes only what changed.

Every file is known by its hash: a cell's header names those of its tables and its own, the manifest those of the files
beside it, and crafted inputs are called by theirs. A reader refuses what is damaged, a writer computes it again.
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
SEALED = (SUMMARY, SAMPLES, WINDOWS)
"""Files whose size and hash stand in the manifest."""
CELLS, CRAFTED = "cells", "crafted"
MAKING, READY = ".making", ".ready"
"""Folders of a run that is put together, and of one that is complete and not yet moved into place."""
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

    Attributes:
        damaged: files of cells and crafted inputs that were found damaged, relative to the directory.

    Raises:
        OutputError: it cannot be written to, or holds something else than a run.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
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
            for folder in (CELLS, CRAFTED):
                (self.path / folder).mkdir(exist_ok=True)
            self._settle()

    def _settle(self) -> None:
        """Move the files of a run that was complete, and not yet in place, to where they belong."""
        ready, making = self.path / READY, self.path / MAKING
        if making.is_dir():
            shutil.rmtree(making, ignore_errors=True)  # of a process that was killed
        if ready.is_dir():
            for name in (*SEALED, MANIFEST):
                if (ready / name).is_file():
                    (ready / name).replace(self.path / name)
            ready.rmdir()

    def begin(self, manifest: Mapping[str, Any]) -> None:
        """Leave the manifest, marked as not ended, so that a reader of a killed run learns how to resume it.

        Where a complete run lies in the directory, it stays as it is until the new one is complete.
        """
        if not self._holds_a_run():
            write_json(self.path / MANIFEST, {"schema": SCHEMA_VERSION, "kind": "run", **manifest, "ended": None})

    def _holds_a_run(self) -> bool:
        """Whether readers find a complete run here, damaged or not."""
        if not all(_place(self.path, name).is_file() for name in (MANIFEST, *SEALED)):
            return False
        try:
            manifest = read_json(_place(self.path, MANIFEST))
        except RunError:
            return False
        return isinstance(manifest, dict) and bool(manifest.get("ended"))

    def has(self, key: str) -> bool:
        """True where a whole cell of this schema is committed under the key; a damaged one is noted in `damaged`."""
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
        seals: dict[str, Any] = {}
        with writable(self.path / CELLS):
            self._file(key, "json").unlink(missing_ok=True)  # a half-replaced cell must not count
        for table, frame in (("samples", samples), ("windows", windows)):
            if frame is not None:
                target = self._file(key, f"{table}.parquet")
                tables.write(target, frame, table)
                seals[table] = sealed(target)
        header = {"schema": SCHEMA_VERSION, "key": key, "files": seals, "record": dict(record)}
        write_json(self._file(key, "json"), {**header, "digest": digest(header)})

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
        from safetensors.numpy import save

        content: bytes = save({name: np.ascontiguousarray(array) for name, array in sorted(arrays.items())})
        name = f"{hashlib.sha256(content).hexdigest()}.safetensors"
        if not _is_whole(self.path, name):
            write_bytes(self.path / CRAFTED / name, content)
        return name

    def has_crafted(self, name: Any) -> bool:
        """True where a file of crafted inputs is there and whole; a damaged one is noted in `damaged`."""
        whole = isinstance(name, str) and _is_whole(self.path, name)
        if not whole and isinstance(name, str) and (self.path / CRAFTED / name).is_file():
            self._note(f"{CRAFTED}/{name}")
        return whole

    def crafted(self, name: str) -> dict[str, NDArray[Any]]:
        """Crafted inputs that were kept.

        Raises:
            RunError: no such file, or damaged.
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
        making = self.path / MAKING
        with writable(making):
            making.mkdir(exist_ok=True)
        for table, name in (("samples", SAMPLES), ("windows", WINDOWS)):
            sources = [self._file(key, f"{table}.parquet") for key in headers if table in headers[key]["files"]]
            tables.concatenate(making / name, sources, table)
        write_json(making / SUMMARY, {"schema": SCHEMA_VERSION, "cases": records})
        seal(making, document)
        with writable(self.path):
            making.rename(self.path / READY)  # from here on readers find the new run, whatever happens
            self._settle()
        for folder in (self.path, self.path / CELLS, self.path / CRAFTED):
            sweep(folder)
        return Run.open(self.path)

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
        if header.get("schema", SCHEMA_VERSION) != SCHEMA_VERSION or (header and "digest" not in header):
            return None  # of another version
        if header.get("key") != key or header.get("digest") != digest(header):
            self._note(f"{CELLS}/{file.name}")
            return None
        for table, seal in header["files"].items():
            part = self._file(key, f"{table}.parquet")
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
            RunError: missing, foreign, incomplete or damaged (the message says what mends it), or of another schema.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise RunError(
                f"{folder}: there is no such directory.",
                why="A run is a directory that `adaptbench run` leaves behind.",
                todo="Check the path, or run a suite: `adaptbench run bench`.",
            )
        if not _place(folder, MANIFEST).is_file():
            raise RunError(
                f"{folder}: no {MANIFEST} in it: not a run directory.",
                why="A run is a directory that `adaptbench run` leaves behind.",
                todo="Name the directory given to --out, by default runs/<suite>.",
            )
        document = read_json(_place(folder, MANIFEST))
        manifest = validate_manifest(document, str(folder / MANIFEST))
        lacking = [name for name in SEALED if not _place(folder, name).is_file()]
        if lacking or not manifest.get("ended"):
            raise RunError(
                f"{folder}: the run is incomplete; it was stopped before its end.",
                why="Figures of some cases would be missing.",
                todo=f"`{_command(manifest)}` goes on where it stopped.",
            )
        if not isinstance(manifest.get("files"), dict):
            raise RunError(
                f"{folder / MANIFEST}: there are no hashes of the run's files in it.",
                why="An older adaptbench wrote it; whether its tables are whole cannot be told.",
                todo="Run the suite again with this version.",
            )
        if document.get("digest") != digest(document):
            raise _damaged(folder, [MANIFEST], manifest)
        if broken := [name for name in SEALED if not unbroken(_place(folder, name), manifest["files"].get(name))]:
            raise _damaged(folder, broken, manifest)
        cases = validate_summary(read_json(_place(folder, SUMMARY)), str(folder / SUMMARY))
        return cls(folder, manifest, cases)

    def verify(self) -> None:
        """Read every crafted file that a case names, and compare it with its hash; `open` did the same with the rest.

        Files that are not there (a copy without pictures) are let pass: they say nothing wrong.

        Raises:
            RunError: some are damaged; the message names them and the command that crafts them again.
        """
        names = dict.fromkeys(str(record["crafted"]) for record in self.cases if record.get("crafted"))
        there = [name for name in names if (self.path / CRAFTED / name).is_file()]
        if broken := [f"{CRAFTED}/{name}" for name in there if not _is_whole(self.path, name)]:
            raise _damaged(self.path, broken, self.manifest)

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
        return tables.read(_place(self.path, SAMPLES), "samples", evaluations)

    def windows(self, cases: Sequence[str] | None = None) -> pd.DataFrame:
        """Windows of some cases, or of all; columns of `schema.WINDOW_COLUMNS`."""
        return tables.read(_place(self.path, WINDOWS), "windows", cases)

    def crafted(self, name: str) -> dict[str, NDArray[Any]]:
        """Crafted inputs by file name, as in a record's ``crafted``.

        Returns:
            ``x_adv`` uint8 (N, C, H, W), ``sample_id`` int64 (N,), ``gallery_clean`` uint8 (G, C, H, W).

        Raises:
            RunError: no such file, or damaged.
        """
        return _crafted(self.path, name)


def _place(folder: Path, name: str) -> Path:
    """Where a file of the run is now."""
    return folder / READY / name if (folder / READY / name).is_file() else folder / name


def seal(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest with the hashes of the files beside it, and its own: the run is complete.

    Raises:
        OutputError: the directory cannot be written to.
    """
    document = {**manifest, "files": {name: sealed(folder / name) for name in SEALED}}
    write_json(folder / MANIFEST, {**document, "digest": digest(document)})


def _command(manifest: Mapping[str, Any]) -> str:
    return str(manifest.get("command") or "adaptbench run SUITE")


def _damaged(folder: Path, names: Sequence[str], manifest: Mapping[str, Any]) -> RunError:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    verb = "is" if len(names) == 1 else "are"
    return RunError(
        f"{folder}: {', '.join(names[:3])}{more} {verb} damaged: size or SHA-256 is not what the run left there.",
        why="It was cut short, changed, or copied in part.",
        todo=f"`{_command(manifest)}` computes again what is damaged, and nothing else.",
    )


def _is_whole(folder: Path, name: str) -> bool:
    """True where a crafted file is there and has the hash that it is called by."""
    file = folder / CRAFTED / name
    if Path(name).name != name or not file.is_file():
        return False
    return bool(sealed(file)["sha256"] == file.name.partition(".")[0])


def _crafted(folder: Path, name: str) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    file = folder / CRAFTED / name
    if Path(name).name != name or not file.is_file():
        raise RunError(
            f"{folder}: no crafted inputs '{name}'.",
            why="They lie in crafted/, one file a content hash.",
            todo="Copy the whole run directory, or run the suite again.",
        )
    try:
        content = file.read_bytes()
        if hashlib.sha256(content).hexdigest() != file.name.partition(".")[0]:
            raise RunError(
                f"{file}: damaged: its SHA-256 is not the one that it is called by.",
                why="It was cut short or changed.",
                todo="Run the same command again: it crafts these inputs anew.",
            )
        arrays: dict[str, NDArray[Any]] = load(content)
    except SafetensorError as error:
        raise RunError(f"{file}: not a safetensors file ({error}).", todo="Run the suite again.") from error
    return arrays
