"""Seconds or joules of one inference at a time: what is read where nobody tells, or counts, what an answer cost."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor

from adaptbench.errors import CapabilityError
from adaptbench.meters.base import Clock, Meter
from adaptbench.meters.clock import synchroniser
from adaptbench.meters.reading import Missing, Sensor
from adaptbench.meters.stopwatch import Stopwatch, stopwatch
from adaptbench.registry import METERS


class Served(Protocol):
    """What of a model is metered."""

    def serve(self, x: Tensor) -> Any:
        """Answer as a service does."""

    def serving(self) -> AbstractContextManager[None]:
        """Ready for any number of answers."""


Reader = Callable[[Served, Tensor, int], Tensor]
"""(model, (n, …) inputs, k) → (n, k) float64: what one inference of each took, read k times."""


def metering(cost: str, device: str = "cpu") -> Reader:
    """Seconds of the stopwatch, or joules of the first energy meter that measures.

    Each round of readings passes over all inputs, so that a drift falls on all of them alike; a first
    inference warms up and is not read.

    Args:
        cost: "seconds" or "joules".

    Raises:
        CapabilityError: when it is called, where no sensor answers.
    """
    return Seconds(device) if cost == "seconds" else Joules(device)


class Seconds:
    """Reads a clock around each inference.

    Args:
        device: where the model runs. clock: of a CPU; `time.process_time` leaves out what other processes take.
    """

    def __init__(self, device: str = "cpu", *, clock: Clock = time.perf_counter) -> None:
        self.watch = Stopwatch(clock=clock) if device.startswith("cpu") else stopwatch(device)
        self.synchronise = synchroniser(device)

    def __call__(self, model: Served, inputs: Tensor, readings: int) -> Tensor:
        """(n, k) seconds."""
        found = torch.zeros(len(inputs), readings, dtype=torch.float64)
        with model.serving():
            if len(inputs):
                model.serve(inputs[:1])
            for k in range(readings):
                for row in range(len(inputs)):
                    one = inputs[row : row + 1]
                    self.synchronise()
                    self.watch.start()
                    model.serve(one)
                    self.watch.lap("pass")
                    self.synchronise()
                    found[row, k] = sum(self.watch.stop().values())
        return found


class Joules:
    """Reads an energy meter around as many inferences as fill a window of it.

    Args:
        device: where the model runs.
    """

    def __init__(self, device: str = "cpu") -> None:
        self.device, self.synchronise = device, synchroniser(device)

    def __call__(self, model: Served, inputs: Tensor, readings: int) -> Tensor:
        """(n, k) joules.

        Raises:
            CapabilityError: no sensor answers.
        """
        found = torch.zeros(len(inputs), readings, dtype=torch.float64)
        with self._sensor().on(self.device) as meter, model.serving():
            for k in range(readings):
                for row in range(len(inputs)):
                    found[row, k] = self._read(meter, model, inputs[row : row + 1])
        return found

    def _read(self, meter: Meter, model: Served, one: Tensor) -> float:
        """Joules an inference, over as many as fill a window of the meter."""
        calls = 0
        self.synchronise()
        with meter.window() as window:
            began = time.perf_counter()
            while not calls or time.perf_counter() - began < meter.min_window_s:
                model.serve(one)
                self.synchronise()
                calls += 1
        energies = [r.energy_j for r in window.readings if r.provenance.startswith("measured")]
        values = [e for e in energies if not isinstance(e, Missing)]
        if not values:
            reasons = "; ".join(e.reason for e in energies if isinstance(e, Missing)) or "it gave no joules"
            raise CapabilityError(
                f"the meter '{meter.name}' gave no joules: {reasons}.",
                why="Who has no reading is told nothing.",
                todo="`adaptbench doctor` shows what answers; or take seconds.",
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
            todo="`adaptbench doctor` says how to get one; or take seconds, or MACs where they are counted.",
        )
