"""Runs and kept summaries as they are named on a command line: what each is, and what could not be read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from adaptbench.errors import AdaptBenchError
from adaptbench.results.baseline import Baseline
from adaptbench.results.gate import SIDES
from adaptbench.results.gate_records import RecordSide
from adaptbench.results.store import MANIFEST, STUDY, place_of
from adaptbench.results.studies import kind_of

Side = Baseline | RecordSide
"""What holds figures, by kind."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One run that could be read.

    Args:
        path: where. kind: as `kind_of` says it. name: of its file. limit: on its inputs.
        id: of the run, "" of one of before runs had ids. started: when, with its zone.
        manifest: or what a record says in its place. side: the figures, as the gate takes them.
    """

    path: Path
    kind: str
    name: str
    limit: int | None
    id: str
    started: datetime
    manifest: Mapping[str, Any]
    side: Side

    @property
    def revision(self) -> str:
        """Git's, "" where it is not known."""
        return str((self.manifest.get("git") or {}).get("revision") or "")

    @property
    def device(self) -> tuple[str, str]:
        """Fingerprint and name of the device."""
        device = self.manifest.get("device") or {}
        return str(device.get("fingerprint") or ""), str(device.get("name") or "")


def entries(places: Iterable[Path]) -> tuple[list[Entry], list[tuple[Path, str]]]:
    """Everything that can be read, in order of time, each run once; and what cannot, with the reason.

    Args:
        places: a run directory, a file that `baseline` kept, or a folder with any of these in it (not deeper).
    """
    found: list[Entry] = []
    unreadable: list[tuple[Path, str]] = []
    for place in dict.fromkeys(inner for given in places for inner in _inside(Path(given))):
        entry = _read(place)
        twin = next((e for e in found if isinstance(entry, Entry) and e.id and e.id == entry.id), None)
        if not isinstance(entry, Entry):
            unreadable.append((place, entry))
        elif twin is not None:
            unreadable.append((place, f"it is the same run as {twin.path}"))
        else:
            found.append(entry)
    return sorted(found, key=lambda entry: (entry.started, str(entry.path))), unreadable


def is_run(place: Path) -> bool:
    """Whether a folder is a run's or a study's own."""
    return place_of(place, MANIFEST).is_file() or (place / STUDY).is_file()


def _inside(place: Path) -> list[Path]:
    """The runs and kept summaries that a path stands for; the path itself where it holds none."""
    if not place.is_dir() or is_run(place):
        return [place]
    runs = [child for child in sorted(place.iterdir()) if child.is_dir() and is_run(child)]
    return [*runs, *sorted(place.glob("*.json"))] or [place]


def _read(place: Path) -> Entry | str:
    """An entry, or why there is none."""
    if not place.exists():
        return "there is nothing"
    if place.is_dir() and not is_run(place):
        return "it holds no run and no kept summary"
    try:
        kind = kind_of(place)
        if kind in SIDES:
            held = SIDES[kind].load(place)
            return _entry(place, kind, held, held.record, held.record)
        side = Baseline.load(place)
        return _entry(place, kind, side, side.manifest, side.manifest.get("suite") or {})
    except AdaptBenchError as error:
        return error.seen.removeprefix(f"{place}: ")


def _entry(place: Path, kind: str, side: Side, manifest: Mapping[str, Any], suite: Mapping[str, Any]) -> Entry | str:
    try:
        started = datetime.fromisoformat(str(manifest.get("started") or ""))
    except ValueError:
        return "it does not say when it was started"
    started = started if started.tzinfo else started.replace(tzinfo=UTC)
    name = str(suite.get("name") or place.stem)
    return Entry(place, kind, name, suite.get("limit"), str(manifest.get("id") or ""), started, manifest, side)
