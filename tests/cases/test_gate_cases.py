"""Ways to a green gate that should not be green, on purpose and by accident."""

from __future__ import annotations

import base64
import copy
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[1]))

from synthetic_run import MODELS, Plan, write_run

from adaptbench.bench.plan import make_plan
from adaptbench.bench.suite import load_suite
from adaptbench.errors import AdaptBenchError, BaselineError, SuiteError
from adaptbench.experiment.options import Options
from adaptbench.results.baseline import Baseline, write_baseline
from adaptbench.results.gate import compare
from adaptbench.results.gate_format import render
from adaptbench.results.gate_rows import RowVerdict
from adaptbench.results.store import Run

GATE = {
    "macs_mean": {"exact": True, "cases": ["clean", "attack"]},
    "accuracy": {"drop": "0.5 points", "cases": ["clean"]},
    "recovery": {"increase": "10 points", "cases": ["ilfo"]},
}
CLEAN = f"digits/{MODELS[0].name}/clean"


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A run and the baseline file that was kept of it."""
    plan = Plan(MODELS[:1], ("clean", "noise", "ilfo"), n=200, batches=(8,), sweep=0, references=False, crafted=False)
    folder = tmp_path_factory.mktemp("gate")
    run = write_run(folder / "run", plan, gate=GATE, id="one")
    return run, json.loads(write_baseline(run, folder / "kept.json").read_text(encoding="utf-8"))


@pytest.fixture
def run(kept):
    """Another run of the same truth."""
    side = Baseline.of(kept[0])
    return side.changed(manifest={**side.manifest, "id": None})


@pytest.fixture
def baseline(kept, tmp_path):
    """The baseline file after some change."""

    def write(change=lambda document: None):
        document = copy.deepcopy(kept[1])
        change(document)
        file = tmp_path / "kept.json"
        file.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
        return file

    return write


def with_rows(side, evaluation, **changes):
    """A side with other per-sample rows of an evaluation, and a record that agrees."""
    rows = replace(side.samples(evaluation), **changes)
    figures = {
        "macs_mean": float(rows.macs.mean()),
        "accuracy": float(rows.correct.mean()),
        "ties": int(rows.tie.sum()),
        "n": len(rows),
    }
    cases = [record | figures if record["evaluation"] == evaluation else record for record in side.cases]
    return side.changed(load_samples=lambda name: rows if name == evaluation else side.samples(name), cases=cases)


def with_gate(side, gate):
    return side.changed(manifest={**side.manifest, "gate": gate})


def dearer(side, factor=1.5):
    macs = side.samples(CLEAN).macs
    return with_rows(side, CLEAN, macs=(macs * factor).astype(np.int64))


def reasons(report):
    return " | ".join(row.reason for row in report.rows if row.verdict is not RowVerdict.PASS)


@pytest.mark.case("own")
def test_an_undamaged_baseline_is_green(run, baseline):
    """The control of this file: nothing below is refused for the way in which it is made."""
    report = compare(run, baseline())
    assert report.exit_code == 0, reasons(report)
    assert report.comparisons == 4


@pytest.mark.case("own")
def test_a_baseline_of_ties_waives_no_shift(run, baseline):
    """With every sample of the baseline marked as a tie, three times the MACs passed as "+200 %"."""

    def bend(document):
        for packed in document["samples"].values():
            packed["macs"]["levels"] = [level // 3 for level in packed["macs"]["levels"]]
            packed["tie"] = base64.b64encode(b"\xff" * 25).decode()
        for record in document["cases"]:
            record["macs_mean"] /= 3
            record["ties"] = record["n"]

    assert compare(run, baseline(bend), {"macs_mean": "exact"}).exit_code == 3, "thirds were rounded: rows and record"
    rows = run.samples(CLEAN)
    there = with_rows(run, CLEAN, tie=np.ones(200, dtype=bool))
    report = compare(with_rows(run, CLEAN, macs=3 * rows.macs), there, {"macs_mean": {"exact": True, "cases": "clean"}})
    assert report.exit_code == 1
    assert "200 of 200 samples (100 %) differ at a tie" in reasons(report)


@pytest.mark.case("own")
@pytest.mark.parametrize(
    ("up", "down", "step", "code", "said"),
    [
        (1, 0, 9e9, 0, ""),
        (1, 1, 1000, 0, ""),
        (6, 0, 1, 1, "6 of them went up, which is no chance"),
        (0, 9, 1, 1, "9 of them went down"),
        (4, 3, 1, 3, "more than 1 % of the samples hang on ties"),
        (2, 0, 9e5, 3, "they move the mean too far"),
    ],
)
def test_a_tie_waives_a_sample(run, up, down, step, code, said):
    """Any number of ties waived any change; now few, either way, and together no shift of the mean."""
    rows = run.samples(CLEAN)
    moved = np.zeros(len(rows), dtype=np.int64)
    moved[:up], moved[up : up + down] = int(step), -int(min(step, 1000))
    there = with_rows(run, CLEAN, tie=moved != 0)
    report = compare(with_rows(there, CLEAN, macs=rows.macs + moved), there, {"macs_mean": "exact"})
    assert report.exit_code == code
    assert said in reasons(report)
    named = [row.reason for row in report.rows if row.case.startswith(CLEAN)]
    assert f"{up + down} of 200 samples" in named[0]


@pytest.mark.case("own")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.update(samples={}), "the baseline: there are no per-sample rows"),
        (lambda d: d["samples"].pop(CLEAN), "no per-sample rows"),
        (lambda d: d.update(samples=[]), "'samples' is no dict"),
        (lambda d: d.update(samples="x"), "'samples' is no dict"),
        (lambda d: d["samples"].update({CLEAN: []}), "packed samples are damaged"),
        (lambda d: d["samples"][CLEAN]["sample_id"].update(first=1001), "their ids differ"),
        (lambda d: d["samples"][CLEAN].update(sample_id=[1000] * 200), "a sample id stands twice"),
        (lambda d: d["samples"][CLEAN]["sample_id"].update(n=100), "damaged"),
        (lambda d: d["cases"][0].update(n=400), "200 per-sample rows stand for n = 400"),
        (lambda d: d["cases"][0].update(macs_mean=1e9), "the record says 1e+09"),
        (lambda d: d["cases"].pop(0), "the baseline lacks this case"),
        (lambda d: d.update(cases=[]), "the baseline lacks this case"),
        (lambda d: d["manifest"]["data"]["digits"].update(sha256="0"), "other data"),
        (lambda d: d["manifest"].update(gate=7), "manifest, gate"),
        (lambda d: d["manifest"].update(gate={"macs_mean": "exat"}), "not a rule"),
        (lambda d: d.update(windows="x"), "'windows' is no list"),
        (lambda d: d.update(windows=[3]), "windows are damaged"),
        (lambda d: d["windows"][0].update(block="x"), "windows are damaged"),
    ],
)
def test_a_damaged_baseline_is_never_green(run, baseline, change, said):
    """Baselines without samples, with other ids or fewer rows passed 20 of 20; rows are held against n."""
    try:
        report = compare(run, baseline(change))
        told, code = reasons(report), report.exit_code
    except AdaptBenchError as error:
        told, code = error.seen, 2
    assert said in told
    assert code in (2, 3)


@pytest.mark.case("own")
def test_rows_of_the_run_that_are_gone_are_never_green(run):
    """Zero rows, or half of the clean rows, passed: what both sides had was compared, and that was nothing."""
    rows = run.samples(CLEAN)
    for left in (None, rows.take(np.arange(100)), rows.take(np.arange(0))):
        bent = run.changed(load_samples=lambda name, left=left: left if name == CLEAN else run.samples(name))
        report = compare(bent, run)
        assert report.exit_code == 3
        green = {(row.case, row.metric) for row in report.rows if row.verdict is RowVerdict.PASS}
        assert green == {(f"{CLEAN.replace('clean', 'ilfo')}/b8", "macs_mean")}, "recovery leans on the clean rows"


@pytest.mark.case("own")
@pytest.mark.parametrize(
    "own",
    [
        {},
        {"macs_mean": {"max": 1e18}},
        GATE | {"macs_mean": {"max": 1e18}},
        GATE | {"macs_mean": {"exact": True, "cases": ["attack"]}},
        GATE | {"macs_mean": {"increase": "60 %", "cases": ["clean", "attack"]}},
        GATE | {"macs_mean": {"exact": True, "anew": "99 %", "cases": ["clean", "attack"]}},
    ],
)
def test_the_baseline_s_rules_hold(run, own):
    """A run's own suite could drop a rule, widen it or watch fewer cases: +50 % MACs passed with a note."""
    report = compare(with_gate(dearer(run), own), run)
    assert report.exit_code == 1
    same = compare(with_gate(run, own), run)
    assert same.exit_code == 3
    assert "loosened or dropped this rule" in reasons(same)


