from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import pytest

from adaptbench.errors import BaselineError, RunError, SuiteError
from adaptbench.results.baseline import Baseline, write_baseline
from adaptbench.results.gate import compare
from adaptbench.results.gate_rows import RowVerdict
from adaptbench.results.gate_selftest import selftest

CLEAN, ILFO = "digits/chain/clean/b64", "digits/chain/ilfo/b64"


def row(report, case, metric):
    (found,) = [r for r in report.rows if r.case == case and r.metric == metric]
    return found


def with_outcomes(side, evaluation, **changes):
    """The side with other per-sample outcomes, and records that agree with them."""
    worse = replace(side.samples(evaluation), **changes)
    figures = {"macs_mean": float(worse.macs.mean()), "accuracy": float(worse.correct.mean())}
    cases = [c | figures if c["evaluation"] == evaluation else c for c in side.cases]
    return side.changed(load_samples=lambda e: worse if e == evaluation else side.samples(e), cases=cases)


def with_records(side, case, **changes):
    return side.changed(cases=[c | changes if c["case"] == case else c for c in side.cases])


def with_manifest(side, **changes):
    return side.changed(manifest=copy.deepcopy(side.manifest) | changes)


def test_run_against_itself_is_green(base):
    report = compare(base, base)
    assert report.exit_code == 0
    assert report.comparisons == 9
    assert report.counts == {"pass": 9}


@pytest.mark.slow
def test_new_session_of_the_same_truth_is_green_nearly_always(base, synthetic):
    green = alarms = 0
    for session in range(1, 101):
        windows = synthetic(session=session).windows()
        report = compare(base.changed(load_windows=lambda w=windows: w), base)
        green += report.exit_code == 0
        alarms += report.exit_code == 1
    assert green >= 95
    assert alarms == 0


def test_one_mac_more_on_one_sample(base):
    macs = base.samples("digits/chain/clean").macs.copy()
    macs[17] += 1
    report = compare(with_outcomes(base, "digits/chain/clean", macs=macs), base)
    assert report.exit_code == 1
    found = row(report, CLEAN, "macs_mean")
    assert found.verdict is RowVerdict.REGRESSION
    assert "1 samples changed on the same inputs (id 1017), for the worse" in found.reason


def test_one_mac_less_fails_too_and_asks_for_a_new_baseline(base):
    macs = base.samples("digits/chain/clean").macs.copy()
    macs[17] -= 1
    found = row(compare(with_outcomes(base, "digits/chain/clean", macs=macs), base), CLEAN, "macs_mean")
    assert found.verdict is RowVerdict.REGRESSION
    assert "for the better; if it is meant, write a new baseline" in found.reason


def test_tie_that_fell_the_other_way_is_named_and_passes(base):
    macs = base.samples("digits/chain/clean").macs.copy()
    macs[50] = 400
    report = compare(with_outcomes(base, "digits/chain/clean", macs=macs), base)
    assert report.exit_code == 0
    assert "only 1 of 300 samples (0.333 %) differ at a tie (id 1050)" in row(report, CLEAN, "macs_mean").reason


def test_tie_does_not_hide_another_sample(base):
    macs = base.samples("digits/chain/clean").macs.copy()
    macs[[50, 51]] = [400, 399]
    report = compare(with_outcomes(base, "digits/chain/clean", macs=macs), base)
    assert "(id 1051)" in row(report, CLEAN, "macs_mean").reason
    assert report.exit_code == 1


def test_figure_that_moved_while_samples_did_not(base):
    report = compare(with_records(base, CLEAN, macs_full=391), base, {"macs_full": "exact"})
    assert row(report, CLEAN, "macs_full").verdict is RowVerdict.REGRESSION
    assert row(report, ILFO, "macs_full").verdict is RowVerdict.PASS


