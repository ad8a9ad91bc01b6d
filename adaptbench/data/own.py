"""Samples of one's own as a split: tensors, arrays, a torch data set or loader."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from adaptbench.adaptive.splits import Role, Split
from adaptbench.data.base import ROLES
from adaptbench.errors import DataFormatError, DomainError, UsageError

_log = logging.getLogger(__name__)

_ON_A_LEVEL = 1e-3
_APART = 1 << 40
"""Ids of one role begin this far from those of the one before."""


def split(
    x: Any, y: Any = None, *, role: Role, name: str = "own", class_names: Sequence[str] | int | None = None
) -> Split:
    """Samples with a role, which decides what they may be used for.

    Args:
        x: pictures (N, C, H, W), 8-bit or floats in [0, 1]; token ids (N, L), integers; or series
            (N, C, T), floats in a unit of their own; a tensor or an array. Or a
            torch `Dataset` or `DataLoader` of (picture, label), in the data set's own order.
            Splits hold pictures in 8 bits, as cameras, files and attackers have them: floats are rounded to the
            nearest of 256 levels, at most 1/510 away, and a warning is logged where that changes them. Series and
            ids are not rounded: what has no such levels is given as a series.
        y: (N,) labels from 0 on; None with a data set.
        role: "train", "calibration" or "test".
        name: of the data, as records have it.
        class_names: one a class, or how many there are; None: as many as the largest label says.

    Raises:
        UsageError: no such role, or of another form. DomainError: floating pictures outside [0, 1].
        DataFormatError: labels that are no classes, or a data set that gives something else.

    >>> part = split(torch.rand(4, 1, 8, 8), [0, 1, 1, 2], role="calibration")
    >>> len(part), part.x.dtype, part.class_names
    (4, torch.uint8, ('class 0', 'class 1', 'class 2'))
    """
    if role not in ROLES:
        raise UsageError(f"there is no role '{role}'.", todo=f"Roles: {', '.join(ROLES)}.")
    if y is None:
        x, y = _drawn(x)
    try:
        given, labels = (torch.as_tensor(v).detach().cpu() for v in (x, y))
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"a {type(x).__name__} and a {type(y).__name__} are no tensors of samples and labels: {error}",
            todo="Give tensors or arrays of numbers, or a torch Dataset or DataLoader alone.",
        ) from error
    inputs = _inputs(given)
    if labels.is_floating_point() or labels.is_complex() or labels.ndim != 1:
        raise DataFormatError(
            f"the labels are {labels.dtype} of shape {tuple(labels.shape)}.",
            why="One-hot, soft or fractional labels are none of the classes.",
            todo="Give whole numbers from 0 on, one a sample: y.argmax(1).",
        )
    labels = labels.to(torch.int64)
    if class_names is None:
        class_names = int(labels.max()) + 1 if len(labels) else 0
    names = tuple(f"class {c}" for c in range(class_names)) if isinstance(class_names, int) else tuple(class_names)
    ids = torch.arange(len(labels)) + ROLES.index(role) * _APART
    return Split(name, role, inputs, labels, ids, names)


def _inputs(x: Tensor) -> Tensor:
    """8-bit pictures, int64 token ids, or float32 series."""
    if x.is_floating_point() and x.ndim == 3:
        return x.to(torch.float32)
    if x.is_floating_point():
        low, high = (float(v) for v in torch.aminmax(x)) if x.numel() else (0.0, 0.0)
        if not (low >= 0 and high <= 1):
            raise DomainError(
                f"the pictures span [{low:.4g}, {high:.4g}].",
                why="Pictures are 8-bit, or floats in [0, 1]; the normaliser belongs inside the net.",
                todo="Give raw pictures, and ab.Normalise as the net's first layer.",
            )
        levels = (x * 255).round()
        if x.numel() and (far := float((x * 255 - levels).abs().amax())) > _ON_A_LEVEL:
            _log.warning(
                "float pictures are rounded to 8 bits, by %.3g of a level at most: splits hold 256 levels",
                round(far, 3),
            )
        return levels.to(torch.uint8)
    return x if x.dtype == torch.uint8 else x.to(torch.int64)


def _drawn(given: Any) -> tuple[Tensor, Tensor]:
    """Every sample of a data set, in its order."""
    source: Any = given.dataset if isinstance(given, DataLoader) else given
    if isinstance(given, DataLoader) and isinstance(source, IterableDataset):
        pairs: Iterable[Any] = (pair for batch in given for pair in zip(*batch, strict=True))
    elif isinstance(source, Dataset) and hasattr(source, "__len__"):
        pairs = (source[i] for i in range(len(source)))
    elif isinstance(source, IterableDataset):
        pairs = source
    else:
        raise UsageError(
            f"a {type(given).__name__} was given as the data.",
            todo="Give the name of a data set, a Split, (images, labels), or a torch Dataset or DataLoader of them.",
        )
    xs: list[Tensor] = []
    ys: list[int] = []
    try:
        for picture, label in pairs:
            xs.append(_picture(picture))
            ys.append(int(label))
        return torch.stack(xs), torch.tensor(ys, dtype=torch.int64)
    except Exception as error:  # whatever a data set of one's own gives or raises
        raise DataFormatError(
            f"sample {len(ys)} of {type(source).__name__} could not be taken: "
            f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
            why="Each sample is (picture, label), all pictures of one shape.",
            todo="Wrap it in a Dataset that gives that; resize in its transform.",
        ) from error


def _picture(given: Any) -> Tensor:
    """(C, H, W) of a tensor, or of an array or PIL picture (H, W[, C])."""
    if isinstance(given, Tensor):
        return given
    array = np.asarray(given)
    if array.ndim == 2:
        array = array[None]
    elif array.ndim == 3 and array.shape[2] in (1, 3) and array.shape[0] not in (1, 3):
        array = array.transpose(2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(array))
