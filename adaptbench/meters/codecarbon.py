"""CodeCarbon over a whole run: CPU, GPU and RAM apart, each with what it really rests on, and their carbon.

Offline, with a country that the suite names: no look-up of the place, no files, no upload, no lock file. A reader's own
``.codecarbon.config`` or ``CODECARBON_…`` variables change nothing, since every setting is given.
"""

from __future__ import annotations

import inspect
import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from adaptbench.errors import UsageError
from adaptbench.meters import rapl
from adaptbench.meters.base import Clock, Mark, Meter
from adaptbench.meters.grid import given_factor, known_factor
from adaptbench.meters.reading import Missing, Reading, Sensor, Work, add, possible

_J_PER_KWH = 3.6e6
_COMPONENTS = ("cpu", "gpu", "ram")
_MOST_W, _LEAST_S = 1e5, 1.0  # no component of a machine draws more; a tracker sees at least a second
NO_SOURCE = Missing("CodeCarbon tracked no component")

_CPU_SOURCES = {
    "intel_rapl": "measured: RAPL",
    "windows_emi": "measured: Windows Energy Meter Interface",
    "intel_power_gadget": "measured: Intel Power Gadget",
    "constant": "modelled: CodeCarbon, half of the CPU's TDP",
}


class CodeCarbonMeter(Meter):
    """Joules and kg CO2e of the machine, for windows of half a minute or more; windows may overlap.

    Args:
        country_iso_code: three letters ("DEU"); needed to open, not to `probe`.
        region: of the USA, Canada, China or the Nordic countries, where CodeCarbon knows it.
        grid_g_per_kwh: carbon intensity, instead of the place's; 0 is one.
        clock: monotonic seconds.

    Raises:
        UsageError: a carbon intensity that cannot be; `check` and `open`: a place that CodeCarbon does not know.
    """

    name: ClassVar[str] = "codecarbon"
    scope: ClassVar[Literal["device", "process", "machine", ""]] = "machine"
    whole_run: ClassVar[bool] = True
    settings: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"country": "country_iso_code", "region": "region", "grid_g_per_kwh": "grid_g_per_kwh"}
    )

    def __init__(
        self,
        country_iso_code: str | None = None,
        *,
        region: str | None = None,
        grid_g_per_kwh: float | None = None,
        clock: Clock = time.perf_counter,
    ) -> None:
        super().__init__(clock=clock)
        self.country_iso_code = country_iso_code.upper() if country_iso_code else None
        self._region = region
        self._given = None if grid_g_per_kwh is None else given_factor(grid_g_per_kwh)
        self._grid = 0.0
        self._missing: Missing | None = None
        self._ready: Any = None
        self._running: list[Any] = []
        self._messages: dict[str, None] = {}
        self._details: dict[str, Any] = {}
        self._components: tuple[str, ...] = _COMPONENTS
        self._level = logging.NOTSET

    @property
    def min_window_s(self) -> float:
        """30 s: two of CodeCarbon's own intervals."""
        return 30.0

    def probe(self) -> Sensor | Missing:
        """The installed version, and what the CPU figure will rest on."""
        installed = _installed()
        if isinstance(installed, Missing):
            return installed
        domains = rapl.domains()
        denied = [domain for domain in domains if not domain.readable]
        if domains and not denied:
            return Sensor({"version": installed, "cpu": "measured: RAPL"})
        advice = rapl.unlock_command(denied) if denied else ""
        return Sensor({"version": installed, "cpu": "modelled: CPU load × TDP"}, advice)

    def describe(self) -> dict[str, Any]:
        """Version, country, sources by component, carbon of the last window, and what CodeCarbon had to say."""
        missing = self._missing
        return {
            "found": missing is None,
            "reason": None if missing is None else missing.reason,
            "country_iso_code": self.country_iso_code,
            "region": self._region,
            **self._details,
            "messages": list(self._messages),
        }

    def check(self) -> None:
        """Find the grid's carbon intensity."""
        if not self.country_iso_code:
            raise UsageError(
                "meters.codecarbon: no country is given.",
                why="The carbon of a joule depends on the grid, and this meter never asks the network where it is.",
                todo="Add `country: DEU` (three letters) to the suite's `measure`.",
            )
        if not isinstance(_installed(), Missing):
            level = logging.getLogger("codecarbon").level
            try:
                with self._listening():
                    known = known_factor(self.country_iso_code, self._region)
            finally:
                logging.getLogger("codecarbon").setLevel(level)
            self._grid = known if self._given is None else self._given

    def _open(self, device: str) -> None:
        self._level = logging.getLogger("codecarbon").level
        self.check()
        self._components = _COMPONENTS if device != "cpu" else ("cpu", "ram")
        installed = _installed()
        if isinstance(installed, Missing):
            self._missing = installed
            return
        place = f"{self._region}, {self.country_iso_code}" if self._region else str(self.country_iso_code)
        self._details = {
            "version": installed,
            "grid_g_per_kwh": self._grid,
            "grid_source": "given" if self._given is not None else f"CodeCarbon's table, {place}",
        }
        with self._listening():
            self._ready = self._tracker()
            if self._ready is None:
                self._missing = Missing(f"CodeCarbon {installed} did not start: {self._last_message()}")
                return
            self._details["sources"] = _sources(self._ready)
        self._missing = None

    def begin(self) -> Mark:
        """Start a tracker."""
        self._need_open()
        if self._missing is not None:
            return self._clock(), None
        with self._listening():
            tracker, self._ready = self._ready or self._tracker(), None
            if tracker is not None:
                tracker.start()
                self._running.append(tracker)
        return self._clock(), tracker

    def end(self, mark: Mark, work: Work) -> list[Reading]:
        """A reading each for "cpu", "ram" and, where there is one or the run is on one, "gpu"; scope "machine"."""
        self._need_open()
        start_s, tracker = mark
        duration_s = max(0.0, self._clock() - start_s)
        if tracker is None:
            missing = self._missing or Missing(f"CodeCarbon did not start: {self._last_message()}")
            return [Reading(part, missing, duration_s, "", "machine") for part in self._components]
        data = self._stop(tracker)
        if data is None:
            missing = Missing(f"CodeCarbon gave no result: {self._last_message()}")
            return [Reading(part, missing, duration_s, "", "machine") for part in self._components]
        sources = _sources(tracker)
        readings = [
            _reading(part, float(getattr(data, f"{part}_energy")), duration_s, sources)
            for part in _COMPONENTS
            if part in sources or part in self._components
        ]
        # By the grid that `check` found: CodeCarbon's own sum would be of another place where it fell back.
        total = add(one.energy_j for one in readings if one.component in sources) if sources else NO_SOURCE
        self._details |= {
            "sources": sources,
            "co2e_kg": None if isinstance(total, Missing) else total / _J_PER_KWH * self._grid / 1000,
            "co2e_kg_missing": total.reason if isinstance(total, Missing) else None,
        }
        return readings

    def _stop(self, tracker: Any) -> Any:
        if tracker in self._running:
            self._running.remove(tracker)
        with self._listening():
            tracker.stop()
        return getattr(tracker, "final_emissions_data", None)

    def _close(self) -> None:
        for tracker in list(self._running):
            self._stop(tracker)
        self._ready = None
        logging.getLogger("codecarbon").setLevel(self._level)

    def _tracker(self) -> Any:
        """A tracker whose hardware is set up; None where CodeCarbon swallowed an error of its own."""
        from codecarbon import OfflineEmissionsTracker
        from codecarbon.emissions_tracker import BaseEmissionsTracker

        known = inspect.signature(BaseEmissionsTracker.__init__).parameters
        settings = {name: value for name, value in _SETTINGS.items() if name in known}
        if "output_methods" not in known:  # before 3.3
            settings |= dict.fromkeys(("save_to_file", "save_to_api", "save_to_logger"), False)
        tracker = OfflineEmissionsTracker(
            country_iso_code=self.country_iso_code,
            region=self._region,
            cloud_provider=None,
            cloud_region=None,
            country_2letter_iso_code=None,
            **settings,
        )
        # A token of an old configuration file would make it ask a service for the grid's intensity.
        tracker._electricitymaps_api_token = None
        try:
            tracker.get_detected_hardware()  # the slow part, before the window
        except Exception as error:  # it has no error class of its own
            self._messages[f"{type(error).__name__}: {error}"] = None
            return None
        return tracker

    def _last_message(self) -> str:
        return next(reversed(self._messages), "it gave no reason")

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Keep CodeCarbon's warnings for the record, and off the terminal."""
        logger = logging.getLogger("codecarbon")

        def keep(record: logging.LogRecord) -> bool:
            if record.levelno >= logging.WARNING and len(self._messages) < 50:
                self._messages[record.getMessage().strip()] = None
            return False

        logger.addFilter(keep)
        try:
            yield
        finally:
            logger.removeFilter(keep)
            logger.setLevel(logging.CRITICAL + 1)  # its timer threads go on logging between the calls