@pytest.mark.parametrize(
    ("lost", "verdict", "exit_code"),
    [(0, RowVerdict.PASS, 0), (2, RowVerdict.INCONCLUSIVE, 3), (40, RowVerdict.REGRESSION, 1)],
)
def test_accuracy_is_paired(base, lost, verdict, exit_code):
    correct = base.samples("digits/chain/clean").correct.copy()
    correct[np.flatnonzero(correct)[:lost]] = False
    report = compare(
        with_outcomes(base, "digits/chain/clean", correct=correct), base, {"accuracy": {"drop": "0.5 points"}}
    )
    found = row(report, CLEAN, "accuracy")
    assert found.verdict is verdict
    assert f"{lost} lost and 0 won" in found.reason
    assert report.exit_code == exit_code
    if lost:
        assert found.low <= found.change <= found.high <= 0
        assert found.detectable > found.margin


def test_accuracy_gained_is_an_improvement(base):
    correct = base.samples("digits/chain/ilfo").correct.copy()
    correct[:] = True
    report = compare(
        with_outcomes(base, "digits/chain/ilfo", correct=correct), base, {"accuracy": {"drop": "0.5 points"}}
    )
    assert row(report, ILFO, "accuracy").verdict is RowVerdict.IMPROVEMENT
    assert report.exit_code == 0


def session(base, synthetic, **truth):
    made = synthetic(session=5, **truth)
    return base.changed(load_windows=made.windows, manifest=made.manifest())


@pytest.mark.parametrize(
    ("factor", "verdict", "exit_code"),
    [
        (1.1, RowVerdict.REGRESSION, 1),
        (1.025, RowVerdict.INCONCLUSIVE, 3),
        (1.005, RowVerdict.PASS, 0),
        (0.9, RowVerdict.IMPROVEMENT, 0),
    ],
)
def test_joules(base, synthetic, factor, verdict, exit_code):
    report = compare(session(base, synthetic, joules={"ilfo": factor}), base)
    found = row(report, ILFO, "energy_j_per_sample")
    assert found.verdict is verdict
    assert found.change == pytest.approx(factor - 1, abs=0.01)
    assert found.margin == pytest.approx(0.03)
    assert found.detectable > 0.03
    assert report.exit_code == exit_code
    assert row(report, CLEAN, "energy_j_per_sample").verdict is RowVerdict.PASS


def test_flagged_windows_allow_no_verdict(base, synthetic):
    for truth in ({"joules": {"ilfo": 1.5}}, {"joules": {"ilfo": 0.5}}, {}):
        report = compare(session(base, synthetic, flags="throttled", **truth), base)
        found = row(report, ILFO, "energy_j_per_sample")
        assert found.verdict is RowVerdict.INCONCLUSIVE
        assert "throttled" in found.reason
        assert report.exit_code == 3


def test_machine_that_moved_as_a_whole_is_no_regression(base, synthetic):
    report = compare(session(base, synthetic, machine=1.15), base)
    found = row(report, ILFO, "energy_j_per_sample")
    assert found.verdict is RowVerdict.INCONCLUSIVE
    assert "static reference moved by +14.8 %" in found.reason
    hidden = compare(session(base, synthetic, machine=1 / 1.15, joules={"ilfo": 1.15}), base)
    assert row(hidden, ILFO, "energy_j_per_sample").verdict is RowVerdict.INCONCLUSIVE
    both = compare(session(base, synthetic, machine=1.15, joules={"ilfo": 1.3}), base)
    assert row(both, ILFO, "energy_j_per_sample").verdict is RowVerdict.REGRESSION


def test_few_blocks_cannot_tell(base, synthetic):
    report = compare(session(base, synthetic, blocks=1, joules={"ilfo": 1.5}), base)
    found = row(report, ILFO, "energy_j_per_sample")
    assert found.verdict is RowVerdict.INCONCLUSIVE
    assert "too few" in found.reason


