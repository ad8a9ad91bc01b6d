"""What a meter says: joules with their origin, or why there are none."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from adaptbench.errors import MeterError

Kind = Literal["absent", "denied", "unsupported", "lost", ""]


@dataclass(frozen=True, slots=True)
class Missing:
    """No value, and why. It takes no part in arithmetic: nothing can turn it into a zero.

    Args:
        reason: why there is no value, as a clause ("no NVIDIA driver is loaded").
        advice: the one command or edit that helps, or nothing.
        kind: which sort of failure a sensor had.
    """

    reason: str
    advice: str = ""
    kind: Kind = ""

    def __post_init__(self) -> None:
        if not self.reason.strip():
            raise MeterError("a missing value without a reason.", todo="Say why it is missing: Missing('…').")


@dataclass(frozen=True, slots=True)
class Sensor:
    """A sensor that answers.

    Args:
        details: what is known of it, JSON-able (sensor, tick_s, driver, …).
        advice: what would make it better, or nothing.
    """

    details: Mapping[str, Any] = field(default_factory=dict)
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Work:
    """What one call, or one window, executed.

    Args:
        macs: multiply-accumulates; None where they were not counted.
        bytes: moved to and from main memory; None where that is not known.
        samples: inputs answered.
    """

    macs: int | None
    bytes: int | None
    samples: int

    def __post_init__(self) -> None:
        if self.samples < 0 or (self.macs or 0) < 0 or (self.bytes or 0) < 0:
            raise MeterError(f"work cannot be negative: {self}.")

    def __mul__(self, calls: int) -> Work:
        """The same call, so many times."""
        return Work(
            None if self.macs is None else self.macs * calls,
            None if self.bytes is None else self.bytes * calls,
            self.samples * calls,
        )


NO_WORK = Work(macs=None, bytes=None, samples=0)
"""Of an idle window: nothing was run, so nothing can be modelled."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One component over one window.

    Args:
        component: "clock", "gpu0", "cpu", "ram", "total".
        energy_j: joules over the window, or why they are missing; a sensor's 0 J is missing, too.
        duration_s: of the window as this meter saw it (a counter's edges are its own).
        provenance: "measured: sensor" | "modelled: formula and source" | "" where there is no energy.
        scope: "device" | "process" | "machine" | "".
        flags: what makes the value doubtful; none: nothing is known against it.
    """

    component: str
    energy_j: float | Missing
    duration_s: float
    provenance: str = ""
    scope: str = ""
    flags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not math.isfinite(self.duration_s) or self.duration_s < 0:
            raise MeterError(f"{self.component}: a window cannot last {self.duration_s} s.")
        if isinstance(self.energy_j, Missing):
            return
        if not math.isfinite(self.energy_j) or self.energy_j < 0:
            raise MeterError(
                f"{self.component}: {self.energy_j} J is no energy.",
                todo="A meter that has no value returns Missing(reason).",
            )
        if not self.provenance.startswith(("measured: ", "modelled: ")):
            raise MeterError(
                f"{self.component}: the provenance '{self.provenance}' does not say where the joules come from.",
                why="Measured and modelled joules must never stand in one column.",
                todo="Begin it with 'measured: ' and the sensor, or with 'modelled: ' and the formula.",
            )


def possible(energy_j: float, duration_s: float, limit_w: float, edge_s: float, what: str) -> float | Missing:
    """The joules, or why they cannot be: more than `limit_w` allows over the window and its two edges.

    Args:
        energy_j: as the sensor says.
        duration_s: of the window.
        limit_w: the most that the thing may draw; a tenth is added for the sensor's gain and short overshoots.
        edge_s: how late a reading may be published; a window has two ends.
        what: is limited, for the reason.
    """
    most_j = 1.1 * limit_w * (duration_s + 2 * edge_s)
    if energy_j <= most_j:
        return energy_j
    return Missing(
        f"lost: {energy_j:.4g} J in {duration_s:.3g} s is {energy_j / max(duration_s, edge_s):.4g} W, "
        f"and {what} draws {limit_w:g} W at most",
        kind="lost",
    )


def add(energies: Iterable[float | Missing]) -> float | Missing:
    """Joules of several components; missing as soon as one of them is.

    Raises:
        MeterError: nothing to add.
    """
    energies = list(energies)
    if reasons := [energy.reason for energy in energies if isinstance(energy, Missing)]:
        return Missing("; ".join(dict.fromkeys(reasons)))
    if not energies:
        raise MeterError("a sum over no components.", why="It would be zero, and missing is never zero.")
    return math.fsum(energy for energy in energies if not isinstance(energy, Missing))
