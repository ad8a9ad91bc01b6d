"""Joules from executed work by published coefficients: a model, never a measurement."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar, Literal

from adaptbench.errors import UnknownNameError, UsageError
from adaptbench.meters.base import Clock, Mark, Meter
from adaptbench.meters.reading import Missing, Reading, Sensor, Work
from adaptbench.registry import did_you_mean

_PICO = 1e-12
_DIGITS = 12  # of joules a sample; results.energy reads no more
_HOROWITZ = "Horowitz, ISSCC 2014"
_DRAM = "DRAM 640 pJ a 32-bit word (Han et al., NIPS 2015, table 1), the low end of 1.3 to 2.6 nJ a 64-bit access"


@dataclass(frozen=True, slots=True)
class Coefficients:
    """Joules of one unit of work.

    Args:
        name: as suites call them.
        pj_per_mac: picojoules a multiply-accumulate.
        pj_per_byte: picojoules a byte to or from DRAM.
        source: where the numbers stand.
        note: how they were put together.
    """

    name: str
    pj_per_mac: float
    pj_per_byte: float
    source: str
    note: str = ""

    def __post_init__(self) -> None:
        for field in ("pj_per_mac", "pj_per_byte"):
            value = getattr(self, field)
            if not math.isfinite(value) or value < 0:
                raise UsageError(f"{field}: {value} is no energy.", todo="Give picojoules, 0 or more.")
        if self.pj_per_mac == self.pj_per_byte == 0:
            raise UsageError(
                f"the coefficients '{self.name}' cost nothing.",
                why="Every model would take 0 J, which is no figure.",
                todo="Give picojoules above 0 a MAC, a byte or both.",
            )


TABLES: dict[str, Coefficients] = {
    table.name: table
    for table in (
        Coefficients(
            "horowitz-45nm-fp32",
            4.6,
            160.0,
            _HOROWITZ,
            f"45 nm, 0.9 V, fig. 1.1.9: 32-bit float multiply 3.7 pJ + add 0.9 pJ; {_DRAM}",
        ),
        Coefficients(
            "horowitz-45nm-fp16",
            1.5,
            160.0,
            _HOROWITZ,
            f"45 nm, 0.9 V, fig. 1.1.9: 16-bit float multiply 1.1 pJ + add 0.4 pJ; {_DRAM}",
        ),
        Coefficients(
            "horowitz-45nm-int8",
            0.3,
            160.0,
            _HOROWITZ,
            f"45 nm, 0.9 V, fig. 1.1.9: 8-bit integer multiply 0.2 pJ + 32-bit accumulate 0.1 pJ; {_DRAM}",
        ),
        Coefficients(
            "sponge-45nm",
            3.7,
            487.5,
            "Shumailov et al., EuroS&P 2021",
            "energy model of the released code, 45 nm: 3.7 pJ a 32-bit operation, taken as one MAC; "
            "1950 pJ a memory access, taken as 32 bits",
        ),
    )
}
"""Named coefficient tables. 45 nm figures are high for today's silicon: read ratios, not absolute joules."""

DEFAULT_TABLE = "horowitz-45nm-fp32"


class ModelledMeter(Meter):
    """E = pJ/MAC · MACs + pJ/byte · bytes; the MAC term alone where no bytes are known, and the provenance says so.

    Args:
        coefficients: a name of `TABLES`, or a table of your own.
        pj_per_mac, pj_per_byte: override one figure of it.
        source: where the overriding figures come from.
        clock: monotonic seconds, for the window's length only.

    Raises:
        UnknownNameError: no such table.
        UsageError: a coefficient is negative or not finite, or overrides name no source.
    """

    name: ClassVar[str] = "modelled"
    scope: ClassVar[Literal["device", "process", "machine", ""]] = "process"

    def __init__(
        self,
        coefficients: str | Coefficients = DEFAULT_TABLE,
        *,
        pj_per_mac: float | None = None,
        pj_per_byte: float | None = None,
        source: str = "",
        clock: Clock = time.perf_counter,
    ) -> None:
        super().__init__(clock=clock)
        table = coefficients if isinstance(coefficients, Coefficients) else _lookup(coefficients)
        if pj_per_mac is not None or pj_per_byte is not None:
            if not source:
                raise UsageError(
                    "meters.modelled: coefficients are overridden and no source is given.",
                    why="A modelled joule is worth what its coefficients are worth.",
                    todo="Add `source:` with the paper, data sheet or fit that they come from.",
                )
            table = Coefficients(
                "custom",
                table.pj_per_mac if pj_per_mac is None else pj_per_mac,
                table.pj_per_byte if pj_per_byte is None else pj_per_byte,
                source,
                f"overrides {table.name}",
            )
        self.coefficients = table

    def probe(self) -> Sensor:
        """A formula is always there."""
        return Sensor(self._details())

    def describe(self) -> dict[str, Any]:
        """The coefficients and their source."""
        return {"found": True, "reason": None, **self._details()}

    def _details(self) -> dict[str, Any]:
        table = self.coefficients
        return {
            "sensor": None,
            "coefficients": table.name,
            "pj_per_mac": table.pj_per_mac,
            "pj_per_byte": table.pj_per_byte,
            "source": table.source,
            "note": table.note,
        }

    def energy_j(self, work: Work) -> float | Missing:
        """Joules of some work.

        >>> ModelledMeter().energy_j(Work(macs=1_000_000, bytes=1_000, samples=1))
        4.76e-06
        """
        if work.macs is None:
            return Missing("no MACs were counted for this window")
        table = self.coefficients
        joules = (table.pj_per_mac * work.macs + table.pj_per_byte * (work.bytes or 0)) * _PICO
        if not math.isfinite(joules):
            return Missing(f"the formula gives {joules} J: the coefficients are too large")
        return joules

    def _window_j(self, work: Work) -> float | Missing:
        """The same, equal to the last digit a sample however often a window repeats its calls."""
        energy = self.energy_j(work)
        if isinstance(energy, Missing) or not work.samples or work.macs is None:
            return energy
        table = self.coefficients
        picojoules = Fraction(table.pj_per_mac) * work.macs + Fraction(table.pj_per_byte) * (work.bytes or 0)
        return float(f"{float(picojoules / work.samples) * _PICO:.{_DIGITS}g}") * work.samples

    def provenance(self, work: Work) -> str:
        """The formula and its source; begins with "modelled: "."""
        table = self.coefficients
        formula = f"{table.pj_per_mac:g} pJ/MAC"
        formula += " (MACs only)" if work.bytes is None else f" + {table.pj_per_byte:g} pJ/byte"
        return f"modelled: {formula}, {table.name}, {table.source}"

    def begin(self) -> Mark:
        """The time, for the window's length."""
        self._need_open()
        return self._clock()

    def end(self, mark: Mark, work: Work) -> list[Reading]:
        """One reading, component "total", in the process' scope."""
        self._need_open()
        energy = self._window_j(work)
        provenance = "" if isinstance(energy, Missing) else self.provenance(work)
        return [Reading("total", energy, max(0.0, self._clock() - float(mark)), provenance, "process")]


def _lookup(name: str) -> Coefficients:
    try:
        return TABLES[name]
    except KeyError:
        raise UnknownNameError(
            f"no coefficient table is called '{name}'.",
            todo=f"{did_you_mean(name, TABLES)}There are: {', '.join(TABLES)}.",
        ) from None
