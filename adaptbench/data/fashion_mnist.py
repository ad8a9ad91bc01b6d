"""Fashion-MNIST (Xiao, Rasul & Vollgraf 2017, arXiv:1708.07747; MIT licence)."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np

from adaptbench.adaptive.splits import Role
from adaptbench.data.base import Labelled, StoredData
from adaptbench.data.idx import read_idx
from adaptbench.data.partition import Indices, stratified_cut
from adaptbench.data.places import Remote, download_root, missing, search_roots
from adaptbench.errors import DataFormatError

_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
_RAW = "FashionMNIST/raw"
_MD5 = {
    "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
}
REMOTES = tuple(Remote(f"{_URL}/{name}.gz", md5, _RAW) for name, md5 in _MD5.items())
_MOST = 60_000  # records of the longer part, as published
_FOLDERS = (_RAW, "fashion-mnist/FashionMNIST/raw", "FashionMNIST", "fashion-mnist", "")


class FashionMnist(StoredData):
    """70 000 grey garments, (1, 28, 28); 55 000 train, 5 000 calibration (a fixed stratified cut), 10 000 test.

    Reads the four IDX files, gzipped or plain, laid out flat or as torchvision lays them. An id is the place in the
    train file; a test id is the size of the train file + the place in the test file.
    """

    name = "fashion-mnist"
    class_names = (
        "T-shirt/top",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    )
    shape = (1, 28, 28)

    @cached_property
    def folder(self) -> Path:
        """Where the four files are.

        Raises:
            DataMissingError: nowhere.
        """
        folder = self._find()
        if folder is None and self.download:
            for remote in REMOTES:
                remote.fetch(download_root(self.root))
            folder = self._find()
        if folder is None:
            raise missing(
                self.name, self._places(), files="train-images-idx3-ubyte.gz …", remotes=REMOTES, size="30 MB"
            )
        return folder

    def _places(self) -> list[Path]:
        roots = [*search_roots(self.root), *([download_root(self.root)] if self.download else [])]
        return [root / folder for root in dict.fromkeys(roots) for folder in _FOLDERS]

    def _find(self) -> Path | None:
        return next((place for place in self._places() if all(_file(place, name) for name in _MD5)), None)

    def _labels(self, part: str) -> Indices:
        return read_idx(self._path(f"{part}-labels-idx1-ubyte"), item=(), at_most=_MOST).astype(np.int64)

    def _path(self, name: str) -> Path:
        return _file(self.folder, name) or self.folder / name

    def _read(self, role: Role) -> tuple[Labelled, Indices]:
        train = self._labels("train")
        if role == "test":
            y = self._labels("t10k")
            return Labelled(self._pictures("t10k", len(y)), y), len(train) + np.arange(len(y))
        held_out = len(train) // 12
        cut = stratified_cut(train, [len(train) - held_out, held_out])
        rows = cut[0 if role == "train" else 1]
        return Labelled(self._pictures("train", len(train))[rows], train[rows]), rows

    def _pictures(self, part: str, n_labels: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        path = self._path(f"{part}-images-idx3-ubyte")
        x = read_idx(path, item=self.shape[1:], at_most=_MOST)
        if len(x) != n_labels:
            raise DataFormatError(
                f"{path}: {len(x)} pictures for {n_labels} labels.",
                why="They are not of the same data set.",
                todo="Fetch both files again.",
            )
        return x[:, None]


def _file(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / f"{name}.gz", folder / name) if path.is_file()), None)
