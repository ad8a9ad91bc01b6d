"""What lies in a folder of pictures: what is taken, and by name what is not."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from adaptbench.data.pictures import SUFFIXES, shown
from adaptbench.errors import DataFormatError

Reason = Literal[
    "hidden, or put there by a system or archiver",
    "of another format",
    "broken links",
    "neither a file nor a folder",
    "reached a second time by a link",
    "pictures outside the class folders",
    "folders that are no part and no class",
    "class folders without pictures",
]

_NOT_DATA = frozenset({"__macosx", "__pycache__", "@eadir", "$recycle.bin", "lost+found", "system volume information"})
_EXAMPLES = 3


class LeftOut:
    """What a scan did not take, by reason.

    Args:
        top: examples are named relative to it.
    """

    def __init__(self, top: Path) -> None:
        self.top = top
        self._found: dict[Reason, list[Path]] = {}

    def add(self, reason: Reason, path: Path) -> None:
        """One more; a folder counts as one, whatever it holds."""
        self._found.setdefault(reason, []).append(path)

    def sentence(self) -> str:
        """All of it in one sentence; empty if nothing was left out."""
        parts = [f"{len(paths)} {reason} ({self.examples(paths)})" for reason, paths in self._found.items()]
        return f"left out: {'; '.join(parts)}" if parts else ""

    def examples(self, paths: Iterable[Path]) -> str:
        """The first few by name."""
        names = [shown(path.relative_to(self.top)) for path in paths]
        return ", ".join(names[:_EXAMPLES]) + (", …" if len(names) > _EXAMPLES else "")


def hidden(name: str) -> bool:
    """Whether a file or folder is no data of the user's: ``.git``, ``._x.png``, ``__MACOSX``."""
    return name.startswith(".") or name.lower() in _NOT_DATA


def entries(folder: Path, left_out: LeftOut) -> tuple[list[Path], list[Path]]:
    """(folders, pictures) right inside a folder, links followed, each sorted by name; the rest goes to `left_out`.

    Raises:
        DataFormatError: the folder cannot be listed.
    """
    folders: list[Path] = []
    pictures: list[Path] = []
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise DataFormatError(
            f"{shown(folder)} cannot be listed: {error.strerror}.",
            why="Leaving it out silently would change the data set.",
            todo="Give yourself the right to read it, or move it away.",
        ) from error
    for name in names:
        path = folder / name
        if hidden(name):
            left_out.add("hidden, or put there by a system or archiver", path)
            continue
        try:
            kind = path.stat().st_mode
        except OSError:
            left_out.add("broken links", path)
            continue
        if stat.S_ISDIR(kind):
            folders.append(path)
        elif not stat.S_ISREG(kind):
            left_out.add("neither a file nor a folder", path)
        elif path.suffix.lower() not in SUFFIXES:
            left_out.add("of another format", path)
        else:
            pictures.append(path)
    return folders, pictures


def pictures_below(folder: Path, left_out: LeftOut) -> list[Path]:
    """Every picture of a class folder, at any depth and through links.

    Raises:
        DataFormatError: a link leads to a folder that it lies in, or a folder cannot be listed.
    """
    below: list[Path] = []
    waiting = [(folder, frozenset({_identity(folder)}))]
    while waiting:
        here, above = waiting.pop()
        folders, pictures = entries(here, left_out)
        below += pictures
        for inner in folders:
            identity = _identity(inner)
            if identity in above:
                raise DataFormatError(
                    f"{shown(inner)} is a link to a folder that it lies in.",
                    why="Following it never ends.",
                    todo="Remove the link.",
                )
            waiting.append((inner, above | {identity}))
    return below


def once(pictures: dict[tuple[str, str], list[Path]], left_out: LeftOut) -> dict[tuple[str, str], list[Path]]:
    """The same pictures, those that links reach twice within one class of one part only once.

    Args:
        pictures: (part, class) → its pictures.

    Raises:
        DataFormatError: one file lies in two parts or in two classes.
    """
    seen: dict[tuple[int, int], tuple[tuple[str, str], Path]] = {}
    kept: dict[tuple[str, str], list[Path]] = {}
    for place, files in pictures.items():
        kept[place] = []
        for file in sorted(files):
            first, other = seen.setdefault(_identity(file), (place, file))
            if first != place:
                raise DataFormatError(
                    f"{shown(file)} and {shown(other)} are one file.",
                    why="A picture of two classes has no label, and one in two parts was seen before it is tested.",
                    todo="Remove one of the links.",
                )
            if other == file:
                kept[place].append(file)
            else:
                left_out.add("reached a second time by a link", file)
    return kept


def _identity(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise DataFormatError(f"{shown(path)} cannot be read: {error.strerror}.") from error
    return status.st_dev, status.st_ino
