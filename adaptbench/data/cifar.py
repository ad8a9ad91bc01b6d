"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images")."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from adaptbench.adaptive.splits import Role
from adaptbench.data import cifar_files, packed
from adaptbench.data.base import Labelled, StoredData
from adaptbench.data.partition import Indices, stratified_cut
from adaptbench.data.places import Remote, download_root, missing, search_roots
from adaptbench.errors import DataFormatError

_URL = "https://www.cs.toronto.edu/~kriz"
# Test ids follow the train file's, whichever format the pictures were read from.
_N_TRAIN = cifar_files.MOST


class _Cifar(StoredData):
    """Reads, in this order: the binary version, an .npz, the python batches with their published md5."""

    shape = (3, 32, 32)
    files: ClassVar[cifar_files.Layout]
    remote: ClassVar[Remote]

    @cached_property
    def source(self) -> tuple[Path, cifar_files.Reader]:
        """Where the pictures are, and what reads them.

        Raises:
            DataMissingError: nowhere.
        """
        source = self._find()
        if source is None and self.download:
            self.remote.fetch(download_root(self.root))
            source = self._find()
        if source is None:
            wanted = f"{self.files.binary_folder}, {self.files.npz} or {self.files.python_folder}"
            found = packed.compact_pictures(self._places(), self.name, self.files.python_folder, self.files.npz)
            found = found or packed.archive(self._places(), self.files.archives)
            raise missing(self.name, self._places(), files=wanted, remotes=(self.remote,), size="170 MB", packed=found)
        return source

    def _places(self) -> list[Path]:
        roots = [*search_roots(self.root), *([download_root(self.root)] if self.download else [])]
        return [root / folder for root in dict.fromkeys(roots) for folder in ("", self.name)]

    def _find(self) -> tuple[Path, cifar_files.Reader] | None:
        for place in self._places():
            for name, reader in self.files.readers().items():
                if (place / name).exists():
                    return place / name, reader
        return None

    def _read(self, role: Role) -> tuple[Labelled, Indices]:
        path, reader = self.source
        x, y = reader(path, self.files, "test" if role == "test" else "train")
        if len(x) != len(y) or len(y) > _N_TRAIN:
            raise DataFormatError(
                f"{path}: {len(x)} pictures and {len(y)} labels.",
                why=f"Each picture has one label, and no part has more than {_N_TRAIN}.",
                todo="Fetch the files again.",
            )
        if role == "test":
            return Labelled(x, y), _N_TRAIN + np.arange(len(y))
        held_out = len(y) // 10
        rows = stratified_cut(y, [len(y) - held_out, held_out])[0 if role == "train" else 1]
        return Labelled(x[rows], y[rows]), rows


class Cifar10(_Cifar):
    """60 000 colour pictures, (3, 32, 32); 45 000 train, 5 000 calibration (a fixed stratified cut), 10 000 test.

    An id is the place in the train files in order; a test id is 50 000 + the place in the test file.
    """

    name = "cifar10"
    class_names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    files = cifar_files.CIFAR10
    remote = Remote(f"{_URL}/cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530", "cifar10", archive=True)


class Cifar100(_Cifar):
    """60 000 colour pictures, (3, 32, 32), 100 fine classes; cut like CIFAR-10."""

    name = "cifar100"
    # fmt: off
    class_names = (
        "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle", "bowl",
        "boy", "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle", "chair", "chimpanzee",
        "clock", "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant",
        "flatfish", "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower",
        "leopard", "lion", "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom",
        "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree", "plain", "plate",
        "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road", "rocket", "rose", "sea", "seal", "shark",
        "shrew", "skunk", "skyscraper", "snail", "snake", "spider", "squirrel", "streetcar", "sunflower",
        "sweet_pepper", "table", "tank", "telephone", "television", "tiger", "tractor", "train", "trout", "tulip",
        "turtle", "wardrobe", "whale", "willow_tree", "wolf", "woman", "worm",
    )
    # fmt: on
    files = cifar_files.CIFAR100
    remote = Remote(f"{_URL}/cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8", "cifar100", archive=True)
