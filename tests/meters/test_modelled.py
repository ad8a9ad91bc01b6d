from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptbench.errors import UnknownNameError, UsageError
from adaptbench.meters.modelled import TABLES, Coefficients, ModelledMeter
from adaptbench.meters.reading import NO_WORK, Missing, Work
from adaptbench.testing.meters import MeterConformance

counts = st.integers(0, 10**15)


class TestModelled(MeterConformance):
    def make(self):
        return ModelledMeter()


class TestMacsOnly(MeterConformance):
    def make(self):
        return ModelledMeter("sponge-45nm")

    def work(self):
        return Work(super().work().macs, None, 4)


@given(counts, counts)
def test_closed_form(macs, size):
    """Horowitz 2014: 3.7 + 0.9 pJ a multiply-add; Han 2015: 640 pJ a 32-bit word of DRAM."""
    expected = (macs * (3.7 + 0.9) + size / 4 * 640) * 1e-12
    assert ModelledMeter().energy_j(Work(macs, size, 1)) == pytest.approx(expected)


@given(counts, counts, st.integers(1, 10_000))
def test_joules_grow_with_the_work(macs, size, calls):
    meter, work = ModelledMeter(), Work(macs, size, 3)
    assert meter.energy_j(work * calls) == pytest.approx(calls * meter.energy_j(work))


def test_sponge_coefficients():
    table = TABLES["sponge-45nm"]
    assert (table.pj_per_mac, table.pj_per_byte * 4) == (3.7, 1950)


@pytest.mark.parametrize("name", TABLES)
def test_every_table_names_its_source(name):
    meter = ModelledMeter(name)
    text = meter.provenance(Work(1, 1, 1))
    assert text.startswith("modelled: ")
    assert name in text
    assert TABLES[name].source in text
    assert "pJ/byte" in text
    assert meter.describe()["coefficients"] == name


def test_without_bytes_the_provenance_says_macs_only():
    text = ModelledMeter().provenance(Work(1, None, 1))
    assert "MACs only" in text
    assert "pJ/byte" not in text


def test_uncounted_work_has_no_joules():
    assert isinstance(ModelledMeter().energy_j(NO_WORK), Missing)


def test_coefficients_can_be_overridden_with_a_source():
    meter = ModelledMeter(pj_per_mac=1.0, source="fitted on our H100, 2026-01")
    assert meter.energy_j(Work(10, 10, 1)) == pytest.approx((10 * 1.0 + 10 * 160) * 1e-12)
    assert "fitted on our H100" in meter.provenance(Work(1, 1, 1))
    assert ModelledMeter(Coefficients("mine", 1, 2, "data sheet")).coefficients.pj_per_byte == 2


def test_an_override_without_a_source_is_refused():
    with pytest.raises(UsageError, match="no source"):
        ModelledMeter(pj_per_mac=1.0)


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_impossible_coefficients_are_refused(value):
    with pytest.raises(UsageError):
        ModelledMeter(pj_per_byte=value, source="x")


def test_an_unknown_table_gets_a_suggestion():
    with pytest.raises(UnknownNameError, match="horowitz-45nm-fp32"):
        ModelledMeter("horowitz-45-fp32")
