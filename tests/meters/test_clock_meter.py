from __future__ import annotations

import types

import pytest
import torch

from adaptbench.meters.clock import ClockMeter, synchroniser
from adaptbench.meters.reading import NO_WORK, Missing
from adaptbench.testing.meters import MeterConformance


class TestClock(MeterConformance):
    def make(self):
        return ClockMeter()


def test_the_device_is_synchronised_before_both_readings():
    events = []
    now = iter([10.0, 12.5])

    def clock():
        events.append("read")
        return next(now)

    with ClockMeter(clock=clock, synchronise=lambda: events.append("synchronise")).on("cuda:0") as meter:
        (reading,) = meter.end(meter.begin(), NO_WORK)
    assert events == ["synchronise", "read"] * 2
    assert (reading.component, reading.duration_s) == ("clock", 2.5)
    assert isinstance(reading.energy_j, Missing)


def test_each_device_is_waited_for_in_its_own_way(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: waited.append(("cuda", device)))
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waited.append(("mps", None)))
    monkeypatch.setattr(torch, "accelerator", types.SimpleNamespace(synchronize=lambda d: waited.append(("other", d))))
    for device in ("cpu", "cuda:1", "mps", "xpu:0"):
        synchroniser(device)()
    assert waited == [("cuda", "cuda:1"), ("mps", None), ("other", "xpu:0")]


def test_a_torch_device_is_as_good_as_its_name():
    with ClockMeter().on(torch.device("cpu")) as meter:
        assert meter.describe()["monotonic"] is True


def test_the_window_api_gives_readings_only_when_it_closes():
    with ClockMeter().on() as meter:
        with meter.window() as window:
            assert window.readings == []
        assert len(window.readings) == 1
        with pytest.raises(KeyError), meter.window() as failed:
            raise KeyError
        assert failed.readings == []
