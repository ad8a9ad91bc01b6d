"""Series in the form in which UCI HAR is published: ``uci-har:PATH``, a folder of text files, a row a window.

The form is that of Anguita, Ghio, Oneto, Parra, Reyes-Ortiz, "A Public Domain Dataset for Human Activity Recognition
Using Smartphones", ESANN 2013: nine channels of 128 steps there, any here.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adaptbench.adaptive.splits import Role
from adaptbench.data.base import Labelled, StoredData
from adaptbench.data.partition import Indices, stratified_cut
from adaptbench.data.places import at_home
from adaptbench.errors import DataFormatError, DataMissingError, UsageError

_SIGNALS = "Inertial Signals"
_FIFTH = 5


class UciHar(StoredData):
    """``uci-har:PATH``: ``train`` and ``test`` with ``Inertial Signals/NAME_PART.txt`` and ``y_PART.txt``.

    A channel a file, in the order of their names; a line a window, its values parted by blanks; labels are whole
    numbers, named by ``activity_labels.txt`` where there is one. A fifth of the training windows is the calibration
    split: those of the last fifth of the people, where ``subject_train.txt`` names them, because windows of one person
    overlap; else by class. An id is the window's place, training windows first.

    Args:
        argument: the folder. root: a relative path that does not exist is looked for here too.
        download: of no use here.

    Raises:
        UsageError: no path. DataMissingError: no such folder.
        DataFormatError: it is not of that form.
    """

    takes_argument = True

    def __init__(self, argument: str = "", *, root: Path | None = None, download: bool = False) -> None:
        super().__init__(argument, root=root, download=download)
        if not argument:
            raise UsageError("data 'uci-har' names no folder.", todo="Write uci-har:PATH.")
        places = [at_home(argument), *([root / argument] if root is not None else [])]
        found = next((place for place in places if place.is_dir()), None)
        if found is None:
            raise DataMissingError(
                f"there is no folder {argument}.",
                todo=f"Looked for {', '.join(map(str, places))}; name the one that holds train and test.",
            )
        self.folder = found
        self.name = f"uci-har-{re.sub(r'[^A-Za-z0-9._-]', '_', found.resolve().name)}"
        self.channels = self._channels()
        self._whole = {part: self._part(part) for part in ("train", "test")}
        shapes = {x.shape[1:] for x, _ in self._whole.values()}
        if len(shapes) > 1:
            raise self._bad(f"its parts hold windows of {' and '.join(map(str, sorted(shapes)))}")
        self.shape = shapes.pop()
        self.class_names, self._codes = self._classes()

    def _channels(self) -> tuple[str, ...]:
        folder = self.folder / "train" / _SIGNALS
        names = sorted(file.name.removesuffix("_train.txt") for file in folder.glob("*_train.txt"))
        if not names:
            raise self._bad(f"there is no train/{_SIGNALS}/NAME_train.txt in it")
        return tuple(names)

    def _part(self, part: str) -> tuple[NDArray[np.float32], Indices]:
        folder = self.folder / part
        channels = [self._table(folder / _SIGNALS / f"{name}_{part}.txt") for name in self.channels]
        if len({channel.shape for channel in channels}) > 1:
            raise self._bad(f"the channels of {part} are of {sorted({channel.shape for channel in channels})}")
        y = self._table(folder / f"y_{part}.txt")[:, 0]
        if len(y) != len(channels[0]) or not (y == np.round(y)).all():
            raise self._bad(f"{part} has {len(channels[0])} windows and {len(y)} labels, which must be whole numbers")
        return np.stack(channels, 1).astype(np.float32), y.astype(np.int64)

    def _table(self, file: Path) -> NDArray[np.float64]:
        """(lines, values)."""
        try:
            table = np.loadtxt(file, dtype=np.float64, ndmin=2)
        except (OSError, ValueError) as error:
            raise self._bad(f"{file.relative_to(self.folder)} cannot be read ({error})") from error
        if not table.size or not np.isfinite(table).all():
            raise self._bad(f"{file.relative_to(self.folder)} is empty, or holds values that are no numbers")
        return table

    def _classes(self) -> tuple[tuple[str, ...], Indices]:
        """Names, and the code in the files that each stands for."""
        codes = np.unique(np.concatenate([y for _, y in self._whole.values()]))
        file = self.folder / "activity_labels.txt"
        if not file.is_file():
            return tuple(f"class {code}" for code in codes), codes
        lines = [line.split(maxsplit=1) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        if any(len(line) != 2 or not line[0].isdecimal() for line in lines):
            raise self._bad("a line of activity_labels.txt is no number and name")
        named = {int(code): name.strip() for code, name in lines}
        if unknown := sorted(set(codes.tolist()) - named.keys()):
            raise self._bad(f"labels {unknown} stand in no line of activity_labels.txt")
        return tuple(named[code] for code in sorted(named)), np.array(sorted(named))

    def _read(self, role: Role) -> tuple[Labelled, Indices]:
        x, y = self._whole["test" if role == "test" else "train"]
        labels = np.searchsorted(self._codes, y)
        before = len(self._whole["train"][1])
        if role == "test":
            rows = np.arange(len(y))
            return Labelled(x, labels), rows + before
        kept = self._kept(labels)
        rows = np.flatnonzero(kept if role == "calibration" else ~kept)
        return Labelled(x[rows], labels[rows]), rows

    def _kept(self, labels: Indices) -> NDArray[np.bool_]:
        """Which training windows are for calibration."""
        file = self.folder / "train" / "subject_train.txt"
        kept = np.zeros(len(labels), dtype=bool)
        if file.is_file():
            people = self._table(file)[:, 0]
            if len(people) != len(labels):
                raise self._bad(f"train has {len(labels)} windows and {len(people)} people")
            names = np.unique(people)
            if len(names) > 1:
                return np.isin(people, names[-max(1, len(names) // _FIFTH) :])
        kept[stratified_cut(labels, [len(labels) - len(labels) // _FIFTH, len(labels) // _FIFTH])[1]] = True
        return kept

    def _bad(self, what: str) -> DataFormatError:
        return DataFormatError(
            f"{self.folder}: {what}.",
            why="Figures from another reading of it would look right and mean nothing.",
            todo="docs/series.md says what such a folder looks like.",
        )
