"""Pictures in folders, one folder a class."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from urllib.parse import parse_qsl

import numpy as np

from adaptbench.adaptive.splits import Role
from adaptbench.data.base import ROLES, Labelled, StoredData
from adaptbench.data.partition import Indices, Pixels
from adaptbench.errors import DataFormatError, DataMissingError, UsageError
from adaptbench.registry import did_you_mean

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
_ALIASES: dict[str, Role] = {
    "train": "train",
    "training": "train",
    "val": "calibration",
    "valid": "calibration",
    "validation": "calibration",
    "calibration": "calibration",
    "test": "test",
}
_OPTIONS = ("size", "fit")
_SHARES: dict[Role, int] = {"train": 60, "calibration": 20, "test": 20}  # of 100


class ImageFolder(StoredData):
    """``imagefolder:PATH`` or ``imagefolder:PATH?size=96&fit=stretch``; every picture RGB, (3, size, size) uint8.

    Layouts: PATH/train/CLASS/…, PATH/val/CLASS/…, PATH/test/CLASS/…; or PATH/CLASS/…, cut 60 : 20 : 20 by the hash of
    each file's bytes, so that copies of a picture stay on one side and renaming moves nothing. Where only two of the
    three folders exist, the later one is the test split and a fifth of the earlier one, by hash, the calibration split;
    a single one is cut like PATH/CLASS. An id is the place in the sorted list of all files.

    Args:
        argument: the path, with options after "?": `size` in pixels (224); `fit` = "crop" (shorter side to `size`,
            centre cut out) or "stretch".
        root: a relative path that does not exist is looked for here too.
        download: of no use here; nothing is published.

    Raises:
        UsageError: no path, or an unknown option.
        DataMissingError: no such folder.
        DataFormatError: no class folders, or the splits have different classes.
    """

    takes_argument = True

    def __init__(self, argument: str = "", *, root: Path | None = None, download: bool = False) -> None:
        super().__init__(argument, root=root, download=download)
        text, _, options = argument.partition("?")
        if not text:
            raise UsageError("data 'imagefolder' names no folder.", todo="Write imagefolder:PATH.")
        self.size, self.fit = _options(argument, options)
        self.path = _folder(text, root)
        self.name = f"imagefolder-{self.path.resolve().name}"
        self.shape = (3, self.size, self.size)
        self.class_names = self._layout[1]

    @cached_property
    def _layout(self) -> tuple[dict[Role | None, Path], tuple[str, ...]]:
        """Role → its folder (None: one folder for all), and the classes."""
        named = {role: folder for folder in _folders(self.path) if (role := _ALIASES.get(folder.name.lower()))}
        parts: dict[Role | None, Path] = {}
        if len(named) >= 2:
            # With two, the later one is the claim and the earlier one also calibrates.
            ordered = [role for role in ROLES if role in named]
            parts = (
                {role: named[role] for role in ordered}
                if len(named) == 3
                else {"train": named[ordered[0]], "test": named[ordered[1]]}
            )
        else:
            parts[None] = next(iter(named.values()), self.path)
        classes = {folder: tuple(sorted(c.name for c in _folders(folder))) for folder in parts.values()}
        first = next(iter(classes.values()))
        if not first or set(classes.values()) != {first}:
            raise DataFormatError(
                f"{self.path}: "
                + "; ".join(f"{folder.name}/ has {len(names)} class folders" for folder, names in classes.items())
                + ".",
                why="A label is the place of a class folder among its siblings, so all parts need the same ones.",
                todo="Lay the pictures out as PATH/train/CLASS/… and PATH/test/CLASS/…, or as PATH/CLASS/….",
            )
        return parts, first

    @cached_property
    def _files(self) -> list[tuple[Role | None, Path, int]]:
        """(part, file, label) of every picture, in sorted order: the place here is the id."""
        parts, classes = self._layout
        found = [
            (part, file, label)
            for part, folder in parts.items()
            for label, name in enumerate(classes)
            for file in (folder / name).rglob("*")
            if file.suffix.lower() in SUFFIXES and file.is_file()
        ]
        return sorted(found, key=lambda entry: entry[1].relative_to(self.path).as_posix())

    def _read(self, role: Role) -> tuple[Labelled, Indices]:
        parts = self._layout[0]
        rows = [i for i, (part, file, _) in enumerate(self._files) if _belongs(file, part, role, parts)]
        if not rows:
            raise DataFormatError(
                f"{self.path} has no pictures for the {role} split.",
                why=f"Looked for {', '.join(sorted(SUFFIXES))}.",
                todo="Add pictures, or lay them out in train, val and test folders.",
            )
        x = np.empty((len(rows), *self.shape), dtype=np.uint8)
        for place, row in enumerate(rows):
            x[place] = _picture(self._files[row][1], self.size, self.fit)
        y = np.array([self._files[row][2] for row in rows], dtype=np.int64)
        # Files come class by class; the first n of a split should be a fair sample of it.
        order = np.random.RandomState(0).permutation(len(rows))
        return Labelled(x[order], y[order]), np.array(rows, dtype=np.int64)[order]


def _belongs(file: Path, part: Role | None, role: Role, parts: dict[Role | None, Path]) -> bool:
    if part is None:
        share = _share(file)
        if share < _SHARES["train"]:
            return role == "train"
        return role == ("calibration" if share < _SHARES["train"] + _SHARES["calibration"] else "test")
    if part == "train" and "calibration" not in parts:
        return role == ("calibration" if _share(file) < _SHARES["calibration"] else "train")
    return part == role


def _share(file: Path) -> int:
    """0 … 99 from the file's bytes."""
    return int.from_bytes(hashlib.sha256(file.read_bytes()).digest()[:8], "big") % 100


def _picture(file: Path, size: int, fit: str) -> Pixels:
    """(3, size, size) uint8."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(file) as raw:
            picture = ImageOps.exif_transpose(raw).convert("RGB")
            if fit == "crop":
                picture = ImageOps.fit(picture, (size, size), method=Image.Resampling.BILINEAR)
            else:
                picture = picture.resize((size, size), resample=Image.Resampling.BILINEAR)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataFormatError(
            f"{file} is not a readable picture: {error}.",
            why="Leaving it out silently would change the data set.",
            todo="Mend it, or remove it from the folder.",
        ) from error
    return np.asarray(picture, dtype=np.uint8).transpose(2, 0, 1)


def _options(argument: str, options: str) -> tuple[int, str]:
    given = dict(parse_qsl(options, keep_blank_values=True))
    for key in given:
        if key not in _OPTIONS:
            raise UsageError(
                f"data 'imagefolder:{argument}': no option is called '{key}'.",
                todo=f"{did_you_mean(key, _OPTIONS)}There are: {', '.join(_OPTIONS)}.",
            )
    size, fit = given.get("size", "224"), given.get("fit", "crop")
    if not size.isdecimal() or not 1 <= int(size) <= 4096 or fit not in ("crop", "stretch"):
        raise UsageError(
            f"data 'imagefolder:{argument}': size={size}, fit={fit}.",
            todo="Give size in pixels (1 … 4096) and fit=crop or fit=stretch.",
        )
    return int(size), fit


def _folder(text: str, root: Path | None) -> Path:
    looked = list(dict.fromkeys([Path(text).expanduser(), *([root / text] if root is not None else [])]))
    for path in looked:
        if path.is_dir():
            return path
    raise DataMissingError(
        f"imagefolder: there is no folder {' or '.join(str(path) for path in looked)}.",
        todo="Give the path of a folder with one folder a class.",
    )


def _folders(path: Path) -> list[Path]:
    return sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
