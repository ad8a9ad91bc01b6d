from __future__ import annotations

import json
import os
import sys
import types

import numpy as np
import pynvml
import pytest
from nvml_fake import StepPoller

from adaptbench.errors import MeterError
from adaptbench.meters import nvml_device
from adaptbench.meters.nvml import AVERAGED, COUNTER, INSTANT, NvmlMeter
from adaptbench.meters.nvml_device import Driver, throttle_reasons
from adaptbench.meters.nvml_errors import translate
from adaptbench.meters.reading import NO_WORK, Missing, Sensor, Work
from adaptbench.meters.windows import Arm, measure
from adaptbench.testing.meters import MeterConformance

LOST, DENIED, UNSUPPORTED = pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_NO_PERMISSION, 3


def meter_on(fake, **options):
    options = {"clock": fake.clock, "uuid_of": fake.uuid_of, "poller": StepPoller(fake)} | options
    return NvmlMeter(**options)


def read(fake, meter, seconds=6.0, during=lambda: None):
    mark = meter.begin()
    fake.run(seconds / 2)
    during()
    fake.run(seconds / 2)
    (reading,) = meter.end(mark, NO_WORK)
    return reading


@pytest.fixture
def board(fake):
    """The board of torch's cuda:0, which is NVML's second."""
    return fake.state.board[1]


@pytest.fixture
def meter(fake):
    with meter_on(fake).on("cuda:0") as opened:
        yield opened


def test_the_board_is_found_by_uuid_not_by_number(fake):
    for index, watts in ((0, 300), (1, 100)):
        with meter_on(fake).on(f"cuda:{index}") as meter:
            reading = read(fake, meter)
        assert reading.component == f"gpu{index}"
        assert reading.energy_j / reading.duration_s == pytest.approx(watts, rel=3e-3)
        assert (reading.provenance, reading.scope, reading.flags) == (COUNTER, "device", ())


def test_a_uuid_that_nvml_does_not_show(fake):
    with meter_on(fake, uuid_of=lambda index: "ffff").on("cuda:0") as meter:
        reading = read(fake, meter)
    assert "ffff" in reading.energy_j.reason
    assert "GPU-00AA-bb" in reading.energy_j.reason
    assert meter.describe()["found"] is False


def test_a_run_on_the_cpu_has_no_gpu_energy(fake):
    with meter_on(fake).on("cpu") as meter:
        assert isinstance(read(fake, meter).energy_j, Missing)
        assert meter.min_window_s == 0


def test_the_tick_is_measured_and_sets_the_window(fake):
    for tick, least in ((0.1, 5.0), (0.02, 5.0), (0.5, 25.0)):
        fake.state.tick_s = tick
        with meter_on(fake).on("cuda:0") as meter:
            assert meter.describe()["tick_s"] == pytest.approx(tick, abs=2e-3)
            assert meter.min_window_s == pytest.approx(least, rel=0.01)


def test_edges_take_the_tick_out_of_short_windows(fake, meter, board):
    """3.7 ticks: counting whole ticks would be 10 % to 27 % off."""
    fake.run(0.033)
    reading = read(fake, meter, seconds=0.37)
    assert reading.energy_j / reading.duration_s == pytest.approx(300, rel=3e-3)
    assert reading.duration_s == pytest.approx(0.4, abs=2e-3)
    assert "few-ticks" in reading.flags


@pytest.mark.parametrize(("instant_error", "source", "least"), [(0, INSTANT, 5.0), (UNSUPPORTED, AVERAGED, 10.0)])
def test_power_is_integrated_where_there_is_no_counter(fake, board, instant_error, source, least):
    board.counter_error, board.instant_error = UNSUPPORTED, instant_error
    with meter_on(fake).on("cuda:0") as meter:
        reading = read(fake, meter)
        assert meter.min_window_s == least
    assert reading.energy_j == pytest.approx(300 * 6.0, rel=2e-3)
    assert reading.duration_s == pytest.approx(6.0, rel=2e-3)
    assert reading.provenance == source