_SETTINGS: dict[str, Any] = {
    "project_name": "adaptbench",
    "measure_power_secs": 15,
    "api_call_interval": -1,
    "output_dir": ".",
    "output_methods": [],
    "output_handlers": [],
    "emissions_endpoint": None,
    "electricitymaps_api_token": None,
    "gpu_ids": None,
    "tracking_mode": "machine",
    "log_level": "warning",
    "force_cpu_power": None,
    "force_ram_power": None,
    "force_mode_cpu_load": False,
    "force_carbon_intensity_g_co2e_kwh": None,
    "pue": 1.0,
    "wue": 0.0,
    "allow_multiple_runs": True,
    "rapl_include_dram": False,
    "rapl_prefer_psys": False,
}


def _installed() -> str | Missing:
    try:
        return version("codecarbon")
    except PackageNotFoundError:
        return Missing("absent: CodeCarbon is not installed", "pip install codecarbon", "absent")


def _reading(part: str, kwh: float, duration_s: float, sources: dict[str, str]) -> Reading:
    source = sources.get(part)
    if source is None:
        return Reading(part, Missing(f"CodeCarbon found no {part.upper()} to track"), duration_s, "", "machine")
    if not 0 < kwh < math.inf:
        reason = f"CodeCarbon reported {kwh:g} kWh over {duration_s:.1f} s, which is no measurement"
        return Reading(part, Missing(reason), duration_s, "", "machine")
    energy = possible(kwh * _J_PER_KWH, duration_s, _MOST_W, _LEAST_S, "one machine")
    if isinstance(energy, Missing):
        return Reading(part, energy, duration_s, "", "machine")
    return Reading(part, kwh * _J_PER_KWH, duration_s, source, "machine")


