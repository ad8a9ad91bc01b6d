"""Readings as rows of windows.parquet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from adaptbench.meters.base import Meter
from adaptbench.meters.reading import Missing, Reading


@dataclass(frozen=True, slots=True)
class WindowRow:
    """One row of windows.parquet: a window, a meter, a component.

    Args:
        case: case id, or "idle".
        block: 0 …
        order: the window's place in its block.
        meter, component: whose reading; of the clock also "nodes", "policy" and "executor", parts of its window.
        energy_j: joules of the window; None where missing.
        duration_s: of the window, as this meter saw it.
        n_samples: inputs answered in it.
        provenance, scope: of the reading.
        flags: comma separated.
        missing: why there are no joules.
        mode: how batches were executed; None where nothing adaptive ran.
    """

    case: str
    block: int
    order: int
    meter: str
    component: str
    energy_j: float | None
    duration_s: float
    n_samples: int
    provenance: str
    scope: str
    flags: str
    missing: str | None
    mode: str | None = None


def part_rows(whole: WindowRow, seconds: Mapping[str, float]) -> list[WindowRow]:
    """The rows of a clock's window by who spent it: one a part, seconds for joules."""
    return [replace(whole, component=part, duration_s=spent, flags="") for part, spent in seconds.items()]


def to_rows(
    case: str, block: int, order: int, meter: Meter, readings: Sequence[Reading], n_samples: int
) -> list[WindowRow]:
    """The rows of one window of one meter; a sensor's window below its `min_window_s` is flagged "short"."""
    rows = []
    for reading in readings:
        energy = reading.energy_j
        if not isinstance(energy, Missing) and reading.provenance.startswith("measured") and not reading.duration_s:
            energy = Missing(f"{energy:g} J in a window of no length, which is no measurement")
        flags = reading.flags
        answered = meter.quantity == "time" or not isinstance(energy, Missing)
        if answered and reading.duration_s < meter.min_window_s:
            flags = (*flags, "short")
        rows.append(
            WindowRow(
                case,
                block,
                order,
                meter.name,
                reading.component,
                None if isinstance(energy, Missing) else energy,
                reading.duration_s,
                n_samples,
                "" if isinstance(energy, Missing) else reading.provenance,
                reading.scope,
                ",".join(dict.fromkeys(flags)),
                energy.reason if isinstance(energy, Missing) else None,
            )
        )
    return rows
