"""What lies in a data root in a form that no loader reads, compact pictures or archives, and what expands it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_MANIFEST, _FRAMES, _LABELS, _PIXELS = "MANIFEST.json", "frames.tar.xz", "labels.npz", "pixels"
_MOST_MANIFEST = 1 << 20
_MOST_LOOKED = 500  # entries of a folder; a root may be a home folder
_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".zip")
_TOOL = "*compact*.py"


@dataclass(frozen=True, slots=True)
class Packed:
    """Something that becomes the wanted files when it is expanded.

    Args:
        place: the file or folder. what: a clause after its name. why: it is not read as it is. todo: what expands it.
    """

    place: Path
    what: str
    why: str
    todo: str


def compact_pictures(places: Iterable[Path], name: str, folder: str, npz: str) -> Packed | None:
    """A compact copy of a data set's batches in one of the places, or in a folder right below.

    The form: ``pixels/<split>_<kkk>.webp``, lossless strips of pictures, beside ``MANIFEST.json`` and ``frames.tar.xz``
    (what stands around the pixels of each batch), or, of a subset, beside ``labels.npz`` alone. The manifest says which
    folder it expands to; a subset belongs to the data set that its own name begins with.

    Args:
        places: that were looked in. name: of the data set. folder: of its batches. npz: of its archive.
    """
    for place in dict.fromkeys(places):
        for found in (place, *_entries(place)):
            if not _has_strips(found):
                continue
            if (found / _FRAMES).is_file() and _manifest(found).get("folder") == folder:
                return _expandable(found, place, f"expand {{}} DST` writes DST/{folder}")
            if (found / _LABELS).is_file() and found.name.replace("_", "-").split("-")[0] == name:
                return _expandable(found, place, f"npz {{}} DST/{npz}` writes that archive")
    return None


def archive(places: Iterable[Path], stems: Iterable[str] = ()) -> Packed | None:
    """An archive in one of the places: of one of the names, or any where none is given."""
    wanted = {f"{stem}{suffix}".lower() for stem in stems for suffix in _ARCHIVES}
    for place in dict.fromkeys(places):
        for file in _entries(place):
            if (file.name.lower() in wanted if wanted else file.name.lower().endswith(_ARCHIVES)) and file.is_file():
                how = "unzip -d" if file.suffix == ".zip" else "tar -xf"
                order = (place, file) if file.suffix == ".zip" else (file, "-C", place)
                return Packed(
                    file,
                    "an archive",
                    "Files are read from folders, so that each run sees the same ones.",
                    f"Unpack it: `{how} {' '.join(shlex.quote(str(word)) for word in order)}`",
                )
    return None


def _expandable(found: Path, place: Path, call: str) -> Packed:
    tool = _tool(found, place)
    command = f"`python {shlex.quote(str(tool)) if tool else 'TOOL'} " + call.format(shlex.quote(str(found)))
    return Packed(
        found,
        f"a compact form of it: lossless strips in {_PIXELS}/, not the published files",
        "Strips carry no md5 of the published batches, so they are expanded first, by the tool that made them.",
        f"Expand it: {command}; then name DST with `--data-root`."
        + ("" if tool else f" TOOL is the script that came with the form ({_TOOL}); none lies beside it."),
    )


def _tool(found: Path, place: Path) -> Path | None:
    """The script that came with the form: in it, beside it, or in a folder of tools beside it."""
    for folder in dict.fromkeys((found, found.parent, found.parent / "tools", place / "tools")):
        if scripts := sorted(file for file in _entries(folder) if file.match(_TOOL) and file.is_file()):
            return scripts[0]
    return None


def _has_strips(folder: Path) -> bool:
    return any(file.suffix == ".webp" for file in _entries(folder / _PIXELS))


def _manifest(folder: Path) -> dict[str, Any]:
    file = folder / _MANIFEST
    try:
        told = json.loads(file.read_text(encoding="utf-8")) if file.stat().st_size <= _MOST_MANIFEST else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _entries(folder: Path) -> Iterator[Path]:
    """What lies in a folder, sorted; nothing of what cannot be entered."""
    try:
        found = [entry for _, entry in zip(range(_MOST_LOOKED), folder.iterdir(), strict=False)]
    except OSError:
        return
    yield from sorted(found)
