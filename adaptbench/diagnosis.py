"""What ``adaptbench doctor`` shows: the meters' findings, and where data and checkpoints are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from adaptbench.errors import AdaptBenchError
from adaptbench.meters import doctor
from adaptbench.meters.doctor import Finding


def findings(data_root: Path | None) -> list[Finding]:
    """Everything that was looked for; never raises."""
    return doctor.diagnose(data=lambda: _data(data_root))


def _data(data_root: Path | None) -> Iterator[Finding]:
    from adaptbench.data import load_data
    from adaptbench.registry import DATA

    for entry in DATA:
        try:
            if getattr(DATA.load(entry.name), "takes_argument", False):
                continue  # somebody's own: it is missing nowhere
            split = load_data(entry.name, root=data_root).split("test")
            yield Finding(f"data: {entry.name}", True, f"{len(split)} test samples")
        except AdaptBenchError as error:
            yield Finding(f"data: {entry.name}", False, "not found", error.seen.splitlines()[0], error.todo)
