"""Meters: what they are told, what they cannot have read, and where their joules go."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from wattmeter import (
    Broken,
    Demanding,
    Halves,
    Lax,
    NoMeter,
    Renamed,
    Second,
    Speechless,
    Typo,
    Wattmeter,
    plug_in,
)

from adaptbench.bench.notes import things_to_know
from adaptbench.bench.runner import run_suite
from adaptbench.bench.suite import load_suite
from adaptbench.errors import SuiteError, UsageError
from adaptbench.meters import codecarbon
from adaptbench.meters.clock import ClockMeter
from adaptbench.meters.codecarbon import CodeCarbonMeter
from adaptbench.meters.modelled import ModelledMeter
from adaptbench.meters.reading import Missing, Reading, Work
from adaptbench.meters.rows import to_rows
from adaptbench.report import sensed
from adaptbench.report.page import run_page
from adaptbench.results.baseline import Baseline
from adaptbench.results.gate import compare
from adaptbench.results.gate_selftest import selftest
from adaptbench.results.store import Run
from adaptbench.results.timing import blocks, missing_reason, summarise_windows

SUITE = """
data: digits
models: [softmax-threshold]
references: [static]
limit: 16
measure: {{batch_sizes: [8], meters: [{meters}], blocks: 6, window_s: 0.001, warmup_s: 0, samples: 8{more}}}
gate:
  energy_j_per_sample: {{increase: 3 %}}
"""


def suite(folder: Path, meters: str, more: str = "") -> str:
    path = folder / "plugged.yaml"
    path.write_text(SUITE.format(meters=meters, more=more and f", {more}"), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def plugged(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("plugged")
    with pytest.MonkeyPatch.context() as patch:
        plug_in(patch, Wattmeter, Second)
        return run_suite(suite(folder, "modelled, clock, wattmeter, second"), out=folder / "run", command="adaptbench")


@pytest.mark.case("own")
def test_a_plug_in_s_joules_reach_the_summary(plugged: Run) -> None:
    """Joules of a third-party meter were dropped for a fixed list of names; the first that measures is taken."""
    timed = [case for case in plugged.cases if case["batch_size"]]
    assert timed
    for case in timed:
        origin = (case["energy_meter"], case["energy_provenance"], case["energy_scope"])
        assert origin == ("wattmeter", "measured: socket", "machine")
        rows = plugged.windows([case["case"]]).query("meter == 'wattmeter' and block == 0")
        assert case["energy_j_per_sample"] == pytest.approx(rows["energy_j"].sum() / rows["n_samples"].iloc[0], rel=0.3)
        assert case["realised_saving_energy"] is not None
    declared = plugged.manifest["meters"]
    assert {name: meter["quantity"] for name, meter in declared.items()} == {
        "modelled": "energy",
        "clock": "time",
        "wattmeter": "energy",
        "second": "energy",
    }
    said = " ".join(plugged.manifest["notes"])
    assert "from wattmeter" in said
    assert "modelled, second answered too" in said


@pytest.mark.case("own")
def test_a_plug_in_s_joules_reach_the_page_and_the_gate(plugged: Run) -> None:
    """The page said that no energy was measured; it shows the plug-in's, and the gate alarms on them."""
    page = run_page(plugged)
    assert "Energy was measured by wattmeter" in page
    assert "fig-energy-measured" in page
    assert ">machine<" in page
    assert compare(plugged, plugged, plugged.manifest["gate"]).exit_code == 0
    fault = next(one for one in selftest(plugged) if one.fault.endswith("joules"))
    assert fault.caught, fault.reason


@pytest.mark.case("own")
def test_two_meters_of_one_sort_of_sensor_are_not_compared() -> None:
    """The difference of two runs told joules of another meter as a change, if its sensor was called the same."""
    old, new = ({"energy_meter": name, "energy_provenance": "measured: socket"} for name in ("wattmeter", "second"))
    assert sensed.sensor_obstacle(old, new, sensed.ENERGY) == "wattmeter against second"
    assert sensed.sensor_obstacle(old, dict(old), sensed.ENERGY) == ""


