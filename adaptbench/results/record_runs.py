"""Runs whose figures are one record beside the manifest: studies, and suites of kind serving."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from adaptbench.results.files import read_json, write_text
from adaptbench.results.store import complete_manifest, place_of

_OF_THE_SUITE = ("name", "title", "text", "sha256", "overrides", "limit")


@dataclass(frozen=True, slots=True)
class RecordRun:
    """A complete directory.

    Args:
        path: the directory. manifest: parsed ``manifest.json``.
        record: the record's file, and what the manifest says of the run, flat.

    Attributes:
        kind: as the manifest says it. file: name of the record's. of_the_run: what of the manifest stands in it, too.
    """

    path: Path
    manifest: dict[str, Any]
    record: dict[str, Any]

    kind: ClassVar[str]
    file: ClassVar[str]
    of_the_run: ClassVar[tuple[str, ...]]

    @classmethod
    @abstractmethod
    def checked(cls, document: Any, place: Path, told: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """A record with every field that readers lean on; see there."""

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a directory.

        Raises:
            RunError: missing, foreign, incomplete or damaged, or of another schema.
        """
        folder = Path(path)
        manifest = complete_manifest(folder, cls.kind)
        suite = manifest["suite"]
        told = {name: suite.get(name) for name in _OF_THE_SUITE}
        told |= {name: manifest.get(name) for name in cls.of_the_run}
        return cls(folder, manifest, cls.checked(read_json(place_of(folder, cls.file)), folder / cls.file, told))


def keep_record(record: Mapping[str, Any], out: Path | None, digits: int) -> Path:
    """Write a record where published summaries stand (default ``reports/published/NAME.json``).

    Args:
        record: whole. out: another place. digits: significant ones of its numbers.

    Raises:
        OutputError: the place cannot be written.
    """
    place = out or Path("reports") / "published" / f"{record['name']}.json"
    return write_text(place, json.dumps(rounded(record, digits), indent=1, ensure_ascii=False) + "\n")


def rounded(value: Any, digits: int) -> Any:
    """Numbers with so many significant digits, in whatever holds them."""
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    if isinstance(value, Mapping):
        return {key: rounded(inner, digits) for key, inner in value.items()}
    return [rounded(inner, digits) for inner in value] if isinstance(value, list) else value
