"""The IDX format of MNIST and its kin: big-endian header, then bytes (LeCun & Cortes, yann.lecun.com/exdb/mnist)."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from adaptbench.data.partition import Pixels
from adaptbench.errors import DataFormatError

_UNSIGNED_BYTE = 0x08


def read_idx(path: Path, *, item: tuple[int, ...], at_most: int) -> Pixels:
    """Read an IDX file of unsigned bytes, plain or gzipped (told by its first two bytes, not by its name).

    Args:
        path: the file.
        item: the shape of one record: () for labels, (28, 28) for pictures.
        at_most: so many records; what the header asks for beyond that is not unpacked.

    Returns:
        A writable uint8 array of the shape in the header.

    Raises:
        DataFormatError: not IDX, another type, shape or more records, truncated, or longer than its header says.
    """
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        try:
            return _read(cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if packed else raw, path, item, at_most)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise _bad(path, f"its gzip stream is damaged: {error}") from error


def _read(stream: BinaryIO, path: Path, item: tuple[int, ...], at_most: int) -> Pixels:
    ndim = 1 + len(item)
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0":
        raise _bad(path, f"it starts with {magic.hex() or 'nothing'}; IDX starts with 0000")
    if magic[2] != _UNSIGNED_BYTE:
        raise _bad(path, f"its values are of IDX type 0x{magic[2]:02x}, not unsigned bytes (0x08)")
    if magic[3] != ndim:
        raise _bad(path, f"it has {magic[3]} dimensions, not {ndim}; are pictures and labels exchanged?")
    header = stream.read(4 * ndim)
    if len(header) < 4 * ndim:
        raise _bad(path, "its header is cut off")
    shape = struct.unpack(f">{ndim}I", header)
    if shape[1:] != item or shape[0] > at_most:
        raise _bad(
            path, f"its header says shape {shape}, not {('N', *item)} with N up to {at_most}".replace("'N'", "N")
        )
    size = math.prod(shape)
    # One byte more than the header promises: tells a longer file without unpacking all of it.
    body = stream.read(size + 1)
    if len(body) != size:
        told = f"only {len(body)}" if len(body) < size else "more"
        raise _bad(path, f"its header promises {size} values of shape {shape}, and {told} follow")
    return np.frombuffer(bytearray(body), dtype=np.uint8).reshape(shape)


def _bad(path: Path, what: str) -> DataFormatError:
    return DataFormatError(
        f"{path}: {what}.",
        why="A damaged or different file would give figures that look right.",
        todo="Fetch the file again (`--download` checks its published md5).",
    )
