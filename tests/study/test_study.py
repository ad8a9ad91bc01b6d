"""A whole study on digits, from the command line to the page; and what must never happen in one."""

from __future__ import annotations

import copy
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import adaptbench as ab
from adaptbench.adaptive import CalibrationLog
from adaptbench.cli import app
from adaptbench.data import load_data
from adaptbench.errors import LeakageError, RunError, SuiteError
from adaptbench.experiment import measuring
from adaptbench.experiment.progress import Silent
from adaptbench.policies import UniformThreshold
from adaptbench.registry import POLICIES
from adaptbench.report.study_page import study_page
from adaptbench.results import tables
from adaptbench.results.statistics import paired_ratio
from adaptbench.results.studies import StudyRun, judged, reading, stated, upgraded, verdict
from adaptbench.results.study_schema import fault
from adaptbench.results.timing import NET, part_blocks
from adaptbench.results.writer import RunWriter
from adaptbench.study import graph_study, load_study, members, run_study, timing
from adaptbench.study import plan as plan_module
from adaptbench.study.logs import Logging, SealedLabels, calibration_log

sys.path.append(str(Path(__file__).resolve().parents[1]))

from small_study import STUDY


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    (folder / "thresholds.yaml").write_text(STUDY, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def record(place: Path) -> dict:
    torch.set_num_threads(1)
    return run_study(str(place / "thresholds.yaml"), out=place / "run").record


@pytest.mark.slow
def test_what_the_log_foretold_is_what_ran(record):
    graph = record["graphs"]["digits"]
    executed = [
        p["executed"] for name in ("softmax-threshold", "joint-threshold") for p in graph["policies"][name]["chosen"]
    ]
    assert len(executed) == 4
    for ran in executed:
        assert ran["n"] == graph["n_test"]
        assert ran["differing"] == 0
    for name in ("softmax-threshold", "joint-threshold"):
        for point in graph["policies"][name]["chosen"]:
            if not point["executed"]["ties"]:
                assert point["executed"]["macs_mean"] == pytest.approx(point["macs_mean"])
                assert point["executed"]["accuracy"] == pytest.approx(point["accuracy"])


def test_figures_hang_together(record):
    graph = record["graphs"]["digits"]
    full = graph["macs_full"]
    assert graph["oracle"]["macs"] < full
    assert graph["nodes"][-1]["accuracy_test"] == graph["reference_accuracy"]
    for found in graph["policies"].values():
        for point in [*found["chosen"], *found["settings"]]:
            assert point["speedup"] == pytest.approx(full / point["macs_mean"])
            assert point["drop_points"] == pytest.approx(100 * (graph["reference_accuracy"] - point["accuracy"]))
            assert sum(point["exits"]) == graph["n_test"]
    ours = [row for row in graph["at_budget"] if row["policy"] == "joint-threshold"]
    assert all(row["ours_ahead_points"] in (0, None) for row in ours)
    chance = {row["budget"]: row for row in graph["at_budget"] if row["policy"] == "random"}
    assert chance[0.3]["accuracy"] < next(row["accuracy"] for row in ours if row["budget"] == 0.3)


def test_figures_that_are_read_over_budgets_and_re_splits():
    """By hand: at 0.2 ours leads, at 0.5 it is behind by chance, at 0.8 it is behind for certain."""

    def row(policy, budget, accuracy, ahead=None):
        over = None if ahead is None else [-ahead[1], -ahead[0]]
        return {
            "policy": policy,
            "budget": budget,
            "accuracy": accuracy,
            "ours_ahead_points_ci": ahead,
            "over_paper_points_ci": over,
        }

    rows = [row("mine", b, a, [0.0, 0.0]) for b, a in ((0.2, 0.8), (0.5, 0.85), (0.8, 0.9))]
    rows += [row("theirs", 0.2, None), row("theirs", 0.5, 0.851, [-0.3, 0.1]), row("theirs", 0.8, 0.92, [-3.0, -1.0])]
    graph = {
        "policies": {"mine": {}, "theirs": {}},
        "at_budget": rows,
        "budget_error": {"mine": {"own": [[0.2, -0.004], [0.5, 0.002]]}, "theirs": {"own": None}},
        "resplits": [{"policy": "mine", "epsilon": 0.01, "count": 50, "rate": 0.04}],
    }
    record = {"ours": "mine", "paper": "theirs", "graphs": {"g": graph}}

    def read(figure, policy="mine", **more):
        return reading(record, {"graph": "g", "policy": policy, "figure": figure, "against": ["theirs"], **more})[0]

    assert read("budgets_ahead") == 1
    assert read("budgets_held") == 2
    assert read("budget_error") == pytest.approx(0.4)
    assert read("budget_error", "theirs") is None
    assert read("broken", setting=0.01) == pytest.approx(4)
    assert read("broken", setting=0.02) is None
    assert read("budgets_held", "theirs", against=["mine"]) == 2, "what it does not reach it does not hold"
    swapped = record | {"ours": "theirs", "paper": "mine"}
    assert reading(swapped, {"graph": "g", "policy": "mine", "figure": "budgets_held", "against": ["theirs"]})[0] == 2


def test_a_saving_counts_only_where_the_drop_was_kept():
    point = {"drop": 0.01, "speedup": 3.0, "drop_points": 1.2, "drop_points_ci": [0.8, 1.6]}
    record = {"graphs": {"g": {"policies": {"p": {"chosen": [point], "settings": []}}}}}
    ours = {"graph": "g", "policy": "p", "figure": "speedup", "drop": 0.01}
    figure = {"value": 2.0, "tolerance": 0.0, "better": "higher", "ours": ours}
    assert judged(record, figure) == (3.0, None, "drop not kept: 1.20 [0.80, 1.60] points")
    point["drop_points"] = 1.0
    assert judged(record, figure)[2] == "better"
    assert judged(record, figure | {"target": True})[2] == "met"
    assert judged(record, figure | {"target": True, "value": 4.0})[2] == "not met"
    assert judged(record, figure | {"ours": None})[2] == "not comparable"


def test_a_figure_that_was_not_recovered_is_no_zero():
    assert stated({"value": 0, "provenance": "not recovered"}) is None
    assert stated({"value": 0, "provenance": "[abs]"}) == 0


def test_a_policy_can_be_fitted_on_training_samples_and_on_no_others(place, record, tmp_path):
    graph = record["graphs"]["digits"]
    assert graph["n_training"] == 300
    released = graph["policies"]["softmax-threshold-published@train"]
    assert released["members"] > 1
    rows = {row["policy"]: row for row in graph["resplits"]}
    assert rows["softmax-threshold-published@train"]["count"] == 3
    model = ab.load_model("softmax-threshold", "digits")
    for role in ("calibration", "test"):
        how = Logging(RunWriter(tmp_path / "log", "study"), "cpu", Silent())
        with pytest.raises(LeakageError, match=role):
            calibration_log(model, load_data("digits").split(role), how, top=1, training=True)


def without_times(graph):
    kept = copy.deepcopy(graph)
    kept.pop("wall_clock")
    kept.pop("made")
    for policy in kept["policies"].values():
        policy.pop("fit_s")
    return kept


def test_a_finished_study_that_is_run_again_changes_nothing(place, record, monkeypatch):
    before = {f: f.stat().st_mtime_ns for f in (place / "run").rglob("*") if f.is_file()}
    monkeypatch.setattr(graph_study, "fit_family", None)  # nothing is fitted
    done = run_study(str(place / "thresholds.yaml"), out=place / "run")
    assert done.record == record
    assert {f: f.stat().st_mtime_ns for f in (place / "run").rglob("*") if f.is_file()} == before


def test_python_opens_a_study_by_name_or_path(place, record, tmp_path, monkeypatch):
    """`ab.run` opened suites only."""
    done = ab.run(str(place / "thresholds.yaml"), out=place / "run")
    assert isinstance(done, ab.StudyRun)
    assert done.record == record
    (tmp_path / "suites").mkdir()
    shutil.copy(place / "thresholds.yaml", tmp_path / "suites")
    monkeypatch.chdir(tmp_path)
    assert ab.run("thresholds", out=place / "run").path == place / "run"
    assert ab.run(load_study("thresholds"), out=place / "run").record == record
    kept = StudyRun.keep(place / "run", tmp_path / "kept.json")
    assert ab.check(done, kept).exit_code == 3, "the baseline was kept of this very study"
    assert ab.write_report([done.path], tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!")


def test_a_killed_study_goes_on_from_logs_and_fits_and_finds_the_same(place, record, tmp_path, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(place / "run", run)
    (run / "manifest.json").unlink()
    finished = [f for f in (run / "cells").glob("*.json") if "at_budget" in f.read_text()]
    assert len(finished) == 1
    finished[0].unlink()
    before = {f: f.stat().st_mtime_ns for f in (run / "cells").iterdir()}
    monkeypatch.setattr(members, "_fit", None)  # fits come from their cells
    monkeypatch.setattr(measuring, "measure", None)  # and times: they are measured once
    again = run_study(str(place / "thresholds.yaml"), out=run).record
    assert {f for f, seen in before.items() if f.stat().st_mtime_ns != seen} == set(), "what stood there stays"
    assert without_times(again["graphs"]["digits"]) == without_times(record["graphs"]["digits"])
    assert again["graphs"]["digits"]["wall_clock"] == record["graphs"]["digits"]["wall_clock"]


@pytest.mark.slow
def test_what_is_damaged_is_computed_again(place, record, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(place / "run", run)
    for file in (run / "cells").iterdir():
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    again = run_study(str(place / "thresholds.yaml"), out=run).record
    assert without_times(again["graphs"]["digits"]) == without_times(record["graphs"]["digits"])


@pytest.mark.slow
def test_a_point_that_cannot_be_timed_is_named_and_tried_again(place, record, tmp_path, monkeypatch):
    run, real = tmp_path / "run", timing.make_arm
    shutil.copytree(place / "run", run)

    def breaks(case, *args):
        if "joint-threshold at 0 points" in case:
            raise RuntimeError("planted")
        return real(case, *args)

    def timed():
        done = run_study(str(place / "thresholds.yaml"), out=run, overrides=["measure.blocks=2"])
        return done, done.record["graphs"]["digits"]

    monkeypatch.setattr(timing, "make_arm", breaks)
    done, graph = timed()
    case = "digits/joint-threshold at 0 points/b8"
    assert graph["missing"] == {f"timing of {case}": "RuntimeError: planted"}
    assert [f["case"] for f in done.manifest["failures"]] == [case]
    assert len(graph["wall_clock"]) == 3
    assert graph["policies"] == record["graphs"]["digits"]["policies"], (
        "figures that no clock gives are not computed again"
    )
    monkeypatch.undo()
    done, graph = timed()
    assert not graph["missing"]
    assert not done.manifest["failures"]
    assert len(graph["wall_clock"]) == 4


def test_the_windows_behind_a_speed_up_are_kept(place, record):
    windows = tables.read(place / "run" / "windows.parquet", "windows")
    for row in record["graphs"]["digits"]["wall_clock"]:
        case, static = f"digits/{row['point']}/b{row['batch_size']}", f"static:digits/b{row['batch_size']}"
        own, other = (part_blocks(windows, name, *parts) for name, parts in ((case, NET), (static, ("nodes",))))
        assert paired_ratio(*own.paired(other)).value == pytest.approx(row["net_speedup"])
        assert row["blocks"] == len(own.per_sample) == 6


@pytest.mark.slow
def test_fresh_forgets(place, tmp_path):
    text = STUDY[: STUDY.index("published:")].replace("resplits", "# ").replace("online", "# ").replace("measure", "# ")
    (tmp_path / "s.yaml").write_text(text, encoding="utf-8")
    first = run_study(str(tmp_path / "s.yaml"), out=tmp_path / "run", limit=100)
    before = {f: f.stat().st_mtime_ns for f in (tmp_path / "run" / "cells").iterdir()}
    fresh = run_study(str(tmp_path / "s.yaml"), out=tmp_path / "run", limit=100, fresh=True)
    assert fresh.manifest["id"] != first.manifest["id"]
    assert all(f.stat().st_mtime_ns != seen for f, seen in before.items())
    assert fresh.record["graphs"]["digits"]["n_test"] == 100


def test_the_non_inferior_point_is_chosen_on_calibration(record):
    graph = record["graphs"]["digits"]
    assert graph["margin"] == 0.05
    for found in graph["policies"].values():
        point = found["non_inferior"]
        if point is None:
            assert "95 %" in found["non_inferior_missing"]
            continue
        assert point["choosing_loss_bound"] <= 0.05
        assert point["held"] == (point["drop_points_ci"][1] <= 5)
    main = graph["policies"]["joint-threshold"]["non_inferior"]
    assert main["executed"]["differing"] == 0


@pytest.mark.slow
def test_choices_do_not_hang_on_test_labels(place, record, monkeypatch):
    real = load_data("digits")
    test = real.split("test")
    shuffled = test.y[torch.randperm(len(test), generator=torch.Generator().manual_seed(1))]

    class Shuffled:
        name = real.name
        notes = ()

        def split(self, role):
            from dataclasses import replace

            return replace(test, y=shuffled, sha256="") if role == "test" else real.split(role)

    monkeypatch.setattr(plan_module, "load_data", lambda *_, **__: Shuffled())
    loaded = load_study(str(place / "thresholds.yaml"))
    again = run_study(loaded, out=place / "shuffled").record
    assert again["graphs"]["digits"]["choices_sha256"] == record["graphs"]["digits"]["choices_sha256"]
    assert again["graphs"]["digits"]["reference_accuracy"] < 0.3


def test_a_planted_leak_is_caught(place, monkeypatch):
    class Peeks(UniformThreshold):
        name = "peeks"

        @classmethod
        def family(cls, log: CalibrationLog, *, seed: int = 0):
            best = float(SealedLabels(load_data("digits").split("test").y).values.float().mean())
            return [cls(best), cls(0.5), cls(0.9)]

    plant(monkeypatch, Peeks)
    (place / "leak.yaml").write_text(STUDY.replace("uniform, random", "uniform, peeks"), encoding="utf-8")
    with pytest.raises(LeakageError, match="test labels were read"):
        run_study(str(place / "leak.yaml"), out=place / "leak")


def plant(monkeypatch, kind):
    """A policy of somebody else's, under its name."""
    monkeypatch.setitem(POLICIES._entries, kind.name, POLICIES.entry("uniform"))
    load = POLICIES.load
    monkeypatch.setattr(POLICIES, "load", lambda name: kind if name == kind.name else load(name))


@pytest.mark.slow
def test_a_policy_that_breaks_does_not_lose_the_study(place, record, tmp_path, monkeypatch):
    class Breaks(UniformThreshold):
        name = "breaks"

        @classmethod
        def family(cls, log: CalibrationLog, *, seed: int = 0):
            return [cls(0.5), {}["nothing"]]

    plant(monkeypatch, Breaks)
    (tmp_path / "s.yaml").write_text(STUDY.replace("uniform, random", "uniform, breaks"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(place / "run" / "cells", tmp_path / "run" / "cells")
    done = CliRunner().invoke(app, ["run", "s.yaml", "--out", "run"])
    assert done.exit_code == 3, done.output
    found = StudyRun.read(tmp_path / "run")
    assert "KeyError: 'nothing' (raised in test_study.py" in found["graphs"]["digits"]["failed"]["breaks"]
    assert "breaks is left out" in done.output
    kept = record["graphs"]["digits"]["policies"]
    assert found["graphs"]["digits"]["policies"]["joint-threshold"]["chosen"] == kept["joint-threshold"]["chosen"]


def test_stateful_policies_are_streamed_over_shuffles(record):
    online = record["graphs"]["digits"]["online"]
    assert online["orders"] == [0, 1]
    for name in ("uee-ucb", "closed-loop"):
        found = online[name]
        assert found["accuracy"]["low"] <= found["accuracy"]["mean"] <= found["accuracy"]["high"]
        assert 0 < found["cost_share"]["mean"] < 1.3
    assert online["closed-loop"]["block"] <= record["graphs"]["digits"]["n_test"] // 4
    assert online["closed-loop"]["flood_cost_of_budget"] < online["closed-loop"]["flood_cost_of_budget_open"]
    (noise,) = record["graphs"]["digits"]["gradient_noise"]
    assert noise["ratio"] > 1.5, "REINFORCE must be noisier than the exact sum"
    assert noise["cosine"] > 0.5


def test_budgets_are_met_by_mixtures(record):
    found = record["graphs"]["digits"]["budget_error"]
    errors = [error for name in found for error in found[name]["mixture"] if error is not None]
    assert errors
    assert max(map(abs, errors)) < 0.15


@pytest.mark.slow
def test_the_command_line_and_the_page(place, monkeypatch):
    monkeypatch.chdir(place)
    done = CliRunner().invoke(app, ["run", "thresholds.yaml", "--out", "cli", "--limit", "200"])
    assert done.exit_code == 0, done.output
    assert "joint-threshold" in done.output
    assert "thresholds · Somebody, 2020 · cpu" in done.output
    assert "compare  adaptbench check cli --baseline BASELINE" in done.output, "as a suite's run says it"
    page = Path("cli/report.html").read_text(encoding="utf-8")
    assert "Somebody, 2020" in page
    again = CliRunner().invoke(app, ["report", "cli", "--out", "again.html"])
    assert again.exit_code == 0, again.output
    assert Path("again.html").read_text(encoding="utf-8") == page
    kept = CliRunner().invoke(app, ["baseline", "cli"])
    assert kept.exit_code == 0, kept.output
    published = StudyRun.read(Path("reports/published/thresholds.json"))
    assert published["graphs"]["digits"]["n_test"] == 200


def test_published_figures_stand_beside_ours(place, record):
    figures = record["published"]
    value, _ = reading(record, figures[0]["ours"])
    assert value == record["graphs"]["digits"]["policies"]["softmax-threshold"]["settings"][0]["speedup"]
    assert verdict(figures[0], value, None) == "better"
    lost, interval = reading(record, figures[1]["ours"])
    assert verdict(figures[1], lost, interval) == "better"
    assert verdict(figures[2], None, None) == "not comparable"
    text = study_page(record)
    two = record | {"graphs": {"first": record["graphs"]["digits"], "second": record["graphs"]["digits"]}}
    assert "“first”" in study_page(two)
    assert "“second”" in study_page(two)
    for words in ("not comparable", "abstract or venue page", "other data", "as logged", "as published"):
        assert words in text
    assert study_page(record) == text
    kept = StudyRun.keep(place / "run", place / "kept.json")
    assert kept.stat().st_size < 200_000


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("paper: softmax-threshold", "paper: softmax-threshhold", "Did you mean 'softmax-threshold'"),
        ("policies: [softmax", "policies: [softmx", "Did you mean"),
        ("drops: [0, 0.02]", "drops: [0, 2]", "drops"),
        ("budgets:", "budgts:", "Did you mean 'budgets'"),
        ("figure: speedup, setting: 0.01", "figure: speedup", "needs a drop or a setting"),
        ("data: digits", "data: digit", "Did you mean 'digits'"),
        ("graph: digits, policy: joint", "graph: digts, policy: joint", "no graph is called"),
    ],
)
def test_mistakes_name_the_place(tmp_path, old, new, said):
    file = tmp_path / "s.yaml"
    file.write_text(STUDY.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(SuiteError) as caught:
        load_study(str(file))
    assert said in str(caught.value)
    assert "s.yaml" in str(caught.value)


def test_what_cannot_be_studied(tmp_path):
    file = tmp_path / "s.yaml"
    file.write_text(STUDY.replace("model: softmax-threshold", "model: skipnet"), encoding="utf-8")
    with pytest.raises(SuiteError, match="gates, not exits"):
        run_study(str(file), out=tmp_path / "run")
    file.write_text(STUDY.replace("model: softmax-threshold", "model: a-vit"), encoding="utf-8")
    with pytest.raises(SuiteError, match="tokens that leave, not exits"):
        run_study(str(file), out=tmp_path / "run")
    file.write_text(STUDY.replace("model: softmax-threshold", "model: dag-selection"), encoding="utf-8")
    found = run_study(str(file), out=tmp_path / "run").record
    said = StudyRun.incomplete(found)
    assert any("softmax-threshold is left out" in line for line in said)
    assert found["graphs"]["digits"]["not_run"].keys() == {"resplits", "online", "gradient_noise"}
    assert "is left out" in study_page(found)
    with pytest.raises(RunError, match="no study"):
        StudyRun.read(tmp_path)
    (tmp_path / "study.json").write_text(json.dumps({"schema": 99}))
    with pytest.raises(RunError, match="schema"):
        StudyRun.read(tmp_path)


def test_a_figure_that_is_null_has_its_reason_beside_it(tmp_path, record):
    graph = record["graphs"]["digits"]
    assert not fault(record)
    assert "no budget is asked" in graph["budget_error"]["uniform"]["own_missing"]
    for row in graph["at_budget"]:
        for name in ("accuracy", "ours_ahead_points", "over_paper_points"):
            assert (row[name] is None) == (f"{name}_missing" in row)
    bare = copy.deepcopy(record)
    del bare["graphs"]["digits"]["budget_error"]["uniform"]["own_missing"]
    assert "'own_missing' gives no reason" in fault(bare)
    assert not fault(bare | {"schema": 3})
    bare["graphs"]["digits"]["budget_error"]["uniform"]["own_missing"] = 3
    assert "no reason" in fault(bare)


def test_the_page_says_why_a_figure_is_missing(record):
    lost = copy.deepcopy(record) | {"schema": 3}
    graph = lost["graphs"]["digits"]
    kept = {name: graph["resplits"][0][name] for name in ("policy", "epsilon")}
    graph["resplits"][0] = kept | {"count": 0, "asked": 3, "missing": "the planted reason of a rule"}
    graph["at_budget"][0]["accuracy"] = None
    graph["at_budget"][1] |= {"ours_ahead_points": None, "ours_ahead_points_missing": "the planted one of a budget"}
    graph["policies"]["random"]["area"] = None
    graph["policies"]["random"]["chosen"][0]["oracle_share"] = None
    for row in graph["wall_clock"]:
        row |= {"net_speedup": None, "net_speedup_ci": None}
    page = study_page(upgraded(lost))
    for why in (
        "the planted reason of a rule",
        "the planted one of a budget",
        "cheaper than this policy",
        "does not reach down to the cost where all begin",
        "the oracle saves nothing",
        "before net and harness were timed apart",
    ):
        assert why in page, why


def test_a_record_of_before_is_read_with_what_it_lacks_named(tmp_path, record):
    old = copy.deepcopy(record) | {"schema": 1}
    for graph in old["graphs"].values():
        for name in ("margin", "missing", "not_run"):
            del graph[name]
        for found in graph["policies"].values():
            found.pop("non_inferior")
            found.pop("non_inferior_missing", None)
    (tmp_path / "study.json").write_text(json.dumps(old), encoding="utf-8")
    once = StudyRun.read(tmp_path)
    assert once["upgraded"]["from"] == 1
    assert once == upgraded(once)
    found = once["graphs"]["digits"]["policies"]["joint-threshold"]
    assert found["non_inferior"] is None
    assert "run it again" in found["non_inferior_missing"]
    assert found["chosen"] == record["graphs"]["digits"]["policies"]["joint-threshold"]["chosen"]
    assert "run it again" in study_page(once)


def test_a_worker_whose_logits_are_others_is_refused():
    """A log's key holds the driver's first logits: a processor that rounds otherwise would mix two logs in one."""
    from adaptbench.errors import EngineError
    from adaptbench.study.logs import log_key, logged

    net, split = ab.load_model("softmax-threshold", "digits"), load_data("digits").split("test").first(20)
    words = {"net": net, "split": split, "device": "cpu", "start": 0, "stop": 20, "told": lambda *_: None}
    with pytest.raises(EngineError, match="other logits"):
        logged(log="0" * 32, **words)
    assert logged(log=log_key(net, split, "cpu"), **words).shape[:1] == (20,)
