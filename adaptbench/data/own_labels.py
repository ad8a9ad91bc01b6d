"""Labels in a file of one's own, and how its parts become the three splits."""

from __future__ import annotations

import numpy as np

from adaptbench.adaptive.splits import Role
from adaptbench.data.base import ROLES
from adaptbench.data.own_inputs import Array, Bad
from adaptbench.data.partition import Indices, stratified_cut

_FIFTH = 5


def classes_of(given: list[Array], bad: Bad) -> tuple[tuple[str, ...], list[Indices]]:
    """Names of the classes in sorted order, and each part's labels as places in them."""
    every = np.concatenate([y.reshape(len(y), -1)[:, 0] for y in given])
    if any(y.size != len(y) for y in given):
        raise bad("its labels are not one an input (one-hot?)")
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


def place_of(role: str) -> int:
    """Of a part in the file's order of ids."""
    return ROLES.index(role) if role in ROLES else 0


def cut(labels: dict[str, Indices], bad: Bad) -> dict[Role, tuple[str, Indices]]:
    """Role → the part of the file that it is taken from, and rows there."""
    if "" in labels:
        n = len(labels[""])
        fifth = n // _FIFTH
        if not fifth:
            raise bad(f"{n} inputs cannot be cut into three splits")
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
