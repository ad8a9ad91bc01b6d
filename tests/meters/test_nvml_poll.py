from __future__ import annotations

import ctypes as c
import json
import mmap
import os
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nvml_fake import State, fill

from adaptbench.meters.nvml_device import Gpu
from adaptbench.meters.nvml_poll import ProcessPoller, Sample, integrate
from adaptbench.meters.reading import Missing


def samples(power_w, stamps):
    return [Sample(at, round(power_w(at) * 1000)) for at in stamps]


@given(
    st.floats(10, 400),
    st.floats(0, 50),
    st.lists(st.floats(0, 10), min_size=1, max_size=30, unique=True),
    st.floats(0, 4),
    st.floats(5, 10),
)
def test_a_linear_power_is_integrated_exactly(base, slope, inner, start, end):
    looks = samples(lambda t: base + slope * t, sorted({0.0, 10.0, *inner}))
    exact = base * (end - start) + slope * (end**2 - start**2) / 2
    assert integrate(looks, start, end, most_gap_s=10) == pytest.approx(exact, rel=1e-3)


@given(st.lists(st.floats(1, 400), min_size=12, max_size=12), st.floats(1, 9))
def test_windows_add_up(powers, cut):
    looks = [Sample(float(at), round(power * 1000)) for at, power in enumerate(powers)]
    parts = integrate(looks, 0.5, cut, most_gap_s=2) + integrate(looks, cut, 9.5, most_gap_s=2)
    assert parts == pytest.approx(integrate(looks, 0.5, 9.5, most_gap_s=2))


def test_beyond_the_outermost_samples_the_power_is_held():
    looks = samples(lambda t: 100, [1.0, 2.0])
    assert integrate(looks, 0.5, 2.5, most_gap_s=1.0) == pytest.approx(200)


@pytest.mark.parametrize("stamps", [[], [1.0], [0.0, 0.5, 9.0, 10.0], [0.0, 0.5, 1.0], [8.0, 9.0, 10.0]])
def test_a_hole_in_the_samples_is_missing(stamps):
    assert isinstance(integrate(samples(lambda t: 100, stamps), 0.0, 10.0, most_gap_s=2.0), Missing)


def test_failed_looks_are_holes_and_not_zero_watts():
    looks = [Sample(t / 10, None if t == 5 else 100_000) for t in range(11)]
    assert integrate(looks, 0.0, 1.0, most_gap_s=0.3) == pytest.approx(100)


def test_records_survive_the_way_between_processes():
    sent = [Sample(1.5, 120_000, 4, 1400), Sample(2.5, None, None, None)]
    data = b"".join(one.pack() for one in sent)
    assert Sample.unpack(data) == sent
    assert Sample.unpack(data[:-1]) == sent[:1], "half a record waits for its other half"


@pytest.fixture
def shared(nvml_library, tmp_path, monkeypatch):
    """The fake driver where child processes find it, its state in a file that this process sees too."""
    path = tmp_path / "state"
    path.write_bytes(bytes(fill(State())))
    with path.open("r+b") as file:
        state = State.from_buffer(mmap.mmap(file.fileno(), 0))
    state.real_time, state.now_s = 1, 0.0
    monkeypatch.setenv("FAKE_NVML_STATE", str(path))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(nvml_library.parent))
    return state


def board(uuid):
    return Gpu(None, 0, uuid, "", mig=False)


def test_the_child_polls_on_this_process_clock(shared):
    poller = ProcessPoller(0.005)
    poller.start(board("GPU-11AA-bb"), time.perf_counter)
    try:
        start = time.perf_counter()
        first = poller.between(start, start + 0.1)
        shared.board[1].lost = 1
        second = poller.between(first[-1].at_s, first[-1].at_s + 0.05)
    finally:
        poller.stop()
    assert integrate(first, start, start + 0.1, most_gap_s=60.0) == pytest.approx(30, rel=1e-6)
    assert first[-1].sm_mhz == 1400
    assert second[-1].power_mw is None


def test_a_child_that_cannot_start_keeps_nobody_waiting(shared):
    poller = ProcessPoller(0.005)
    poller.start(board("GPU-unknown"), time.perf_counter)
    assert poller.between(0.0, time.perf_counter() + 1000) == []
    poller.stop()
    poller.stop()


def test_the_child_goes_with_its_parent(shared, tmp_path):
    command = [sys.executable, "-m", "adaptbench.meters.nvml_poll", "GPU-00AA-bb", "0.005", str(tmp_path / "samples")]
    child = subprocess.Popen(command, stdin=subprocess.PIPE)
    child.stdin.close()
    assert child.wait(timeout=60) == 0


def test_the_binding_finds_the_library_by_its_own_way(shared):
    """The loader's path, the binding's CDLL, the version, the boards: nothing injected."""
    script = "import json; from adaptbench.meters.nvml import NvmlMeter; print(json.dumps(NvmlMeter().probe().details))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=os.environ)
    details = json.loads(done.stdout)
    assert details["driver"] == "999.01"
    assert [one["uuid"] for one in details["gpus"]] == ["GPU-00AA-bb", "GPU-11AA-bb"]


def test_the_state_is_laid_out_as_in_c(nvml_loaded):
    assert nvml_loaded.library.fake_state_size() == c.sizeof(State)
