"""The directory of an audit: what lies in it, and its hashes.

``run/`` is the bench's run directory. ``SHA256SUMS`` is over every file, in the form of sha256sum(1).
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from adaptbench.auditing.asked import RECIPES
from adaptbench.errors import OutputError, RunError
from adaptbench.results.files import sealed, write_text

RUN, SUMMARY, PAGE, WORDS, SUMS, INPUTS = (
    "run",
    "summary.json",
    "report.html",
    "AUDIT.md",
    "SHA256SUMS",
    "inputs.safetensors",
)
_LINE = re.compile(r"[0-9a-f]{64}  \S.*")


def files_in(bundle: Path) -> list[str]:
    """Every file but the sums and a running command's lock, by its path with slashes, in order."""
    return sorted(
        place.relative_to(bundle).as_posix()
        for place in bundle.rglob("*")
        if (place.is_file() or place.is_symlink()) and place.name != ".lock" and place != bundle / SUMS
    )


def write_sums(bundle: Path) -> str:
    """Hash every file; returns the hash of the sums, which stands for the whole bundle."""
    text = "".join(_line(bundle, name) for name in files_in(bundle))
    write_text(bundle / SUMS, text)
    return digest_of(bundle)


def digest_of(bundle: Path) -> str:
    """SHA-256 of the sums: one number for all files."""
    return hashlib.sha256((bundle / SUMS).read_bytes()).hexdigest()


def altered(bundle: Path) -> list[str]:
    """What is not as the sums have it, a sentence each; none where all files are theirs.

    Raises:
        RunError: there are no sums.
    """
    place = bundle / SUMS
    if not place.is_file():
        raise RunError(
            f"{bundle}: no {SUMS} in it: not the bundle of an audit.",
            why="An audit is a directory that `adaptbench audit` leaves behind.",
            todo="Name the directory given to --out.",
        )
    text = place.read_bytes().decode("utf-8", errors="replace")
    lines = text.splitlines()
    if not text.endswith("\n") or not all(_LINE.fullmatch(line) for line in lines):
        return [f"{SUMS} is altered: it is not lines of a hash and a name"]
    told = {line[66:]: line[:64] for line in lines}
    there = files_in(bundle)
    found = [f"{name} is missing" for name in told if name not in there]
    found += [f"{name} is in no line of {SUMS}" for name in there if name not in told]
    found += [
        f"{name} is altered: its SHA-256 is not that of {SUMS}"
        for name in there
        if name in told and sealed(bundle / name)["sha256"] != told[name]
    ]
    if not found and "".join(_line(bundle, name) for name in there) != text:
        found.append(f"{SUMS} is altered: its lines are not in the order that it was written in")
    return found


def _line(bundle: Path, name: str) -> str:
    return f"{sealed(bundle / name)['sha256']}  {name}\n"


def free_for(bundle: Path) -> None:
    """Refuse a directory that holds something else than an audit.

    Raises:
        OutputError: it does.
    """
    if not bundle.exists():
        return
    if not bundle.is_dir():
        raise OutputError(f"{bundle}: it is a file.", todo="Name a new or empty directory with --out.")
    present = {entry.name for entry in bundle.iterdir()}
    if present and not present & {RUN, SUMS, RECIPES}:
        raise OutputError(
            f"{bundle}: the directory holds other files ({', '.join(sorted(present)[:3])} …).",
            why="The bundle's hashes are over every file in it.",
            todo="Name a new or empty directory with --out.",
        )
