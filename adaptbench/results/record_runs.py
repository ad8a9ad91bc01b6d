"""Runs whose figures are one record beside the manifest: studies, and suites of kinds serving and decoding."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from adaptbench.errors import RunError
from adaptbench.results.files import read_json, write_text
from adaptbench.results.forms import has_form, is_interval
from adaptbench.results.schema import Field
from adaptbench.results.store import complete_manifest, place_of

_OF_THE_SUITE = ("name", "title", "text", "sha256", "overrides", "limit")

Part = tuple[Any, dict[str, Field], str]
"""What stands in a record, its fields, what it is called."""


def must(form: str, meaning: str, unit: str = "", of: str = "") -> Field:
    """A field without which a record is none."""
    return Field(form, unit, meaning, required=True, of=of)


def figure(unit: str, meaning: str, *, estimated: bool = True) -> Field:
    """A number: null with its reason, and with a 95 % interval where there is one."""
    return Field("number", unit, meaning, figure=True, estimated=estimated)


TOLD: dict[str, Field] = {
    "name": must("text", "of the suite or study"),
    "title": Field("text", meaning="of the suite or study"),
    "text": Field("text", meaning="the file, as written"),
    "command": Field("text", meaning="that ran it"),
    "device": Field("map", meaning="where it ran"),
    "versions": Field("map", meaning="of packages", of="text"),
    "git": Field("map", meaning="revision, and whether files differed"),
    "gate": Field("map", meaning="rules that it states for `adaptbench check`"),
    "notes": Field("list", meaning="what else to know", of="text"),
    "engines": Field("map", meaning="engine: its cells, and devices with how many of them"),
    "started": Field("text", meaning="ISO time"),
    "ended": Field("text", meaning="ISO time"),
}
"""What the manifest beside a record tells; in a kept one it stands in the record."""


@dataclass(frozen=True, slots=True)
class RecordRun:
    """A complete directory.

    Args:
        path: the directory. manifest: parsed ``manifest.json``.
        record: the record's file, and what the manifest says of the run, flat.

    Attributes:
        kind: as the manifest says it. file: name of the record's. of_the_run: what of the manifest stands in it, too.
        schema: of records that are written now. digits: of numbers in a kept file: enough to recompute what is stated.
    """

    path: Path
    manifest: dict[str, Any]
    record: dict[str, Any]

    kind: ClassVar[str]
    file: ClassVar[str]
    of_the_run: ClassVar[tuple[str, ...]]
    schema: ClassVar[int]
    digits: ClassVar[int] = 6

    @classmethod
    @abstractmethod
    def parts(cls, record: Mapping[str, Any]) -> Iterator[Part]:
        """Every part of a record; one is whole when those in it are asked for."""

    @classmethod
    def checked(cls, document: Any, place: Path, told: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """A record with every field that readers lean on.

        Args:
            document: parsed JSON. place: where it stood. told: what the manifest beside it says.

        Raises:
            RunError: it is none, of another version, or damaged.
        """
        if not isinstance(document, dict) or (document.get("schema"), document.get("kind")) != (cls.schema, cls.kind):
            raise RunError(
                f"{place} is no run of kind {cls.kind} of schema {cls.schema}.",
                todo="Run the suite again with this version of adaptbench.",
            )
        record = {**(told or {}), **document}
        if wrong := first_fault(cls.parts(record)):
            raise RunError(f"{place} is damaged: {wrong}.", todo="Run the same command again.")
        return record

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

    @classmethod
    def read(cls, path: Path) -> dict[str, Any]:
        """A record, from its directory or from the file that was kept of it.

        Raises:
            RunError: missing, damaged, or of another version.
        """
        if path.is_dir():
            return cls.open(path).record
        if not path.is_file():
            raise RunError(f"there is no {path}.", todo=f"Run one: adaptbench run {cls.kind}.")
        return cls.checked(read_json(path), path)

    @classmethod
    def keep(cls, path: Path, out: Path | None = None) -> Path:
        """Copy a record to where published summaries stand (default ``reports/published/NAME.json``).

        Raises:
            RunError: there is none. OutputError: the place cannot be written.
        """
        record = cls.read(path)
        place = out or Path("reports") / "published" / f"{record['name']}.json"
        return write_text(place, json.dumps(rounded(record, cls.digits), indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def incomplete(cls, record: Mapping[str, Any]) -> list[str]:
        """What was asked for and could not be done, one sentence each; empty where it is whole."""
        return [f"{what}: {why}" for what, why in record["failed"].items()]


def lacks(value: Any) -> bool:
    """Whether a figure is null, or a list or a map of figures holds a null."""
    held = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return value is None or any(inner is None for inner in held)


def _nothing_more(part: Mapping[str, Any], fields: Mapping[str, Field]) -> str:
    return ""


def first_fault(
    parts: Iterable[Part],
    beyond: Callable[[Mapping[str, Any], Mapping[str, Field]], str] = _nothing_more,
    *,
    reasoned: bool = True,
) -> str:
    """The first part that lacks what its fields say; "" where none does.

    Args:
        parts: lazily: one is whole when those in it are asked for. beyond: what else is wrong with a part, or "".
        reasoned: a figure that is null has its reason.
    """
    for part, fields, place in parts:
        if not isinstance(part, Mapping):
            return f"{place} is no object"
        for name, field in fields.items():
            value = part.get(name)
            if value is None and field.required:
                return f"'{name}' of {place} is missing"
            if reasoned and field.figure and lacks(value) and not part.get(f"{name}_missing"):
                return f"'{name}' of {place} is null, and '{name}_missing' gives no reason"
            if value is not None and not has_form(value, field.form, field.of):
                return f"'{name}' of {place} is no {field.form}{f' of {field.of}s' if field.of else ''}"
        for name, value in part.items():
            if name.endswith("_ci") and value is not None and not is_interval(value):
                return f"{place} has a '{name}' that is no interval"
            if name.endswith("_missing") and value is not None and not isinstance(value, str):
                return f"{place} has a '{name}' that is no reason"
        if wrong := beyond(part, fields):
            return f"{place} {wrong}"
    return ""


def rounded(value: Any, digits: int) -> Any:
    """Numbers with so many significant digits, in whatever holds them."""
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    if isinstance(value, Mapping):
        return {key: rounded(inner, digits) for key, inner in value.items()}
    return [rounded(inner, digits) for inner in value] if isinstance(value, list) else value
