"""A made set with a label for every pixel: scikit-learn's digits, pasted on textures that are drawn here.

Synthetic by construction: nothing was photographed, no annotator drew an outline. It is there so that nets that answer
every pixel can be trained and measured from what every installation holds.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adaptbench.adaptive.splits import IGNORED, Role
from adaptbench.data.base import ROLES, OfPixels, StoredData
from adaptbench.data.digits import Digits
from adaptbench.data.partition import Indices

SIDE = 32
SIZES: dict[Role, int] = {"train": 3200, "calibration": 1000, "test": 1000}
SEED = 20240611
_INK, _EDGE = 0.5, 0.25
_SCALES = (12, 27)
_MOST = 2

Picture = NDArray[np.float64]


class PastedDigits(StoredData):
    """5 200 pictures (3, 32, 32) of one or two digits on a texture; 3 200 train, 1 000 calibration, 1 000 test.

    Classes: the background and ten digits. A pixel belongs to a digit where at least half of the ink covers it; where a
    quarter to a half does, it is ignored, as are uncertain borders in hand-made annotations. A digit is 12 to 26 pixels
    high, of one colour, at a contrast between faint and strong; later ones lie on top. Textures are smooth noise of two
    scales, stripes, checks, or flat, with grain of a strength of its own for each picture. Pictures of a role show that
    role's digits only (see `Digits`). Everything follows from `SEED` by sums and products of doubles, so that the bytes
    are the same everywhere. An id is the picture's place, training first.
    """

    name = "pasted-digits"
    class_names = ("background", *Digits.class_names)
    shape = (3, SIDE, SIDE)
    notes = ("made, not photographed: scikit-learn's digits pasted on drawn textures",)

    def _read(self, role: Role) -> tuple[OfPixels, Indices]:
        x, y = _made(role)
        before = sum(SIZES[other] for other in ROLES[: ROLES.index(role)])
        return OfPixels(x.copy(), y.copy()), np.arange(before, before + len(x))


@cache
def _made(role: Role) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    glyphs = Digits().split(role)
    ink, classes = glyphs.x[:, 0].numpy() / 255.0, glyphs.y.numpy()
    rng = np.random.RandomState(SEED + ROLES.index(role))
    x = np.empty((SIZES[role], 3, SIDE, SIDE), dtype=np.uint8)
    y = np.empty((SIZES[role], SIDE, SIDE), dtype=np.uint8)
    for i in range(len(x)):
        x[i], y[i] = _scene(rng, ink, classes)
    return x, y


def _scene(rng: np.random.RandomState, ink: Picture, classes: Indices) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """One picture (3, H, W) and its labels (H, W)."""
    picture = _texture(rng)
    labels = np.zeros((SIDE, SIDE), dtype=np.uint8)
    for _ in range(rng.randint(1, _MOST + 1)):
        which, high = rng.randint(len(ink)), rng.randint(*_SCALES)
        top, left = rng.randint(0, SIDE - high + 1, 2)
        place = np.s_[top : top + high, left : left + high]
        cover = _resized(ink[which], high, high)
        under = picture[:, *place].mean((1, 2))
        colour = np.where(under < 0.5, under + rng.uniform(0.25, 0.6), under - rng.uniform(0.25, 0.6))
        colour = np.clip(colour + rng.uniform(-0.15, 0.15, 3), 0.0, 1.0)
        picture[:, *place] += cover * (colour[:, None, None] - picture[:, *place])
        here = labels[place]
        here[cover >= _EDGE] = IGNORED
        here[cover >= _INK] = classes[which] + 1
    grain = rng.uniform(0.0, 0.08)
    picture += grain * (rng.random_sample(picture.shape) - 0.5) * 2.0
    return np.round(255.0 * np.clip(picture, 0.0, 1.0)).astype(np.uint8), labels


def _texture(rng: np.random.RandomState) -> Picture:
    """(3, H, W) in [0, 1]: two colours, mixed by a pattern."""
    one = rng.uniform(0.1, 0.9, 3)
    other = np.clip(one + rng.uniform(-0.35, 0.35, 3), 0.0, 1.0)
    kind = rng.randint(4)
    if kind == 0:
        mix = np.zeros((SIDE, SIDE))
    elif kind == 1:
        coarse, fine = rng.randint(3, 7), rng.randint(8, 17)
        mix = 0.6 * _noise(rng, coarse) + 0.4 * _noise(rng, fine)
    else:
        rows, columns = np.mgrid[:SIDE, :SIDE]
        across, down, wide = rng.randint(-3, 4), rng.randint(-3, 4), rng.randint(4, 16)
        stripes = (across * columns + (down or 1) * rows) // wide % 2
        checks = (columns // wide + rows // wide) % 2
        mix = (stripes if kind == 2 else checks).astype(np.float64)
    return one[:, None, None] + mix * (other - one)[:, None, None]


def _noise(rng: np.random.RandomState, cells: int) -> Picture:
    return _resized(rng.random_sample((cells, cells)), SIDE, SIDE)


class _Axis(NamedTuple):
    """Where each of n places lies among m: two neighbours, and the share of the second."""

    left: Indices
    right: Indices
    share: Picture


@cache
def _axis(m: int, n: int) -> _Axis:
    place = np.clip((np.arange(n) + 0.5) * m / n - 0.5, 0, m - 1)
    left = place.astype(np.int64)
    return _Axis(left, np.minimum(left + 1, m - 1), place - left)


def _resized(grid: Picture, high: int, wide: int) -> Picture:
    """Bilinear, edges held."""
    rows, columns = _axis(grid.shape[0], high), _axis(grid.shape[1], wide)
    tall = grid[rows.left] + rows.share[:, None] * (grid[rows.right] - grid[rows.left])
    return tall[:, columns.left] + columns.share * (tall[:, columns.right] - tall[:, columns.left])
