"""Pictures in folders, one folder a class."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import parse_qsl

import numpy as np

from adaptbench.adaptive.splits import Role
from adaptbench.data.base import ROLES, Labelled, StoredData, is_plain
from adaptbench.data.folder_scan import LeftOut, entries, once, pictures_below
from adaptbench.data.packed import archive
from adaptbench.data.partition import Indices
from adaptbench.data.pictures import SUFFIXES, read_picture, shown
from adaptbench.data.places import at_home, expandable
from adaptbench.errors import DataFormatError, DataMissingError, UsageError
from adaptbench.registry import did_you_mean

_log = logging.getLogger(__name__)

_ALIASES: dict[str, Role] = {
    "train": "train",
    "training": "train",
    "val": "calibration",
    "valid": "calibration",
    "validation": "calibration",
    "dev": "calibration",
    "calib": "calibration",
    "calibration": "calibration",
    "test": "test",
    "testing": "test",
}
_OPTIONS = ("size", "fit")
_SHARES: dict[Role, int] = {"train": 60, "calibration": 20, "test": 20}  # of 100
_WHOLE = ""  # the part that is cut by hash into all three


class ImageFolder(StoredData):
    """``imagefolder:PATH`` or ``imagefolder:PATH?size=96&fit=stretch``; every picture RGB, (3, size, size) uint8.

    Layouts: PATH/train/CLASS/…, PATH/val/CLASS/…, PATH/test/CLASS/…; or PATH/CLASS/…, cut 60 : 20 : 20 by the hash of
    each file's bytes, so that copies of a picture stay on one side and renaming moves nothing. Where only two of the
    three folders exist, the later one is the test split and a fifth of the earlier one, by hash, the calibration split;
    a single one is cut like PATH/CLASS. The calibration folder may also be called valid, validation, dev, calib or
    calibration. An id is the place in the sorted list of all files.

    Links are followed. Hidden folders, class folders without pictures and files of other formats are left out, and
    `notes` says so. Transparent pictures are laid on white, 16-bit ones scaled to 8.

    Args:
        argument: the path, with options after the last "?": `size` in pixels (224); `fit` = "crop" (shorter side to
            `size`, centre cut out) or "stretch".
        root: a relative path that does not exist is looked for here too.
        download: of no use here; nothing is published.

    Raises:
        UsageError: no path, or an unknown option.
        DataMissingError: no such folder.
        DataFormatError: no class folders, the splits have different classes, one file in two places, or folders that
            may be parts or classes.
    """

    takes_argument = True

    def __init__(self, argument: str = "", *, root: Path | None = None, download: bool = False) -> None:
        super().__init__(argument, root=root, download=download)
        text, options = _path_and_options(argument, root)
        if not text:
            raise UsageError("data 'imagefolder' names no folder.", todo="Write imagefolder:PATH.")
        self.size, self.fit = _options(argument, options)
        self.path = _folder(text, root)
        self.name = f"imagefolder-{shown(self.path.resolve().name)}"
        self.shape = (3, self.size, self.size)
        self._left_out = LeftOut(self.path)
        parts = _parts(self.path, self._left_out)
        pictures, self.class_names = _classes(self.path, parts, self._left_out)
        self._parts = tuple(parts)
        labelled = (
            _Picture(part, file, self.class_names.index(name))
            for (part, name), files in pictures.items()
            for file in files
        )
        self._files = sorted(labelled, key=lambda picture: picture.file.relative_to(self.path).as_posix())
        if said := self._left_out.sentence():
            self._note(said)

    def _note(self, said: str) -> None:
        self.notes = (*self.notes, f"{self.name}: {said}")
        _log.warning("%s: %s", self.name, said)

    @cached_property
    def _shares(self) -> list[int]:
        """0 … 99 for each file, from its bytes."""
        return [_share(picture.file) for picture in self._files]

    def _role(self, row: int) -> Role:
        part = self._files[row].part
        if part == _WHOLE:
            share = self._shares[row]
            if share < _SHARES["train"]:
                return "train"
            return "calibration" if share < _SHARES["train"] + _SHARES["calibration"] else "test"
        role = _ALIASES[part]
        if len(self._parts) == 3:
            return role
        # With two, the later one is the claim and the earlier one also calibrates.
        if part == self._parts[1]:
            return "test"
        return "calibration" if self._shares[row] < _SHARES["calibration"] else "train"

    def _read(self, role: Role) -> tuple[Labelled, Indices]:
        rows = [row for row in range(len(self._files)) if self._role(row) == role]
        if not rows:
            raise DataFormatError(
                f"{shown(self.path)} has no pictures for the {role} split.",
                why=f"Looked for {', '.join(sorted(SUFFIXES))}.",
                todo="Add pictures, or lay them out in train, val and test folders.",
            )
        x = np.empty((len(rows), *self.shape), dtype=np.uint8)
        remarks: Counter[str] = Counter()
        for place, row in enumerate(rows):
            x[place], told = read_picture(self._files[row].file, self.size, self.fit)
            remarks.update(told)
        for remark, n in remarks.items():
            self._note(f"{n} of {len(rows)} {role} pictures are {remark}")
        y = np.array([self._files[row].label for row in rows], dtype=np.int64)
        # Files come class by class; the first n of a split should be a fair sample of it.
        order = np.random.RandomState(0).permutation(len(rows))
        return Labelled(x[order], y[order]), np.array(rows, dtype=np.int64)[order]


@dataclass(frozen=True, slots=True)
class _Picture:
    part: str
    file: Path
    label: int


def _parts(path: Path, left_out: LeftOut) -> dict[str, Path]:
    """Name of each part in lower case → its folder, the earlier role first; `_WHOLE` alone if there is one only."""
    folders, loose = entries(path, left_out)
    for file in loose:
        left_out.add("pictures outside the class folders", file)
    named = [folder for folder in folders if folder.name.lower() in _ALIASES]
    others = [folder for folder in folders if folder not in named]
    roles = [_ALIASES[folder.name.lower()] for folder in named]
    if len(set(roles)) < len(roles):
        raise DataFormatError(
            f"{shown(path)} holds {', '.join(shown(folder.name) + '/' for folder in named)}.",
            why="Two of them name the same split.",
            todo="Keep one of them, or put their pictures together.",
        )
    if not named:
        return {_WHOLE: path}
    silent = LeftOut(path)
    if len(named) == 1 and others:
        if not entries(named[0], silent)[0]:
            return {_WHOLE: path}  # trains among other vehicles
        if any(pictures_below(folder, silent) for folder in others):
            raise DataFormatError(
                f"{shown(path)} holds {shown(named[0].name)}/ with folders in it, beside {left_out.examples(others)}.",
                why="They may be parts of a data set or its classes.",
                todo="Lay the pictures out as PATH/train/CLASS/… and PATH/test/CLASS/…, or as PATH/CLASS/….",
            )
    for folder in others:
        left_out.add("folders that are no part and no class", folder)
    if len(named) == 1:
        return {_WHOLE: named[0]}
    return {folder.name.lower(): folder for _, folder in sorted(zip(map(ROLES.index, roles), named, strict=True))}


def _classes(
    path: Path, parts: dict[str, Path], left_out: LeftOut
) -> tuple[dict[tuple[str, str], list[Path]], tuple[str, ...]]:
    """(part, class) → its pictures, and the classes in order of their labels."""
    folders: dict[str, list[Path]] = {}
    pictures: dict[tuple[str, str], list[Path]] = {}
    for part, folder in parts.items():
        # The top of a folder without parts was looked at already.
        folders[part], loose = entries(folder, LeftOut(path) if folder == path else left_out)
        for file in loose if folder != path else ():
            left_out.add("pictures outside the class folders", file)
        pictures |= {(part, inner.name): pictures_below(inner, left_out) for inner in folders[part]}
    only = [inner for inside in folders.values() for inner in inside]
    if len(only) == 1 and not entries(only[0], LeftOut(path))[1] and any(pictures.values()):
        raise DataFormatError(
            f"{shown(path)} holds one class, {shown(only[0].name)}/, and that only folders.",
            why="With one class every answer is right.",
            todo=f"Name the folder with the classes in it: imagefolder:{shown(only[0])}.",
        )
    pictures = once(pictures, left_out)
    classes = tuple(sorted({name for (_, name), files in pictures.items() if files}))
    _check_classes(path, parts, folders, classes)
    first = next(iter(parts))
    for (part, name), files in pictures.items():
        if not files and part == first and name in classes:
            raise DataFormatError(
                f"{shown(parts[part] / name)} holds no pictures, {shown(name)}/ of another part does.",
                why="A class without training pictures cannot be learned.",
                todo="Add pictures, or remove the class from all parts.",
            )
        if not files:
            left_out.add("class folders without pictures", parts[part] / name)
    return pictures, classes


def _check_classes(
    path: Path, parts: dict[str, Path], folders: dict[str, list[Path]], classes: tuple[str, ...]
) -> None:
    """Refuse no classes at all, parts that differ in them, and names that nothing can print."""
    counts = {part: sum(inner.name in classes for inner in inside) for part, inside in folders.items()}
    if not any(folders.values()) or any(n != len(classes) for n in counts.values()):
        told = "; ".join(f"{shown(parts[part].name)}/ has {n} class folders" for part, n in counts.items())
        if not classes and (found := archive([path])):
            raise expandable(f"{shown(path)}: {told}", found)
        raise DataFormatError(
            f"{shown(path)}: {told}{f', of {len(classes)} classes in all' if classes else ''}.",
            why="A label is the place of a class folder among its siblings, so all parts need the same ones.",
            todo="Lay the pictures out as PATH/train/CLASS/… and PATH/test/CLASS/…, or as PATH/CLASS/….",
        )
    if not classes:
        raise DataFormatError(
            f"{shown(path)} has class folders and no pictures in them.",
            why=f"Looked for {', '.join(sorted(SUFFIXES))}.",
            todo="Add pictures, or name another folder.",
        )
    for name in classes:
        if not is_plain(name):
            raise DataFormatError(
                f"the class folder {shown(name)!r} has a name that cannot be printed.",
                why="Class names stand in records and pages, which are UTF-8.",
                todo="Rename it.",
            )


def _share(file: Path) -> int:
    """0 … 99 from the file's bytes."""
    try:
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").digest()
    except OSError as error:
        raise DataFormatError(
            f"{shown(file)} cannot be read: {error.strerror}.",
            why="Leaving it out silently would change the data set.",
            todo="Mend it, or remove it from the folder.",
        ) from error
    return int.from_bytes(digest[:8], "big") % 100


