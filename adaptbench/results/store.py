"""A complete directory, read as one thing: the run of a suite, and what it shares with a study.

Every file is known by its hash: the manifest names those of the files beside it and its own, and crafted inputs are
called by theirs. A reader refuses what is damaged. `writer` writes what is read here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from adaptbench.errors import RunError
from adaptbench.results import tables
from adaptbench.results.files import digest, read_json, sealed, unbroken
from adaptbench.results.identity import window_modes
from adaptbench.results.schema import Record, validate_manifest, validate_summary

if TYPE_CHECKING:
    import pandas as pd

MANIFEST, SUMMARY, SAMPLES, WINDOWS = "manifest.json", "summary.json", "samples.parquet", "windows.parquet"
STUDY, SERVING, DECODING = "study.json", "serving.json", "decoding.json"
STEPS = "steps.parquet"
FILES = {
    "suite": (SUMMARY, SAMPLES, WINDOWS),
    "study": (STUDY, WINDOWS),
    "serving": (SERVING, WINDOWS),
    "decoding": (DECODING, STEPS, WINDOWS),
}
"""Kind, as the manifest says it → files whose size and hash stand in the manifest."""
CELLS, CRAFTED = "cells", "crafted"
READY = ".ready"
"""Folder of a run that is complete and not yet moved into place."""


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
        folder, manifest = Path(path), complete_manifest(path, "suite")
        cases = validate_summary(read_json(place_of(folder, SUMMARY)), str(folder / SUMMARY))
        return cls(folder, manifest, cases)

    def verify(self) -> None:
        """Read every crafted file that a case names, and compare it with its hash; `open` did the same with the rest.

        Files that are not there (a copy without pictures) are let pass: they say nothing wrong.

        Raises:
            RunError: some are damaged; the message names them and the command that crafts them again.
        """
        names = dict.fromkeys(str(record["crafted"]) for record in self.cases if record.get("crafted"))
        there = [name for name in names if (self.path / CRAFTED / name).is_file()]
        if broken := [f"{CRAFTED}/{name}" for name in there if not is_whole(self.path, name)]:
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
        return tables.read(place_of(self.path, SAMPLES), "samples", evaluations)

    def samples_in_parts(self, evaluations: Sequence[str] | None = None) -> Iterator[pd.DataFrame]:
        """The same rows, some ten thousand at a time, for runs that no memory holds."""
        return tables.parts(place_of(self.path, SAMPLES), "samples", evaluations)

    def windows(self, cases: Sequence[str] | None = None) -> pd.DataFrame:
        """Windows of some cases, or of all; columns of `schema.WINDOW_COLUMNS`."""
        frame = tables.read(place_of(self.path, WINDOWS), "windows", cases)
        if frame["mode"].isna().any():  # of an older file, or nothing adaptive ran
            known = frame["case"].map(window_modes(self.cases)).astype(object)
            frame["mode"] = frame["mode"].where(frame["mode"].notna(), known.where(known.notna(), None))
        return frame

    def crafted(self, name: str) -> dict[str, NDArray[Any]]:
        """Crafted inputs by file name, as in a record's ``crafted``.

        Returns:
            ``x_adv`` uint8 (N, C, H, W), ``sample_id`` int64 (N,), ``gallery_clean`` uint8 (G, C, H, W).

        Raises:
            RunError: no such file, or damaged.
        """
        return read_crafted(self.path, name)


def complete_manifest(path: str | Path, kind: str) -> dict[str, Any]:
    """The manifest of a directory whose files are all there and whole.

    Args:
        path: the directory. kind: of `FILES`.

    Raises:
        RunError: missing, foreign, incomplete or damaged (the message says what mends it), or of another kind.
    """
    folder = Path(path)
    if not folder.is_dir():
        is_file = folder.is_file()
        raise RunError(
            f"{folder}: {'it is a file, no directory' if is_file else 'there is no such directory'}.",
            why="A run is a directory that `adaptbench run` leaves behind.",
            todo="Name the directory that it was kept of."
            if is_file
            else "Check the path, or run a suite: `adaptbench run bench`.",
        )
    if not place_of(folder, MANIFEST).is_file():
        raise RunError(
            f"{folder}: no {MANIFEST} in it: not a run directory.",
            why="A run is a directory that `adaptbench run` leaves behind.",
            todo="Name the directory given to --out, by default runs/<suite>.",
        )
    document = read_json(place_of(folder, MANIFEST))
    manifest = validate_manifest(document, str(folder / MANIFEST))
    if manifest["kind"] != kind:
        raise RunError(
            f"{folder}: it holds the run of a {called(manifest['kind'])}, not of a {called(kind)}.",
            why="They hold different figures.",
            todo="Name another directory.",
        )
    lacking = [name for name in FILES[kind] if not place_of(folder, name).is_file()]
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
    if broken := [name for name in FILES[kind] if not unbroken(place_of(folder, name), manifest["files"].get(name))]:
        raise _damaged(folder, broken, manifest)
    return manifest


def called(kind: str) -> str:
    """A kind in words."""
    return f"suite of kind {kind}" if kind in ("serving", "decoding") else kind


def place_of(folder: Path, name: str) -> Path:
    """Where a file of a run is now."""
    return folder / READY / name if (folder / READY / name).is_file() else folder / name


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


def is_whole(folder: Path, name: str) -> bool:
    """True where a crafted file is there and has the hash that it is called by."""
    file = folder / CRAFTED / name
    if Path(name).name != name or not file.is_file():
        return False
    return bool(sealed(file)["sha256"] == file.name.partition(".")[0])


def read_crafted(folder: Path, name: str) -> dict[str, NDArray[Any]]:
    """Crafted inputs by file name; see `Run.crafted`."""
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
