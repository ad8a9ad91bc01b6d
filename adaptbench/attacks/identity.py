"""Which code an object runs: what a cell or a comparison hangs on besides settings."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
OWN = ("adaptbench", "torch", "builtins")
"""Packages whose version stands for their code."""
_NO_FIGURE = ("report", "study", "serving", "testing", "auditing", "cli.py", "console.py", "__main__.py")


def foreign_sources(kinds: Iterable[type]) -> dict[str, str]:
    """Class → SHA-256 of the file that defines it, for classes of other packages (a plug-in's, yours)."""
    hashes: dict[str, str] = {}
    for kind in kinds:
        for base in kind.__mro__:
            if base.__module__.partition(".")[0] not in OWN:
                hashes[f"{base.__module__}.{base.__qualname__}"] = _file_hash(base.__module__)
    return dict(sorted(hashes.items()))


def _file_hash(module: str) -> str:
    place = getattr(sys.modules.get(module), "__file__", None)
    try:
        return hashlib.sha256(Path(str(place)).read_bytes()).hexdigest() if place else ""
    except OSError:
        return ""


@cache
def own_code() -> str:
    """SHA-256 over the modules of this package that figures come from; a mended fault makes its cells anew."""
    digest = hashlib.sha256()
    for file in sorted(PACKAGE.rglob("*.py")):
        name = file.relative_to(PACKAGE)
        if name.parts[0] not in _NO_FIGURE:
            digest.update(str(name).encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()