def _path_and_options(argument: str, root: Path | None) -> tuple[str, str]:
    """The options follow the last "?"; a folder whose own name holds one is found by its whole name."""
    if "?" not in argument or any(_is_folder(path) for path in _looked(argument, root)):
        return argument, ""
    path, _, options = argument.rpartition("?")
    return path, options


def _looked(text: str, root: Path | None) -> list[Path]:
    return list(dict.fromkeys([at_home(text), *([root / text] if root is not None else [])]))


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that is too long, a folder that may not be entered
        return False


def _options(argument: str, options: str) -> tuple[int, str]:
    pairs = parse_qsl(options, keep_blank_values=True)
    given = dict(pairs)
    for key in given:
        if key not in _OPTIONS:
            raise UsageError(
                f"data 'imagefolder:{argument}': no option is called '{key}'.",
                todo=f"{did_you_mean(key, _OPTIONS)}There are: {', '.join(_OPTIONS)}.",
            )
    size, fit = given.get("size", "224"), given.get("fit", "crop")
    sane = len(size) <= 4 and size.isdecimal() and 1 <= int(size) <= 4096
    if not sane or fit not in ("crop", "stretch") or len(pairs) > len(given):
        raise UsageError(
            f"data 'imagefolder:{argument}': size={size[:20]}, fit={fit[:20]}.",
            todo="Give size in pixels (1 … 4096) and fit=crop or fit=stretch, each once.",
        )
    return int(size), fit


def _folder(text: str, root: Path | None) -> Path:
    looked = _looked(text, root)
    for path in looked:
        if _is_folder(path):
            return path
    raise DataMissingError(
        f"imagefolder: there is no folder {' or '.join(shown(path) for path in looked)}.",
        todo="Give the path of a folder with one folder a class.",
    )
