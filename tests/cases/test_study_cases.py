"""Cases of studies: logs, choices, keys and claims."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import BaseModel

from adaptbench.adaptive import CalibrationLog, EvaluationLog
from adaptbench.adaptive.structure import Structure
from adaptbench.errors import AdaptBenchError, CalibrationError, LeakageError, RunError, SuiteError
from adaptbench.experiment.failures import Failures
from adaptbench.experiment.measuring import Calls
from adaptbench.experiment.options import Options
from adaptbench.policies.online import ClosedLoop
from adaptbench.registry import POLICIES
from adaptbench.results.studies import StudyRun, judged
from adaptbench.results.writer import RunWriter
from adaptbench.study import fits, keys, load_study, run_study, schema
from adaptbench.study.compare import loss_bound
from adaptbench.study.fits import fit_key
from adaptbench.study.graph_study import GraphStudy
from adaptbench.study.logs import SealedLabels, TestLog, log_key
from adaptbench.study.plan import PlannedGraph, make_plan
from adaptbench.study.resplits import _redrawn, pooled
from adaptbench.testing import planted_graph, planted_split

sys.path.append(str(Path(__file__).resolve().parents[1]))

from small_study import STUDY

CHAIN = Structure(("a", "b"), ((1,), ()), 3)


def log(kind=CalibrationLog, role="calibration", sha256="c", n=60):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(n, 2, 3, generator=generator)
    labels = torch.randint(0, 3, (n,), generator=generator)
    return kind(logits, labels, CHAIN, torch.tensor([10, 20]), "x", role, sha256)


def unopened():
    judged = log(EvaluationLog, "test", "t")
    sealed = SealedLabels(judged.labels)
    return TestLog(judged.logits, sealed, torch.arange(60), CHAIN, judged.node_macs, "x", "test", "t")


@pytest.mark.case("own")
@pytest.mark.parametrize("name", POLICIES.names())
def test_nothing_that_fits_takes_samples_that_judge(name):
    """A study wrapped test labels as a calibration log, and every fit would have taken it: all refuse the new type."""
    kind = POLICIES.load(name)
    judging = log(EvaluationLog, "test")
    for fit in (kind.fit, kind.family):
        if fit.__qualname__ == "Policy.family":
            continue
        with pytest.raises(LeakageError, match="x/test"):
            fit(judging)
    with pytest.raises(LeakageError, match="x/test"):
        ClosedLoop.fit(POLICIES.load("uniform")(0.5), judging, budget=20.0)


@pytest.mark.case("own")
def test_a_log_says_which_samples_it_holds():
    """Calibration and test, joined for re-splits, kept the calibration split's name and hash: they have their own."""
    calibration, test = log(), unopened()
    with pytest.raises(LeakageError):
        pooled(calibration, test)
    test.labels.unseal("chosen")
    pool = pooled(calibration, test)
    assert isinstance(pool, EvaluationLog)
    drawn = [_redrawn(pool, torch.arange(k, k + 30)) for k in (0, 1)]
    assert len({calibration.sha256, test.sha256, pool.sha256, *(d.sha256 for d in drawn)}) == 5
    assert {(d.data, d.role) for d in drawn} == {("x", "redrawn")}
    assert test.opened().split == "x/test"


@pytest.mark.case("own")
def test_parts_of_two_splits_do_not_go_under_one_name():
    """A log joined with another split's samples kept its own hash: refused."""
    with pytest.raises(CalibrationError, match="under the name"):
        log().joined(log(role="train", sha256="other"))


@pytest.mark.case("own")
@pytest.mark.parametrize("role", ["test", "dev", "calibration and test", ""])
def test_only_samples_to_fit_on_make_a_calibration_log(role):
    """Only the word "test" was refused: any role but calibration and training is."""
    with pytest.raises(AdaptBenchError):
        log(role=role)


# ---------------------------------------------------------------------- what a study's file may ask for


def study(tmp_path, old="", new=""):
    assert old in STUDY
    file = tmp_path / "s.yaml"
    file.write_text(STUDY.replace(old, new), encoding="utf-8")
    return file


