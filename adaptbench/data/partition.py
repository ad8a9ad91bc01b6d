"""Fixed, stratified cuts of a labelled set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from adaptbench.errors import UsageError

Indices = NDArray[np.int64]
Pixels = NDArray[np.uint8]

SEED = 20190625


def stratified_cut(labels: Indices, sizes: Sequence[int], *, seed: int = SEED) -> list[Indices]:
    """Cut 0 … N−1 into disjoint parts that each hold the classes in the proportions of the whole.

    Every class is shuffled and its members are spread evenly over [0, 1); the parts are consecutive stretches of that
    line. So a part's count of a class is its exact share, give or take a sample or two. Each part is then shuffled: its
    first n samples are a fair sample of it.

    Args:
        labels: (N,) class of each sample.
        sizes: of the parts; they add up to N.
        seed: of the shuffles. The generator is MT19937 of NumPy's frozen legacy interface: the cut is the same with
            every NumPy release.

    Returns:
        One index array a part.

    Raises:
        UsageError: the sizes do not add up.
    """
    if sum(sizes) != len(labels) or min(sizes, default=0) < 0:
        raise UsageError(
            f"parts of {list(sizes)} samples were asked of {len(labels)}.", todo="Give sizes that add up to all."
        )
    rng = np.random.RandomState(seed)
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        place[members] = (np.arange(len(members)) + rng.random_sample()) / len(members)
    order = np.argsort(place, kind="stable")
    parts = np.split(order, np.cumsum(sizes)[:-1])
    return [part[rng.permutation(len(part))] for part in parts]
