"""The one check that every data set passes when it is loaded, shipped or plug-in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

from adaptbench.adaptive.splits import Role, Split, hash_samples
from adaptbench.data.base import ROLES, DataSet, is_plain
from adaptbench.errors import AdaptBenchError, DataFormatError, UsageError

_T = TypeVar("_T")


class CheckedData:
    """A data set that is what the protocol says; each split is checked at its first use and kept.

    Args:
        data: what a registered class made.
        spec: the words it was made from, for messages.

    Raises:
        DataFormatError: it is no data set, or does not describe itself.
    """

    def __init__(self, data: DataSet, spec: str) -> None:
        self._data, self._spec = data, spec
        self._splits: dict[Role, Split] = {}
        if not isinstance(data, DataSet):
            raise self._bad(f"is a {type(data).__name__} without name, class_names, n_classes, shape and split(role)")
        self.name, self.class_names, self.shape = data.name, tuple(data.class_names), data.shape
        self.n_classes = data.n_classes
        if not is_plain(self.name):
            raise self._bad(f"has the name {self.name!r}")
        if not self.class_names or not all(map(is_plain, self.class_names)):
            raise self._bad("has no plain names for its classes")
        if not self.n_classes == len(self.class_names) == len(set(self.class_names)):
            raise self._bad(f"has {self.n_classes} classes and {len(set(self.class_names))} different names for them")
        if (
            not isinstance(self.shape, tuple)
            or len(self.shape) not in (1, 2, 3)
            or not all(isinstance(n, int) and n > 0 for n in self.shape)
        ):
            raise self._bad(f"has inputs of shape {self.shape}, not (C, H, W), (C, T) or (L,)")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_data"], name)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the figures should know of the files: what was left out, what was converted."""
        return tuple(str(note) for note in getattr(self._data, "notes", ()))

    def split(self, role: Role) -> Split:
        """The samples of one role.

        Raises:
            UsageError: no such role.
            DataFormatError: the split is empty, of another shape, role, class list, data set or hash, or shares
                ids with one that was read before.
        """
        if role not in ROLES:
            raise UsageError(f"'{self.name}' has no split '{role}'.", todo=f"Ask for one of: {', '.join(ROLES)}.")
        if role not in self._splits:
            self._splits[role] = self._check(role, guarded(lambda: self._data.split(role), self._spec))
        return self._splits[role]

    def _check(self, role: Role, split: Split) -> Split:
        if not isinstance(split, Split):
            raise self._bad(f"gives a {type(split).__name__} as its {role} split, not a Split")
        if not len(split):
            raise self._bad(f"has no samples in its {role} split")
        for what, seen, wanted in (
            ("role", split.role, role),
            ("name", split.name, self.name),
            ("classes", split.class_names, self.class_names),
            ("shape", split.shape, self.shape),
            ("hash", split.sha256, hash_samples(split.x, split.y)),
        ):
            if seen != wanted:
                raise self._bad(f"gives a {role} split whose {what} is {seen!r}, not {wanted!r}")
        for other in self._splits.values():
            shared = int(torch.isin(split.ids, other.ids).sum())
            if shared:
                raise self._bad(f"gives {shared} of the {role} split's ids to its {other.role} split too")
        return split

    def _bad(self, what: str) -> DataFormatError:
        return DataFormatError(
            f"data '{self._spec}' {what}.",
            why="Figures from such a set would look right and mean nothing.",
            todo="`adaptbench.testing.data.DataConformance` finds what else is wrong with a data set of your own.",
        )


def guarded(make: Callable[[], _T], spec: str) -> _T:
    """What `make` gives; whatever a data set's own code raises is told as its fault.

    Raises:
        DataFormatError: it raised something of its own.
    """
    try:
        return make()
    except AdaptBenchError:
        raise
    except Exception as error:
        raise DataFormatError(
            f"data '{spec}' could not be read: {type(error).__name__}: {error}",
            why="The data set's own code raised it.",
            todo="Mend that code, or the files that it reads.",
        ) from error