def test_a_change_of_power_is_followed(fake, board):
    board.counter_error = UNSUPPORTED

    def halve():
        board.watts = 150

    with meter_on(fake).on("cuda:0") as meter:
        assert read(fake, meter, during=halve).energy_j == pytest.approx(300 * 3 + 150 * 3, rel=0.01)


def test_neither_counter_nor_power(fake, board):
    board.counter_error = board.power_error = UNSUPPORTED
    with meter_on(fake).on("cuda:0") as meter:
        reading = read(fake, meter)
    assert reading.energy_j.kind == "unsupported"
    assert reading.provenance == ""


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("NO_PERMISSION", "denied"),
        ("OPERATING_SYSTEM", "denied"),
        ("DRIVER_NOT_LOADED", "absent"),
        ("LIBRARY_NOT_FOUND", "absent"),
        ("LIB_RM_VERSION_MISMATCH", "absent"),
        ("GPU_IS_LOST", "lost"),
        ("RESET_REQUIRED", "lost"),
        ("UNKNOWN", "lost"),
    ],
)
def test_a_driver_that_does_not_start_is_said(fake, code, kind):
    fake.state.init_error = getattr(pynvml, f"NVML_ERROR_{code}")
    meter = meter_on(fake)
    seen = meter.probe()
    assert (seen.kind, seen.advice != "") == (kind, True)
    with meter.on("cuda:0"):
        assert read(fake, meter).energy_j == seen
        assert meter.describe()["reason"] == seen.reason


def test_every_code_of_the_binding_has_words():
    harmless = {"ALREADY_INITIALIZED", "INSUFFICIENT_SIZE", "VGPU_ECC_NOT_SUPPORTED", "FREQ_NOT_SUPPORTED"}
    harmless |= {"RESET_TYPE_NOT_SUPPORTED"}
    for name in dir(pynvml):
        code = name.removeprefix("NVML_ERROR_")
        if name.startswith("NVML_ERROR_") and code not in harmless:
            missing = translate(pynvml.NVMLError(getattr(pynvml, name)), pynvml)
            assert code in missing.reason
            assert missing.kind in {"absent", "denied", "unsupported", "lost"}
    assert translate(pynvml.NVMLError(31337), pynvml).kind == "lost"
    assert translate(pynvml.NVMLLibraryMismatchError("old"), pynvml).kind == "unsupported"


def test_a_gpu_lost_in_mid_run_leaves_the_run_alive(fake, meter, board):
    before = read(fake, meter)

    def lose():
        board.lost = 1

    during, after = read(fake, meter, during=lose), read(fake, meter)
    assert before.energy_j > 0
    assert during.energy_j.kind == after.energy_j.kind == "lost"
    assert during.provenance == ""
    assert during.duration_s > 0


def test_a_gpu_lost_in_mid_run_without_a_counter(fake, board):
    board.counter_error = UNSUPPORTED

    def lose():
        board.lost = 1

    with meter_on(fake).on("cuda:0") as meter:
        assert "fell off the bus" in read(fake, meter, during=lose).energy_j.reason


def test_a_gpu_lost_before_the_run(fake, board):
    board.lost = 1
    with meter_on(fake).on("cuda:0") as meter:
        assert isinstance(read(fake, meter).energy_j, Missing)


def test_permission_taken_away_in_mid_run(fake, meter, board):
    def deny():
        board.counter_error = DENIED

    assert read(fake, meter, during=deny).energy_j.kind == "denied"


def test_a_counter_that_stands_still_is_not_zero_joules(fake, meter, board):
    def freeze():
        board.frozen = 1

    missing = read(fake, meter, during=freeze).energy_j
    assert "stood still" in missing.reason


def test_a_counter_that_never_moves_is_not_used(fake, board):
    board.frozen = 1
    with meter_on(fake).on("cuda:0") as meter:
        assert read(fake, meter).provenance == INSTANT
        assert "stood still" in meter.describe()["counter"]


def test_a_counter_that_goes_back_is_missing(fake, meter, board):
    def reset():
        board.offset_mj = -int(board.joules * 1000)

    assert "reset" in read(fake, meter, during=reset).energy_j.reason