@pytest.mark.case("own")
def test_measured_and_modelled_parts_are_not_added_up() -> None:
    """A meter with a measured and a modelled component was summed and told as measured; it has no sum, and says why."""
    with Halves().on() as meter:
        readings = [meter.end(meter.begin(), Work(1, 1, 1)) for _ in range(3)]
        rows = [asdict(row) for b, found in enumerate(readings) for row in to_rows("a", b, 0, meter, found, 1)]
    frame = pd.DataFrame(rows)
    assert blocks(frame, "a", "halves") is None
    assert "in part measured (cpu), in part modelled (board)" in missing_reason(frame, "a", "halves")


@pytest.mark.case("own")
def test_equal_runs_have_equal_modelled_joules() -> None:
    """How often a window repeats its work changed the 15th digit of modelled joules; equal work, equal records."""
    case, static = Work(1_234_567, 98_765, 7), Work(7_654_321, 123_457, 7)
    records = []
    for calls in (1, 3, 7, 11, 12_345, 999_983):
        with ModelledMeter().on() as meter:
            rows = [
                asdict(row)
                for block in range(6)
                for name, work in (("a", case * calls), ("static", static * calls))
                for row in to_rows(name, block, 0, meter, meter.end(meter.begin(), work), work.samples)
            ]
        records.append(
            summarise_windows(
                pd.DataFrame(rows), "a", "static", macs=np.ones(4), macs_full=2.0, energy_meters=["modelled"]
            )
        )
    assert records[0]["energy_j_per_sample"] == pytest.approx((4.6 * case.macs + 160 * case.bytes) / 7 * 1e-12)
    assert all(record == records[0] for record in records)


@pytest.mark.slow
@pytest.mark.case("own")
def test_a_suite_with_whole_run_meters_only_says_so(tmp_path: Path) -> None:
    """ "No energy meter was asked for" stood beside a suite that asked for CodeCarbon; it reads the whole run."""
    run = run_suite(suite(tmp_path, "clock, codecarbon", "country: FRA"), out=tmp_path / "run")
    timed = next(case for case in run.cases if case["batch_size"])
    assert timed["energy_j_per_sample_missing"] == "codecarbon: of the whole run, not of single cases"


@pytest.mark.case("https://github.com/mlco2/codecarbon/issues/1223")
@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("country: USA, region: Nowhere", "no region 'Nowhere' of USA"),
        ("country: DEU, region: Bavaria", "no region 'Bavaria' of DEU"),
        ("country: SWE, region: SE9", "no region 'SE9'"),
        ("country: DEX", "no country 'DEX'"),
        ("country: FRA, grid_g_per_kwh: -5", "greater than or equal to 0"),
        ("country: FRA, grid_g_per_kwh: .nan", "grid_g_per_kwh"),
        ("country: FRA, grid_g_per_kwh: .inf", "grid_g_per_kwh"),
        ("country: FRA, grid_g_per_kwh: true", "grid_g_per_kwh"),
        ("", "no country is given"),
    ],
)
def test_an_unknown_place_is_an_error_of_the_suite(tmp_path: Path, place: str, said: str) -> None:
    """An unknown region became the country's average with its name still in the record; it is refused when read."""
    with pytest.raises(SuiteError, match=said) as caught:
        load_suite(suite(tmp_path, "clock, codecarbon", place))
    assert "plugged.yaml, line 6" in str(caught.value)


@pytest.mark.case("https://github.com/mlco2/codecarbon/issues/1223")
@pytest.mark.parametrize("factor", [-5.0, float("nan"), float("inf"), True, "100"])
def test_a_grid_factor_that_cannot_be_is_refused(factor: object) -> None:
    """A factor of −5 or NaN fell back to the country's; it is an error."""
    with pytest.raises(UsageError, match="is no carbon intensity"):
        CodeCarbonMeter("FRA", grid_g_per_kwh=factor)  # type: ignore[arg-type]


