"""A table of names of one kind, plug-ins among them, and the nearest known word to one that is not known."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from adaptbench.errors import NameTakenError, UnknownNameError


@dataclass(frozen=True, slots=True)
class Entry:
    """One name: where it is found and what it is, in a line."""

    name: str
    target: str
    summary: str
    origin: str = "adaptbench"

    @property
    def module(self) -> str:
        """Where it is imported from."""
        return self.target.partition(":")[0]

    @property
    def attribute(self) -> str:
        """What it is called there."""
        return self.target.partition(":")[2]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The sentence that names the nearest known word, or nothing."""
    near = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.55)
    return f"Did you mean '{near[0]}'? " if near else ""


class Registry:
    """A table of names of one kind.

    Args:
        kind: the word for one entry, as users say it ("model").
        plural: its plural, as ``adaptbench list`` takes it ("models").
        entries: name → (target, summary).
    """

    def __init__(self, kind: str, plural: str, entries: dict[str, tuple[str, str]]) -> None:
        self.kind, self.plural = kind, plural
        self._entries = {name: Entry(name, target, summary) for name, (target, summary) in entries.items()}
        self._plugins_loaded = False

    @property
    def group(self) -> str:
        """The entry-point group that plug-ins register under."""
        return f"adaptbench.{self.plural}"

    def add(self, name: str, target: str, summary: str, origin: str = "run time") -> None:
        """Add a name.

        Raises:
            NameTakenError: the name exists already.
        """
        self._load_plugins()
        self._add(Entry(name, target, summary, origin))

    def _add(self, entry: Entry) -> None:
        if taken := self._entries.get(entry.name):
            raise NameTakenError(
                f"two {self.plural} are called '{entry.name}': one from {taken.origin}, one from {entry.origin}.",
                todo=f"Rename one of them; entry points stand in the group '{self.group}'.",
            )
        self._entries[entry.name] = entry

    def _load_plugins(self) -> None:
        if self._plugins_loaded:
            return
        self._plugins_loaded = True
        for point in entry_points(group=self.group):
            origin = point.dist.name if point.dist else "a plug-in"
            self._add(Entry(point.name, point.value, f"from {origin}", origin))

    @property
    def shipped(self) -> list[Entry]:
        """The table as it came, no plug-in looked for."""
        return [entry for entry in self._entries.values() if entry.origin == "adaptbench"]

    def __iter__(self) -> Iterator[Entry]:
        self._load_plugins()
        return iter(self._entries.values())

    def __contains__(self, name: object) -> bool:
        self._load_plugins()
        return name in self._entries

    def __len__(self) -> int:
        self._load_plugins()
        return len(self._entries)

    def names(self) -> list[str]:
        """All names, in the order of the table."""
        return [entry.name for entry in self]

    def entry(self, name: str) -> Entry:
        """The entry of a name.

        Raises:
            UnknownNameError: no such name; the message offers the nearest one.
        """
        self._load_plugins()
        try:
            return self._entries[name]
        except KeyError:
            raise UnknownNameError(
                f"no {self.kind} is called '{name}'.",
                todo=f"{did_you_mean(name, self._entries)}`adaptbench list {self.plural}` shows all {len(self)}.",
            ) from None

    def load(self, name: str) -> Any:
        """Import and return what a name stands for."""
        entry = self.entry(name)
        return getattr(importlib.import_module(entry.module), entry.attribute)