@pytest.mark.case("https://github.com/ml-energy/zeus/issues/113")
@pytest.mark.parametrize(("leap_j", "missing"), [(1e6, True), (2000.0, True), (300.0, False)])
def test_a_counter_that_leaps_beyond_the_power_limit_is_missing(fake, meter, board, leap_j, missing):
    """350 W over 6 s and two ticks, and a tenth for the sensor's gain: 2.4 kJ at most, 1.8 of them drawn."""

    def leap():
        board.offset_mj += int(leap_j * 1000)

    reading = read(fake, meter, during=leap)
    assert isinstance(reading.energy_j, Missing) is missing
    if missing:
        assert (reading.energy_j.kind, reading.provenance) == ("lost", "")
        assert "this board draws 350 W at most" in reading.energy_j.reason
    else:
        assert "sources-disagree" in reading.flags
    assert read(fake, meter).energy_j == pytest.approx(1800, rel=0.02), "the next window is whole again"


@pytest.mark.parametrize("seconds", [0.05, 0.2, 0.55, 6.0])
def test_full_power_is_never_taken_for_a_leap(fake, board, seconds):
    """Edges come late by up to a tick: the bound allows for it in windows of few ticks, too."""
    board.watts = 350.0
    with meter_on(fake).on("cuda:0") as meter:
        reading = read(fake, meter, seconds=seconds)
    assert reading.energy_j / reading.duration_s == pytest.approx(350, rel=0.01)


def test_a_limit_that_was_raised_in_mid_run_counts(fake, meter, board):
    def raise_it():
        board.limit_w, board.watts = 700.0, 690.0

    assert read(fake, meter, during=raise_it).energy_j == pytest.approx(3 * 300 + 3 * 690, rel=0.03)


@pytest.mark.parametrize(("cross_check", "flag"), [(True, "sources-disagree"), (False, "unbounded")])
def test_without_a_known_limit_a_leap_is_flagged(fake, board, cross_check, flag):
    board.limit_w = 0

    def leap():
        board.offset_mj += 10**9

    with meter_on(fake, cross_check=cross_check).on("cuda:0") as meter:
        assert meter.describe()["power_limit_w"] is None
        calm = read(fake, meter)
        reading = read(fake, meter, during=leap)
    assert flag in reading.flags
    assert ("unbounded" in calm.flags) is (not cross_check), "nothing holds these joules"


@pytest.mark.parametrize(("counter_error", "flagged"), [(0, False), (UNSUPPORTED, True)])
def test_power_samples_above_the_limit_are_left_out(fake, board, counter_error, flagged):
    board.counter_error = counter_error

    def spike():
        board.power_scale = 1e4
        fake.run(0.05)
        board.power_scale = 1.0

    with meter_on(fake).on("cuda:0") as meter:
        reading = read(fake, meter, during=spike)
    assert reading.energy_j == pytest.approx(300 * reading.duration_s, rel=5e-3)
    assert ("impossible-power" in reading.flags) is flagged
    assert "sources-disagree" not in reading.flags


def test_power_above_the_limit_throughout_is_missing(fake, board):
    board.counter_error = UNSUPPORTED
    with meter_on(fake).on("cuda:0") as meter:
        board.power_scale = 1.5
        assert "draws 350 W at most" in read(fake, meter).energy_j.reason
        board.power_scale = 10
        assert "no samples" in read(fake, meter).energy_j.reason


def test_the_driver_s_mark_for_no_value_is_no_value(fake, board):
    board.counter_error, board.watts = UNSUPPORTED, (2**32 - 1) / 1000
    driver = Driver.connect()
    gpu = driver.find("11aa-bb")
    assert "not available" in driver.power_mw(gpu).reason
    driver.close()


def test_a_clock_that_goes_back_gives_no_joules(fake):
    back = iter([])

    def clock():
        return next(back, fake.clock())

    with meter_on(fake, clock=clock).on("cuda:0") as meter:
        mark = meter.begin()
        back = iter([0.0] * 10**6)
        (reading,) = meter.end(mark, NO_WORK)
    assert "went back" in reading.energy_j.reason
    assert reading.duration_s == 0