@pytest.mark.parametrize(
    ("truth", "said"),
    [({"fingerprint": "e" * 64}, "another device"), ({"sensor": "GPU-1 counter"}, "another sensor")],
)
def test_other_sensors_are_not_compared(base, synthetic, truth, said):
    report = compare(session(base, synthetic, joules={"ilfo": 2.0}, **truth), base)
    found = row(report, ILFO, "energy_j_per_sample")
    assert found.verdict is RowVerdict.NOT_COMPARABLE
    assert said in found.reason
    assert row(report, CLEAN, "macs_mean").verdict is RowVerdict.PASS
    assert report.exit_code == 3


def test_measured_and_modelled_never_meet(base, synthetic, tmp_path):
    modelled = synthetic(meter="modelled").write(tmp_path / "modelled")
    found = row(compare(modelled, base), CLEAN, "energy_j_per_sample")
    assert found.verdict is RowVerdict.NOT_COMPARABLE
    assert "modelled: 45 nm table" in found.reason
    assert compare(modelled, modelled).exit_code == 0
    side = Baseline.of(modelled)
    dearer = with_records(side, CLEAN, energy_j_per_sample=1.1 * side.cases[0]["energy_j_per_sample"])
    assert row(compare(dearer, side), CLEAN, "energy_j_per_sample").verdict is RowVerdict.REGRESSION
    for factor, expected in ((1 + 1e-6, RowVerdict.REGRESSION), (1.0, RowVerdict.PASS)):
        moved = with_records(side, CLEAN, energy_j_per_sample=factor * side.cases[0]["energy_j_per_sample"])
        assert (
            row(compare(moved, side, {"energy_j_per_sample": "exact"}), CLEAN, "energy_j_per_sample").verdict
            is expected
        )
    elsewhere = with_manifest(side, device={"name": "laptop", "fingerprint": "x"})
    assert compare(elsewhere, side).exit_code == 0, "a model is the same everywhere"


def test_measured_joules_are_never_exact(base):
    found = row(compare(base, base, {"energy_j_per_sample": "exact"}), CLEAN, "energy_j_per_sample")
    assert found.verdict is RowVerdict.NOT_COMPARABLE


def test_absent_sensor_is_not_comparable(base):
    run = with_records(base, CLEAN, energy_j_per_sample=None, energy_j_per_sample_missing="no permission")
    report = compare(run, base)
    found = row(report, CLEAN, "energy_j_per_sample")
    assert found.verdict is RowVerdict.NOT_COMPARABLE
    assert "no permission" in found.reason
    assert report.exit_code == 3


def test_absent_deterministic_figure_is_missing(base):
    run = with_records(base, CLEAN, macs_mean=None, macs_mean_missing="crashed")
    report = compare(run, base)
    assert row(report, CLEAN, "macs_mean").verdict is RowVerdict.MISSING
    assert report.exit_code == 1


def test_missing_case_fails_and_new_case_is_noted(base):
    fewer = base.changed(cases=base.cases[:2])
    report = compare(fewer, base)
    assert row(report, ILFO, "case").verdict is RowVerdict.MISSING
    assert report.exit_code == 1
    back = compare(base, fewer)
    assert back.exit_code == 3, "both ran the same suite: the baseline is not whole"
    assert any("new cases" in note and ILFO in note for note in back.notes)


def test_figure_that_is_new_is_noted(base):
    older = with_records(base, CLEAN, accuracy=None, accuracy_missing="not kept")
    report = compare(base, older)
    assert report.exit_code == 0
    assert any("accuracy is new" in note for note in report.notes)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"suite_text": "data: digits\nmodels: [other]\n", "suite_sha": "t" * 64}, "says something else"),
        ({"limit": 20}, "another limit"),
        ({"overrides": ("models=[x]",)}, "other overrides: models=[x]"),
    ],
)
def test_another_suite_is_not_comparable(base, synthetic, change, said):
    run = base.changed(manifest=synthetic(**change).manifest())
    report = compare(run, base)
    assert report.exit_code == 3
    assert report.comparisons == 0
    assert all(r.verdict is RowVerdict.NOT_COMPARABLE and said in r.reason for r in report.rows)
    named = with_manifest(base, suite=base.manifest["suite"] | {"name": "other"})
    assert compare(named, base).exit_code == 3


