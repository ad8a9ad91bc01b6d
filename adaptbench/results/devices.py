"""In what two devices differ, in words: their fingerprints say only that they do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_UNSAID = ("fingerprint", "name")
_WORDS = {
    "memory_gib": "GiB of memory",
    "cpu": "",
    "gpu": "",
    "kind": "",
    "system": "",
    "cuda": "CUDA",
    "threads": "threads",
}


def differing(here: Mapping[str, Any], there: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(field, here's, there's) of every recorded detail that differs, fingerprints aside."""
    names = [name for name in dict.fromkeys([*here, *there]) if name not in _UNSAID]
    differences = [(name, here.get(name), there.get(name)) for name in names if here.get(name) != there.get(name)]
    if not differences and here.get("name") != there.get("name"):
        differences = [("name", here.get("name"), there.get("name"))]
    return differences


def obstacle(here: Mapping[str, Any], there: Mapping[str, Any], sides: tuple[str, str]) -> str:
    """Why clocks and sensors of two devices cannot be compared; empty if they can.

    Args:
        here, there: as ``device`` in the manifest. sides: what the two are called.
    """
    moved = differing(here, there)
    same = here.get("fingerprint") is not None and here.get("fingerprint") == there.get("fingerprint")
    if same and not any(name == "threads" for name, _, _ in moved):
        return ""
    if not moved:
        return "another device, of the same make as far as it is recorded: the fingerprints differ"
    parts = [f"{_label(name)}{sides[0]} {_said(one)}, {sides[1]} {_said(other)}" for name, one, other in moved]
    kind = "another number of threads" if same else "another device"
    return f"{kind}: {'; '.join(parts)}"


def _label(name: str) -> str:
    word = _WORDS.get(name, name.replace("_", " "))
    return f"{word}: " if word else ""


def _said(value: Any) -> str:
    return "unknown" if value is None else str(value)
