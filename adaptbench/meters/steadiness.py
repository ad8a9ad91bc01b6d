"""The pass over finished windows that flags cases whose readings scatter from block to block."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from adaptbench.meters.rows import WindowRow

UNSTEADY = "unsteady"


@dataclass(frozen=True, slots=True)
class Steadiness:
    """Highest coefficients of variation over blocks, as fractions of the mean.

    Args:
        energy: of measured joules a sample.
        time: of seconds a sample. Wider: a wall clock sees every other process, and pairing by block takes that out.
        blocks: fewer blocks than that are not judged.
    """

    energy: float = 0.03
    time: float = 0.10
    blocks: int = 3


STEADINESS = Steadiness()


def flag_unsteady(rows: Sequence[WindowRow], limits: Steadiness = STEADINESS) -> list[WindowRow]:
    """The same rows; those of a case, meter and component that scatter too much carry the flag "unsteady".

    Modelled joules are not judged: they do not vary. Idle windows answer no sample and are not judged either.
    """
    values: dict[tuple[str, str, str], list[float]] = {}
    for row in rows:
        if row.n_samples and not row.provenance.startswith("modelled"):
            # Rows without joules are a clock's, or missing ones; a sensor that is missing has no provenance to compare.
            amount = row.duration_s if row.energy_j is None and row.component == "clock" else row.energy_j
            if amount is not None:
                values.setdefault(_key(row), []).append(amount / row.n_samples)
    bad = {
        key
        for key, found in values.items()
        if len(found) >= limits.blocks and _cv(found) > (limits.time if key[2] == "clock" else limits.energy)
    }
    return [_marked(row, _key(row) in bad) for row in rows]


def _key(row: WindowRow) -> tuple[str, str, str]:
    return row.case, row.meter, row.component


def _cv(values: Sequence[float]) -> float:
    mean = statistics.fmean(values)
    return statistics.stdev(values) / mean if mean else 0.0


def _marked(row: WindowRow, unsteady: bool) -> WindowRow:
    flags = [flag for flag in row.flags.split(",") if flag and flag != UNSTEADY]
    return replace(row, flags=",".join([*flags, UNSTEADY] if unsteady else flags))