def test_suites_that_differ_in_measuring_only_are_compared(base, synthetic):
    text = synthetic().suite_text.replace("blocks: 8", "blocks: 12") + "gate: {macs_mean: exact}\n"
    run = base.changed(
        manifest=synthetic(suite_text=text, suite_sha="t" * 64, overrides=("measure.blocks=9",)).manifest()
    )
    report = compare(run, base)
    assert report.exit_code == 0
    assert any("differ in measure" in note for note in report.notes)


def test_what_explains_a_difference_is_noted(base):
    run = with_manifest(base, versions={"torch": "2.6"}, gate={"macs_mean": "exact"})
    notes = " ".join(compare(run, base).notes)
    assert "torch 2.5 → 2.6" in notes
    assert "gate section is not the one" in notes


def test_inputs_crafted_anew_are_compared_by_interval(base, synthetic, tmp_path):
    again = synthetic(crafted_anew=1).write(tmp_path / "again")
    report = compare(again, base, {"macs_mean": "exact", "recovery": {"increase": "5 points"}})
    for metric in ("macs_mean", "recovery"):
        found = row(report, ILFO, metric)
        assert found.verdict is RowVerdict.PASS
        assert found.low < found.high
        assert "crafted anew" in found.reason
    assert "exact means within 5 %" in row(report, ILFO, "macs_mean").reason
    assert row(report, CLEAN, "macs_mean").reason.startswith("equal on the same inputs")


def test_attack_that_costs_clearly_more_is_a_regression_also_when_crafted_anew(base, synthetic, tmp_path):
    again = Baseline.of(synthetic(crafted_anew=1).write(tmp_path / "again"))
    cheap = base.samples("digits/chain/ilfo").macs.copy()
    cheap[:100] = 100
    weaker = with_outcomes(base, "digits/chain/ilfo", macs=cheap)
    found = row(compare(again, weaker, {"macs_mean": "exact"}), ILFO, "macs_mean")
    assert found.verdict is RowVerdict.REGRESSION
    found = row(compare(weaker, again, {"macs_mean": "exact"}), ILFO, "macs_mean")
    assert found.verdict is RowVerdict.IMPROVEMENT


def test_clean_inputs_must_be_the_same_bytes(base):
    for other in ("z", None):
        run = with_records(base, CLEAN, inputs_sha256=other)
        found = row(compare(run, base), CLEAN, "macs_mean")
        assert found.verdict is RowVerdict.NOT_COMPARABLE


def test_derived_figures_known_only_from_records(base, synthetic, tmp_path):
    again = synthetic(crafted_anew=1).write(tmp_path / "again")
    gate = {"efficacy_trapezoid": {"drop": "10 points"}, "macs_p99": {"increase": "3 %"}, "depth_mean": "exact"}
    gate |= {"efficacy_step": {"drop": "10 points"}, "increase": {"increase": "99 points"}}
    report = compare(again, base, gate)
    assert report.exit_code == 0
    dearer = with_records(base, CLEAN, macs_p99=500, depth_mean=2.5)
    report = compare(dearer, base, gate)
    assert row(report, CLEAN, "macs_p99").verdict is RowVerdict.REGRESSION
    assert row(report, CLEAN, "depth_mean").verdict is RowVerdict.REGRESSION
    cheaper = with_records(base, CLEAN, macs_p99=200)
    assert row(compare(cheaper, base, gate), CLEAN, "macs_p99").verdict is RowVerdict.IMPROVEMENT


