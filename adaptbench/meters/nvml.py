"""Energy of an NVIDIA GPU: the board's counter, or its power integrated where it has none."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from adaptbench.errors import MeterError
from adaptbench.meters.base import Clock, Mark, Meter
from adaptbench.meters.nvml_counter import Counter, joules
from adaptbench.meters.nvml_device import Driver, Gpu, throttle_reasons
from adaptbench.meters.nvml_poll import Poller, ProcessPoller, Sample, integrate
from adaptbench.meters.reading import Missing, Reading, Sensor, Work, possible

COUNTER = "measured: NVML total-energy counter"
INSTANT = "measured: NVML instant power, integrated"
AVERAGED = "measured: NVML averaged power, integrated"

_LEAST_WINDOW_S = 5.0
_LEAST_AVERAGED_S = 10.0  # the average is of the last second: half of it is the window's past
_LEAST_TICKS = 50
_MOST_DRIFT_C = 5
_MOST_DISAGREEMENT = 0.05
_MOST_OVERSHOOT = 2.0  # times the limit, of one power sample: boards overshoot for some ms, and their sensors average


@dataclass(frozen=True, slots=True)
class _Mark:
    at_s: float
    energy_mj: int | Missing | None
    temperature_c: int | None


def _can_be(sample: Sample, limit_w: float | None) -> bool:
    return sample.power_mw is None or limit_w is None or sample.power_mw / 1000 <= _MOST_OVERSHOOT * limit_w


def torch_uuid(index: int) -> str | Missing:
    """The UUID of torch's device: torch numbers devices its own way, and CUDA_VISIBLE_DEVICES renumbers them."""
    import torch

    try:
        uuid = getattr(torch.cuda.get_device_properties(index), "uuid", None)
    except (AssertionError, RuntimeError) as error:  # torch built without CUDA, or no such device
        return Missing(f"absent: torch has no device cuda:{index} ({error})", "nvidia-smi -L", "absent")
    return (
        Missing("unsupported: torch gives no UUID for this device", kind="unsupported") if uuid is None else str(uuid)
    )