@pytest.mark.case("https://github.com/mlco2/codecarbon/issues/1223")
def test_a_grid_without_carbon_gives_zero_grams() -> None:
    """0 g a kWh gave null; it gives 0 kg, and a region's factor is the region's."""
    with CodeCarbonMeter("FRA", grid_g_per_kwh=0).on("cpu") as meter, meter.window():
        sum(number * number for number in range(500_000))
    told = meter.describe()
    assert (told["grid_g_per_kwh"], told["co2e_kg"], told["grid_source"]) == (0.0, 0.0, "given")
    with CodeCarbonMeter("USA", region="California").on("cpu") as meter:
        assert 100 < meter.describe()["grid_g_per_kwh"] < 300
        assert "California" in meter.describe()["grid_source"]


@pytest.mark.case("own")
@pytest.mark.parametrize("more", ["country: FRA", "region: x", "grid_g_per_kwh: 5"])
def test_a_setting_that_no_meter_takes_is_refused(tmp_path: Path, more: str) -> None:
    """A country beside meters that have no use for one was accepted and ignored."""
    with pytest.raises(SuiteError, match="no meter of this suite takes"):
        load_suite(suite(tmp_path, "clock, modelled", more))


@pytest.mark.case("own")
def test_a_meter_named_twice_or_otherwise_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of a meter under another name, or twice under one, could not be told apart."""
    plug_in(monkeypatch, alias=Renamed)
    with pytest.raises(SuiteError, match="calls itself 'someone-else'"):
        load_suite(suite(tmp_path, "clock, alias"))
    with pytest.raises(SuiteError, match="'clock' stands twice"):
        load_suite(suite(tmp_path, "clock, clock"))


@pytest.mark.case("own")
def test_an_error_of_a_plug_in_is_told_as_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An OSError of a meter was told as one of the measured work; the meter is named."""
    plug_in(monkeypatch, Broken)
    run = run_suite(suite(tmp_path, "clock, broken"), out=tmp_path / "run")
    timed = [case for case in run.cases if case["batch_size"]]
    assert timed
    for case in timed:
        assert "the meter 'broken' failed: OSError: the cable is out." in case["energy_j_per_sample_missing"]


@pytest.mark.case("own")
@pytest.mark.parametrize("later", [0.0, -0.5])
def test_a_clock_that_does_not_go_on_gives_no_seconds(later: float) -> None:
    """A clock that stood or went back ended the run with an error about the window; its window has no value."""
    now = [100.0]
    with ClockMeter(clock=lambda: now[0]).on() as clock, ModelledMeter(clock=lambda: now[0]).on() as modelled:
        marks = clock.begin(), modelled.begin()
        now[0] += later
        work = Work(1000, 0, 1)
        rows = to_rows("a", 0, 0, clock, clock.end(marks[0], work), 1)
        rows += to_rows("a", 0, 0, modelled, modelled.end(marks[1], work), 1)
    frame = pd.DataFrame([asdict(row) for row in rows])
    assert blocks(frame, "a", "clock") is None
    assert "did not go on" in missing_reason(frame, "a", "clock")
    assert blocks(frame, "a", "modelled") is not None


@pytest.mark.case("own")
def test_sensed_joules_in_no_time_are_missing() -> None:
    """Joules over a window of no length stood as measured; no power gives them."""
    reading = Reading("board", 1.0, 0.0, "measured: socket", "machine")
    (row,) = to_rows("a", 0, 0, Wattmeter(), [reading], 1)
    assert row.energy_j is None
    assert "no length" in str(row.missing)


@pytest.mark.case("own")
@pytest.mark.parametrize(
    ("kwh", "says"),
    [*((kwh, f"{kwh:g} kWh") for kwh in (float("nan"), float("inf"), -1e-3, 0.0)), (1.0, "draws 100000 W at most")],
)
def test_impossible_joules_of_codecarbon_are_missing(kwh: float, says: str) -> None:
    """NaN of CodeCarbon ended the run; what no machine can have drawn (1 kWh in 10 s) is missing with the reason."""
    reading = codecarbon._reading("cpu", kwh, 10.0, {"cpu": "measured: RAPL"})
    assert isinstance(reading.energy_j, Missing)
    assert says in reading.energy_j.reason