@pytest.mark.case("own")
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "{batch_sizes: [8],",
            "{batch_sizes: [8], meters: [nvml, nosuchmeter],",
            "measure.meters: there is no such key",
        ),
        ("{batch_sizes: [8],", "{batch_sizes: [8], conditions: [clean],", "measure.conditions: there is no such key"),
        ("{batch_sizes: [8],", "{batch_sizes: [8], country: XXX,", "Keys of 'measure': batch_sizes"),
        ("budgets: [0.3, 0.6]", "budgets: [0.3, 0.3]", "stands twice"),
        ("published@train", "published", "fitted on training samples"),
        ("drop: 0.02}", "drop: 0.03}", "no point is chosen for a drop of 0.03"),
        ("figure: speedup, setting: 0.01", "figure: speedup, setting: 0.5", "the setting 0.5 is not among"),
        ("against: [uniform]", "against: []", "`against` belongs to"),
        ("{orders: [0, 1],", "{orders: [0, 1], base: nosuch,", "online.base"),
        ("value: 60\n", "value: 60\n    points_lost: 1\n", "belongs to a speedup"),
        ("drops: [0, 0.02]", "gate: {acuracy: exact}", "Did you mean 'accuracy'"),
        ("drops: [0, 0.02]", "gate: {net_speedup: {max: 2}}", "more net_speedup is better"),
    ],
)
def test_no_key_is_accepted_and_ignored(tmp_path, old, new, said):
    """A study took meters, conditions, a country, drops that no point was chosen for, and did nothing with them."""
    with pytest.raises(SuiteError) as caught:
        load_study(str(study(tmp_path, old, new)))
    assert said in str(caught.value)
    assert "s.yaml, line" in str(caught.value)


@pytest.mark.case("own")
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("uniform, random]", "uniform, oracle]", "looks at labels"),
        ("uniform, random]", "uniform, mixture]", "one operating point only"),
        ("policies: [joint-threshold, softmax", "policies: [eenet, softmax", "it has no knob"),
        ("policies: [joint-threshold, softmax", "policies: [uniform, softmax", "its knob is 'threshold', not ε"),
        ("{orders: [0, 1],", "{orders: [0, 1], base: eenet,", "it has no knob"),
        ("{orders: [0, 1],", "{orders: [0, 1], base: oracle,", "looks at labels"),
    ],
)
def test_a_policy_that_cannot_do_what_is_asked_is_refused_when_the_study_is_read(tmp_path, old, new, said):
    """Policies that cannot be turned ended a study with AttributeError or TypeError."""
    with pytest.raises(SuiteError) as caught:
        load_study(str(study(tmp_path, old, new)))
    assert said in str(caught.value)
    assert "s.yaml, line" in str(caught.value)


@pytest.mark.case("own")
@pytest.mark.parametrize(
    ("gate", "said"),
    [
        ("{accuracy: {exact: true, cases: [unifrom]}}", "Did you mean 'uniform'"),
        ("{accuracy: {exact: true, cases: [timed]}}", "is timed and has accuracy"),
        ("{broken: {max: 3, cases: [random]}}", "is random and has broken"),
    ],
)
def test_a_rule_that_would_watch_nothing_is_refused_when_the_study_is_planned(tmp_path, gate, said):
    """A gate whose patterns match no case stays green for ever."""
    loaded = load_study(str(study(tmp_path, "margin: 0.05", f"margin: 0.05\ngate: {gate}")))
    with pytest.raises(SuiteError) as caught:
        make_plan(loaded, Options())
    assert said in str(caught.value)
    assert "s.yaml, line" in str(caught.value)


@pytest.mark.case("own")
@pytest.mark.parametrize(
    "gate",
    [
        "{accuracy: {drop: 1 points, cases: [digits, joint-threshold]}}",
        "{net_speedup: {drop: 10 %, cases: ['*/b8']}, differing: exact}",
        "{broken: [{max: 3}, {increase: 1 points, cases: ['digits/joint-threshold/*']}], macs_full: exact}",
    ],
)
def test_a_gate_that_watches_something_is_taken(tmp_path, gate):
    """The refusal above must not fall on rules that have something to watch."""
    make_plan(load_study(str(study(tmp_path, "margin: 0.05", f"margin: 0.05\ngate: {gate}"))), Options())


@pytest.mark.slow
@pytest.mark.case("own")
def test_every_key_of_a_study_is_read_by_the_run(tmp_path, monkeypatch):
    """Keys were accepted that nothing looked at: each is read while a study runs, or stands in the record."""
    loaded = load_study(str(study(tmp_path)))
    seen: set[tuple[str, str]] = set()
    look = BaseModel.__getattribute__

    def watched(self, name):
        if name in type(self).model_fields:
            seen.add((type(self).__name__, name))
        return look(self, name)

    monkeypatch.setattr(BaseModel, "__getattribute__", watched)
    record = run_study(loaded, out=tmp_path / "run", limit=60).record
    monkeypatch.undo()
    kinds = [schema.Study, schema.Graph, schema.Resplits, schema.Online, Calls]
    unread = {(k.__name__, field) for k in kinds for field in k.model_fields} - seen
    assert not unread
    told = {(name, field) for name, part in (("Published", record["published"][0]),) for field in part}
    assert told == {("Published", field) for field in schema.Published.model_fields}


# ---------------------------------------------------------------------- keys