def test_realised_saving_is_compared_by_its_intervals(base):
    gate = {"realised_saving_time": {"drop": "10 points", "cases": "clean"}}
    assert compare(base, base, gate).exit_code == 0
    low, high = base.cases[0]["realised_saving_time_ci"]
    value, ends = base.cases[0]["realised_saving_time"] - 0.4, [low - 0.4, high - 0.4]
    worse = with_records(base, CLEAN, realised_saving_time=value, realised_saving_time_ci=ends)
    assert row(compare(worse, base, gate), CLEAN, "realised_saving_time").verdict is RowVerdict.REGRESSION
    bare = with_records(base, CLEAN, realised_saving_time_ci=None)
    assert row(compare(bare, base, gate), CLEAN, "realised_saving_time").verdict is RowVerdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("ceiling", "verdict"), [(0.99, RowVerdict.PASS), (0.2, RowVerdict.REGRESSION), ("value", RowVerdict.INCONCLUSIVE)]
)
def test_ceiling_needs_no_baseline(base, ceiling, verdict):
    record = next(c for c in base.cases if c["case"] == ILFO)
    report = compare(
        base, None, {"recovery": {"max": record["recovery"] if ceiling == "value" else ceiling, "cases": "attack"}}
    )
    assert [r.verdict for r in report.rows] == [verdict]
    assert report.comparisons == 1
    assert report.baseline == ""


def test_ceiling_on_flagged_windows_cannot_tell(base, synthetic):
    run = session(base, synthetic, flags="hot")
    report = compare(run, None, {"latency_s_per_sample": {"max": 1.0}})
    assert report.exit_code == 3


def test_nothing_compared_is_never_green(base):
    for gate in ({}, {"macs_mean": {"exact": True, "cases": "nowhere"}}, {"queries_mean": {"drop": "3 %"}}):
        report = compare(base, base, gate)
        assert report.comparisons == 0
        assert report.exit_code == 3
    empty = base.changed(cases=[])
    assert compare(empty, empty).exit_code == 3


def test_holm_keeps_many_comparisons_quiet(base):
    from adaptbench.results.gate_rows import GateRow, corrected

    def made(verdict, p):
        return GateRow("c", "energy_j_per_sample", "r", verdict, "", p=p)

    rows = [made(RowVerdict.REGRESSION, 0.02), *[made(RowVerdict.PASS, 0.5)] * 9, made(RowVerdict.REGRESSION, 1e-6)]
    corrected = corrected(rows)
    assert corrected[0].verdict is RowVerdict.INCONCLUSIVE
    assert "Holm" in corrected[0].reason
    assert corrected[-1].verdict is RowVerdict.REGRESSION


def test_baseline_file_says_what_the_run_says(run, tmp_path, synthetic):
    file = write_baseline(run, tmp_path / "new" / "made-up.json")
    assert json.loads(file.read_text())["kind"] == "baseline"
    kept, whole = Baseline.load(file), Baseline.load(run.path)
    for evaluation in ("digits/chain/clean", "digits/chain/ilfo"):
        for name in ("sample_id", "correct", "macs", "tie"):
            np.testing.assert_array_equal(
                getattr(kept.samples(evaluation), name), getattr(whole.samples(evaluation), name)
            )
    assert kept.samples("nothing") is None
    assert whole.samples("nothing") is None
    assert kept.cases == whole.cases
    assert compare(run, file).rows == compare(run, run).rows
    assert compare(file, run).exit_code == 0
    moved = Baseline.of(run)
    moved = moved.changed(load_windows=synthetic(session=3, joules={"ilfo": 1.1}).windows)
    assert row(compare(moved, file), ILFO, "energy_j_per_sample").verdict is RowVerdict.REGRESSION


def test_baseline_of_ten_thousand_inputs_is_small(tmp_path, synthetic):
    run = synthetic(n=10_000, blocks=1, conditions=("clean",)).write(tmp_path / "run")
    assert write_baseline(run, tmp_path / "b.json").stat().st_size < 30_000