@pytest.mark.case("own")
def test_a_stricter_run_is_judged_by_its_own_rules_too(run):
    """The baseline's rules hold, and what the run asks beyond them."""
    stricter = with_gate(run, GATE | {"accuracy": {"drop": "0.2 points"}, "macs_max": "exact"})
    report = compare(stricter, run)
    assert report.exit_code == 0
    assert {row.rule for row in report.rows if row.metric == "accuracy"} >= {"drop of at most 0.2 points"}
    assert [row for row in report.rows if row.metric == "macs_max"]


@pytest.mark.case("own")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda run, record: run["conditions"]["ilfo"].update(settings={"lr": 1e-9, "steps": 1}), "lr 1e-09, baseline"),
        (lambda run, record: run["conditions"]["ilfo"].update(access="none"), "access none, baseline white-box"),
        (lambda run, record: run["conditions"].pop("ilfo"), "does not say how 'ilfo' was set"),
        (lambda run, record: record.update(attack_sha256="f" * 64), "its code or its surrogate's weights changed"),
    ],
)
def test_another_attack_of_the_same_name_is_not_comparable(run, change, said):
    """A recipe in the working directory hid the shipped one: a recovery of 1 % instead of 94 % was an improvement."""
    manifest, cases = copy.deepcopy(run.manifest), copy.deepcopy(run.cases)
    attack = next(record for record in cases if record["condition"] == "ilfo")
    attack |= {"recovery": 0.01, "recovery_ci": [0.0, 0.02], "inputs_sha256": "anew"}
    change(manifest, attack)
    report = compare(run.changed(manifest=manifest, cases=cases), run)
    assert report.exit_code == 3
    assert said in reasons(report)
    assert all(row.verdict is RowVerdict.NOT_COMPARABLE for row in report.rows if "ilfo" in row.case)


