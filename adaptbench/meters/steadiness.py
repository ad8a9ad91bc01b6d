"""The pass over finished windows that flags cases whose readings scatter from block to block."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from adaptbench.adaptive.parts import PARTS
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


def flag_unsteady(
    rows: Sequence[WindowRow], limits: Steadiness = STEADINESS, *, clocks: Collection[str] = ("clock",)
) -> list[WindowRow]:
    """The same rows; those of a case, meter and component that scatter too much carry the flag "unsteady".

    Modelled joules are not judged: they do not vary. Idle windows answer no sample and are not judged either;
    nor are parts of a clock's window, whose whole is.

    Args:
        rows: of finished windows.
        limits: above which a case scatters.
        clocks: names of the meters whose value is the window's length.
    """
    values: dict[tuple[str, str, str], list[float]] = {}
    for row in rows:
        if row.n_samples and not row.provenance.startswith("modelled"):
            if row.meter in clocks and row.component in PARTS:
                continue
            amount = row.duration_s if row.meter in clocks else row.energy_j
            if amount is not None:
                values.setdefault(_key(row), []).append(amount / row.n_samples)
    bad = {
        key
        for key, amounts in values.items()
        if len(amounts) >= limits.blocks and _cv(amounts) > (limits.time if key[1] in clocks else limits.energy)
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
