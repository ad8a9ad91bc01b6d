"""Data of one's own in one file: ``npz:PATH``, ``csv:PATH``, ``parquet:PATH``."""

from __future__ import annotations

import io
import math
import re
import zipfile
import zlib
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qsl

import numpy as np

from adaptbench.adaptive.splits import Role
from adaptbench.data.base import ROLES, Labelled, StoredData
from adaptbench.data.partition import Indices, Pixels, stratified_cut
from adaptbench.data.places import at_home
from adaptbench.errors import DataFormatError, DataMissingError, UsageError
from adaptbench.registry import did_you_mean

_MOST_BYTES = 8 << 30
_NPY_HEADER = 65_536
_OPTIONS = ("shape", "label")
_ROLE = "role"
_FIFTH = 5

Part = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]
"""Pictures and labels, as a file has them."""


class _OneFile(StoredData):
    """A file of pictures and labels, in one part or in parts by role.

    One part is cut 60 : 20 : 20, by class and always alike; of a train and a test part, a fifth of train is the
    calibration split. An id is the place in the file, its parts in the order train, calibration, test.

    Args:
        argument: the path, with options after the last "?": `shape=3x32x32` of a picture that lies flat, `label` the
            name of the labels.
        root: a relative path that does not exist is looked for here too.
        download: of no use here.

    Raises:
        UsageError: no path, or an unknown option. DataMissingError: no such file.
        DataFormatError: it holds no pictures and labels, or more than 8 GB.
    """

    takes_argument = True
    kind: ClassVar[str]

    def __init__(self, argument: str = "", *, root: Path | None = None, download: bool = False) -> None:
        super().__init__(argument, root=root, download=download)
        text, _, options = argument.partition("?") if not at_home(argument).is_file() else (argument, "", "")
        if not text:
            raise UsageError(f"data '{self.kind}' names no file.", todo=f"Write {self.kind}:PATH.")
        self.options = _options(self.kind, options)
        places = [at_home(text), *([root / text] if root is not None else [])]
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            raise DataMissingError(
                f"there is no file {text}.", todo=f"Looked for {', '.join(map(str, places))}; name one that is there."
            )
        self.path = found
        self.name = f"{self.kind}-{re.sub(r'[^A-Za-z0-9._-]', '_', found.stem)}"
        parts = self._parts()
        self._whole = {role: (_pictures(x, self.options.get("shape"), self._bad), y) for role, (x, y) in parts.items()}
        shapes = {x.shape[1:] for x, _ in self._whole.values()}
        if len(shapes) > 1:
            raise self._bad(f"its parts hold pictures of {' and '.join(map(str, sorted(shapes)))}")
        self.shape = shapes.pop()
        self.class_names, labels = _classes([y for _, y in self._whole.values()], self._bad)
        self._whole = {role: (x, y) for (role, (x, _)), y in zip(self._whole.items(), labels, strict=True)}
        self._rows = _cut({role: y for role, (_, y) in self._whole.items()}, self._bad)

    @abstractmethod
    def _parts(self) -> dict[str, Part]:
        """By role; a single part under the role ""."""

    def _read(self, role: Role) -> tuple[Labelled, Indices]:
        part, rows = self._rows[role]
        before = sum(len(y) for name, (_, y) in self._whole.items() if _place(name) < _place(part))
        x, y = self._whole[part]
        return Labelled(x[rows], y[rows]), rows + before

    def _bad(self, what: str) -> DataFormatError:
        return DataFormatError(
            f"{self.path}: {what}.",
            why="Figures from another reading of it would look right and mean nothing.",
            todo=f"docs/own-model.md, Your own data, says what {self.kind} files look like.",
        )