@pytest.mark.case("own")
def test_a_log_hangs_on_everything_that_changes_it():
    """Weights under an old name gave an earlier net's logits back: each input changes the key."""
    net, split = planted_graph(), planted_split()
    first = log_key(net, split, "cpu")
    assert log_key(planted_graph(), planted_split(), "cpu") == first
    found = {first, log_key(net, split, "cuda:0") if torch.cuda.is_available() else "no card here"}
    found.add(log_key(net, split.first(50), "cpu"))
    found.add(log_key(net, replace(split, y=split.y.flip(0), sha256=""), "cpu"))
    found.add(log_key(planted_graph("dag"), split, "cpu"))
    real = net.dense_logits
    net.dense_logits = lambda x: 2 * real(x)  # other code, the same weights
    found.add(log_key(net, split, "cpu"))
    del net.dense_logits
    with torch.no_grad():
        next(net.parameters()).mul_(1.001)
    found.add(log_key(net, split, "cpu"))
    assert len(found) == 7


@pytest.mark.case("own")
def test_a_fit_hangs_on_everything_that_changes_it(monkeypatch):
    """Each input of a fit changes its key."""
    kind = POLICIES.load("uniform")
    fitting, choosing = log().halves(0.6, 0)

    def key(name="uniform", kind=kind, a=fitting, b=choosing, settings=(), seed=0):
        return fit_key(name, kind, a, b, settings, seed)

    class Mine(kind):
        pass

    found = [
        key(),
        key(name="uniform@train"),
        key(kind=Mine),
        key(a=log().halves(0.5, 0)[0]),
        key(a=fitting.judged(2)),
        key(a=fitting.priced(torch.tensor([1.0, 2.0]), "s")),
        key(a=replace(fitting, node_macs=torch.tensor([10, 21]))),
        key(a=replace(fitting, labels=fitting.labels.flip(0))),
        key(b=log().halves(0.5, 0)[1]),
        key(settings=(0.5,)),
        key(seed=1),
    ]
    monkeypatch.setattr(fits, "versions", lambda: {"torch": "another"})
    found.append(key())
    monkeypatch.undo()
    monkeypatch.setattr(fits, "own_code", lambda: "mended")
    found.append(key())
    assert len(set(found)) == len(found)


CHANGES = (
    ("uniform, random]", "uniform]"),
    ("paper: softmax-threshold", "paper: uniform"),
    ("ours: joint-threshold", "ours: uniform"),
    ("drops: [0, 0.02]", "drops: [0.02, 0]"),
    ("margin: 0.05", "margin: 0.04"),
    ("budgets: [0.3, 0.6]", "budgets: [0.3]"),
    ("count: 3", "count: 4"),
    ("orders: [0, 1]", "orders: [0, 2]"),
    ("gradient_noise: [0.05]", "gradient_noise: [0.06]"),
    ("title: thresholds", "seed: 1\ntitle: thresholds"),
    ("title: thresholds", "choosing: 0.5\ntitle: thresholds"),
    ("title: thresholds", "execute: []\ntitle: thresholds"),
    ("samples: 300", "samples: 299"),
    ("model: softmax-threshold}", "model: softmax-threshold, top: 2}"),
)


@pytest.mark.case("own")
def test_a_graph_hangs_on_everything_that_changes_it(tmp_path, monkeypatch):
    """Each key of a study that a figure hangs on changes the graph's key; claims and titles do not."""

    def key(old="", new="", **more):
        spec = load_study(str(study(tmp_path, old, new))).study
        planned = PlannedGraph(
            "digits",
            spec.graphs["digits"],
            more.get("net") or planted_graph(),
            {},
            more.get("calibration", planted_split()),
            more.get("test", planted_split("test")),
            None,
        )
        one = GraphStudy(spec, planned, RunWriter(tmp_path / "run", "study"), Options(), Failures(tmp_path))
        return one.content_key

    first = key()
    assert key("title: thresholds on digits", "title: another") == first
    assert key("value: 1.1", "value: 1.2") == first
    assert key("window_s: 0.02", "window_s: 0.03") == first, "the clock has a key of its own"
    found = [first]
    for old, new in CHANGES:
        found.append(key(old, new))
    found.append(key(calibration=planted_split().first(60)))
    found.append(key(test=planted_split("test").first(60)))
    found.append(key(test=replace(planted_split("test"), ids=planted_split("test").ids + 1)))
    other = planted_graph()
    with torch.no_grad():
        next(other.parameters()).mul_(1.001)
    found.append(key(net=other))
    monkeypatch.setattr(keys, "versions", lambda: {"torch": "another"})
    found.append(key())
    monkeypatch.undo()
    monkeypatch.setattr(keys, "study_code", lambda: "mended")
    found.append(key())
    assert len(set(found)) == len(found)