@pytest.mark.case("own")
def test_a_run_is_no_baseline_of_itself(kept, tmp_path):
    """`check d --baseline d` and run, baseline, check in one job are green whatever happens: nothing can differ."""
    own, document = kept
    with pytest.raises(BaselineError, match="the baseline is the run itself"):
        compare(own.path, str(own.path))
    (tmp_path / "kept.json").write_text(json.dumps(document), encoding="utf-8")
    report = compare(own.path, tmp_path / "kept.json")
    assert report.exit_code == 3
    assert "kept of this very run" in reasons(report)


@pytest.mark.case("own")
@pytest.mark.parametrize(
    ("gate", "changes", "said"),
    [
        ({"macs_mean": "exact"}, {"uncounted": ["aten::fft"]}, "operators without a MAC formula run"),
        ({"recovery": {"increase": "10 points"}}, {"macs_max": 10**9}, "recovery is a share of macs_max"),
        ({"recovery": {"max": 0.99}}, {"macs_max": 10**9}, "recovery is a share of macs_max"),
    ],
)
def test_figures_on_another_footing_are_not_comparable(run, gate, changes, said):
    """Operators that are counted no longer and a dearer path that nobody takes made figures better."""
    cases = [{**record, **changes} for record in run.cases]
    report = compare(run.changed(cases=cases), run, gate)
    assert report.exit_code == 3
    assert said in reasons(report)


@pytest.mark.case("own")
def test_seconds_without_windows_and_joules_of_another_model_are_not_comparable(run):
    """Where windows were cut short the records' intervals were compared; a cheaper table of joules passed, too."""
    gate = {"latency_s_per_sample": {"increase": "10 %"}, "realised_saving_time": {"drop": "90 points"}}
    assert compare(run, run, gate).exit_code == 0
    windows = run.windows()
    own = windows["case"] == f"{CLEAN}/b8"
    for cut in (windows[~own | (windows["block"] > 2)], windows[~own], windows[:0]):
        report = compare(run.changed(load_windows=lambda cut=cut: cut), run, gate)
        assert report.exit_code == 3
        assert "blocks are there for" in reasons(report)
    meters = copy.deepcopy(run.manifest["meters"])
    meters["modelled"]["coefficients"] = "half"
    report = compare(
        run.changed(manifest={**run.manifest, "meters": meters}), run, {"energy_j_per_sample": {"increase": "3 %"}}
    )
    assert report.exit_code == 3
    assert "another model of energy: coefficients changed" in reasons(report)