def _sources(tracker: Any) -> dict[str, str]:
    """Component → provenance, from the hardware objects that CodeCarbon chose."""
    sources: dict[str, str] = {}
    for hardware in getattr(tracker, "_hardware", []):
        kind = type(hardware).__name__
        if kind == "CPU":
            sources["cpu"] = _cpu_source(hardware)
        elif kind == "GPU":
            sources["gpu"] = _gpu_source(hardware)
        elif kind == "RAM":
            watts = hardware.total_power().W
            sources["ram"] = f"modelled: CodeCarbon, constant RAM power of {watts:.3g} W"
        elif kind in ("AppleSiliconChip", "Raspberry"):
            sensor = "powermetrics" if kind == "AppleSiliconChip" else "Raspberry Pi PMIC"
            sources[str(hardware.chip_part).lower()] = f"measured: {sensor}"
    return sources


def _cpu_source(hardware: Any) -> str:
    mode = str(getattr(hardware, "_mode", "unknown"))
    if mode in _CPU_SOURCES:
        return _CPU_SOURCES[mode]
    if mode == "cpu_load":
        tdp, guessed = getattr(hardware, "_tdp", None), getattr(hardware, "_is_generic_tdp", False)
        return f"modelled: CodeCarbon, CPU load × {tdp:g} W TDP{' (guessed)' if guessed else ''}"
    return f"modelled: CodeCarbon, CPU mode '{mode}'"


def _gpu_source(hardware: Any) -> str:
    devices = list(getattr(getattr(hardware, "devices", None), "devices", []))
    if not devices or any("Nvidia" not in type(device).__name__ for device in devices):
        return "measured: GPU driver, through CodeCarbon"
    if all(getattr(device, "last_energy", None) is not None for device in devices):
        return "measured: NVML total-energy counter, through CodeCarbon"
    return "measured: NVML power, averaged by CodeCarbon"
