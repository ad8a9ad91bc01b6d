"""Files that are either the old one or the new one, whatever happens in between."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adaptbench.errors import OutputError, RunError

TEMPORARY = ".tmp-"
"""Prefix of files in the making; a killed process may leave some, nobody reads them."""


@contextmanager
def writable(place: Path) -> Iterator[None]:
    """Turn the system's refusals into an `OutputError` that names the place.

    Raises:
        OutputError: no permission, no space, or something else is in the way.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{place}: cannot write ({error.strerror or error}).",
            why="Results that are not on disk are lost.",
            todo="Free space or permissions there, or name another directory with --out.",
        ) from error


@contextmanager
def replaced(target: Path) -> Iterator[Path]:
    """A temporary path in the same folder that becomes ``target``, synced, when the block ends well.

    Raises:
        OutputError: the folder cannot be written to.
    """
    with writable(target):
        handle, name = tempfile.mkstemp(prefix=TEMPORARY, suffix=target.suffix, dir=target.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            _sync(temporary)
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(target)
            _sync(target.parent)
        finally:
            temporary.unlink(missing_ok=True)


def write_bytes(target: Path, content: bytes) -> None:
    """Put bytes in place of a file, all or nothing."""
    with replaced(target) as temporary:
        temporary.write_bytes(content)


def write_json(target: Path, document: Any) -> None:
    """Put a JSON document in place of a file, all or nothing.

    Raises:
        OutputError: the folder cannot be written to.
        RunError: a number in it is NaN or infinite.
    """
    try:
        text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise RunError(
            f"{target.name}: a figure is NaN or infinite.",
            why="JSON has no such numbers, and a figure that does not exist is null with a reason.",
            todo="Find which by running the suite with fewer cases; it is a fault of adaptbench or of a plug-in.",
        ) from error
    write_bytes(target, (text + "\n").encode())


def read_json(source: Path) -> Any:
    """A parsed JSON file.

    Raises:
        RunError: unreadable, or not JSON (cut short, or another file).
    """
    try:
        return json.loads(source.read_bytes())
    except OSError as error:
        raise RunError(f"{source}: cannot read ({error.strerror or error}).", todo="Check the path.") from error
    except ValueError as error:
        raise RunError(
            f"{source}: not JSON ({error}).",
            why="It was cut short, or another program wrote it.",
            todo="Run the suite again.",
        ) from error


def sweep(folder: Path) -> None:
    """Remove what a killed process left in the making."""
    for leftover in folder.glob(f"{TEMPORARY}*"):
        leftover.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open a folder to sync it
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    current = os.umask(0o077)
    os.umask(current)
    return current
