"""Meters as plug-ins bring them: nothing in the package knows their names."""

from __future__ import annotations

import pytest

from adaptbench.meters.base import Meter
from adaptbench.meters.reading import Reading, Sensor
from adaptbench.registry import METERS, Entry


class Wattmeter(Meter):
    """A meter at the socket: CPU and board apart, in proportion to the MACs."""

    name = "wattmeter"
    scope = "machine"

    def probe(self):
        return Sensor({"sensor": "socket"})

    def describe(self):
        return {"found": True, "reason": None, "sensor": "socket"}

    def begin(self):
        self._need_open()
        return self._clock()

    def end(self, mark, work):
        seconds, joules = self._clock() - mark, 1e-3 + 1e-9 * (work.macs or 0)
        return [Reading(part, joules, seconds, "measured: socket", self.scope) for part in ("cpu", "board")]


class Second(Wattmeter):
    name = "second"


class Halves(Wattmeter):
    """A measured part and a modelled one."""

    name = "halves"

    def end(self, mark, work):
        cpu, board = super().end(mark, work)
        return [cpu, Reading("board", 1.0, board.duration_s, "modelled: 5 W", self.scope)]


class Renamed(Wattmeter):
    name = "someone-else"


class Broken(Wattmeter):
    name = "broken"

    def end(self, mark, work):
        raise OSError("the cable is out")


class Typo(Wattmeter):
    name, quantity = "typo", "Energy"


class Demanding(Wattmeter):
    name = "demanding"

    def __init__(self, port):
        super().__init__()


class Speechless(Wattmeter):
    name = "speechless"

    def describe(self):
        return {"found": True, "reason": None, "drift": float("nan")}


class Lax(Wattmeter):
    """Describes itself in other forms than a manifest has."""

    name = "lax"

    def describe(self):
        return {"found": 1, "reason": None, "sensor": 5}


class NoMeter:
    name = "no-meter"


def plug_in(monkeypatch: pytest.MonkeyPatch, *kinds: type[Meter], **others: type[Meter]) -> None:
    """As an entry point of the group ``adaptbench.meters`` would."""
    len(METERS)  # entry points of this machine come first
    for name, kind in {**{kind.name: kind for kind in kinds}, **others}.items():
        monkeypatch.setitem(METERS._entries, name, Entry(name, f"wattmeter:{kind.__name__}", "a plug-in"))
