"""From the words a user types to a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adaptbench.data.checked import CheckedData, guarded
from adaptbench.data.places import at_home
from adaptbench.errors import UsageError
from adaptbench.registry import DATA


def load_data(spec: str, *, root: Path | str | None = None, download: bool = False) -> CheckedData:
    """The data set that a specification names; pictures are read when a split is first asked for.

    A registered class is called as ``cls(argument, root=root, download=download)``.

    Args:
        spec: a registered name ("digits", "fashion-mnist", "cifar10"), or ``name:argument`` where the data set
            takes one ("imagefolder:photos?size=96").
        root: the folder to look in; without it ADAPTBENCH_DATA, ./data and ~/.cache/adaptbench are tried in turn.
        download: fetch published files that are missing.

    Raises:
        UnknownNameError: no such data set; the message offers the nearest name.
        UsageError: an argument where none is taken, or none where one is needed.
        DataMissingError: the files are in none of the places.
        DataFormatError: it is no data set, or one whose labels, ids, classes or pictures do not fit together; what
            only the samples show comes when a split is first asked for.

    >>> load_data("digits").split("test").images(0, 4).shape
    torch.Size([4, 1, 8, 8])
    """
    name, _, argument = spec.strip().partition(":")
    make: Any = guarded(lambda: DATA.load(name.strip()), spec)
    if argument and not getattr(make, "takes_argument", False):
        raise UsageError(f"data '{spec}': '{name}' takes no argument.", todo=f"Write '{name}'.")
    place = at_home(root) if root is not None else None
    return CheckedData(guarded(lambda: make(argument, root=place, download=download), spec), spec)