class NvmlMeter(Meter):
    """Joules of one whole board.

    Windows begin and end on edges of the counter, so that its tick adds no error; the tick is measured at `open`.
    A board without a counter, or with a counter that stands still, is polled for power from a process of its own.
    The two are never mixed: the source is fixed at `open`.

    Flags: ``gpu-shared`` (MIG: the reading is of the whole board), ``foreign`` (other processes compute on it),
    ``throttled``, ``temperature`` (drift above 5 °C in the window), ``few-ticks`` (below 50), ``sources-disagree``
    (counter and power differ by more than 5 %), ``impossible-power`` (samples above twice the limit were left out),
    ``unbounded`` (neither a power limit nor the other source to hold the joules against).

    Joules that the board cannot have drawn, by its power limit, are missing: a counter may leap.

    Args:
        clock: monotonic seconds; with the default poller it must be ``time.perf_counter``.
        uuid_of: torch's device index → UUID.
        poller: where power samples come from.
        cross_check: poll power beside the counter too.
    """

    name: ClassVar[str] = "nvml"
    scope: ClassVar[Literal["device", "process", "machine", ""]] = "device"
    waits: ClassVar[bool] = True

    def __init__(
        self,
        *,
        clock: Clock = time.perf_counter,
        uuid_of: Callable[[int], str | Missing] = torch_uuid,
        poller: Poller | None = None,
        cross_check: bool = True,
    ) -> None:
        super().__init__(clock=clock)
        self._uuid_of, self._cross_check = uuid_of, cross_check
        self._poller: Poller = poller or ProcessPoller()
        self._polling = False
        self._driver: Driver | None = None
        self._gpu: Gpu | None = None
        self._counter: Counter | None = None
        self._missing: Missing | None = Missing("the meter was never opened")
        self._component = "gpu0"
        self._source = ""
        self._tick_s: float | None = None
        self._limit_w: float | None = None
        self._details: dict[str, Any] = {}

    @property
    def min_window_s(self) -> float:
        """5 s, or 50 ticks of the counter; 10 s where power is averaged over a second; 0 where there is no sensor."""
        if self._missing is not None:
            return 0.0
        if self._source == AVERAGED:
            return _LEAST_AVERAGED_S
        return max(_LEAST_WINDOW_S, _LEAST_TICKS * (self._tick_s or self._poller.period_s))

    def probe(self) -> Sensor | Missing:
        """The driver and its boards, and which of them have a counter."""
        driver = Driver.connect()
        if isinstance(driver, Missing):
            return driver
        try:
            boards = driver.gpus()
            if isinstance(boards, Missing):
                return boards
            listed = [
                {
                    "name": board.name,
                    "uuid": board.uuid,
                    "mig": board.mig,
                    "counter": not isinstance(driver.energy_mj(board), Missing),
                    "power": not isinstance(driver.power_mw(board), Missing),
                }
                for board in boards
            ]
            return Sensor({"driver": driver.version(), "gpus": listed})
        finally:
            driver.close()

    def describe(self) -> dict[str, Any]:
        """Board, driver, source, tick, limits and what the windows saw."""
        missing = self._missing
        if missing is not None:
            return {"found": False, "reason": missing.reason, "advice": missing.advice or None, **self._details}
        return {"found": True, "reason": None, "sensor": self._source.partition(": ")[2], **self._details}

    def _open(self, device: str) -> None:
        self._details, self._source, self._tick_s = {}, "", None
        self._missing = self._try_open(device)
        if self._missing is not None:
            self._close()

    def _try_open(self, device: str) -> Missing | None:
        kind, _, number = device.partition(":")
        if kind != "cuda":
            return Missing(f"the run is on {kind}, and NVML reads NVIDIA GPUs", "run with --device cuda", "absent")
        index = int(number or 0)
        self._component = f"gpu{index}"
        driver = Driver.connect()
        if isinstance(driver, Missing):
            return driver
        self._driver = driver
        uuid = self._uuid_of(index)
        gpu = uuid if isinstance(uuid, Missing) else driver.find(uuid)
        if isinstance(gpu, Missing):
            return gpu
        self._gpu, self._limit_w = gpu, driver.power_limit_w(gpu)
        self._details = {
            "gpu": gpu.name,
            "uuid": gpu.uuid,
            "mig": gpu.mig,
            "driver": driver.version(),
            "power_limit_w": self._limit_w,
            "persistence": driver.persistence(gpu),
            "sm_mhz": driver.clock_mhz(gpu, "SM"),
            "memory_mhz": driver.clock_mhz(gpu, "MEM"),
            "temperature_c": driver.temperature_c(gpu),
        }
        return self._choose_source(driver, gpu)

    def _choose_source(self, driver: Driver, gpu: Gpu) -> Missing | None:
        self._counter = Counter(driver, gpu, self._clock)
        counter = self._counter.measure_tick()
        power = driver.power_mw(gpu)
        if isinstance(counter, Missing):
            self._details["counter"] = counter.reason
            if isinstance(power, Missing):
                return Missing(f"{counter.reason}; {power.reason}", power.advice or counter.advice, power.kind)
            self._source = INSTANT if power[1] else AVERAGED
        else:
            self._source, self._tick_s = COUNTER, counter[0]
            self._details |= {"tick_s": counter[0], "tick_j": counter[1]}
        if not isinstance(power, Missing) and (self._source != COUNTER or self._cross_check):
            self._details |= {"poll_period_s": self._poller.period_s, "power": "instant" if power[1] else "averaged"}
            self._poller.start(gpu, self._clock)
            self._polling = True
        return None

    def begin(self) -> Mark:
        """Wait for an edge of the counter, then let the work start."""
        self._need_open()
        if self._missing is not None or self._driver is None or self._gpu is None:
            return _Mark(self._clock(), None, None)
        temperature = self._driver.temperature_c(self._gpu)
        if self._source != COUNTER or self._counter is None:
            return _Mark(self._clock(), None, temperature)
        edge = self._counter.edge()
        return _Mark(self._clock(), edge, temperature) if isinstance(edge, Missing) else _Mark(*edge, temperature)

    def end(self, mark: Mark, work: Work) -> list[Reading]:
        """One reading, component "gpu" and torch's number."""
        self._need_open()
        stopped = self._clock()
        if not isinstance(mark, _Mark):
            raise MeterError("end() was given something else than begin() returned.")
        if self._missing is not None or self._driver is None or self._gpu is None:
            missing = self._missing or Missing("no GPU is open")
            return [Reading(self._component, missing, stopped - mark.at_s, "", "device")]
        # Asked before the edge is waited for: an idle GPU has no reason to throttle any more.
        bits, flags = self._conditions(self._driver, self._gpu, mark)
        energy, end_s = self._counted(mark, stopped)
        duration_s = end_s - mark.at_s
        if duration_s <= 0:
            back = Missing(f"lost: the clock went back by {-duration_s:g} s in the window", kind="lost")
            return [Reading(self._component, back, 0.0, "", "device", tuple(flags))]
        samples = self._poller.between(mark.at_s, end_s) if self._polling else []
        for sample in samples:
            bits |= sample.reasons or 0
        if reasons := throttle_reasons(bits):
            flags.append("throttled")
            self._details["throttled_by"] = sorted({*self._details.get("throttled_by", []), *reasons})
        limit_w = self._limit(self._driver, self._gpu)
        believed = [one for one in samples if _can_be(one, limit_w)]
        polled = self._integral(believed, mark.at_s, end_s)
        if self._source != COUNTER:
            energy = polled
            if len(believed) < len(samples):
                flags.append("impossible-power")
        if limit_w is not None and not isinstance(energy, Missing):
            edge_s = self._tick_s or self._poller.period_s
            energy = possible(energy, duration_s, limit_w, edge_s, "this board")
        agree = self._agree(energy, polled, duration_s) if self._source == COUNTER else None
        if agree is False:
            flags.append("sources-disagree")
        if limit_w is None and agree is None:
            flags.append("unbounded")
        if (duration_s / self._tick_s if self._tick_s else len(samples)) < _LEAST_TICKS:
            flags.append("few-ticks")
        provenance = "" if isinstance(energy, Missing) else self._source
        return [Reading(self._component, energy, duration_s, provenance, "device", tuple(flags))]

    def _limit(self, driver: Driver, gpu: Gpu) -> float | None:
        """Watts: the limit at `open` or the present one, whichever is higher; somebody may have moved it."""
        known = [one for one in (self._limit_w, driver.power_limit_w(gpu)) if one is not None]
        return max(known, default=None)

    def _conditions(self, driver: Driver, gpu: Gpu, mark: _Mark) -> tuple[int, list[str]]:
        """(throttle bits, flags) at the end of the work."""
        flags = ["gpu-shared"] if gpu.mig else []
        if driver.foreign_processes(gpu):
            flags.append("foreign")
        temperature = driver.temperature_c(gpu)
        known = temperature is not None and mark.temperature_c is not None
        if known and abs((temperature or 0) - (mark.temperature_c or 0)) > _MOST_DRIFT_C:
            flags.append("temperature")
        return driver.reasons(gpu) or 0, flags

    def _counted(self, mark: _Mark, stopped_s: float) -> tuple[float | Missing, float]:
        """(joules by the counter, end of the window)."""
        if self._source != COUNTER or self._counter is None:
            return Missing("the board has no energy counter"), stopped_s
        if not isinstance(mark.energy_mj, int):
            return mark.energy_mj or Missing("the counter was not read"), stopped_s
        edge = self._counter.edge()
        if isinstance(edge, Missing):
            return edge, self._clock()
        return joules(mark.energy_mj, edge[1]), edge[0]

    def _integral(self, samples: list[Sample], start_s: float, end_s: float) -> float | Missing:
        if not self._polling:
            return Missing("power is not polled")
        if self._driver is not None and self._gpu is not None:
            now = self._driver.power_mw(self._gpu)
            if isinstance(now, Missing):  # its reason says more than a hole in the samples
                return now
        energy = integrate(samples, start_s, end_s, most_gap_s=max(1.0, 10 * self._poller.period_s))
        if not isinstance(energy, Missing) and energy <= 0:
            return Missing("lost: the GPU reports 0 W", kind="lost")
        return energy

    def _agree(self, counter: float | Missing, polled: float | Missing, duration_s: float) -> bool | None:
        """Whether the two sources do; None where they cannot be held against each other."""
        if isinstance(counter, Missing) or isinstance(polled, Missing):
            return None
        # An averaged figure lags by about a second: in a short window it is no check.
        if self._details.get("power") != "instant" and duration_s < _LEAST_AVERAGED_S:
            return None
        worst = self._details.get("power_over_counter")
        ratio = polled / counter
        if worst is None or abs(ratio - 1) > abs(worst - 1):
            self._details["power_over_counter"] = ratio
        return abs(ratio - 1) <= _MOST_DISAGREEMENT

    def _close(self) -> None:
        if self._polling:
            self._poller.stop()
            self._polling = False
        if self._driver is not None:
            self._driver.close()
        self._driver = self._gpu = self._counter = None
