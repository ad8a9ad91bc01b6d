from __future__ import annotations

import os
from pathlib import Path

import pytest

from adaptbench.meters import doctor, rapl
from adaptbench.meters.doctor import Finding, diagnose, lines
from adaptbench.meters.nvml_device import Driver
from adaptbench.meters.reading import Missing
from adaptbench.registry import METERS


def by_name(findings):
    return {one.name: one for one in findings}


def test_this_machine():
    findings = by_name(diagnose())
    assert {entry.name for entry in METERS.shipped} <= set(findings)
    assert {"rapl", "cpu", "cuda", "versions", "torchattacks", "ray"} <= set(findings)
    assert findings["clock"].usable
    assert findings["modelled"].usable
    assert "horowitz" in findings["modelled"].what
    assert "torch " in findings["versions"].what
    assert not any("the check failed" in one.what for one in findings.values())


def test_what_is_missing_says_why_and_what_to_do(monkeypatch):
    absent = Missing("absent: there is no NVIDIA driver library", "install the NVIDIA driver", "absent")
    monkeypatch.setattr(Driver, "connect", classmethod(lambda cls: absent))
    nvml = by_name(diagnose())["nvml"]
    assert (nvml.usable, nvml.what, nvml.command) == (
        False,
        "there is no NVIDIA driver library",
        "install the NVIDIA driver",
    )


def test_a_board_is_shown(fake):
    nvml = by_name(diagnose())["nvml"]
    assert nvml.usable
    assert "GPU-00AA-bb" in nvml.what
    assert fake.state.inits == 0


def test_a_check_that_breaks_does_not_break_the_report(monkeypatch):
    def explode():
        raise OSError("no /proc here")

    monkeypatch.setattr(doctor, "_cpu_model", explode)
    monkeypatch.setattr(doctor, "_rapl", explode)
    findings = by_name(diagnose(data=explode))
    assert findings["cpu"].what == "the check failed: OSError: no /proc here"
    assert findings["data"].usable is False
    assert findings["clock"].usable


def test_a_plug_in_that_cannot_be_loaded_is_one_finding(monkeypatch):
    monkeypatch.setattr(doctor, "_meter_names", lambda: ["clock", "no-such-meter"])
    assert "no meter is called" in by_name(diagnose())["meter no-such-meter"].what


def test_data_findings_are_the_callers():
    given = Finding("digits", True, "embedded")
    assert given in diagnose(data=lambda: [given])


@pytest.fixture
def powercap(tmp_path, monkeypatch):
    for name, label in (("intel-rapl:0", "package-0"), ("intel-rapl:0:0", "dram")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "name").write_text(label + "\n")
        (folder / "energy_uj").write_text("123\n")
    (tmp_path / "intel-rapl").mkdir()
    monkeypatch.setattr(rapl, "POWERCAP", tmp_path)
    monkeypatch.setattr(doctor.rapl, "domains", lambda: real_domains(tmp_path))
    return tmp_path


real_domains = rapl.domains


def test_counters_that_may_be_read(powercap):
    (finding,) = doctor._rapl()
    assert finding.usable
    assert "package-0" in finding.what
    assert "dram" in finding.what


def test_counters_that_may_not_be_read_name_file_mode_and_command(powercap, monkeypatch):
    denied = powercap / "intel-rapl:0" / "energy_uj"
    denied.chmod(0o400)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != denied)
    (finding,) = doctor._rapl()
    assert not finding.usable
    assert f"{denied} (package-0) -r--------" in finding.what
    assert finding.command == f"sudo chmod a+r {denied}"


def test_no_counters(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor.rapl, "domains", lambda: real_domains(tmp_path / "nowhere"))
    (finding,) = doctor._rapl()
    assert not finding.usable


def test_a_governor_that_saves_power_gets_a_command(monkeypatch):
    monkeypatch.setattr(doctor, "_governors", lambda: ["powersave"])
    (finding,) = doctor._cpu()
    assert "powersave" in finding.what
    assert "performance" in finding.command
    monkeypatch.setattr(doctor, "_governors", lambda: ["performance"])
    assert doctor._cpu()[0].command == ""


def test_an_extra_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    (finding,) = doctor._extra_check("ray")()
    assert (finding.usable, finding.command) == (False, "pip install 'adaptbench[ray]'")


def test_plain_lines():
    text = lines(
        [Finding("nvml", False, "no driver", "no joules", "install it"), Finding("clock", True, "fine", "time")]
    )
    assert text == [
        "missing  nvml   no driver (no joules)",
        "                → install it",
        "found    clock  fine",
    ]
    assert lines([]) == []
