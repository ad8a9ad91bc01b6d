from __future__ import annotations

import pytest

from adaptbench.errors import MeterError
from adaptbench.meters.base import Meter
from adaptbench.meters.reading import Missing, Reading, Sensor
from adaptbench.registry import METERS
from adaptbench.testing.meters import MeterConformance


class Honest(Meter):
    """A plug-in author's first meter."""

    name = "honest"
    scope = "device"
    total = 0.0

    def probe(self):
        return Sensor({"sensor": "counter"})

    def describe(self):
        return {"found": True, "reason": None}

    def begin(self):
        self._need_open()
        return self._clock()

    def end(self, mark, work):
        return [Reading("board", 1.0, self._clock() - mark, "measured: counter", "device")]


class TestHonest(MeterConformance):
    def make(self):
        return Honest()


class Zero(Honest):
    def end(self, mark, work):
        return [Reading("board", 0.0, self._clock() - mark, "measured: counter", "device")]


class Lax(Honest):
    def begin(self):
        return self._clock()


class Loud(Honest):
    def begin(self):
        print("measuring")  # noqa: T201
        return super().begin()


class Silent(Honest):
    def end(self, mark, work):
        return []


class Unfound(Honest):
    def describe(self):
        return {"found": False, "reason": "no sensor"}


class Reasonless(Honest):
    def describe(self):
        return {"found": False, "reason": None}


class Fickle(Honest):
    def end(self, mark, work):
        self.total += 1
        return [Reading(f"board{self.total:g}", 1.0, self._clock() - mark, "measured: counter", "device")]


class Named(Honest):
    name = "My Meter"


class Undeclared(Honest):
    scope = ""


class Overwritten(Honest):
    def describe(self):
        return {"found": True, "reason": None, "quantity": "power"}


class Elsewhere(Honest):
    scope = "machine"


class Clock(Honest):
    quantity, scope = "time", ""

    def end(self, mark, work):
        return [Reading("clock", 1.0, self._clock() - mark, "measured: counter")]


class Parts(Honest):
    """A measured part and a modelled one, to be added up by nobody."""

    def end(self, mark, work):
        seconds = self._clock() - mark
        return [
            Reading("board", 1.0, seconds, "measured: counter", "device"),
            Reading("ram", 1.0, seconds, "modelled: 5 W", "device"),
        ]


class Summed(Parts):
    def end(self, mark, work):
        return [*super().end(mark, work), Reading("total", 2.0, 1.0, "modelled: counter and 5 W", "device")]


class Once(Honest):
    """Joules in one window of two."""

    def end(self, mark, work):
        self.total += 1
        energy = 1.0 if self.total % 2 else Missing("every second window")
        return [Reading("board", energy, self._clock() - mark, "measured: counter" if self.total % 2 else "", "device")]


def faulty(meter):
    return type("Case", (MeterConformance,), {"make": lambda self: meter()})()


@pytest.mark.parametrize(
    ("meter", "check"),
    [
        (Zero, "missing_is_never_zero"),
        (Lax, "misuse_is_said"),
        (Loud, "it_prints_nothing"),
        (Silent, "readings_say_where_they_come_from"),
        (Unfound, "it_describes_itself"),
        (Reasonless, "it_describes_itself"),
        (Fickle, "two_windows_have_the_same_components"),
        (Named, "it_has_a_name"),
        (Undeclared, "it_declares_what_it_measures"),
        (Overwritten, "it_declares_what_it_measures"),
        (Elsewhere, "readings_say_where_they_come_from"),
        (Clock, "readings_say_where_they_come_from"),
        (Parts, "its_joules_reach_the_summary"),
    ],
)
def test_each_fault_is_caught_by_its_check(meter, check):
    with pytest.raises(AssertionError):
        getattr(faulty(meter), f"test_{check}")()


@pytest.mark.parametrize("meter", [Honest, Summed, Once])
def test_joules_of_one_kind_reach_the_summary(meter):
    faulty(meter).test_its_joules_reach_the_summary()


@pytest.mark.parametrize("joules", [-1.0, float("nan"), float("inf")])
def test_impossible_joules_are_an_error_of_the_meter(joules):
    class Impossible(Honest):
        def end(self, mark, work):
            return [Reading("board", joules, self._clock() - mark, "measured: counter", "device")]

    with pytest.raises(MeterError, match="is no energy"):
        faulty(Impossible).test_missing_is_never_zero()


def test_a_meter_that_fails_to_open_is_closed():
    class Broken(Honest):
        def _open(self, device):
            raise OSError("busy")

    meter = Broken()
    for _ in range(2):
        with pytest.raises(OSError, match="busy"):
            meter.open()


def test_a_sensor_that_is_missing_passes_too():
    class Absent(Honest):
        def describe(self):
            return {"found": False, "reason": "no sensor"}

        def end(self, mark, work):
            return [Reading("board", Missing("no sensor"), self._clock() - mark, "", "device")]

    case = faulty(Absent)
    for name in dir(case):
        if name.startswith("test_"):
            getattr(case, name)()


@pytest.mark.parametrize("entry", METERS.shipped, ids=lambda entry: entry.name)
def test_every_shipped_meter_is_held_to_the_kit(entry, tmp_path, monkeypatch):
    """By what the registry loads, as it comes: a sensor that this machine lacks is missing, with its reason."""
    kind = METERS.load(entry.name)
    assert issubclass(kind, Meter)
    assert kind.name == entry.name
    monkeypatch.chdir(tmp_path)
    case = faulty(lambda: kind(**{kind.settings[name]: "FRA" for name in kind.settings if name == "country"}))
    checks = [name for name in dir(case) if name.startswith("test_")]
    assert len(checks) > 10
    for name in checks:
        getattr(case, name)()
