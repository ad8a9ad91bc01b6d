"""Data of one's own in one file, pictures, texts or series: ``npz:PATH``, ``csv:PATH``, ``parquet:PATH``."""

from __future__ import annotations

import io
import math
import re
import zipfile
import zlib
from abc import abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from adaptbench.adaptive.splits import Role
from adaptbench.adaptive.tokens import TokenDomain
from adaptbench.data.base import ROLES, Labelled, StoredData
from adaptbench.data.own_inputs import Array, Asked, Inputs, inputs_of, token_domain
from adaptbench.data.own_labels import classes_of, cut, place_of
from adaptbench.data.partition import Indices
from adaptbench.data.places import at_home
from adaptbench.data.wordpiece import WordPiece
from adaptbench.errors import DataFormatError, DataMissingError, UsageError
from adaptbench.registry import did_you_mean

if TYPE_CHECKING:
    import pandas as pd

_MOST_BYTES = 8 << 30
_NPY_HEADER = 65_536
_ROLE = "role"
_X, _IDS, _MASKS = "x", "input_ids", ("attention_mask", "mask")

Part = tuple[Inputs, Array]
"""Inputs as splits hold them, and labels as a file has them."""


class _OneFile(StoredData):
    """A file of inputs and labels, in one part or in parts by role.

    One part is cut 60 : 20 : 20, by class and always alike; of a train and a test part, a fifth of train is the
    calibration split. An id is the place in the file, its parts in the order train, calibration, test.

    Args:
        argument: the path, with options after the last "?", as `own_inputs.Asked` has them.
        root: a relative path that does not exist is looked for here too.
        download: of no use here.

    Raises:
        UsageError: no path, or an unknown option. DataMissingError: no such file, or no such encoder.
        DataFormatError: it holds no inputs and labels, inputs that may be two things, or more than 8 GB.
    """

    takes_argument = True
    kind: ClassVar[str]
    options: ClassVar[tuple[str, ...]]
    label: ClassVar[str]
    tokenizer: WordPiece | None = None
    """Of texts, and of ids whose encoder is named."""

    def __init__(self, argument: str = "", *, root: Path | None = None, download: bool = False) -> None:
        super().__init__(argument, root=root, download=download)
        text, _, options = argument.partition("?") if not at_home(argument).is_file() else (argument, "", "")
        if not text:
            raise UsageError(f"data '{self.kind}' names no file.", todo=f"Write {self.kind}:PATH.")
        self.asked = Asked.of(self.kind, options, self.options, self.label)
        places = [at_home(text), *([root / text] if root is not None else [])]
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            raise DataMissingError(
                f"there is no file {text}.", todo=f"Looked for {', '.join(map(str, places))}; name one that is there."
            )
        self.path = found
        self.name = f"{self.kind}-{re.sub(r'[^A-Za-z0-9._-]', '_', found.stem)}"
        if self.asked.encoder is not None:
            self.tokenizer = self.asked.tokenizer(root)
        self._whole = self._parts()
        shapes = {x.shape[1:] for x, _ in self._whole.values()}
        if len(shapes) > 1 or len({x.dtype for x, _ in self._whole.values()}) > 1:
            raise self._bad(f"its parts hold inputs of {' and '.join(map(str, sorted(shapes)))}, or of several kinds")
        if any(len(x) != len(y) for x, y in self._whole.values()):
            raise self._bad(
                f"it has {' and '.join(f'{len(x)} inputs, {len(y)} labels' for x, y in self._whole.values())}"
            )
        self.shape = shapes.pop()
        self.class_names, labels = classes_of([y for _, y in self._whole.values()], self._bad)
        self._whole = {role: (x, y) for (role, (x, _)), y in zip(self._whole.items(), labels, strict=True)}
        self._rows = cut({role: y for role, (_, y) in self._whole.items()}, self._bad)

    @property
    def domain(self) -> TokenDomain | None:
        """Of token ids: what a model of them takes; None for pictures and series, whose file does not say it."""
        ids = [x.astype(np.int64) for x, _ in self._whole.values() if x.dtype == np.int64]
        return token_domain(ids, self.tokenizer) if ids else None

    @abstractmethod
    def _parts(self) -> dict[str, Part]:
        """By role; a single part under the role ""."""

    def _inputs(self, x: Array, mask: Array | None = None) -> Inputs:
        return inputs_of(x, mask, self.asked, self.tokenizer, self._bad)

    def _read(self, role: Role) -> tuple[Labelled, Indices]:
        part, rows = self._rows[role]
        before = sum(len(y) for name, (_, y) in self._whole.items() if place_of(name) < place_of(part))
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

    Pictures (N, H, W), (N, H, W, C) or (N, C, H, W), 8-bit or floats in [0, 1]; token ids (N, L) under the name
    input_ids, with attention_mask or mask beside them, or by ``?layout=NL``; float series by ``?layout=NCT`` or
    ``NTC``. Nothing is unpickled.
    """

    kind = "npz"
    options, label = ("shape", "label", "layout", "encoder"), "y"

    def _parts(self) -> dict[str, Part]:
        try:
            with zipfile.ZipFile(self.path) as archive:
                names = {name.removesuffix(".npy") for name in archive.namelist()}
                wanted = _named_parts(names, self.asked.label, self._bad)
                arrays = {
                    role: (self._array(archive, x), self._mask(archive, x, names), self._array(archive, y))
                    for role, (x, y) in wanted.items()
                }
        except (KeyError, ValueError, EOFError, OSError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
            raise self._bad(f"it is no npz that can be read ({error})") from error
        if any(x.startswith(_IDS) for x, _ in wanted.values()):
            self.asked = replace(self.asked, layout=self.asked.layout or "NL")
        return {role: (self._inputs(x, mask), y) for role, (x, mask, y) in arrays.items()}

    def _mask(self, archive: zipfile.ZipFile, x: str, names: set[str]) -> Array | None:
        name = _mask_of(x, names)
        return None if name is None else self._array(archive, name)

    def _array(self, archive: zipfile.ZipFile, name: str) -> Array:
        with archive.open(f"{name}.npy") as member:  # the header says how much is unpacked
            start = io.BytesIO(member.read(_NPY_HEADER))
        version = np.lib.format.read_magic(start)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(start)
        if math.prod(shape) * dtype.itemsize > _MOST_BYTES:
            raise self._bad(f"{name} says it is {dtype} {shape}, more than 8 GB")
        with archive.open(f"{name}.npy") as member:
            array: Array = np.lib.format.read_array(member, allow_pickle=False)
        return array


class _Table(_OneFile):
    """One row an input: a column of labels, if there one of roles, and one of texts, or all others values in order."""

    options, label = ("shape", "label", "text", "encoder", "length"), "label"

    def _parts(self) -> dict[str, Part]:
        if self.path.stat().st_size > _MOST_BYTES:
            raise self._bad("it is larger than 8 GB")
        frame = self._frame()
        label = self.asked.label
        if label not in frame:
            near = did_you_mean(label, map(str, frame.columns))
            raise self._bad(f"it has no column '{label}' ({near}columns: {', '.join(map(str, frame.columns[:8]))} …)")
        text = self._text(frame.drop(columns=[c for c in (label, _ROLE) if c in frame]))
        x = self._values(frame) if text is None else self._ids(text)
        y = frame[label].to_numpy()
        if _ROLE not in frame:
            return {"": (x, y)}
        roles = frame[_ROLE].to_numpy()
        if unknown := set(map(str, roles)) - set(ROLES):
            raise self._bad(f"it has a role '{min(unknown)}', not {', '.join(ROLES)}")
        return {role: (x[roles == role], y[roles == role]) for role in ROLES if (roles == role).any()}

    def _frame(self, **how: Any) -> pd.DataFrame:
        import pandas as pd

        try:
            return pd.read_csv(self.path, **how) if self.kind == "csv" else pd.read_parquet(self.path)
        except Exception as error:  # of two libraries
            raise self._bad(f"it is no {self.kind} that can be read ({' '.join(str(error).split())[:200]})") from error

    def _values(self, frame: pd.DataFrame) -> Inputs:
        values = frame.drop(columns=[c for c in (self.asked.label, _ROLE) if c in frame])
        if values.empty:
            raise self._bad("it has no columns beside label and role")
        return inputs_of(values.to_numpy(), None, self.asked, None, self._bad, flat=True)

    def _text(self, values: pd.DataFrame) -> str | None:
        """The column of texts; None where all columns are numbers.

        Raises:
            DataFormatError: no such column, or several that hold words and none is named.
        """
        import pandas as pd

        wordy = [str(c) for c, kind in values.dtypes.items() if not pd.api.types.is_numeric_dtype(kind)]
        named = self.asked.text
        if named is not None and named not in values:
            near = did_you_mean(named, map(str, values.columns))
            raise self._bad(
                f"it has no column '{named}' of texts ({near}columns: {', '.join(map(str, values.columns[:8]))})"
            )
        if named is None and wordy and len(values.columns) > 1:
            told = ", ".join(wordy[:8])
            raise self._bad(
                f"its columns beside label and role are not all numbers: {told} hold{'s' * (len(wordy) == 1)} words. "
                f"Is one of them the text? Say ?text={wordy[0]}"
            )
        text = named if named is not None else (wordy[0] if wordy else None)
        if text is not None and self.asked.shape is not None:
            raise self._bad(f"shape= is of pictures and series, and '{text}' holds texts")
        if text is None and (self.asked.encoder or "length" in self.asked.given):
            raise self._bad("encoder= and length= are of texts, and its columns hold numbers")
        if text is not None and (left := [str(c) for c in values.columns if c != text]):
            self.notes = (*self.notes, f"{self.name}: columns left out beside the text: {', '.join(left[:8])}")
        return text

    def _ids(self, text: str) -> Indices:
        # Once more, its words as they stand: "NA" and "null" are words there.
        as_they_stand = {"usecols": [text], "dtype": str, "keep_default_na": False} if self.kind == "csv" else {}
        column = list(self._frame(**as_they_stand)[text])
        for row, words in enumerate(column, 1):
            if not isinstance(words, str) or not words.strip():
                raise self._bad(f"row {row} of '{text}' is no text: {words!r}")
        self.tokenizer = pieces = self.tokenizer or self.asked.tokenizer(self.root)
        return pieces.rows(column, self.asked.length)


class Csv(_Table):
    """``csv:PATH?shape=1x28x28``: a header, a column label, pixels 0 … 255 or floats in [0, 1] in the others.

    With a column of words, or one that ``text`` names, texts: rows of ``length`` ids (64) of the house's pieces, or of
    the tokenizer in the folder ``encoder``. With ``shape=3x128`` series, floats as they are.
    """

    kind = "csv"


class Parquet(_Table):
    """``parquet:PATH?shape=3x32x32&label=digit``: as csv."""

    kind = "parquet"


def _named_parts(names: set[str], label: str, bad: Any) -> dict[str, tuple[str, str]]:
    """Role → names of its inputs and labels."""
    if len(both := {stem for stem in (_X, _IDS) if {stem, f"{stem}_train"} & names}) > 1:
        raise bad(f"it holds {' and '.join(sorted(both))}: which are the inputs?")
    x = both.pop() if both else _X
    if {x, label} <= names:
        return {"": (x, label)}
    spelled = {"train": ("train",), "calibration": ("calibration", "val", "valid"), "test": ("test",)}
    found: dict[str, tuple[str, str]] = {}
    for role, words in spelled.items():
        for word in words:
            if {f"{x}_{word}", f"{label}_{word}"} <= names:
                found[role] = (f"{x}_{word}", f"{label}_{word}")
                break
    if "test" not in found or "train" not in found:
        raise bad(
            f"it holds {', '.join(sorted(names)[:8]) or 'nothing'}, not {x} and {label}, or {x}_train, {label}_train …"
        )
    return found


def _mask_of(x: str, names: set[str]) -> str | None:
    """The name of the mask beside an array of ids: mask_train beside x_train."""
    part = x.removeprefix(_IDS).removeprefix(_X)
    return next((f"{mask}{part}" for mask in _MASKS if f"{mask}{part}" in names), None)
