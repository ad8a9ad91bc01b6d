"""Sources of time and energy, and the protocol that reads them: see `windows` and docs/measurement.md."""

from __future__ import annotations

from adaptbench.meters.base import Meter
from adaptbench.meters.reading import Missing, Reading, Sensor, Work
from adaptbench.meters.rows import WindowRow
from adaptbench.meters.windows import Arm, measure

__all__ = ["Arm", "Meter", "Missing", "Reading", "Sensor", "WindowRow", "Work", "measure"]