def test_sample_ids_with_gaps_survive_packing(tmp_path, synthetic):
    from adaptbench.results.baseline import Outcomes, _pack, _unpack

    rng = np.random.default_rng(0)
    ids = np.sort(rng.choice(10**9, 700, replace=False))
    outcomes = Outcomes(ids, rng.random(700) < 0.5, rng.integers(0, 10**12, 700), rng.random(700) < 0.1)
    again = _unpack(json.loads(json.dumps(_pack(outcomes))), tmp_path)
    for name in ("sample_id", "correct", "macs", "tie"):
        np.testing.assert_array_equal(getattr(again, name), getattr(outcomes, name))


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda d: d.pop("schema"), RunError),
        (lambda d: d.update(schema=9), RunError),
        (lambda d: d.update(kind="run"), BaselineError),
        (lambda d: d.pop("samples"), BaselineError),
        (lambda d: d["cases"].append(7), RunError),
        (lambda d: d["samples"]["digits/chain/clean"].update(tie="AA=="), BaselineError),
        (lambda d: d["samples"]["digits/chain/clean"]["macs"].update(index="AA=="), BaselineError),
    ],
)
def test_damaged_baselines_are_refused(run, tmp_path, damage, error):
    file = write_baseline(run, tmp_path / "b.json")
    document = json.loads(file.read_text())
    damage(document)
    file.write_text(json.dumps(document))
    with pytest.raises(error) as caught:
        compare(run, file)
    assert caught.value.todo


def test_no_baseline_there(run, tmp_path):
    with pytest.raises(BaselineError, match="no such baseline"):
        compare(run, tmp_path / "none.json")
    with pytest.raises(SuiteError):
        compare(run, run, {"nothing": "exact"})


def test_selftest_goes_red_on_planted_faults(base):
    control, mac, joules, *bent = selftest(base)
    assert [planted.fault for planted in bent] == [
        "dearer, every sample called a tie",
        "dearer, half of the per-sample rows gone",
        "another attack under the same name",
        "dearer, the run's own rules dropped",
    ]
    assert all(planted.caught and planted.bent for planted in bent)
    assert control.caught
    assert control.report.exit_code == 0
    assert mac.caught
    assert "+1 MAC" in mac.fault
    assert joules.caught
    assert joules.rule == "increase of at most 3 %"
    assert joules.report.exit_code == 1


def test_selftest_says_where_the_gate_is_blind(run):
    _, mac, joules, *bent = selftest(run, {"accuracy": {"drop": "0.5 points"}})
    assert [planted.fault for planted in bent] == ["dearer, the run's own rules dropped"]
    assert mac.caught is None
    assert joules.caught is None
    _, _, deaf, *_ = selftest(run.path, {"energy_j_per_sample": {"increase": "25 %"}})
    assert deaf.caught is False


def test_selftest_on_modelled_joules(tmp_path, synthetic):
    run = synthetic(meter="modelled").write(tmp_path / "run")
    assert all(planted.caught for planted in selftest(run))


def test_batch_sizes_share_one_comparison_of_what_they_share(base):
    twice = [c | {"case": f"{c['evaluation']}/b{b}", "batch_size": b} for c in base.cases for b in (1, 256)]
    side = base.changed(cases=twice)
    report = compare(side, side, {"macs_mean": "exact", "realised_saving_time": {"drop": "50 points"}})
    assert sum(r.metric == "macs_mean" for r in report.rows) == 3
    told = sum(c["realised_saving_time"] is not None for c in base.cases)  # none where next to no MACs are saved
    assert 0 < told < 3
    assert sum(r.metric == "realised_saving_time" for r in report.rows) == 2 * told


def test_clean_case_of_another_seed_serves_where_there_is_no_other(base):
    there = with_records(base, ILFO, seed=1)
    seeded = with_records(there, ILFO, inputs_sha256="other")
    found = row(compare(seeded, there, {"recovery": {"increase": "5 points"}}), ILFO, "recovery")
    assert found.verdict is RowVerdict.PASS
    assert "bootstrap" in found.reason


def test_bound_that_nobody_recorded_leaves_the_intervals_of_the_records(base):
    bare = with_records(base, ILFO, macs_max=None)
    found = row(compare(bare, bare, {"recovery": {"increase": "9 points"}}), ILFO, "recovery")
    assert "deterministic" in found.reason
