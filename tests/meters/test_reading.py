from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptbench.errors import MeterError
from adaptbench.meters.reading import Missing, Reading, Work, add

energies = st.floats(0, 1e9)


def test_missing_takes_no_part_in_arithmetic():
    missing = Missing("no sensor")
    for operation in (lambda: missing + 1, lambda: 2 * missing, lambda: missing / 3, lambda: float(missing)):
        with pytest.raises(TypeError):
            operation()


def test_missing_needs_a_reason():
    with pytest.raises(MeterError):
        Missing("  ")


@given(st.lists(energies, min_size=1))
def test_components_add_up(values):
    assert add(values) == math.fsum(values)


@given(st.lists(energies), st.lists(energies))
def test_one_missing_component_makes_the_sum_missing(before, after):
    assert add([*before, Missing("a"), *after, Missing("b"), Missing("a")]) == Missing("a; b")


def test_a_sum_of_nothing_is_not_zero():
    with pytest.raises(MeterError):
        add([])


@pytest.mark.parametrize("energy", [-1.0, math.nan, math.inf])
def test_impossible_joules_are_refused(energy):
    with pytest.raises(MeterError):
        Reading("gpu0", energy, 1.0, "measured: NVML")


@pytest.mark.parametrize("provenance", ["", "NVML", "estimated: x"])
def test_joules_say_where_they_come_from(provenance):
    with pytest.raises(MeterError, match="provenance"):
        Reading("gpu0", 1.0, 1.0, provenance)


@pytest.mark.parametrize("duration", [-1e-9, math.nan, math.inf])
def test_impossible_windows_are_refused(duration):
    with pytest.raises(MeterError):
        Reading("clock", Missing("time only"), duration)


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 100), st.integers(0, 100))
def test_work_multiplies(macs, size, samples, calls):
    assert Work(macs, size, samples) * calls == Work(macs * calls, size * calls, samples * calls)
    assert Work(None, None, samples) * calls == Work(None, None, samples * calls)


def test_negative_work_is_refused():
    with pytest.raises(MeterError):
        Work(-1, None, 1)
