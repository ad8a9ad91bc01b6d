"""The 8×8 digits that scikit-learn carries: real pictures, no file, no network."""

from __future__ import annotations

from functools import cache

import numpy as np

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
    from sklearn.datasets import load_digits  # takes a second: only when digits are wanted

    bunch = load_digits()
    x = np.round(bunch.images * (255.0 / 16.0)).astype(np.uint8)[:, None]
    return Labelled(x, bunch.target.astype(np.int64))
