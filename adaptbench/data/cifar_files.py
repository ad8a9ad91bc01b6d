"""The three forms that CIFAR comes in. Python batches are pickles: they are read only if their published md5 agrees."""

from __future__ import annotations

import hashlib
import io
import pickle
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from adaptbench.data.base import Labelled
from adaptbench.data.partition import Pixels
from adaptbench.errors import DataFormatError

Part = Literal["train", "test"]
Reader = Callable[[Path, "Layout", Part], Labelled]

_PIXELS = 3 * 32 * 32
_NPY_HEADER = 10_000  # bytes, as NumPy allows
_BATCH_BYTES = 200 << 20  # the longest published file has 155 MB
MOST = 50_000
"""Samples of the longer part, as published."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What the files of one CIFAR are called.

    Args:
        binary_folder: of the binary version.
        binary: part → its files there.
        label_bytes: before the pixels of a record; the last one is the label.
        npz: the NumPy archive: x_train, y_train, x_test, y_test; pictures (N, 32, 32, 3) or (N, 3, 32, 32).
        python_folder: of the python version.
        python: part → file → md5 as published (torchvision lists the same).
        label_key: of a python batch.
        archives: what the published archives are called, their suffixes apart.
    """

    binary_folder: str
    binary: Mapping[Part, tuple[str, ...]]
    label_bytes: int
    npz: str
    python_folder: str
    python: Mapping[Part, Mapping[str, str]]
    label_key: str
    archives: tuple[str, ...]

    def readers(self) -> dict[str, Reader]:
        """File or folder → what reads it, the preferred one first."""
        return {self.binary_folder: read_binary, self.npz: read_npz, self.python_folder: read_python}