def test_mig_readings_are_of_the_whole_board(fake, board):
    board.mig = 1
    with meter_on(fake).on("cuda:0") as meter:
        assert "gpu-shared" in read(fake, meter).flags


def test_a_mig_instance_is_metered_at_its_board(fake, board):
    board.mig = 1
    with meter_on(fake, uuid_of=lambda index: "11cc-dd").on("cuda:0") as meter:
        reading = read(fake, meter)
    assert reading.energy_j / reading.duration_s == pytest.approx(300, rel=3e-3)
    assert "gpu-shared" in reading.flags


@pytest.mark.parametrize(
    ("pids", "foreign"),
    [([], False), (["own"], False), (["own", 1], True), ([999_999_999], False), ([999_999_998, 999_999_999], True)],
)
def test_other_processes_are_seen(fake, meter, board, pids, foreign):
    """A lone process that is not visible here is this one, seen from outside its container."""
    board.n_pids = len(pids)
    for i, pid in enumerate(pids):
        board.pids[i] = os.getpid() if pid == "own" else pid
    assert ("foreign" in read(fake, meter).flags) is foreign


def test_throttling_is_flagged_and_named(fake, meter, board):
    assert "throttled" not in read(fake, meter).flags

    def heat():
        board.reasons = pynvml.nvmlClocksEventReasonHwThermalSlowdown

    assert "throttled" in read(fake, meter, during=heat).flags
    assert meter.describe()["throttled_by"] == ["hardware thermal"]


def test_throttling_that_ended_before_the_window_did_is_seen(fake, meter, board):
    mark = meter.begin()
    board.reasons = pynvml.nvmlClocksEventReasonSwPowerCap
    fake.run(3.0)
    board.reasons = 0
    fake.run(3.0)
    assert "throttled" in meter.end(mark, NO_WORK)[0].flags


def test_idling_and_chosen_clocks_are_no_throttling():
    idle = pynvml.nvmlClocksEventReasonGpuIdle | pynvml.nvmlClocksEventReasonApplicationsClocksSetting
    assert throttle_reasons(idle) == []
    assert throttle_reasons(0x4 | 0x1000) == ["power cap", "reason 0x1000"]


def test_a_change_of_temperature_is_flagged(fake, meter, board):
    def warm(degrees):
        board.temperature_c += degrees

    assert "temperature" not in read(fake, meter, during=lambda: warm(5)).flags
    assert "temperature" in read(fake, meter, during=lambda: warm(6)).flags


def test_counter_and_power_must_agree(fake, meter, board):
    board.power_scale = 1.03
    assert "sources-disagree" not in read(fake, meter).flags
    board.power_scale = 1.2
    reading = read(fake, meter)
    assert "sources-disagree" in reading.flags
    assert reading.energy_j / reading.duration_s == pytest.approx(300, rel=3e-3), "the counter's, unmixed"
    assert meter.describe()["power_over_counter"] == pytest.approx(1.2, rel=0.01)


def test_an_averaged_figure_is_no_check_on_a_short_window(fake, board):
    board.instant_error, board.power_scale = UNSUPPORTED, 1.2
    with meter_on(fake).on("cuda:0") as meter:
        assert "sources-disagree" not in read(fake, meter, seconds=6).flags
        assert "sources-disagree" in read(fake, meter, seconds=12).flags


def test_without_the_cross_check_nothing_is_polled(fake):
    with meter_on(fake, cross_check=False).on("cuda:0") as meter:
        assert fake.pollers == []
        assert read(fake, meter).energy_j > 0


def test_the_library_is_shut_down_as_often_as_it_was_started(fake, board):
    for prepare in (lambda: None, lambda: setattr(board, "lost", 1)):
        prepare()
        meter = meter_on(fake)
        meter.probe()
        with meter.on("cuda:0"):
            read(fake, meter)
        assert fake.state.inits == 0
        assert fake.pollers == []


def test_probing_lists_the_boards(fake, board):
    board.counter_error = UNSUPPORTED
    seen = meter_on(fake).probe()
    assert isinstance(seen, Sensor)
    assert [(one["uuid"], one["counter"], one["power"]) for one in seen.details["gpus"]] == [
        ("GPU-00AA-bb", True, True),
        ("GPU-11AA-bb", False, True),
    ]


