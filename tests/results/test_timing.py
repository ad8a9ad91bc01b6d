from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from adaptbench.results import timing

CASE, STATIC = "digits/chain/clean/b64", "static:chain/b64"


def summary(windows, **changes):
    given = {"macs": np.full(8, 156.0), "macs_full": 390.0, "energy_meters": ("nvml", "modelled")} | changes
    return timing.summarise_windows(windows, CASE, STATIC, **given)


def test_known_joules_seconds_and_savings_are_found(synthetic):
    truth = synthetic(noise=0.002, blocks=12)
    macs = truth.samples("clean")["macs"].to_numpy()
    mean = macs.mean()
    record = summary(truth.windows(), macs=macs)
    assert record["energy_j_per_sample"] == pytest.approx(mean * 1e-6, rel=0.005)
    assert record["latency_s_per_sample"] == pytest.approx(mean * 1e-6, rel=0.005)
    assert record["energy_meter"] == "nvml"
    assert record["energy_provenance"] == "measured: NVML total-energy counter"
    for name in ("realised_saving_time", "realised_saving_energy"):
        assert record[name] == pytest.approx(1, abs=0.01)
        assert record[f"{name}_ci"][0] <= record[name] <= record[f"{name}_ci"][1]


def test_drift_that_both_share_does_not_blur_the_saving(synthetic):
    windows = synthetic(noise=0.001, blocks=12).windows()
    drift = 1 + 0.5 * windows["block"] / 12
    drifting = windows.assign(duration_s=windows["duration_s"] * drift)
    low, high = summary(drifting)["realised_saving_time_ci"]
    assert high - low < 0.01
    low, high = summary(drifting)["latency_s_per_sample_ci"]
    assert (high - low) / low > 0.1


def test_what_is_missing_says_why(synthetic):
    windows = synthetic().windows()
    silent = windows.assign(energy_j=np.nan, missing=np.where(windows["meter"] == "nvml", "no permission", None))
    record = summary(silent)
    assert record["energy_j_per_sample"] is None
    assert "no permission" in record["energy_j_per_sample_missing"]
    assert "modelled did not run" in record["energy_j_per_sample_missing"]
    assert record["energy_meter"] is None
    assert record["realised_saving_energy_missing"] == "no windows of the case"
    assert summary(windows[windows["case"] == CASE])["realised_saving_time_missing"].startswith("no windows of the st")
    assert "no MAC saving" in summary(windows, macs=np.full(8, 390.0))["realised_saving_time_missing"]
    assert summary(windows, macs=None)["realised_saving_time_missing"] == "no MAC figures"
    assert "no energy meter" in summary(windows, energy_meters=())["energy_j_per_sample_missing"]
    apart = windows.assign(block=windows["block"] + 100 * (windows["case"] == STATIC))
    assert summary(apart)["realised_saving_time_missing"] == "no block in common"


def test_zero_joules_are_no_reading(synthetic):
    windows = synthetic().windows()
    hit = (windows["block"] == 3) & (windows["meter"] == "nvml")
    values = timing.blocks(windows.assign(energy_j=windows["energy_j"].mask(hit, 0.0)), CASE, "nvml")
    assert values.block == (0, 1, 2, 4, 5, 6, 7)


def test_a_block_of_which_one_component_is_missing_has_no_value(synthetic):
    """The others' joules are not the meter's."""
    windows = synthetic().windows()
    board = windows[windows["meter"] == "nvml"].assign(component="gpu0")
    second = board.assign(component="gpu1", energy_j=board["energy_j"].mask(board["block"] == 3))
    values = timing.blocks(pd.concat([board, second]), CASE, "nvml")
    assert values.block == (0, 1, 2, 4, 5, 6, 7)
    assert values.per_sample == pytest.approx(2 * timing.blocks(board, CASE, "nvml").per_sample[[0, 1, 2, 4, 5, 6, 7]])


def test_few_blocks_give_a_value_and_no_interval(synthetic):
    record = summary(synthetic(blocks=3).windows())
    assert record["energy_j_per_sample"] > 0
    assert "energy_j_per_sample_ci" not in record


def test_components_are_added_and_total_wins():
    base = {"case": CASE, "meter": "rapl", "duration_s": 1.0, "provenance": "measured: RAPL", "scope": "machine"}
    rows = [
        base | {"block": b, "order": o, "component": c, "energy_j": e, "n_samples": 10, "flags": f, "missing": None}
        for b, o, c, e, f in [
            (0, 0, "cpu", 3.0, ""),
            (0, 0, "ram", 1.0, "short, hot"),
            (0, 5, "cpu", 5.0, ""),
            (0, 5, "ram", 1.0, ""),
        ]
    ]
    got = timing.blocks(pd.DataFrame(rows), CASE, "rapl")
    assert got.per_sample.tolist() == [0.5]
    assert got.flags == ("hot", "short")
    assert got.measured
    total = [rows[0] | {"component": "total", "energy_j": 20.0}]
    assert timing.blocks(pd.DataFrame(rows[:2] + total), CASE, "rapl").per_sample.tolist() == [2.0]
    assert timing.blocks(pd.DataFrame(rows), "other", "rapl") is None


def test_case_that_was_not_timed():
    record = timing.not_timed("evaluated only")
    assert record["energy_j_per_sample"] is None
    assert record["realised_saving_time_missing"] == "evaluated only"