CIFAR10 = Layout(
    binary_folder="cifar-10-batches-bin",
    binary={"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)},
    label_bytes=1,
    npz="cifar10.npz",
    python_folder="cifar-10-batches-py",
    python={
        "train": {
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        },
        "test": {"test_batch": "40351d587109b95175f43aff81a1287e"},
    },
    label_key="labels",
    archives=("cifar-10-binary", "cifar-10-python"),
)
CIFAR100 = Layout(
    binary_folder="cifar-100-binary",
    binary={"train": ("train.bin",), "test": ("test.bin",)},
    label_bytes=2,
    npz="cifar100.npz",
    python_folder="cifar-100-python",
    python={
        "train": {"train": "16019d7e3df5f24257cddd939b257f8d"},
        "test": {"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
    },
    label_key="fine_labels",
    archives=("cifar-100-binary", "cifar-100-python"),
)


def read_binary(folder: Path, layout: Layout, part: Part) -> Labelled:
    """Records of label bytes and 3 072 pixel bytes, channel by channel.

    Raises:
        DataFormatError: a file is missing, cut off, or not as long as its siblings.
    """
    record = layout.label_bytes + _PIXELS
    pieces = []
    for name in layout.binary[part]:
        data = np.frombuffer(_bytes(folder / name, at_most=record * MOST), dtype=np.uint8)
        if not len(data) or len(data) % record:
            raise _bad(folder / name, f"its {len(data)} bytes are not a multiple of {record}, one record")
        pieces.append(data.reshape(-1, record))
        if len(pieces[-1]) != len(pieces[0]):
            raise _bad(
                folder / name, f"it has {len(pieces[-1])} records, {layout.binary[part][0]} has {len(pieces[0])}"
            )
    rows = np.concatenate(pieces)
    pixels = np.ascontiguousarray(rows[:, layout.label_bytes :]).reshape(-1, 3, 32, 32)
    return Labelled(pixels, rows[:, layout.label_bytes - 1].astype(np.int64))


def read_npz(path: Path, layout: Layout, part: Part) -> Labelled:
    """Arrays x_<part>, y_<part>; their headers are looked at before anything is unpacked.

    Raises:
        DataFormatError: damaged, arrays missing, of another kind or of more samples than CIFAR has.
    """
    del layout
    try:
        with zipfile.ZipFile(path) as archive:
            x = _array(archive, f"x_{part}", path)
            y = _array(archive, f"y_{part}", path)
    except (KeyError, ValueError, EOFError, OSError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        raise _bad(path, f"x_{part} and y_{part} cannot be read ({error})") from error
    if x.ndim == 4 and x.shape[1:] == (32, 32, 3):
        x = x.transpose(0, 3, 1, 2)
    return Labelled(np.ascontiguousarray(x), y.reshape(-1).astype(np.int64))


def _array(archive: zipfile.ZipFile, name: str, path: Path) -> np.ndarray[Any, Any]:
    """One array of an archive, if its header says pictures (x…) or labels (y…)."""
    with archive.open(f"{name}.npy") as member:
        # The length of the header is itself only claimed.
        start = io.BytesIO(member.read(_NPY_HEADER))
        version = np.lib.format.read_magic(start)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(start)
    items = ((32, 32, 3), (3, 32, 32)) if name.startswith("x") else ((), (1,))
    if shape[1:] not in items or not 0 <= shape[0] <= MOST:
        raise _bad(path, f"{name} is {dtype} of shape {shape}, not (N, …) of {items[0]} or {items[1]}, N up to {MOST}")
    if not (dtype == np.uint8 if name.startswith("x") else np.issubdtype(dtype, np.integer)):
        raise _bad(path, f"{name} is {dtype}, not {'uint8' if name.startswith('x') else 'integers'}")
    with archive.open(f"{name}.npy") as member:
        array: np.ndarray[Any, Any] = np.lib.format.read_array(member, allow_pickle=False)
        return array


def read_python(folder: Path, layout: Layout, part: Part) -> Labelled:
    """Python batches, each unpickled only after its md5 is the published one.

    Raises:
        DataFormatError: a file is missing, or is a foreign pickle, which is never unpickled.
    """
    pictures: list[Pixels] = []
    labels: list[int] = []
    for name, md5 in layout.python[part].items():
        data = _bytes(folder / name, at_most=_BATCH_BYTES)
        if (seen := hashlib.md5(data, usedforsecurity=False).hexdigest()) != md5:
            raise DataFormatError(
                f"{folder / name} is a foreign pickle: its md5 is {seen}, the published one is {md5}.",
                why="Reading a pickle runs whatever code it holds; only the published bytes are known to be harmless.",
                todo=f"Use the binary version ({layout.binary_folder}) or {layout.npz}, or fetch the batches again.",
            )
        batch = _BatchUnpickler(io.BytesIO(data), encoding="latin1").load()
        pictures.append(np.asarray(batch["data"], dtype=np.uint8).reshape(-1, 3, 32, 32))
        labels.extend(batch[layout.label_key])
    return Labelled(np.concatenate(pictures), np.asarray(labels, dtype=np.int64))


class _BatchUnpickler(pickle.Unpickler):
    """Knows the three names that a CIFAR batch needs, and nothing else: a second lock behind the md5."""

    def find_class(self, module: str, name: str) -> Any:
        if name == "_reconstruct" and module.endswith("multiarray"):
            return _reconstruct
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return _dtype
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed")


def _reconstruct(kind: type, shape: tuple[int, ...], code: Any) -> Any:
    # What NumPy's function of this name does; the batches name its private module of 2009.
    del kind, shape, code
    return np.ndarray.__new__(np.ndarray, (0,), np.uint8)


def _dtype(code: str, *_: int) -> np.dtype[Any]:
    # The batches give integers where NumPy ≥ 2.4 wants booleans.
    return np.dtype(code)


def _bytes(path: Path, *, at_most: int) -> bytes:
    try:
        if path.exists() and not path.is_file():
            raise _bad(path, "it is not a file")
        if path.stat().st_size > at_most:
            raise _bad(path, f"it has more than {at_most} bytes")
        with path.open("rb") as stream:
            return stream.read(at_most)
    except OSError as error:
        raise DataFormatError(
            f"{path} cannot be read: {error.strerror}.",
            why="The set is not whole.",
            todo="Fetch the files again (`--download`).",
        ) from error


def _bad(path: Path, what: str) -> DataFormatError:
    return DataFormatError(
        f"{path}: {what}.",
        why="A damaged or different file would give figures that look right.",
        todo="Fetch the files again (`--download` checks their published md5).",
    )