@pytest.mark.case("own")
def test_a_formula_that_overflows_or_costs_nothing_has_no_joules() -> None:
    """Coefficients of 1e308 ended the run in its first window, and 0 gave figures of 0 J; both are said."""
    joules = ModelledMeter(pj_per_mac=1e308, source="x").energy_j(Work(10**9, 0, 1))
    assert isinstance(joules, Missing)
    with pytest.raises(UsageError, match="cost nothing"):
        ModelledMeter(pj_per_mac=0.0, pj_per_byte=0.0, source="x")


@pytest.mark.case("own")
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Typo, "reads 'Energy', which is neither energy nor time"),
        (Demanding, "cannot be made: TypeError"),
        (NoMeter, "no subclass of adaptbench.meters.Meter"),
    ],
)
def test_a_plug_in_that_cannot_be_used_is_refused_when_the_suite_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type, said: str
) -> None:
    """A meter of a misspelt quantity reached no summary, and one that needs arguments ended in a traceback."""
    plug_in(monkeypatch, kind)
    with pytest.raises(SuiteError, match=said):
        load_suite(suite(tmp_path, f"clock, {kind.name}"))


@pytest.mark.case("own")
def test_a_description_that_is_no_json_does_not_cost_the_run() -> None:
    """NaN in a plug-in's description failed the manifest after the last window; it is said to be lacking."""
    told = Speechless().declared()
    assert told["quantity"] == "energy"
    assert "ValueError" in told["undescribed"]
    assert {"found": True, "sensor": "5"}.items() <= Lax().declared().items(), "a reader would refuse the manifest"


@pytest.mark.slow
@pytest.mark.case("own")
def test_a_baseline_from_before_the_declarations_is_still_compared(tmp_path: Path) -> None:
    """Baselines without `quantity` and `scope` would have been told as another model of energy; they say the same."""
    side = Baseline.of(run_suite(suite(tmp_path, "clock, modelled"), out=tmp_path / "run"))
    bare = {
        name: {key: value for key, value in meter.items() if key not in ("quantity", "scope", "whole_run")}
        for name, meter in side.manifest["meters"].items()
    }
    old = side.changed(manifest={**side.manifest, "id": "another", "meters": bare})
    report = compare(side, old, {"energy_j_per_sample": "exact"})
    assert report.exit_code == 0, [row.reason for row in report.rows]


@pytest.mark.case("own")
@pytest.mark.parametrize(
    ("nvml", "joules", "said"),
    [
        (None, "modelled: table", "no power sensor was asked for: joules are modelled"),
        ({"found": False, "reason": "no driver"}, "modelled: table", "no power sensor answered (nvml: no driver)"),
        ({"found": True, "reason": None}, "modelled: table", "no power sensor answered (nvml: it gave no joules)"),
        ({"found": True, "reason": None}, "measured: NVML", "joules a sample are from nvml"),
        ({"found": False, "reason": "no driver"}, None, "no energy meter answered (modelled: it gave no joules"),
    ],
)
def test_it_is_told_apart_whether_a_sensor_was_asked(nvml, joules, said):
    """A suite of `meters: [clock, modelled]` was told that no power sensor answered; none had been asked."""
    meters = {
        "modelled": {"quantity": "energy", "found": True},
        "codecarbon": {"quantity": "energy", "whole_run": True},
    }
    if nvml is not None:
        meters["nvml"] = {"quantity": "energy", **nvml}
    case = {"n": 4, "kind": "clean", "evaluation": "e", "condition": "clean", "model": "m"}
    if joules:
        name = "nvml" if joules.startswith("measured") else "modelled"
        case |= {"energy_j_per_sample": 1.0, "energy_provenance": joules, "energy_meter": name}
    notes = things_to_know([case], meters=meters, models={}, conditions={}, skipped=())
    assert said in " ".join(notes)
