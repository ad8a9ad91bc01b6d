"""From the words a user types to a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptbench.errors import UsageError
from adaptbench.registry import DATA

if TYPE_CHECKING:
    from adaptbench.data.base import DataSet


def load_data(spec: str, *, root: Path | str | None = None, download: bool = False) -> DataSet:
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
    """
    name, _, argument = spec.strip().partition(":")
    make: Any = DATA.load(name.strip())
    if argument and not getattr(make, "takes_argument", False):
        raise UsageError(f"data '{spec}': '{name}' takes no argument.", todo=f"Write '{name}'.")
    data: DataSet = make(argument, root=Path(root).expanduser() if root is not None else None, download=download)
    return data
