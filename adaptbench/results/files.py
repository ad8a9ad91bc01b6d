"""Files that are either the old one or the new one, whatever happens in between."""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adaptbench.errors import OutputError, RunError

DEEPEST = 64
"""Levels of a JSON document; ours have fewer than ten."""
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


def write_text(target: Path, text: str) -> Path:
    """Put a text in place of a file, all or nothing; folders above it are made.

    A link is followed. What is no plain file (a pipe, a terminal) is written to as it is.

    Raises:
        OutputError: the place cannot be written to.
    """
    place = Path(os.path.realpath(target))
    with writable(target):
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists() and not place.is_file():
            place.write_text(text, encoding="utf-8", newline="\n")
            return target
    write_bytes(place, text.encode())
    return target


def write_json(target: Path, document: Any) -> None:
    """Put a JSON document in place of a file, all or nothing.

    Raises:
        OutputError: the folder cannot be written to.
        RunError: a number in it is NaN or infinite.
    """
    with _finite(target.name):
        text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    write_bytes(target, (text + "\n").encode())


@contextmanager
def _finite(name: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise RunError(
            f"{name}: a figure is NaN or infinite.",
            why="JSON has no such numbers, and a figure that does not exist is null with a reason.",
            todo="Find which by running the suite with fewer cases; it is a fault of adaptbench or of a plug-in.",
        ) from error


def read_json(source: Path) -> Any:
    """A parsed JSON file: finite numbers, integers of 64 bits, no key twice, text that can be written.

    Raises:
        RunError: unreadable, or not such JSON (cut short, or another file).
    """
    try:
        document = json.loads(source.read_bytes(), object_pairs_hook=_each_once)
        _check_values(document)
    except OSError as error:
        raise RunError(f"{source}: cannot read ({error.strerror or error}).", todo="Check the path.") from error
    except (ValueError, RecursionError) as error:
        said = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise RunError(
            f"{source}: not JSON that adaptbench writes ({said}).",
            why="It was cut short, or another program wrote it.",
            todo="Restore the file, or run the suite again.",
        ) from error
    return document


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return members


def _check_values(document: Any) -> None:
    """Raise ValueError at a value that readers would choke on."""
    level: list[Any] = [document]
    for _ in range(DEEPEST):
        inner: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                inner += value.keys()
                inner += value.values()
            elif isinstance(value, list):
                inner += value
            elif isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{value} is no figure")
            elif isinstance(value, int) and not -(2**63) <= value < 2**63:
                raise ValueError("an integer of more than 64 bits")
            elif isinstance(value, str):
                value.encode()  # half a surrogate pair can be read and not be written
        if not inner:
            return
        level = inner
    raise ValueError("nested too deeply")


def sealed(file: Path) -> dict[str, Any]:
    """What tells a file from a damaged one: ``bytes`` and ``sha256``."""
    with file.open("rb") as opened:
        return {"bytes": file.stat().st_size, "sha256": hashlib.file_digest(opened, "sha256").hexdigest()}


def unbroken(file: Path, seal: Any) -> bool:
    """True where a file is the one that a seal was made of."""
    if not isinstance(seal, dict) or not file.is_file() or file.stat().st_size != seal.get("bytes"):
        return False
    return sealed(file) == seal


def digest(document: Mapping[str, Any]) -> str:
    """SHA-256 of a JSON object without its own ``digest``, whatever the order of its keys.

    Raises:
        RunError: a number in it is NaN or infinite.
    """
    rest = {name: value for name, value in document.items() if name != "digest"}
    with _finite("digest"):
        text = json.dumps(rest, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


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
