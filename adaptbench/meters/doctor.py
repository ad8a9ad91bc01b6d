"""What of this machine can be measured, and the one command that would make each missing thing work."""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from adaptbench.errors import AdaptBenchError
from adaptbench.meters import rapl
from adaptbench.meters.nvml_device import bare_uuid
from adaptbench.meters.reading import Missing
from adaptbench.registry import METERS

_CORE = ("torch", "numpy", "pandas", "scipy", "scikit-learn", "nvidia-ml-py", "codecarbon")
_EXTRAS = {
    "torchattacks": ("its attacks as conditions (torchattacks/PGD …)", "pip install 'adaptbench[attacks]'"),
    "ray": ("the engine over several machines, --engine ray", "pip install 'adaptbench[ray]'"),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked for.

    Args:
        name: of the thing.
        usable: whether it is there and works.
        what: what was seen.
        why: what it is for, or what its absence costs.
        command: what to run or change; empty where nothing is to be done.
    """

    name: str
    usable: bool
    what: str
    why: str = ""
    command: str = ""


def diagnose(*, data: Callable[[], Iterable[Finding]] | None = None) -> list[Finding]:
    """Look at everything; never raises.

    Args:
        data: gives the findings about the data root and its sets.
    """
    checks: list[tuple[str, Callable[[], Iterable[Finding]]]] = [
        ("clock", _clock),
        *[(f"meter {name}", _meter_check(name)) for name in _meter_names() if name != "clock"],
        ("rapl", _rapl),
        ("cpu", _cpu),
        ("cuda", _cuda),
        ("versions", _versions),
        *[(name, _extra_check(name)) for name in _EXTRAS],
        *([("data", data)] if data is not None else []),
    ]
    return [finding for name, check in checks for finding in _safely(name, check)]


def lines(findings: Sequence[Finding]) -> list[str]:
    """Plain text, a line a finding, and one more below it where something can be done."""
    width = max((len(one.name) for one in findings), default=0)
    text = []
    for one in findings:
        reason = f" ({one.why})" if one.why and not one.usable else ""
        text.append(f"{'found  ' if one.usable else 'missing'}  {one.name:<{width}}  {one.what}{reason}")
        if one.command:
            text.append(f"{'':<{width + 11}}→ {one.command}")
    return text


def _safely(name: str, check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    try:
        return list(check())
    except Exception as error:  # a report on a broken machine must not break
        return [Finding(name, False, f"the check failed: {type(error).__name__}: {error}", "please report this")]


def _meter_names() -> list[str]:
    try:
        return METERS.names()
    except AdaptBenchError:  # two plug-ins of one name; `adaptbench list meters` says which, the others stay
        return METERS.names()


def _clock() -> list[Finding]:
    info = time.get_clock_info("perf_counter")
    steps: list[float] = []
    last = time.perf_counter()
    while len(steps) < 20:
        now = time.perf_counter()
        if now > last:
            steps.append(now - last)
            last = now
    what = f"{info.implementation}, resolution {info.resolution:.0e} s, smallest step seen {min(steps):.1e} s"
    return [Finding("clock", info.monotonic, what, "time comes from here")]


def _meter_check(name: str) -> Callable[[], list[Finding]]:
    def check() -> list[Finding]:
        seen = METERS.load(name)().probe()
        if isinstance(seen, Missing):
            reason = seen.reason.removeprefix(f"{seen.kind}: ")
            return [Finding(name, False, reason, "no joules from it", seen.advice)]
        brief = {key: value for key, value in seen.details.items() if key != "note"}
        return [Finding(name, True, _in_words(brief), METERS.entry(name).summary, seen.advice)]

    return check


def _in_words(details: Any) -> str:
    if isinstance(details, dict):
        parts = [f"{key} {_in_words(value)}" for key, value in details.items() if value not in (None, "", [])]
        return ", ".join(parts)
    if isinstance(details, list | tuple):
        return "; ".join(_in_words(one) for one in details)
    if isinstance(details, bool):
        return "yes" if details else "no"
    return f"{details:g}" if isinstance(details, float) else str(details)


def _rapl() -> list[Finding]:
    domains = rapl.domains()
    why = "CodeCarbon models the CPU's energy from its load"
    if not domains:
        system = "this kernel shows no RAPL counters" if sys.platform == "linux" else "RAPL is read on Linux only"
        command = "sudo modprobe intel_rapl_msr  (not in a virtual machine)" if sys.platform == "linux" else ""
        return [Finding("rapl", False, f"{rapl.POWERCAP}: {system}", why, command)]
    denied = [domain for domain in domains if not domain.readable]
    if denied:
        files = ", ".join(f"{domain.path} ({domain.name}) {domain.mode}" for domain in denied)
        return [Finding("rapl", False, f"not readable: {files}", why, rapl.unlock_command(denied))]
    return [Finding("rapl", True, ", ".join(f"{domain.name} at {domain.path}" for domain in domains))]


def _cpu() -> list[Finding]:
    threads = ""
    if importlib.util.find_spec("torch") is not None:
        import torch

        threads = f", torch uses {torch.get_num_threads()} threads"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    governors = _governors()
    what = f"{_cpu_model()}, {cores} cores usable{threads}, governor {', '.join(governors) or 'not shown'}"
    if governors and governors != ["performance"]:
        command = "sudo cpupower frequency-set -g performance"
        return [Finding("cpu", True, what, "clocks that move make times scatter", command)]
    return [Finding("cpu", True, what)]


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("model name", "Model", "cpu model")):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _governors() -> list[str]:
    files = Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")
    governors = set()
    for file in files:
        try:
            governors.add(file.read_text().strip())
        except OSError:
            continue
    return sorted(governors)


def _cuda() -> list[Finding]:
    import torch

    if not torch.cuda.is_available():
        built = torch.version.cuda
        what = "torch is built without CUDA" if built is None else f"torch is built for CUDA {built} and sees no GPU"
        wrong_build = built is None and Path("/dev/nvidiactl").exists()
        command = "install torch with CUDA: https://pytorch.org/get-started" if wrong_build else ""
        return [Finding("cuda", False, what, "runs on cpu only", command)]
    seen = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        uuid = getattr(properties, "uuid", None)
        seen.append(f"cuda:{index} {properties.name}" + (f" {bare_uuid(str(uuid))}" if uuid is not None else ""))
    return [Finding("cuda", True, f"CUDA {torch.version.cuda}: {'; '.join(seen)}")]


def _versions() -> list[Finding]:
    parts, absent = [f"Python {platform.python_version()}"], []
    for package in ("adaptbench", *_CORE):
        try:
            parts.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            absent.append(package)
    if absent:
        what = f"{', '.join(parts)}; not installed: {', '.join(absent)}"
        return [Finding("versions", False, what, "adaptbench needs them", f"pip install {' '.join(absent)}")]
    return [Finding("versions", True, ", ".join(parts))]


def _extra_check(name: str) -> Callable[[], list[Finding]]:
    def check() -> list[Finding]:
        purpose, command = _EXTRAS[name]
        if importlib.util.find_spec(name) is None:
            return [Finding(name, False, "not installed", f"optional: {purpose}", command)]
        return [Finding(name, True, version(name), purpose)]

    return check
