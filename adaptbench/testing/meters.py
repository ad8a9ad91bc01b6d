"""What every meter must hold to.

Subclass in a test file and give `make`::

    class TestMyMeter(MeterConformance):
        def make(self) -> Meter:
            return MyMeter()

A meter without its sensor passes too: it has to say `Missing`, not to measure.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
from abc import abstractmethod
from dataclasses import asdict
from typing import ClassVar

from adaptbench.errors import MeterError
from adaptbench.experiment.meters import SETTINGS
from adaptbench.meters.base import Meter
from adaptbench.meters.reading import NO_WORK, Missing, Reading, Sensor, Work
from adaptbench.meters.rows import to_rows
from adaptbench.results.timing import summarise_windows

SCOPES = frozenset({"device", "process", "machine"})


class MeterConformance:
    """Checks that pytest collects from a subclass; each failure says which rule is broken.

    Attributes:
        device: what the meter is opened on.
    """

    device: ClassVar[str] = "cpu"

    @abstractmethod
    def make(self) -> Meter:
        """A new, closed meter."""

    def work(self) -> Work:
        """Do something that takes energy; what it was."""
        total = 0
        for number in range(20_000):
            total += number * number
        return Work(macs=20_000, bytes=160_000, samples=4)

    def _readings(self, meter: Meter) -> list[Reading]:
        with meter.window() as window:
            window.work = self.work()
        return window.readings

    def test_it_has_a_name(self) -> None:
        """The name stands in suites, tables and file names."""
        name = self.make().name
        assert isinstance(name, str)
        assert name == name.strip().lower() != ""
        assert not set(name) & set(" ,/"), "no blanks, commas or slashes: names are joined by them"

    def test_it_declares_what_it_measures(self) -> None:
        """Summaries and pages choose meters by what they declare, never by name."""
        meter = self.make()
        assert meter.quantity in ("energy", "time")
        assert isinstance(meter.whole_run, bool)
        assert set(meter.settings) <= set(SETTINGS), f"a suite's `measure` has these settings: {', '.join(SETTINGS)}"
        if meter.quantity == "energy":
            assert meter.scope in SCOPES, f"scope '{meter.scope}' is none of {sorted(SCOPES)}"
        else:
            assert meter.scope == "", "seconds are of nothing but the work"
        with meter.on(self.device):
            declared = meter.declared()
        assert {"quantity": meter.quantity, "scope": meter.scope, "whole_run": meter.whole_run}.items() <= (
            declared.items()
        ), "`describe` must not overwrite what the class declares"

    def test_probing_answers(self) -> None:
        """`probe` answers without opening, in words and JSON."""
        seen = self.make().probe()
        assert isinstance(seen, Sensor | Missing)
        if isinstance(seen, Sensor):
            json.dumps(dict(seen.details), allow_nan=False)

    def test_readings_say_where_they_come_from(self) -> None:
        """At least one reading; components differ; joules carry their provenance and scope."""
        with self.make().on(self.device) as meter:
            readings = self._readings(meter)
            scope, timed = meter.scope, meter.quantity == "time"
        assert readings, "a meter without a value returns a reading with Missing"
        components = [one.component for one in readings]
        assert len(set(components)) == len(components), f"a component appears twice: {components}"
        for one in readings:
            assert one.scope == scope, f"scope '{one.scope}', and the meter declares '{scope}'"
            assert not any("," in flag for flag in one.flags), "flags are joined by commas"
            if not isinstance(one.energy_j, Missing):
                assert one.provenance.startswith(("measured: ", "modelled: "))
                assert not timed, "a meter of time has no joules"

    def test_missing_is_never_zero(self) -> None:
        """A window of work has joules above zero, or a reason."""
        with self.make().on(self.device) as meter:
            for one in self._readings(meter):
                assert isinstance(one.energy_j, Missing) or one.energy_j > 0, f"{one.component}: 0 J is no measurement"

    def test_an_idle_window_is_read_too(self) -> None:
        """Without work there is nothing to model, and still something to measure."""
        with self.make().on(self.device) as meter:
            for one in meter.end(meter.begin(), NO_WORK):
                modelled = one.provenance.startswith("modelled") and one.scope == "process"
                assert not modelled, "joules of work that was not done"

    def test_time_goes_on(self) -> None:
        """Windows have a length, in seconds."""
        with self.make().on(self.device) as meter:
            assert all(math.isfinite(one.duration_s) and one.duration_s > 0 for one in self._readings(meter))
            assert math.isfinite(meter.min_window_s)
            assert meter.min_window_s >= 0

    def test_two_windows_have_the_same_components(self) -> None:
        """Components do not come and go, or windows could not be compared."""
        with self.make().on(self.device) as meter:
            first, second = self._readings(meter), self._readings(meter)
        assert [one.component for one in first] == [one.component for one in second]
        both = zip(first, second, strict=True)
        assert all(a.provenance == b.provenance for a, b in both if a.provenance and b.provenance), "the source changed"

    def test_it_describes_itself(self) -> None:
        """The manifest gets found, reason and details, in JSON; what is not found has no joules."""
        meter = self.make()
        with meter.on(self.device):
            readings = self._readings(meter)
            text = meter.describe()
        json.dumps(text, allow_nan=False)
        assert isinstance(text["found"], bool)
        assert (text["reason"] is None) == text["found"], "a reason where it is not found, and only there"
        if not text["found"]:
            assert all(isinstance(one.energy_j, Missing) for one in readings)

    def test_misuse_is_said(self) -> None:
        """Windows on a closed meter and a second `open` are errors; a second `close` is not."""
        meter = self.make()
        _must_raise(meter.begin, "begin() before open()")
        meter.open(self.device)
        try:
            _must_raise(lambda: meter.open(self.device), "open() on an open meter")
        finally:
            meter.close()
        meter.close()
        _must_raise(meter.begin, "begin() after close()")

    def test_it_can_be_opened_again(self) -> None:
        """Closing gives the sensor back."""
        meter = self.make()
        for _ in range(2):
            with meter.on(self.device):
                assert self._readings(meter)

    def test_a_window_that_fails_leaves_it_usable(self) -> None:
        """An error of the measured work does not break the next window."""
        with self.make().on(self.device) as meter:
            with contextlib.suppress(ZeroDivisionError), meter.window():
                raise ZeroDivisionError
            assert self._readings(meter)

    def test_it_prints_nothing(self) -> None:
        """Meters log; tables and JSON on standard output stay whole."""
        out = io.StringIO()
        with contextlib.redirect_stdout(out), self.make().on(self.device) as meter:
            self._readings(meter)
        assert out.getvalue() == ""

    def test_rows_hold_either_joules_or_a_reason(self) -> None:
        """Its readings fit windows.parquet."""
        with self.make().on(self.device) as meter:
            rows = to_rows("a/case", 0, 0, meter, self._readings(meter), 4)
        assert all((row.energy_j is None) == (row.missing is not None) for row in rows)

    def test_its_joules_reach_the_summary(self) -> None:
        """The record of a case names the meter and holds its joules, or the meter's own reason."""
        import numpy as np
        import pandas as pd

        rows = []
        with self.make().on(self.device) as meter:
            for block in range(2):
                for case in ("a/case", "static"):
                    rows += to_rows(case, block, 0, meter, self._readings(meter), 4)
        if meter.quantity == "time" or meter.whole_run:
            return
        windows = pd.DataFrame([asdict(row) for row in rows])
        record = summarise_windows(
            windows, "a/case", "static", macs=np.ones(4), macs_full=2.0, energy_meters=[meter.name]
        )
        if record["energy_j_per_sample"] is None:
            reasons = {row.missing for row in rows if row.case == "a/case" and row.missing}
            why = record["energy_j_per_sample_missing"]
            assert reasons & set(why.split("; ")), f"{why}: give a component 'total', or joules of one kind"
        else:
            assert (record["energy_meter"], record["energy_scope"]) == (meter.name, meter.scope)


def _must_raise(call: object, what: str) -> None:
    try:
        call()  # type: ignore[operator]
    except MeterError:
        return
    raise AssertionError(f"{what} must raise MeterError")
