"""A defence is an axis of a suite: named in YAML, true in every record, and attacked as what it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import load_file

import adaptbench as ab
from adaptbench.bench.entries import Entry, put_under
from adaptbench.bench.plan import make_plan
from adaptbench.bench.runner import run_suite
from adaptbench.bench.suite import load_suite
from adaptbench.data import load_data
from adaptbench.errors import SuiteError, UsageError
from adaptbench.experiment import keys
from adaptbench.experiment.options import Options
from adaptbench.policies import UniformThreshold
from adaptbench.zoo.loading import load_model

SUITE = {
    "data": "digits",
    "models": [
        "softmax-threshold",
        {"softmax-threshold": {"defence": "quantise"}},
        {"softmax-threshold": {"defence": {"harden": {"allowance": 0.02, "id": "hard"}}}},
        {"multi-exit": {"uniform": {"drop": 0.02}, "defence": {"smooth": {"sigma": 0.4}}}},
        {"skipnet": {"defence": {"quantise": {"levels": 4}}}},
    ],
    "references": ["static"],
    "sweeps": {"hard": [0.0, 0.5]},
    "conditions": ["clean", {"ilfo": {"eps": "32/255", "steps": 3}}],
    "limit": 24,
    "chunk": 24,
    "gate": {"accuracy": {"drop": "1 points", "cases": ["quantise"]}},
}
SMOOTH = "multi-exit:uniform(drop=0.02)+smooth(sigma=0.4)"


def written(folder, **changes):
    file = folder / "five.yaml"
    file.write_text(yaml.safe_dump({**SUITE, **changes}), encoding="utf-8")
    return str(file)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("defences")
    return run_suite(written(folder), out=folder / "run")


def case(done, model, condition):
    return next(
        c for c in done.cases if (c["model"], c["condition"]) == (model, condition) and c["kind"] in ("clean", "attack")
    )


@pytest.mark.slow
def test_the_records_say_which_defence(done) -> None:
    told = {c["model"]: (c["net"], c["policy"], c["defence"], c["defence_settings"]) for c in done.cases}
    assert told == {
        "softmax-threshold": ("softmax-threshold", "softmax-threshold", None, {}),
        "softmax-threshold+quantise": ("softmax-threshold", "softmax-threshold", "quantise", {}),
        "hard": ("softmax-threshold", "hardened softmax-threshold", "harden", {"allowance": 0.02}),
        SMOOTH: ("multi-exit", "uniform", "smooth", {"sigma": 0.4}),
        "skipnet+quantise(levels=4)": ("skipnet", "feed-forward gates", "quantise", {"levels": 4}),
        "static": ("static", "static", None, {}),
    }
    card = done.manifest["models"][SMOOTH]["card"]
    assert card["defence"] == {"name": "smooth", "settings": {"size": 3, "kind": "gaussian", "sigma": 0.4}}
    assert {c["knob_value"] for c in done.cases if c["kind"] == "sweep"} == {0.0, 0.5}


@pytest.mark.slow
def test_a_policy_is_fitted_behind_the_defence(done) -> None:
    """What the suite ran is what Python gives: `defended`, the log of the defended net, `fit`, `under`."""
    data = load_data("digits")
    net = load_model("multi-exit").defended("smooth", sigma=0.4)
    own = UniformThreshold.fit(net.log(data.split("calibration")), drop=0.02, seed=0)
    other = UniformThreshold.fit(load_model("multi-exit").log(data.split("calibration")), drop=0.02, seed=0)
    assert own.threshold != other.threshold, "the undefended log would give another threshold"
    test = data.split("test").first(24)
    macs = net.under(own).infer(test.images()).macs.double().mean()
    assert case(done, SMOOTH, "clean")["macs_mean"] == pytest.approx(float(macs))
    assert case(done, SMOOTH, "clean")["macs_full"] == load_model("multi-exit").macs_full


@pytest.mark.slow
def test_attacks_are_crafted_on_the_defended_net(done) -> None:
    """The pictures are those of the attack on the net itself, not those of the net without its defence."""
    test = load_data("digits").split("test").first(24)
    attack = ab.attacks.load_attack("ilfo", {"eps": "32/255", "steps": 3})
    plain = load_model("softmax-threshold")
    made = {
        name: attack.craft(net, test.images(), test.y, ids=test.ids, seed=0).x_adv
        for name, net in (("softmax-threshold", plain), ("softmax-threshold+quantise", plain.defended("quantise")))
    }
    assert not torch.equal(*made.values())
    for name, pictures in made.items():
        (file,) = {c["crafted"] for c in done.cases if c["model"] == name and c["condition"] == "ilfo"}
        assert np.array_equal(load_file(done.path / "crafted" / file)["x_adv"], pictures.numpy()), name


def plan_keys(folder, model):
    plan = make_plan(load_suite(written(folder, models=[model], sweeps={}, gate={})), Options())
    return {e.id: e.key for e in plan.evaluations}


@pytest.mark.slow
def test_no_cell_of_another_net_is_read_back(tmp_path, monkeypatch) -> None:
    """Under one name: undefended, defended, and defended otherwise are three nets with cells of their own."""
    named = [
        {"softmax-threshold": {"defence": {"harden": {"allowance": 0.0, "id": "mine"}}}},
        {"softmax-threshold": {"defence": {"quantise": {"id": "mine"}}}},
        {"softmax-threshold": {"defence": {"quantise": {"levels": 8, "id": "mine"}}}},
        {"softmax-threshold": {"defence": {"smooth": {"id": "mine"}}}},
        {"softmax-threshold": {"defence": {"smooth": {"sigma": 0.4, "id": "mine"}}}},
    ]
    found = [plan_keys(tmp_path, model)["digits/mine/ilfo"] for model in named]
    assert len(set(found)) == len(named)

    # planted: a hash that looks past what stands in front of a net
    def blind(model):
        own = model.behind(torch.nn.Identity())
        own._modules.pop("in_front")
        return real(own)

    real = keys.model_hash
    monkeypatch.setattr(keys, "model_hash", blind)
    found = [plan_keys(tmp_path, model)["digits/mine/ilfo"] for model in named]
    assert len(set(found)) == 2, "the check above would have passed over stale cells"


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ({"softmax-threshold": {"defence": "quantize"}}, "Did you mean 'quantise'"),
        ({"softmax-threshold": {"defence": {"quantise": {"level": 3}}}}, "Did you mean 'levels'"),
        ({"softmax-threshold": {"defence": {"quantise": {"levels": 1}}}}, "2 … 256"),
        ({"softmax-threshold": {"defence": {"smooth": {"size": 9}}}}, "smaller size"),
        ({"softmax-threshold": {"defence": 3}}, "a model is a name"),
        ({"multi-exit": {"defence": "quantise"}}, "without a policy of its own"),
        ({"multi-exit": {"uniform": {"id": "a"}, "defence": {"smooth": {"id": "b"}}}}, "keep one"),
        ({"skipnet": {"defence": "harden"}}, "Gates are weights"),
        ({"static": {"defence": "harden"}}, "nothing to shift"),
    ],
)
def test_mistakes_are_told_with_their_line(tmp_path, model, says) -> None:
    suite = written(tmp_path, models=["softmax-threshold", model], sweeps={}, references=[], gate={})
    with pytest.raises(SuiteError, match=r"five\.yaml, line \d+") as told:
        make_plan(load_suite(suite), Options())
    assert says in f"{told.value.seen} {told.value.why} {told.value.todo}"


def test_what_is_written_is_read_back() -> None:
    for model in SUITE["models"]:
        entry = Entry.of(model)
        assert Entry.of(entry.model_dump(mode="json")) == entry


def test_a_defence_on_the_command_line_is_one_of_a_suite() -> None:
    assert put_under(None, None) is None
    assert put_under("uniform", None) == "uniform"
    assert put_under("uniform: {drop: 0.1}", "quantise: {levels: 8}") == {
        "uniform": {"drop": 0.1},
        "defence": {"quantise": {"levels": 8}},
    }
    assert put_under("uniform", {"smooth": {}}) == {"uniform": {}, "defence": {"smooth": {}}}
    for policy, defence in ((None, "3"), (None, "[quantise]"), ("{defence: quantise}", None)):
        with pytest.raises(UsageError):
            put_under(policy, defence)
