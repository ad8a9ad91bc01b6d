"""Nets and pictures that another machine makes from its own files: by their names, under their hashes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from adaptbench.adaptive import AdaptiveModel, Split
from adaptbench.data import load_data
from adaptbench.data.base import DataSet
from adaptbench.experiment.engines import Part
from adaptbench.experiment.keys import model_hash, split_hash
from adaptbench.experiment.options import Options
from adaptbench.zoo.factories import load_net


@dataclass(frozen=True, slots=True)
class Places:
    """Of a run's options, what things are looked for by; on each machine among its own files.

    Args:
        data_root, zoo, allow_imports: as in `Options`. device: kind; a worker has one of its own.
    """

    data_root: Path | None
    zoo: Path | None
    allow_imports: bool
    device: str

    @classmethod
    def of(cls, options: Options) -> Places:
        """Of some options."""
        return cls(options.data_root, options.zoo, options.allow_imports, options.device.partition(":")[0])


def net_part(
    model: AdaptiveModel, name: str | None, data: str, options: Options, folder: Path | None = None, what: str = ""
) -> Part:
    """A net.

    Args:
        model: it. name: that it is loaded by, weights and policy; None where it was fitted or handed over here.
        data: it was trained for. folder: of the suite, for factories. what: for messages.
    """
    again = None if name is None else partial(_net, name, data, Places.of(options), folder)
    return Part(model, model_hash, again, what=f"the net '{what or name}'")


def split_part(split: Split, spec: str, options: Options, handed_over: bool = False) -> Part:
    """Pictures or texts of one role.

    Args:
        split: them. spec: the data set, as `load_data` takes it. handed_over: no machine has files of them.
    """
    again = None if handed_over else partial(_split, spec, split.role, len(split), Places.of(options))
    return Part(split, split_hash, again, handed_over, f"the {split.role} split of {spec}")


def data_of(spec: str, places: Places) -> DataSet:
    """A data set of this machine, read once a process."""
    return _data(spec, places.data_root)


@cache
def _data(spec: str, root: Path | None) -> DataSet:
    return load_data(spec, root=root)


def _net(name: str, data: str, places: Places, folder: Path | None) -> AdaptiveModel:
    return load_net(name, data, places, folder).model


def _split(spec: str, role: str, n: int, places: Places) -> Split:
    return data_of(spec, places).split(role).first(n)  # type: ignore[arg-type]