def test_no_board_at_all(fake):
    fake.state.n_boards = 0
    assert meter_on(fake).probe().kind == "absent"


def test_the_manifest_names_the_board_and_outlives_the_meter(fake):
    meter = meter_on(fake)
    with meter.on("cuda:0"):
        read(fake, meter)
    text = meter.describe()
    json.dumps(text)
    expected = {"found": True, "uuid": "GPU-11AA-bb", "driver": "999.01", "power_limit_w": 350.0, "persistence": None}
    assert expected.items() <= text.items()
    assert text["sensor"] == "NVML total-energy counter"


def test_a_foreign_mark_is_refused(fake, meter):
    with pytest.raises(MeterError):
        meter.end(3.0, NO_WORK)


def test_the_look_alike_package_is_told_apart(monkeypatch):
    other = types.ModuleType("pynvml")
    other.__file__ = "/usr/lib/pynvml/__init__.py"
    other.nvmlDeviceGetTotalEnergyConsumption = lambda handle: 0
    monkeypatch.setitem(sys.modules, "pynvml", other)
    seen = NvmlMeter().probe()
    assert "of the same name" in seen.reason
    assert "nvidia-ml-py" in seen.advice


def test_no_binding_at_all(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert NvmlMeter().probe().advice == "pip install nvidia-ml-py"


def test_a_binding_older_than_the_query(fake):
    driver = Driver.connect()
    assert driver.ask("nvmlDeviceGetSomethingNew").kind == "unsupported"
    driver.close()


def test_torch_without_cuda_has_no_uuid(fake, monkeypatch):
    import torch

    def refuse(index):
        raise AssertionError("Torch not compiled with CUDA enabled")

    monkeypatch.setattr(torch.cuda, "get_device_properties", refuse)
    with NvmlMeter(clock=fake.clock, poller=StepPoller(fake)).on("cuda:0") as meter:
        assert "cuda:0" in read(fake, meter).energy_j.reason


def test_torchs_uuid_is_asked_for_by_torchs_number(fake, monkeypatch):
    import torch

    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda index: types.SimpleNamespace(uuid=fake.uuid_of(index))
    )
    with NvmlMeter(clock=fake.clock, poller=StepPoller(fake)).on("cuda:1") as meter:
        assert meter.describe()["uuid"] == "GPU-00AA-bb"


def test_a_planted_difference_is_recovered_through_the_driver(fake, board):
    """Two arms of equal time, one drawing 10 % more."""

    def arm(watts):
        def run():
            board.watts = watts
            fake.run(0.25)
            board.watts = 60.0

        return run

    with meter_on(fake).on("cuda:0") as meter:
        rows = measure(
            [Arm("a", arm(200.0), Work(None, None, 1)), Arm("b", arm(220.0), Work(None, None, 1))],
            [meter],
            blocks=6,
            window_s=6.0,
            warmup_s=1.0,
            rng=np.random.default_rng(0),
            clock=fake.clock,
            pause=fake.run,
        )
    joules = {case: np.array([row.energy_j for row in rows if row.case == case]) for case in ("a", "b", "idle")}
    assert np.median(joules["b"] / joules["a"]) == pytest.approx(1.1, rel=5e-3)
    assert joules["idle"].mean() == pytest.approx(60 * 6, rel=0.03)
    assert {row.flags for row in rows} == {""}


class TestFakeBoard(MeterConformance):
    device = "cuda:0"

    @pytest.fixture(autouse=True)
    def _fake(self, fake):
        self.fake = fake

    def make(self):
        return meter_on(self.fake)

    def work(self):
        self.fake.run(6.0)
        return super().work()


class TestNoBoard(MeterConformance):
    @pytest.fixture(autouse=True)
    def _no_driver(self, monkeypatch):
        absent = Missing("absent: no driver", kind="absent")
        monkeypatch.setattr(nvml_device.Driver, "connect", classmethod(lambda cls: absent))

    def make(self):
        return NvmlMeter()
