"""The condition `shift`: what stands in whose place, what is null and why, what the key hangs on, what is refused."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from adaptbench.adaptive import Split
from adaptbench.bench import plan as planning
from adaptbench.bench.plan import make_plan
from adaptbench.bench.runner import run_suite
from adaptbench.bench.shift import shifted, stretched
from adaptbench.bench.suite import load_suite
from adaptbench.data import load_data
from adaptbench.errors import SuiteError
from adaptbench.results.schema import NO_LABEL

SUITE = """\
data: digits
models: [skipnet]
conditions:
  - clean
  - shift: {data: elsewhere, id: shift-elsewhere, limit: 20}
  - shift: {corruption: blur, severity: 5, id: shift-blur}
  - corruption-blur: {severity: 5}
limit: 30
"""


class Elsewhere:
    """Pictures of other things, of another size."""

    name, class_names, n_classes, shape = "elsewhere", ("cat", "dog"), 2, (1, 12, 12)

    def __init__(self, seed=0, n=40, channels=1, name="elsewhere"):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randint(0, 256, (n, channels, 12, 12), generator=generator, dtype=torch.uint8)
        self.name = name
        self.held = Split(name, "test", x, torch.arange(n) % 2, torch.arange(n), self.class_names)

    def split(self, role):
        return self.held


@pytest.fixture
def beside(monkeypatch, tmp_path):
    """`elsewhere` is found under its name; returns what writes and loads a suite."""
    found = {"elsewhere": Elsewhere()}
    real = planning.load_data
    monkeypatch.setattr(planning, "load_data", lambda spec, **more: found.get(spec) or real(spec, **more))
    monkeypatch.setattr("adaptbench.bench.shift.DATA", SimpleNamespace(entry=lambda name: name))

    def write(text=SUITE):
        place = tmp_path / "shifted.yaml"
        place.write_text(text, encoding="utf-8")
        return str(place)

    return found, write


def test_foreign_pictures_have_a_cost_and_no_accuracy(beside, tmp_path):
    found, write = beside
    run = run_suite(write(), out=tmp_path / "run")
    by = {case["condition"]: case for case in run.cases}
    case, rows = by["shift-elsewhere"], run.samples(["digits/skipnet/shift-elsewhere"])
    assert case["kind"] == "control"
    for name in ("accuracy", "accuracy_drop"):
        assert case[name] is None
        assert "labels mean something else" in case[f"{name}_missing"]
    for name in ("label_kept", "recovery_per_input_mean", "linf_max", "l2_mean"):
        assert case[name] is None
        assert "no change of the clean ones" in case[f"{name}_missing"]
    assert (rows["label"] == NO_LABEL).all()
    assert rows[["linf", "l2"]].isna().all(axis=None)
    clean = run.samples(["digits/skipnet/clean"])["macs"][:20]
    assert case["n"] == len(rows) == 20
    assert case["recovery"] == pytest.approx((rows["macs"].mean() - clean.mean()) / (case["macs_max"] - clean.mean()))
    assert case["exit_histogram"] == {"head": 20}
    shown = run.crafted(case["crafted"])["x_adv"]
    assert np.array_equal(shown, stretched(found["elsewhere"].held.first(20), (1, 8, 8)).x.numpy())
    assert by["shift-blur"]["accuracy"] == by["corruption-blur"]["accuracy"] is not None
    assert by["shift-blur"]["inputs_sha256"] == by["corruption-blur"]["inputs_sha256"]
    assert by["shift-blur"]["attack_sha256"] == by["corruption-blur"]["attack_sha256"]


def test_the_key_and_the_attacks_hash_hang_on_the_foreign_pictures(beside):
    found, write = beside

    def of():
        plan = make_plan(load_suite(write()))
        return [
            (e.key, plan.attacks[e.condition.id].sha256) for e in plan.evaluations if e.attack and e.attack.replaces
        ]

    first = of()
    assert of() == first
    found["elsewhere"] = Elsewhere(seed=1)
    ((key, sha),) = of()
    assert (key, sha) != first[0]
    assert key != first[0][0]
    assert sha != first[0][1]


def test_a_chunk_gets_the_pictures_of_its_own_places(beside, tmp_path):
    _, write = beside
    whole = run_suite(write(), out=tmp_path / "whole")
    cut = run_suite(write(SUITE + "chunk: 7\n"), out=tmp_path / "cut")
    name = ["digits/skipnet/shift-elsewhere"]
    assert whole.samples(name)["macs"].tolist() == cut.samples(name)["macs"].tolist()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("{}", ["nothing is named", "shift: {data: cifar100}"]),
        ("{data: digits, corruption: blur}", ["a shift to a corruption has no 'data'"]),
        ("{data: digits, severity: 2}", ["a shift to other data has no 'severity'"]),
        ("{corruption: fog}", ["no corruption is called 'fog'", "blur"]),
        ("{corruption: blur, severity: 9}", ["severity"]),
        ("{data: 5}", ["5 is no name"]),
        ("{data: digitz}", ["no data set is called 'digitz'", "'digits'"]),
        ("digits", ["a condition is a name, or a name with settings"]),
    ],
)
def test_what_names_no_shift_is_refused_when_the_suite_is_read(tmp_path, settings, words):
    place = tmp_path / "wrong.yaml"
    text = f"data: fashion-mnist\nmodels: [skipnet]\nconditions:\n  - clean\n  - shift: {settings}\n"
    place.write_text(text, encoding="utf-8")
    with pytest.raises(SuiteError) as refused:
        load_suite(str(place))
    assert all(word in str(refused.value) for word in ["line 5", *words]), refused.value


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (Elsewhere(channels=3), "pictures of 3 channels, and 'digits' of 1"),
        (Elsewhere(n=5), "5 test pictures for 30 places"),
        (Elsewhere(name="digits"), "is the data set of this suite"),
    ],
)
def test_what_cannot_stand_there_is_refused(other, words):
    digits = load_data("digits")
    with pytest.raises(SuiteError, match=words):
        shifted({"data": "elsewhere"}, digits, digits.split("test").first(30), lambda spec: other)


def test_the_same_pictures_under_another_name_are_refused():
    digits = load_data("digits")
    twin = Elsewhere()
    twin.held = dataclasses.replace(digits.split("test"), name="twin")
    twin.name = "twin"
    with pytest.raises(SuiteError, match="is the data set of this suite"):
        shifted({"data": "twin"}, digits, digits.split("test").first(30), lambda spec: twin)


def test_a_condition_may_be_for_some_models_and_clean_is_for_all(beside):
    _, write = beside
    text = (
        "data: digits\nmodels: [skipnet, softmax-threshold]\nconditions:\n  - clean\n  - noise: {models: [skipnet]}\n"
    )
    plan = make_plan(load_suite(write(text)))
    assert [e.id for e in plan.evaluations if e.attack] == ["digits/skipnet/noise"]
    assert plan.skipped == ()
    for wrong, words in (
        (text.replace("models: [skipnet]}", "models: [skipnett]}"), "no model is called 'skipnett'"),
        (text.replace("- clean\n", "- clean: {models: [skipnet]}\n"), "'clean' is for all models"),
    ):
        with pytest.raises(SuiteError, match=words):
            load_suite(write(wrong))