# ---------------------------------------------------------------------- choices and claims


@pytest.mark.case("own")
def test_a_drop_of_nothing_on_few_samples_is_no_certainty():
    """A cascade's "drop of 0" on 2 000 pictures was quoted as its saving and not kept: the bound is above zero."""
    right = np.arange(2000) % 10 > 0
    assert 0 < loss_bound(right, right) < 0.001
    assert loss_bound(right[:100], right[:100]) > 0.01
    lost = right & (np.arange(2000) % 40 != 1)
    value = float((right & ~lost).mean())
    assert value < loss_bound(right, lost) < value + 0.01


@pytest.mark.case("own")
def test_the_bound_of_a_loss_holds_as_often_as_it_says():
    """Over many draws the true loss lies below its 95 % bound at least 93 times in a hundred."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        reference = rng.random(2000) < 0.9
        flips = rng.random(2000)
        found = np.where(reference, flips >= 0.02, flips < 0.1)  # loses 1.8 points, wins 1.0
        held += loss_bound(reference, found) >= 0.008
    assert held >= 0.93 * 400


POINT = {"speedup": 1.3, "drop_points": 0.9, "drop_points_ci": [0.6, 1.1], "macs_mean": 10.0}
CLAIM = {"value": 1.4, "tolerance": 0.02, "better": "higher", "points_lost": 0.4}


def claimed(point=None, **claim):
    found = {"settings": [{"setting": 0.01} | POINT | (point or {})], "chosen": [], "non_inferior": None}
    record = {"graphs": {"g": {"margin": 0.01, "policies": {"p": found}}}}
    ours = {"graph": "g", "policy": "p", "figure": "speedup", "setting": 0.01}
    return judged(record, CLAIM | {"ours": ours} | claim)


@pytest.mark.case("own")
def test_a_saving_and_its_loss_get_one_verdict():
    """Speed-up and loss of one point were told as two verdicts, one better and one worse: they are one."""
    assert claimed()[2] == "worse"
    assert claimed({"speedup": 1.5})[2] == "saves more, loses more"
    assert claimed({"speedup": 1.2, "drop_points": 0.1, "drop_points_ci": [0.0, 0.2]})[2] == "saves less, loses less"
    assert claimed({"speedup": 1.5, "drop_points": 0.1, "drop_points_ci": [0.0, 0.2]})[2] == "better"
    assert claimed({"speedup": 1.41, "drop_points": 0.41, "drop_points_ci": [0.3, 0.5]})[2] == "same"


@pytest.mark.case("own")
def test_figures_that_measure_different_things_are_not_compared():
    """CIFAR MACs at top-1 stood as "better" beside ImageNet time at top-5: ours is shown, and not compared."""
    value, _, said = claimed(unlike="theirs is time")
    assert (value, said) == (1.3, "not comparable")


@pytest.mark.case("own")
def test_a_non_inferior_saving_counts_where_test_bears_it_out():
    """A point chosen on calibration counts only where test's interval lies below the margin, and none is no zero."""
    ours = {"graph": "g", "policy": "p", "figure": "speedup", "non_inferior": True}
    found = {"non_inferior": POINT | {"drop_points_ci": [0.6, 0.99]}, "settings": [], "chosen": []}
    record = {"graphs": {"g": {"margin": 0.01, "policies": {"p": found}}}}
    claim = {"value": 1.2, "tolerance": 0.0, "better": "higher", "ours": ours}
    assert judged(record, claim)[2] == "better"
    found["non_inferior"] = POINT
    assert judged(record, claim)[2] == "not shown to lose less than 1: 0.90 [0.60, 1.10] points"
    found |= {"non_inferior": None, "non_inferior_missing": "on calibration …"}
    assert judged(record, claim) == (None, None, "no point shown to be non-inferior")


@pytest.mark.case("own")
@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"schema": 2, "graphs": {}, "name": ' + "9" * 400 + "}",
        '{"schema": 2, "graphs": []}',
        '{"schema": 2, "graphs": {"g": 3}, "name": "", "title": "", "cite": "", "paper": "", "ours": ""}',
        '{"schema": 2, "name": "", "title": "", "cite": "", "paper": "", "ours": "", "published": [],'
        ' "graphs": {"g": 3}}',
        '{"schema": {}, "graphs": {}}',
        "",
    ],
    ids=["deep", "digits", "list", "claims", "graph", "schema", "empty"],
)
def test_a_damaged_study_is_refused_in_words(tmp_path, text):
    """A study cut short or of wrong types ended with a traceback when it was read: it is refused."""
    (tmp_path / "study.json").write_text(text, encoding="utf-8")
    with pytest.raises(RunError):
        StudyRun.read(tmp_path)
