from __future__ import annotations

import json
import logging
import socket
from types import SimpleNamespace

import pytest
import urllib3  # noqa: F401  # its import tries IPv6 on the loopback: before sockets are refused

from adaptbench.errors import UsageError
from adaptbench.meters import codecarbon, rapl
from adaptbench.meters.codecarbon import CodeCarbonMeter
from adaptbench.meters.reading import NO_WORK, Missing, Sensor
from adaptbench.meters.rows import to_rows
from adaptbench.testing.meters import MeterConformance


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Opening a socket is an error, and so is a library that swallows it."""
    opened = []

    class Refused(socket.socket):
        def __init__(self, *arguments, **options):
            opened.append(arguments)
            raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", Refused)
    yield
    assert opened == []


@pytest.fixture
def worked(monkeypatch, tmp_path):
    """A meter after one window, in a folder whose configuration file asks for uploads."""
    (tmp_path / ".codecarbon.config").write_text(
        "[codecarbon]\nsave_to_api = True\noutput_methods = csv,api\nelectricitymaps_api_token = abc\n"
        "co2_signal_api_token = abc\nemissions_endpoint = http://localhost:9\nallow_multiple_runs = False\npue = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CODECARBON_TRACKING_MODE", "process")
    meter = CodeCarbonMeter("deu")
    with meter.on("cpu"), meter.window() as window:
        sum(number * number for number in range(500_000))
    return meter, window.readings, tmp_path


class TestCodeCarbon(MeterConformance):
    def make(self):
        return CodeCarbonMeter("FRA")

    def work(self):
        sum(number * number for number in range(300_000))
        return NO_WORK


def test_components_apart_each_with_its_source(worked):
    _meter, readings, _ = worked
    parts = {one.component: one for one in readings}
    assert {"cpu", "ram"} <= set(parts)
    assert "total" not in parts, "a sum would mix measured and modelled joules"
    assert parts["ram"].provenance.startswith("modelled: CodeCarbon, constant RAM power")
    expected = "measured: RAPL" if rapl.domains() and rapl.domains()[0].readable else "modelled: CodeCarbon, CPU load"
    assert parts["cpu"].provenance.startswith(expected)
    assert {one.scope for one in readings} == {"machine"}
    assert all(one.energy_j > 0 for one in readings if not isinstance(one.energy_j, Missing))


def test_nothing_is_left_behind(worked):
    _, _, folder = worked
    assert [path.name for path in folder.iterdir()] == [".codecarbon.config"]


def test_carbon_is_joules_times_the_grid(worked):
    meter, readings, _ = worked
    text = meter.describe()
    json.dumps(text)
    kwh = sum(one.energy_j for one in readings if not isinstance(one.energy_j, Missing)) / 3.6e6
    assert text["country_iso_code"] == "DEU"
    assert text["co2e_kg"] == pytest.approx(kwh * text["grid_g_per_kwh"] / 1000, rel=1e-6)
    assert 50 < text["grid_g_per_kwh"] < 1000


def test_its_talk_is_kept_and_not_printed(worked, capfd):
    meter, _, _ = worked
    assert any("Multiple instances" in message for message in meter.describe()["messages"])
    meter = CodeCarbonMeter("DEU")
    with meter.on("cpu"), meter.window():
        pass
    assert capfd.readouterr() == ("", "")


def test_its_logger_is_given_back():
    logger = logging.getLogger("codecarbon")
    before = logger.level, list(logger.filters)
    with CodeCarbonMeter("DEU").on("cpu"):
        pass
    assert (logger.level, list(logger.filters)) == before


def test_the_grid_can_be_given():
    meter = CodeCarbonMeter("DEU", grid_g_per_kwh=100.0)
    with meter.on("cpu"), meter.window():
        sum(number * number for number in range(1_000_000))
    assert meter.describe()["grid_g_per_kwh"] == pytest.approx(100)


def test_windows_below_half_a_minute_are_short(worked):
    meter, readings, _ = worked
    rows = to_rows("suite", 0, 0, meter, readings, 100)
    assert {row.flags for row in rows if row.energy_j is not None} == {"short"}
    assert meter.whole_run


def test_a_country_is_needed():
    with pytest.raises(UsageError, match="no country"):
        CodeCarbonMeter().open()


def test_an_unknown_country_is_not_the_world_average():
    with pytest.raises(UsageError, match="'DEX'") as caught:
        CodeCarbonMeter("DEX").open()
    assert "DEU" in caught.value.todo


def test_zero_is_no_measurement():
    sources = {"gpu": "measured: NVML total-energy counter, through CodeCarbon"}
    reading = codecarbon._reading("gpu", 0.0, 12.0, sources)
    assert "0 kWh" in reading.energy_j.reason
    assert isinstance(codecarbon._reading("cpu", 1.0, 12.0, sources).energy_j, Missing)


def test_on_a_gpu_its_absence_is_said():
    meter = CodeCarbonMeter("DEU")
    with meter.on("cuda:0"), meter.window() as window:
        sum(number * number for number in range(300_000))
    parts = {one.component: one.energy_j for one in window.readings}
    assert "gpu" in parts
    if "gpu" not in meter.describe()["sources"]:
        assert isinstance(parts["gpu"], Missing)


def test_a_tracker_that_breaks_is_missing_and_not_an_error(monkeypatch):
    monkeypatch.setattr("codecarbon.emissions_tracker.BaseEmissionsTracker._ensure_hardware_ready", lambda self: 1 / 0)
    meter = CodeCarbonMeter("DEU")
    with meter.on("cpu"), meter.window() as window:
        pass
    assert "ZeroDivisionError" in window.readings[0].energy_j.reason
    assert meter.describe()["found"] is False


def test_a_tracker_that_gives_no_result_is_missing(monkeypatch):
    monkeypatch.setattr("codecarbon.emissions_tracker.BaseEmissionsTracker.stop", lambda self: None)
    meter = CodeCarbonMeter("DEU")
    with meter.on("cpu"), meter.window() as window:
        pass
    assert "no result" in window.readings[0].energy_j.reason


def test_it_need_not_be_installed(monkeypatch):
    absent = Missing("absent: CodeCarbon is not installed", "pip install codecarbon", "absent")
    monkeypatch.setattr(codecarbon, "_installed", lambda: absent)
    meter = CodeCarbonMeter("DEU")
    assert meter.probe() is absent
    with meter.on("cpu"), meter.window() as window:
        pass
    assert {one.energy_j for one in window.readings} == {absent}


def hardware(kind, **attributes):
    return type(kind, (SimpleNamespace,), {})(**attributes)


@pytest.mark.parametrize(
    ("one", "component", "source"),
    [
        (hardware("CPU", _mode="intel_rapl"), "cpu", "measured: RAPL"),
        (hardware("CPU", _mode="constant"), "cpu", "modelled: CodeCarbon, half of the CPU's TDP"),
        (
            hardware("CPU", _mode="cpu_load", _tdp=85, _is_generic_tdp=True),
            "cpu",
            "modelled: CodeCarbon, CPU load × 85 W TDP (guessed)",
        ),
        (hardware("CPU", _mode="new"), "cpu", "modelled: CodeCarbon, CPU mode 'new'"),
        (hardware("AppleSiliconChip", chip_part="GPU"), "gpu", "measured: powermetrics"),
        (hardware("Raspberry", chip_part="RAM"), "ram", "measured: Raspberry Pi PMIC"),
        (
            hardware("GPU", devices=SimpleNamespace(devices=[hardware("NvidiaGPUDevice", last_energy=1)])),
            "gpu",
            "measured: NVML total-energy counter, through CodeCarbon",
        ),
        (
            hardware("GPU", devices=SimpleNamespace(devices=[hardware("NvidiaGPUDevice", last_energy=None)])),
            "gpu",
            "measured: NVML power, averaged by CodeCarbon",
        ),
        (
            hardware("GPU", devices=SimpleNamespace(devices=[hardware("AMDGPUDevice", last_energy=1)])),
            "gpu",
            "measured: GPU driver, through CodeCarbon",
        ),
    ],
)
def test_sources_are_what_codecarbon_chose(one, component, source):
    assert codecarbon._sources(SimpleNamespace(_hardware=[one])) == {component: source}


def domain(readable):
    return rapl.Domain(rapl.POWERCAP / "intel-rapl:0" / "energy_uj", "package-0", "-r--------", readable)


def test_probing_says_what_the_cpu_rests_on(monkeypatch):
    monkeypatch.setattr(rapl, "domains", lambda: [domain(True)])
    assert CodeCarbonMeter().probe().details["cpu"] == "measured: RAPL"
    monkeypatch.setattr(rapl, "domains", lambda: [domain(False)])
    seen = CodeCarbonMeter().probe()
    assert isinstance(seen, Sensor)
    assert seen.details["cpu"].startswith("modelled")
    assert seen.advice == "sudo chmod a+r /sys/class/powercap/intel-rapl:0/energy_uj"
