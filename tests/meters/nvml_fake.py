"""A fake NVIDIA driver: fake_nvml.c compiled, its boards and clock at hand; the binding above it is the real one."""

from __future__ import annotations

import ctypes as c
import shutil
import subprocess
import sys
from pathlib import Path

import pynvml
import pytest

from adaptbench.meters.nvml_device import Driver, Gpu
from adaptbench.meters.nvml_poll import Sample, look

SOURCE = Path(__file__).with_name("fake_nvml.c")


class Board(c.Structure):
    _fields_ = [
        ("uuid", c.c_char * 96),
        ("mig_uuid", c.c_char * 96),
        ("watts", c.c_double),
        ("joules", c.c_double),
        ("published_mj", c.c_uint64),
        ("offset_mj", c.c_int64),
        *[(n, c.c_int32) for n in ("counter_error", "power_error", "instant_error", "lost", "frozen", "mig")],
        ("temperature_c", c.c_int32),
        ("sm_mhz", c.c_int32),
        ("reasons", c.c_uint64),
        ("n_pids", c.c_uint32),
        ("pids", c.c_uint32 * 4),
        ("power_scale", c.c_double),
        ("limit_w", c.c_double),
    ]


class State(c.Structure):
    _fields_ = [
        ("now_s", c.c_double),
        ("step_s", c.c_double),
        ("tick_s", c.c_double),
        *[(n, c.c_int32) for n in ("init_error", "n_boards", "real_time", "inits")],
        ("board", Board * 4),
    ]


def fill(state: State, *, watts=(100.0, 300.0)) -> State:
    """Two boards on a clock that starts at 1000 s."""
    c.memset(c.byref(state), 0, c.sizeof(state))
    state.now_s, state.step_s, state.tick_s, state.n_boards = 1000.0, 5e-4, 0.1, len(watts)
    for i, power in enumerate(watts):
        board = state.board[i]
        board.uuid, board.mig_uuid = f"GPU-{i}{i}AA-bb".encode(), f"MIG-{i}{i}cc-dd".encode()
        board.watts, board.joules, board.power_scale, board.temperature_c, board.sm_mhz = power, 5000.0, 1.0, 50, 1400
        board.mig, board.limit_w = -1, 350.0
    return state


def compile_library(folder: Path) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("the fake driver is built with a C compiler, on Linux")
    target = folder / "libnvidia-ml.so.1"
    flags = ["-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-O1"]
    subprocess.run([compiler, *flags, "-o", str(target), str(SOURCE)], check=True)
    return target


class FakeNvml:
    """The library loaded into this process, under the real ``pynvml``."""

    def __init__(self, path: Path) -> None:
        self.library = c.CDLL(str(path))
        self.library.fake_state.restype = c.POINTER(State)
        self.library.fake_state_size.restype = c.c_uint64
        self.library.fake_advance.argtypes = [c.c_double]
        assert self.library.fake_state_size() == c.sizeof(State), "fake_nvml.c and nvml_fake.py differ"
        self.state: State = self.library.fake_state().contents
        self.pollers: list[StepPoller] = []

    def reset(self) -> None:
        fill(self.state)
        self.pollers = []

    def clock(self) -> float:
        return self.state.now_s

    def uuid_of(self, index: int) -> str:
        """As torch gives it, bare and in lower case, and in the reverse of NVML's order."""
        return ["11aa-bb", "00aa-bb"][index]

    def run(self, seconds: float) -> None:
        """Let time pass, the pollers looking as they would."""
        end = self.state.now_s + seconds
        while self.state.now_s < end - 1e-12:
            self.library.fake_advance(min(0.05, end - self.state.now_s))
            for poller in self.pollers:
                poller.look()

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pynvml, "nvmlLib", self.library)
        monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})


class StepPoller:
    """Looks when the fake's time passes: what `ProcessPoller` does, without a process."""

    period_s = 0.05

    def __init__(self, fake: FakeNvml) -> None:
        self.fake, self.samples, self.driver, self.gpu = fake, [], None, None

    def start(self, gpu: Gpu, clock) -> None:
        self.driver, self.gpu = Driver.connect(), gpu
        self.fake.pollers.append(self)
        self.look()

    def look(self) -> None:
        self.samples.append(look(self.driver, self.gpu, self.fake.clock))

    def between(self, start_s: float, end_s: float) -> list[Sample]:
        self.look()
        return [one for one in self.samples if start_s - 0.2 <= one.at_s <= end_s + 0.2]

    def stop(self) -> None:
        if self.driver is not None:
            self.driver.close()
            self.fake.pollers.remove(self)
            self.driver = None
