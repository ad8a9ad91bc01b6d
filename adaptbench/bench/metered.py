"""Meters for attackers who are told seconds or joules: the house's own, read one inference at a time."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from adaptbench.adaptive import AdaptiveModel
from adaptbench.attacks import Attack
from adaptbench.attacks.base import Metering
from adaptbench.errors import CapabilityError
from adaptbench.meters.base import Meter
from adaptbench.meters.clock import synchroniser
from adaptbench.meters.reading import Missing, Sensor
from adaptbench.meters.stopwatch import stopwatch
from adaptbench.registry import METERS


def metering_of(attack: Attack | None, device: str) -> Metering | None:
    """What reads the cost that an attack is told; None where that is counted."""
    cost = None if attack is None else attack.settings.get("cost")
    return metering(str(cost), device) if cost in ("seconds", "joules") else None


def metering(cost: str, device: str = "cpu") -> Metering:
    """Seconds of the stopwatch, or joules of the first energy meter that measures.

    Each round of readings passes over all pictures, so that a drift falls on all of them alike; a first
    inference warms up and is not read.

    Args:
        cost: "seconds" or "joules".

    Raises:
        CapabilityError: when it is called, where no sensor answers.
    """
    return _Seconds(device) if cost == "seconds" else _Joules(device)


class _Seconds:
    def __init__(self, device: str) -> None:
        self.watch, self.synchronise = stopwatch(device), synchroniser(device)

    def __call__(self, model: AdaptiveModel, pictures: Tensor, readings: int) -> Tensor:
        found = torch.zeros(len(pictures), readings, dtype=torch.float64)
        with model.serving():
            if len(pictures):
                model.serve(pictures[:1])
            for k in range(readings):
                for row in range(len(pictures)):
                    picture = pictures[row : row + 1]
                    self.synchronise()
                    self.watch.start()
                    model.serve(picture)
                    self.watch.lap("pass")
                    self.synchronise()
                    found[row, k] = sum(self.watch.stop().values())
        return found


class _Joules:
    def __init__(self, device: str) -> None:
        self.device, self.synchronise = device, synchroniser(device)

    def __call__(self, model: AdaptiveModel, pictures: Tensor, readings: int) -> Tensor:
        found = torch.zeros(len(pictures), readings, dtype=torch.float64)
        with self._sensor().on(self.device) as meter, model.serving():
            for k in range(readings):
                for row in range(len(pictures)):
                    found[row, k] = self._read(meter, model, pictures[row : row + 1])
        return found

    def _read(self, meter: Meter, model: AdaptiveModel, picture: Tensor) -> float:
        """Joules an inference, over as many as fill a window of the meter."""
        calls = 0
        self.synchronise()
        with meter.window() as window:
            began = time.perf_counter()
            while not calls or time.perf_counter() - began < meter.min_window_s:
                model.serve(picture)
                self.synchronise()
                calls += 1
        energies = [r.energy_j for r in window.readings if r.provenance.startswith("measured")]
        values = [e for e in energies if not isinstance(e, Missing)]
        if not values:
            reasons = "; ".join(e.reason for e in energies if isinstance(e, Missing)) or "it gave no joules"
            raise CapabilityError(
                f"the meter '{meter.name}' gave no joules: {reasons}.",
                why="An attacker without a reading is told nothing.",
                todo="`adaptbench doctor` shows what answers; or write cost: seconds.",
            )
        return sum(values) / calls

    def _sensor(self) -> Meter:
        silent = []
        for entry in METERS:
            kind = METERS.load(entry.name)
            if kind.quantity != "energy" or kind.whole_run or entry.name == "modelled":
                continue
            meter: Meter = kind()
            found = meter.probe()
            if isinstance(found, Sensor):
                return meter
            silent.append(f"{entry.name}: {found.reason}")
        raise CapabilityError(
            f"no sensor tells the joules of one inference ({'; '.join(silent) or 'there is no energy meter'}).",
            why="Modelled joules are MACs by another name.",
            todo="`adaptbench doctor` says how to get one; or write cost: seconds, or cost: macs.",
        )
