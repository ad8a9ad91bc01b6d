"""The 8×8 digits that scikit-learn carries: real pictures, no file, no network."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adaptbench.adaptive.splits import Role
from adaptbench.data.base import ROLES, Labelled, StoredData
from adaptbench.data.partition import Indices, stratified_cut

SIZES: dict[Role, int] = {"train": 1077, "calibration": 360, "test": 360}


class Digits(StoredData):
    """1 797 handwritten digits, (1, 8, 8); 1 077 train, 360 calibration, 360 test.

    Grey levels 0 … 16 become round(255·v/16). Source: UCI Optical Recognition of Handwritten Digits (Alpaydin & Kaynak
    1998), its test part, as in `sklearn.datasets.load_digits`. An id is the sample's place there.
    """

    name = "digits"
    class_names = tuple("0123456789")
    shape = (1, 8, 8)

    def _read(self, role: Role) -> tuple[Labelled, Indices]:
        whole = _read_all()
        rows = stratified_cut(whole.y, [SIZES[r] for r in ROLES])[ROLES.index(role)]
        return Labelled(whole.x[rows], whole.y[rows]), rows


@cache
def _read_all() -> Labelled:
    table = _table()
    x = np.round(table[:, :-1].reshape(-1, 8, 8) * (255.0 / 16.0)).astype(np.uint8)[:, None]
    return Labelled(x, table[:, -1].astype(np.int64))


def _table() -> NDArray[np.float64]:
    """(1797, 65) grey levels 0 … 16 and the class, from scikit-learn's own file: importing it all takes a second."""
    found = find_spec("sklearn")
    file = Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz" if found and found.origin else None
    if file is not None and file.is_file():
        return np.loadtxt(file, delimiter=",", dtype=np.float64)
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return np.column_stack([bunch.data, bunch.target]).astype(np.float64)
