"""What a data set is, and the common part of those that read files."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, NamedTuple, Protocol, get_args, runtime_checkable
from unicodedata import category

import numpy as np
import torch
from numpy.typing import NDArray

from adaptbench.adaptive.splits import Role, Split
from adaptbench.data.partition import Indices, Pixels
from adaptbench.errors import DataFormatError, UsageError

_log = logging.getLogger(__name__)

ROLES: tuple[Role, ...] = get_args(Role)


@runtime_checkable
class DataSet(Protocol):
    """Pictures or texts of C classes in three disjoint roles.

    A plug-in registers a callable ``(argument: str, *, root: Path | None, download: bool) -> DataSet`` under the
    entry-point group ``adaptbench.data``; `adaptbench.testing.data.DataConformance` checks what it returns.
    """

    @property
    def name(self) -> str:
        """The name, as splits and reports carry it."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name a class; the label is the position."""

    @property
    def n_classes(self) -> int:
        """How many classes there are."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of every picture, (L,) of texts as rows of L token ids, (C, T) of series."""

    def split(self, role: Role) -> Split:
        """The samples of one role: the same ones in the same order at every call."""


def is_plain(name: object) -> bool:
    """Whether a name can stand in records, on pages and in a terminal: text, not blank, no control characters."""
    return isinstance(name, str) and bool(name.strip()) and not any(category(c) in ("Cc", "Cs") for c in name)


class OfPixels(NamedTuple):
    """Pictures x (N, C, H, W) uint8 as a file holds them, and a label for every pixel: y (N, H, W) uint8."""

    x: Pixels
    y: Pixels


class Labelled(NamedTuple):
    """Samples as a file holds them: x (N, C, H, W) uint8, (N, L) int64 ids or (N, C, T) float32; y (N,) int64."""

    x: Pixels | Indices | NDArray[np.float32]
    y: Indices


class StoredData(ABC):
    """A data set read from files, a role at a time, each once.

    Subclasses give the names and `_read`; this class checks what they read and keeps it.
    """

    takes_argument: ClassVar[bool] = False
    name: str
    class_names: tuple[str, ...]
    shape: tuple[int, ...]
    notes: tuple[str, ...] = ()
    """What a reader of the figures should know of the files: what was left out, what was converted."""

    def __init__(self, argument: str = "", *, root: Path | None = None, download: bool = False) -> None:
        self.argument, self.root, self.download = argument, root, download
        self._splits: dict[Role, Split] = {}

    @property
    def n_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    def split(self, role: Role) -> Split:
        """The samples of one role, read at the first call and kept.

        Raises:
            UsageError: no such role.
            DataMissingError: the files are in none of the places looked at.
            DataFormatError: a file is not what its name says.
        """
        if role not in ROLES:
            raise UsageError(f"'{self.name}' has no split '{role}'.", todo=f"Ask for one of: {', '.join(ROLES)}.")
        if role not in self._splits:
            self._splits[role] = self._make(role)
        return self._splits[role]

    def _make(self, role: Role) -> Split:
        (x, y), ids = self._read(role)
        if x.shape[1:] != self.shape:
            raise DataFormatError(
                f"'{self.name}' holds inputs of shape {x.shape[1:]}, not {self.shape}.",
                why="The models of this data set are built for its published shape.",
            )
        if not (np.issubdtype(y.dtype, np.integer) and np.issubdtype(ids.dtype, np.integer)):
            raise DataFormatError(f"'{self.name}' gives labels of {y.dtype} and ids of {ids.dtype}, not integers.")
        _log.debug("%s, %s: %d samples", self.name, role, len(y))
        return Split(
            name=self.name,
            role=role,
            x=torch.from_numpy(np.ascontiguousarray(x)),
            y=torch.from_numpy(y if y.ndim == 3 else y.astype(np.int64)),
            ids=torch.from_numpy(ids.astype(np.int64)),
            class_names=self.class_names,
        )

    @abstractmethod
    def _read(self, role: Role) -> tuple[Labelled | OfPixels, Indices]:
        """Writable inputs and labels of one role, and each sample's id."""
