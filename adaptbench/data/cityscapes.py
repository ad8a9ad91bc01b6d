"""Street scenes in the folders and files of Cityscapes: ``cityscapes:PATH``, a label for every pixel.

The form is that of Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding", CVPR 2016, as it is
downloaded: nothing is converted beforehand.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adaptbench.adaptive.splits import IGNORED, Role
from adaptbench.data.base import OfPixels, StoredData
from adaptbench.data.partition import Indices, Pixels
from adaptbench.data.pictures import shown
from adaptbench.data.places import at_home
from adaptbench.errors import DataFormatError, DataMissingError, UsageError

TRAIN_IDS: dict[int, str] = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light",
    20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car", 27: "truck",
    28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle",
}  # fmt: skip
"""Label id in the files → class, in the order of the 19 train ids; every other id is ignored."""
_HIGHEST = 33
_UNLABELLED = 255
_IMAGES, _LABELS = "leftImg8bit", "gtFine"
_IMAGE, _LABEL = "_leftImg8bit.png", "_gtFine_labelIds.png"
_FIFTH = 5


class Cityscapes(StoredData):
    """``cityscapes:PATH?scale=4``: a folder with ``leftImg8bit`` and ``gtFine``, in each ``train`` and ``val`` by city.

    Pictures are ``leftImg8bit/PART/CITY/*_leftImg8bit.png``, their labels ``gtFine/PART/CITY/*_gtFine_labelIds.png``.
    The published val part is the test split, because labels of the published test part are not given out. Of train, the
    last fifth of the cities by name is the calibration split, as pictures of one city are alike; of one city alone
    every fifth picture. Label ids become the 19 train ids, the others are ignored (`adaptive.splits.IGNORED`). At scale
    N a picture's N × N squares are averaged, and of their labels one is taken, right and below of the middle. An id is
    the picture's place, cities and files by name, train before val.

    Args:
        argument: the folder, and after "?" scale=N, a whole number that divides both sides (default 1: as they are).
        root: a relative path that does not exist is looked for here too. download: of no use here.

    Raises:
        UsageError: no path, or a scale that is none. DataMissingError: no such folder.
        DataFormatError: it is not of that form, which is told.
    """

    takes_argument = True
    class_names = tuple(TRAIN_IDS.values())

    def __init__(self, argument: str = "", *, root: Path | None = None, download: bool = False) -> None:
        super().__init__(argument, root=root, download=download)
        text, _, option = argument.partition("?")
        if not text:
            raise UsageError(
                "data 'cityscapes' names no folder.", todo="Write cityscapes:PATH, or cityscapes:PATH?scale=4."
            )
        self.scale = _scale(option)
        places = [at_home(text), *([root / text] if root is not None else [])]
        found = next((place for place in places if place.is_dir()), None)
        if found is None:
            raise DataMissingError(
                f"there is no folder {text}.",
                todo=f"Looked for {', '.join(map(str, places))}; name the one that holds {_IMAGES} and {_LABELS}.",
            )
        self.folder = found
        self.name = f"cityscapes-{re.sub(r'[^A-Za-z0-9._-]', '_', found.resolve().name)}"
        if self.scale > 1:
            self.name += f"-{self.scale}"
        self._files = {part: self._of_part(part) for part in ("train", "val")}
        self.shape = (3, *(side // self.scale for side in self._sides(self._files["train"][0])))

    def _of_part(self, part: str) -> list[Path]:
        """Its pictures, each with labels."""
        folder = self.folder / _IMAGES / part
        files = sorted(folder.glob(f"*/*{_IMAGE}"))
        if not files:
            raise self._bad(f"there is no {_IMAGES}/{part}/CITY/*{_IMAGE} in it")
        bare = [file for file in files if not self._labels_of(file).is_file()]
        if bare:
            where = self._labels_of(bare[0]).relative_to(self.folder)
            raise self._bad(
                f"{len(bare)} of the {len(files)} pictures of {part} have no labels, the first {shown(where)}"
            )
        return files

    def _labels_of(self, file: Path) -> Path:
        part, city, name = file.relative_to(self.folder / _IMAGES).parts
        return self.folder / _LABELS / part / city / f"{name.removesuffix(_IMAGE)}{_LABEL}"

    def _read(self, role: Role) -> tuple[OfPixels, Indices]:
        part = "val" if role == "test" else "train"
        files, before = self._files[part], len(self._files["train"]) if role == "test" else 0
        rows = np.arange(len(files))
        if role != "test":
            kept = self._kept(files)
            rows = np.flatnonzero(kept if role == "calibration" else ~kept)
        if not len(rows):
            raise self._bad(f"its {len(files)} training pictures are too few for a calibration split")
        pairs = [self._pair(files[i]) for i in rows]
        return OfPixels(np.stack([x for x, _ in pairs]), np.stack([y for _, y in pairs])), rows + before

    @staticmethod
    def _kept(files: list[Path]) -> NDArray[np.bool_]:
        """Which training pictures are for calibration."""
        cities = [file.parent.name for file in files]
        names = sorted(set(cities))
        kept: NDArray[np.bool_] = np.arange(len(files)) % _FIFTH == _FIFTH - 1
        if len(names) > 1:
            kept = np.isin(cities, names[-max(1, len(names) // _FIFTH) :])
        return kept

    def _pair(self, file: Path) -> tuple[Pixels, Pixels]:
        """(3, H, W) and (H, W), scaled."""
        picture = self._opened(file, ("RGB",)).transpose(2, 0, 1)
        labels = self._opened(self._labels_of(file), ("L", "P"))
        n, (high, wide) = self.scale, (side * self.scale for side in self.shape[1:])
        for what, seen in ((file, picture.shape[1:]), (self._labels_of(file), labels.shape)):
            if seen != (high, wide):
                raise self._bad(
                    f"{shown(what.relative_to(self.folder))} is of {seen[0]} × {seen[1]} pixels, not {high} × {wide}"
                )
        odd = labels[(labels > _HIGHEST) & (labels != _UNLABELLED)]
        if odd.size:
            where = shown(self._labels_of(file).relative_to(self.folder))
            raise self._bad(f"{where} holds the label id {int(odd[0])}; ids run from 0 to {_HIGHEST}")
        squares = picture.reshape(3, high // n, n, wide // n, n).astype(np.uint32).sum((2, 4))
        scaled = ((squares + n * n // 2) // (n * n)).astype(np.uint8)
        return scaled, _TABLE[labels[n // 2 :: n, n // 2 :: n]]

    def _sides(self, file: Path) -> tuple[int, int]:
        high, wide = self._opened(file, ("RGB",)).shape[:2]
        if high % self.scale or wide % self.scale:
            raise UsageError(
                f"scale={self.scale} does not divide pictures of {high} × {wide} pixels.",
                todo="Give a whole number that divides both sides.",
            )
        return high, wide

    def _opened(self, file: Path, modes: tuple[str, ...]) -> Pixels:
        from PIL import Image

        where = shown(file.relative_to(self.folder))
        try:
            with Image.open(file, formats=("PNG",)) as picture:
                mode, pixels = picture.mode, np.asarray(picture, dtype=np.uint8)
        except Exception as error:  # a decoder that is fed foreign bytes raises whatever it likes
            raise self._bad(f"{where} is not a readable PNG ({error})") from error
        if mode not in modes:
            raise self._bad(f"{where} is of mode {mode}, not {' or '.join(modes)}")
        return pixels

    def _bad(self, what: str) -> DataFormatError:
        return DataFormatError(
            f"{shown(self.folder)}: {what}.",
            why="Figures from another reading of it would look right and mean nothing.",
            todo="docs/dense.md says what such a folder looks like.",
        )


def _scale(option: str) -> int:
    name, _, value = option.partition("=")
    if not option:
        return 1
    if name != "scale" or not value.isdecimal() or int(value) < 1:
        raise UsageError(
            f"data 'cityscapes' does not know the option '{option}'.", todo="Write ?scale=4, a whole number."
        )
    return int(value)


def _train_ids() -> Pixels:
    table = np.full(256, IGNORED, dtype=np.uint8)
    table[list(TRAIN_IDS)] = np.arange(len(TRAIN_IDS))
    return table


_TABLE = _train_ids()
