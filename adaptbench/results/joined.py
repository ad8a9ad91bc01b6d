"""Crafted inputs of many chunks as one safetensors file, a chunk at a time: the bytes of packing them at once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptbench.results.files import replaced
from adaptbench.results.store import CRAFTED, is_whole, read_crafted

PICTURES, IDS, GALLERY = "x_adv", "sample_id", "gallery_clean"
_TYPES = {"uint8": "U8", "int64": "I64", "float32": "F32"}
"""What inputs may be: pictures, ids of pieces, series."""


def join_crafted(folder: Path, names: Sequence[str]) -> tuple[str, str]:
    """Write one file of the pictures and ids of several, in order; the gallery is the first one's.

    Args:
        folder: the run directory. names: of files in its ``crafted/``, at least one.

    Returns:
        The new file's name, and the SHA-256 of its pictures.

    Raises:
        RunError: a file is missing or damaged. OutputError: the directory cannot be written to.
    """
    ids, rows = [], 0
    for name in names:
        arrays = read_crafted(folder, name)
        ids.append(arrays[IDS])
        rows += len(arrays[PICTURES])
        if len(ids) == 1:
            gallery, shape, kind = arrays[GALLERY], arrays[PICTURES].shape[1:], arrays[PICTURES].dtype
    small = {IDS: np.concatenate(ids), GALLERY: gallery}
    told = {name: (array.dtype, array.shape) for name, array in small.items()} | {PICTURES: (kind, (rows, *shape))}
    order = sorted(told, key=lambda name: (-told[name][0].itemsize, name))
    whole, pictures = hashlib.sha256(), hashlib.sha256()
    for name, block in _blocks(folder, names, told, order, small):
        whole.update(block)
        if name == PICTURES:
            pictures.update(block)
    made = f"{whole.hexdigest()}.safetensors"
    if not is_whole(folder, made):
        with replaced(folder / CRAFTED / made) as temporary, temporary.open("wb") as file:
            for _, block in _blocks(folder, names, told, order, small):
                file.write(block)
    return made, pictures.hexdigest()


def _blocks(
    folder: Path,
    names: Sequence[str],
    told: dict[str, tuple[np.dtype[Any], tuple[int, ...]]],
    order: Sequence[str],
    small: dict[str, NDArray[Any]],
) -> Iterator[tuple[str, bytes]]:
    """The file's bytes: its head, then each array, the pictures chunk by chunk."""
    head, at = {}, 0
    for name in order:
        kind, shape = told[name]
        end = at + kind.itemsize * int(np.prod(shape))
        head[name] = {"dtype": _TYPES[kind.name], "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield "", len(text).to_bytes(8, "little") + text
    for name in order:
        if name in small:
            yield name, np.ascontiguousarray(small[name]).tobytes()
            continue
        for file in names:
            yield name, np.ascontiguousarray(read_crafted(folder, file)[name]).tobytes()
