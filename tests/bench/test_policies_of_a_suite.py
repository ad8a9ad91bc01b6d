"""A policy is an axis of a suite: named in YAML, fitted when the run is prepared, true in every record."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
import yaml

from adaptbench.bench.entries import Entry, Fitting
from adaptbench.bench.plan import make_plan
from adaptbench.bench.runner import run_suite
from adaptbench.bench.suite import load_suite
from adaptbench.data import load_data
from adaptbench.errors import SuiteError
from adaptbench.experiment.options import Options
from adaptbench.policies import UniformThreshold
from adaptbench.registry import POLICIES
from adaptbench.zoo.loading import load_model, load_system

SUITE = {
    "data": "digits",
    "models": [
        "softmax-threshold",
        {"multi-exit": {"exact-budget": {"budget": 0.5}}},
        {"multi-exit": {"uniform": {"drop": 0.01, "id": "mine"}}},
        {"resnet-ladder": "uniform"},
    ],
    "references": ["static", {"multi-exit": "oracle"}],
    "sweeps": {"mine": [0.6, 0.9]},
    "conditions": ["clean", {"ilfo": {"eps": "32/255", "steps": 2}}],
    "limit": 24,
    "chunk": 24,
}
HOURS = {"eenet-published"}


def written(folder, **changes):
    file = folder / "six.yaml"
    file.write_text(yaml.safe_dump({**SUITE, **changes}), encoding="utf-8")
    return str(file)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policies")
    return run_suite(written(folder), out=folder / "run")


def test_the_records_say_which_net_and_which_policy(done) -> None:
    told = {(c["model"], c["net"], c["policy"]) for c in done.cases if c["kind"] == "clean"}
    assert told == {
        ("softmax-threshold", "softmax-threshold", "softmax-threshold"),
        ("multi-exit:exact-budget(budget=0.5)", "multi-exit", "exact-budget"),
        ("mine", "multi-exit", "uniform"),
        ("resnet-ladder:uniform", "resnet-ladder", "uniform"),
    }
    settings = {c["model"]: c["policy_settings"] for c in done.cases}
    assert settings["multi-exit:exact-budget(budget=0.5)"] == {"budget": 0.5}
    card = done.manifest["models"]["mine"]["card"]["policy"]
    assert card["fitted_on_sha256"] == load_data("digits").split("calibration").sha256
    assert {c["knob_value"] for c in done.cases if c["kind"] == "sweep"} == {0.6, 0.9}


def test_three_figures_are_those_of_the_raw_rows(done) -> None:
    samples = pd.read_parquet(done.path / "samples.parquet")
    for model in ("mine", "multi-exit:exact-budget(budget=0.5)"):
        clean, attacked = (
            next(c for c in done.cases if c["model"] == model and c["condition"] == at and c["kind"] != "sweep")
            for at in ("clean", "ilfo")
        )
        rows, hit = (samples[samples["case"] == c["evaluation"]] for c in (clean, attacked))
        assert clean["macs_mean"] == pytest.approx(rows["macs"].mean())
        assert clean["accuracy"] == pytest.approx(rows["correct"].mean())
        top = clean["macs_max"]
        taken = (hit["macs"].mean() - rows["macs"].mean()) / (top - rows["macs"].mean())
        assert attacked["recovery"] == pytest.approx(taken)


def test_a_case_is_that_net_under_that_policy(done) -> None:
    """What the suite ran is what Python gives: the same weights, `fit`, `under`."""
    data, net = load_data("digits"), load_model("multi-exit")
    policy = UniformThreshold.fit(net.log(data.split("calibration")), drop=0.01, seed=0)
    test = data.split("test").first(24)
    macs = net.under(policy).infer(test.images(0, 24)).macs.float().mean()
    case = next(c for c in done.cases if c["model"] == "mine" and c["kind"] == "clean")
    assert case["macs_mean"] == pytest.approx(float(macs))


@pytest.mark.slow
def test_a_second_run_is_already_complete(done, tmp_path) -> None:
    before = (done.path / "manifest.json").read_bytes()
    run_suite(written(tmp_path), out=done.path)
    assert (done.path / "manifest.json").read_bytes() == before


def test_another_setting_is_another_cell(tmp_path) -> None:
    def keys(**changes):
        return {e.id: e.key for e in make_plan(load_suite(written(tmp_path, **changes)), Options()).evaluations}

    other = {"multi-exit": {"uniform": {"drop": 0.1, "id": "mine"}}}
    here, there = keys(), keys(models=[*SUITE["models"][:2], other, SUITE["models"][3]])
    assert here.keys() == there.keys()
    # at a knob value of its own, a threshold is the same whatever drop it was fitted for
    assert {i for i in here if here[i] != there[i]} == {"digits/mine/clean", "digits/mine/ilfo"}


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ({"multi-exit": {"exact-bugdet": {}}}, "Did you mean 'exact-budget'"),
        ({"multi-exitt": {"uniform": {}}}, "Did you mean 'multi-exit'"),
        ({"multi-exit": {"uniform": {"dorp": 0.1}}}, "Did you mean 'drop'"),
        ({"multi-exit": {"exact-budget": {"budget": 50}}}, "share of the plain net's MACs"),
        ({"multi-exit": {"uniform": {"drop": "much"}}}, "uniform"),
        ({"multi-exit": {"uniform": 3}}, "a model is a name"),
        ({"multi-exit": {"uniform": {}}, "static": {}}, "a model is a name"),
        ("multi-exit", "without a policy of its own"),
        ({"skipnet": {"uniform": {}}}, "decisions are part of its weights"),
        ({"multi-exit": {"uniform": {"id": "softmax-threshold"}}}, "stands twice"),
    ],
)
def test_mistakes_are_told_with_their_line(tmp_path, model, says) -> None:
    suite = written(tmp_path, models=["softmax-threshold", model], sweeps={}, references=["static"])
    with pytest.raises(SuiteError, match=r"six\.yaml, line \d+") as told:
        make_plan(load_suite(suite), Options())
    assert says in f"{told.value.seen} {told.value.todo}"


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in POLICIES.names() if n not in HOURS])
def test_every_policy_can_be_named(name) -> None:
    """Fitted from its name on exits or on a ladder, decides on its own, and the attack's relaxation agrees with it."""
    data = load_data("digits")
    fitting = Fitting(lambda: data.split("calibration"), 0, {})
    x, y = data.split("test").images(0, 8), data.split("test").y[:8]
    loaded = load_system("multi-exit")
    entry = Entry.of({"multi-exit": {name: {"budget": 0.6} if name in ("mixture",) else {}}})
    entry.check()
    model = fitting.apply(entry, loaded).model
    assert model.policy_name == POLICIES.load(name).name
    outcome = model.infer(x, labels=y if model.needs_labels else None)
    assert bool((outcome.macs >= model.min_macs).all())
    if not model.needs_labels:
        relaxed = model.relax(x.requires_grad_(True))
        assert torch.isfinite(relaxed.expected_macs).all()


def test_published_suites_keep_their_hash() -> None:
    """Names alone are written as they were, so runs from before are recognised."""
    assert load_suite("ci").suite.model_dump(mode="json")["models"][0] == "softmax-threshold"


def test_other_forms_are_refused() -> None:
    for given in (3, [], {"a": {"b": {}, "c": {}}}, {1: "uniform"}):
        with pytest.raises(ValueError, match="a model is a name"):
            Entry.of(given)