class Npz(_OneFile):
    """``npz:PATH``: arrays x, y; or x_train, y_train, x_test, y_test and, if there, x_calibration or x_val.

    Pictures (N, H, W), (N, H, W, C) or (N, C, H, W), 8-bit or floats in [0, 1]. Nothing is unpickled.
    """

    kind = "npz"

    def _parts(self) -> dict[str, Part]:
        try:
            with zipfile.ZipFile(self.path) as archive:
                names = {name.removesuffix(".npy") for name in archive.namelist()}
                wanted = _named_parts(names, self.options.get("label", "y"), self._bad)
                return {role: (self._array(archive, x), self._array(archive, y)) for role, (x, y) in wanted.items()}
        except (KeyError, ValueError, EOFError, OSError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
            raise self._bad(f"it is no npz that can be read ({error})") from error

    def _array(self, archive: zipfile.ZipFile, name: str) -> np.ndarray[Any, Any]:
        with archive.open(f"{name}.npy") as member:  # the header says how much is unpacked
            start = io.BytesIO(member.read(_NPY_HEADER))
        version = np.lib.format.read_magic(start)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(start)
        if math.prod(shape) * dtype.itemsize > _MOST_BYTES:
            raise self._bad(f"{name} says it is {dtype} {shape}, more than 8 GB")
        with archive.open(f"{name}.npy") as member:
            array: np.ndarray[Any, Any] = np.lib.format.read_array(member, allow_pickle=False)
        return array


class _Table(_OneFile):
    """One row a picture: a column of labels, if there one of roles, and all others values in order."""

    def _parts(self) -> dict[str, Part]:
        import pandas as pd

        if self.path.stat().st_size > _MOST_BYTES:
            raise self._bad("it is larger than 8 GB")
        try:
            frame = pd.read_csv(self.path) if self.kind == "csv" else pd.read_parquet(self.path)
        except Exception as error:  # of two libraries
            raise self._bad(f"it is no {self.kind} that can be read ({' '.join(str(error).split())[:200]})") from error
        label = self.options.get("label", "label")
        if label not in frame:
            near = did_you_mean(label, map(str, frame.columns))
            raise self._bad(f"it has no column '{label}' ({near}columns: {', '.join(map(str, frame.columns[:8]))} …)")
        values = frame.drop(columns=[c for c in (label, _ROLE) if c in frame])
        if values.empty or not all(pd.api.types.is_numeric_dtype(t) for t in values.dtypes):
            raise self._bad("its columns beside label and role are not all numbers")
        x, y = values.to_numpy(), frame[label].to_numpy()
        if _ROLE not in frame:
            return {"": (x, y)}
        roles = frame[_ROLE].to_numpy()
        if unknown := set(map(str, roles)) - set(ROLES):
            raise self._bad(f"it has a role '{min(unknown)}', not {', '.join(ROLES)}")
        return {role: (x[roles == role], y[roles == role]) for role in ROLES if (roles == role).any()}


class Csv(_Table):
    """``csv:PATH?shape=1x28x28``: a header, a column label, pixels 0 … 255 or floats in [0, 1] in the others."""

    kind = "csv"


class Parquet(_Table):
    """``parquet:PATH?shape=3x32x32&label=digit``: as csv."""

    kind = "parquet"


def _options(kind: str, text: str) -> dict[str, str]:
    given = dict(parse_qsl(text, keep_blank_values=True))
    for key in given:
        if key not in _OPTIONS:
            raise UsageError(f"data '{kind}' has no option '{key}'.", todo=f"Options: {', '.join(_OPTIONS)}.")
    if (shape := given.get("shape")) and not re.fullmatch(r"[1-9]\d*x[1-9]\d*x[1-9]\d*", shape):
        raise UsageError(
            f"the shape '{shape}' of data '{kind}' is none.", todo="Write channels x rows x columns: 3x32x32."
        )
    return given


def _named_parts(names: set[str], label: str, bad: Any) -> dict[str, tuple[str, str]]:
    """Role → names of its pictures and labels."""
    if {"x", label} <= names:
        return {"": ("x", label)}
    spelled = {"train": ("train",), "calibration": ("calibration", "val", "valid"), "test": ("test",)}
    found: dict[str, tuple[str, str]] = {}
    for role, words in spelled.items():
        for word in words:
            if {f"x_{word}", f"{label}_{word}"} <= names:
                found[role] = (f"x_{word}", f"{label}_{word}")
                break
    if "test" not in found or "train" not in found:
        raise bad(
            f"it holds {', '.join(sorted(names)[:8]) or 'nothing'}, not x and {label}, or x_train, {label}_train …"
        )
    return found


def _arranged(x: np.ndarray[Any, Any], shape: str | None, bad: Any) -> np.ndarray[Any, Any]:
    """(N, C, H, W), of whatever type."""
    if shape is not None:
        sizes = tuple(map(int, shape.split("x")))
        if math.prod(x.shape[1:]) != math.prod(sizes):
            raise bad(f"a picture has {math.prod(x.shape[1:])} values, shape={shape} asks for {math.prod(sizes)}")
        x = x.reshape(len(x), *sizes)
    elif x.ndim == 2:
        side = math.isqrt(x.shape[1])
        if side * side != x.shape[1]:
            raise bad(f"a picture has {x.shape[1]} values, which are no square: say ?shape=3x32x32")
        x = x.reshape(len(x), 1, side, side)
    elif x.ndim == 3:
        x = x[:, None]
    elif x.ndim == 4 and x.shape[1] not in (1, 3) and x.shape[3] in (1, 3):
        x = x.transpose(0, 3, 1, 2)
    if x.ndim != 4 or not len(x):
        raise bad(f"its pictures are {x.dtype} of shape {x.shape}")
    return x


def _pictures(x: np.ndarray[Any, Any], shape: str | None, bad: Any) -> Pixels:
    """(N, C, H, W) uint8."""
    x = _arranged(x, shape, bad)
    if x.dtype == np.uint8:
        return np.ascontiguousarray(x)
    if not np.issubdtype(x.dtype, np.number) or not np.isfinite(x).all():
        raise bad(f"its pictures are {x.dtype}, not finite numbers")
    low, high = float(x.min()), float(x.max())
    whole = np.issubdtype(x.dtype, np.integer) or bool((x == np.round(x)).all())
    if whole and low >= 0 and high <= 255:
        if high <= 1:
            raise bad("its values are 0 and 1 only: 8-bit black, or full scale? Store uint8, 0 … 255")
        return np.ascontiguousarray(x.astype(np.uint8))
    if low >= 0 and high <= 1:
        return np.ascontiguousarray(np.round(x * 255.0).astype(np.uint8))
    raise bad(f"its values span [{low:.4g}, {high:.4g}], neither 0 … 255 nor [0, 1]; the normaliser belongs in the net")


def _classes(given: list[np.ndarray[Any, Any]], bad: Any) -> tuple[tuple[str, ...], list[Indices]]:
    """Names of the classes in sorted order, and each part's labels as places in them."""
    every = np.concatenate([y.reshape(len(y), -1)[:, 0] for y in given])
    if any(y.size != len(y) for y in given):
        raise bad("its labels are not one a picture (one-hot?)")
    if np.issubdtype(every.dtype, np.floating):
        if not np.isfinite(every).all() or (every != np.round(every)).any():
            raise bad("its labels are fractions")
        given, every = [y.astype(np.int64) for y in given], every.astype(np.int64)
    if np.issubdtype(every.dtype, np.integer):
        if every.min() < 0 or every.max() > 99_999:
            raise bad(f"its labels span {every.min()} to {every.max()}")
        names = tuple(map(str, range(int(every.max()) + 1)))
        return names, [y.reshape(-1).astype(np.int64) for y in given]
    kinds = np.unique(every.astype(str))
    return tuple(map(str, kinds)), [np.searchsorted(kinds, y.reshape(-1).astype(str)).astype(np.int64) for y in given]


def _place(role: str) -> int:
    return ROLES.index(role) if role in ROLES else 0


def _cut(labels: dict[str, Indices], bad: Any) -> dict[Role, tuple[str, Indices]]:
    """Role → the part of the file that it is taken from, and rows there."""
    if "" in labels:
        n = len(labels[""])
        fifth = n // _FIFTH
        if not fifth:
            raise bad(f"{n} pictures cannot be cut into three splits")
        rows = stratified_cut(labels[""], [n - 2 * fifth, fifth, fifth])
        return {role: ("", r) for role, r in zip(ROLES, rows, strict=True)}
    if "test" not in labels or "train" not in labels:
        raise bad(f"it has the roles {', '.join(labels)}; train and test are needed")
    whole = {role: (role, np.arange(len(y), dtype=np.int64)) for role, y in labels.items()}
    if "calibration" not in labels:
        n = len(labels["train"])
        train, calibration = stratified_cut(labels["train"], [n - n // _FIFTH, n // _FIFTH])
        whole |= {"train": ("train", train), "calibration": ("train", calibration)}
    return whole  # type: ignore[return-value]