@pytest.mark.case("own")
def test_a_run_with_failed_cases_makes_no_baseline(kept, tmp_path):
    """What failed when the baseline was written would never be compared again."""
    own = kept[0]
    cases = [{**own.cases[0], "failed": "no memory"}, *own.cases[1:]]
    with pytest.raises(BaselineError, match="1 cases could not be run"):
        write_baseline(Run(own.path, own.manifest, cases), tmp_path / "kept.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.case("own")
@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"schema": 1, "kind": "baseline", "cases": ' + "9" * 400 + "}",
        '{"schema": 1, "kind": "baseline", "cases": ' + "9" * 5000 + "}",
        '{"schema": 1, "kind": "baseline", "cases": [], "cases": []}',
        '{"schema": 1, "kind": "baseline", "cases": [NaN]}',
        '{"schema": 1, "kind": "\\ud800"}',
        '{"schema": 1e400}',
        "",
        "null",
    ],
)
def test_hostile_json_is_one_message(run, tmp_path, text):
    """Integers of 400 digits, 100 000 brackets, NaN and half a surrogate pair ended in tracebacks."""
    (tmp_path / "kept.json").write_text(text, encoding="utf-8")
    with pytest.raises(AdaptBenchError) as caught:
        compare(run, tmp_path / "kept.json")
    assert "kept.json" in caught.value.seen
    assert caught.value.todo


@pytest.mark.case("own")
def test_a_name_can_not_write_a_line_of_its_own(run):
    """A case called "x\\npass: 20 comparisons" wrote the verdict itself, and escape codes hid the rest."""
    name = "x\npass: 20 comparisons (20 pass)\x1b[8m"
    cases = [{**record, "case": name} if record["evaluation"] == CLEAN else record for record in run.cases]
    text = render(compare(dearer(run.changed(cases=cases)), run.changed(cases=cases)))
    assert "\npass" not in text
    assert "\x1b" not in text
    assert text.splitlines()[0].startswith("regression")


@pytest.mark.case("own")
def test_a_sweep_over_other_bytes_is_not_comparable(run):
    """Sweeps whose inputs differed were taken for crafted anew, with 5 % to spare."""
    cases = [{**record, "kind": "sweep"} if record["evaluation"] == CLEAN else record for record in run.cases]
    other = [{**record, "inputs_sha256": "other"} if record["kind"] == "sweep" else record for record in cases]
    report = compare(run.changed(cases=other), run.changed(cases=cases), {"macs_mean": "exact"})
    assert report.exit_code == 3
    assert "did not evaluate the same input bytes" in reasons(report)


@pytest.mark.case("own")
@pytest.mark.parametrize(
    ("gate", "override", "said"),
    [
        ("macs_mean: {exact: true, cases: [clean, contrl]}", None, "'contrl'"),
        ("macs_mean: {exact: true, cases: [clean, sttaic]}", None, "Did you mean 'static'"),
        ("macs_mean: {exact: true, cases: 'digits/*/noize'}", None, "'digits/*/noize'"),
        ("macs_mean: {exact: true, cases: [sweep]}", None, "no case of this suite is sweep"),
        ("macs_mean: [exact, {exact: true, cases: [ilfo]}]", "models=[static]", "'ilfo'"),
        ("macs_mean: {exact: true, cases: ['digits/static/*', noise, sweep]}", None, ""),
        ("macs_mean: {exact: true, cases: [noise]}", "conditions=[clean]", ""),
    ],
)
def test_a_gate_that_watches_nothing_is_refused_with_its_suite(tmp_path, gate, override, said):
    """A misspelt pattern of `cases:` was a note at most; the suite is refused, unless an override took it away."""
    file = tmp_path / "mine.yaml"
    file.write_text(
        f"data: digits\nmodels: [static]\nconditions: [clean, {{noise: {{eps: 8/255}}}}]\ngate:\n  {gate}\n",
        encoding="utf-8",
    )
    loaded = load_suite(str(file), [override] if override else [])
    if not said:
        assert make_plan(loaded, Options(limit=2)).evaluations
        return
    with pytest.raises(SuiteError) as caught:
        make_plan(loaded, Options(limit=2))
    assert said in str(caught.value)
    assert "line 5, gate.macs_mean" in caught.value.seen


@pytest.mark.case("own")
@pytest.mark.parametrize(
    ("pattern", "code"),
    [("clena", 3), ("deepslot", 3), ("*/ilfo/s7", 3), ("sweep", 0), ("static", 0), ("digits/*/clean", 0)],
)
def test_a_misspelt_pattern_in_a_baseline_is_not_green(run, baseline, pattern, code):
    """`cases: [clean, deepslot]` of a foreign baseline passed with a note; what watches nothing is 3."""

    def bend(document):
        document["manifest"]["gate"] = {"macs_mean": {"exact": True, "cases": ["clean", pattern]}}
        document["manifest"]["models"]["static"] = document["manifest"]["models"][MODELS[0].name]

    file = baseline(bend)
    report = compare(with_gate(run, json.loads(file.read_text(encoding="utf-8"))["manifest"]["gate"]), file)
    assert report.exit_code == code, reasons(report)
    assert (f"'{pattern}': it watches nothing" in reasons(report)) == (code == 3)
