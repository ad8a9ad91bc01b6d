from dataclasses import replace

import pytest
import torch
from attack_toys import faint_pictures, random_model

from adaptbench.adaptive import Split
from adaptbench.attacks import load_attack
from adaptbench.bench.one_attack import Wish, craft, prepare
from adaptbench.bench.plan import make_plan
from adaptbench.bench.runner import run_suite
from adaptbench.bench.suite import load_suite
from adaptbench.errors import CapabilityError, LeakageError, RecipeError
from adaptbench.experiment.options import Options
from adaptbench.policies import UniformThreshold

EPS = 40 / 255
SMALL = {"eps": EPS, "steps": 60, "pictures": 150, "width": 4}


@pytest.fixture(scope="module")
def own():
    """Crafting pictures, none of those that judge."""
    return faint_pictures(200, 5)


@pytest.fixture(scope="module")
def learned(saver, own):
    return load_attack("amortised", SMALL).learn(saver, own)


def recovery(model, x, crafted):
    clean, attacked = model.infer(x).macs.double().mean(), model.infer(crafted.images()).macs.double().mean()
    return float((attacked - clean) / (model.max_macs - clean))


def test_one_pass_of_a_generator_costs_pictures_that_it_never_saw(saver, pictures, own, learned):
    x, y = pictures
    crafted = load_attack("amortised", SMALL).craft(saver, x, y, crafting=own, learned=learned)
    found = recovery(saver, x, crafted)
    noise = load_attack("noise-sign", {"eps": EPS}).craft(saver, x, y)
    assert found > recovery(saver, x, noise) + 0.1
    assert crafted.details["held_out_recovery"] == pytest.approx(found, abs=0.25)
    changes = (crafted.x_adv.int() - (x * 255).round().int()).flatten(1)
    assert len(changes.unique(dim=0)) > len(x) / 2, "each picture has a change of its own"


@pytest.mark.parametrize("shape", ["cascade", "dag", "gated"])
def test_it_is_trained_on_every_shape(shape, pictures, own):
    model, (x, y) = random_model(shape), pictures
    attack = load_attack("amortised", SMALL | {"eps": 120 / 255})
    crafted = attack.craft(model, x, y, crafting=own)
    assert crafted.details["held_out_recovery"] > 0
    assert model.infer(crafted.images()).macs.double().mean() > model.infer(x).macs.double().mean()


def test_crafting_runs_no_pass_of_the_net_and_counts_no_training(saver, pictures, own, learned, monkeypatch):
    x, y = pictures
    attack = load_attack("amortised", SMALL)
    now = [0.0]
    monkeypatch.setattr(attack, "clock", lambda: now[0])
    own_learn = attack._learn

    def learn(task):
        now[0] += 100.0
        return own_learn(task)

    monkeypatch.setattr(attack, "_learn", learn)
    passes = []
    for name in ("infer", "relax"):
        real = getattr(saver, name)
        monkeypatch.setattr(saver, name, lambda *a, real=real, name=name, **k: (passes.append(name), real(*a, **k))[1])
    crafted = attack.craft(saver, x, y, crafting=own, learned=learned)
    assert crafted.seconds == 0.0
    assert not passes
    assert crafted.details["training_s"] > 0
    assert crafted.details["training_passes"] == 60 * 32
    attack.craft(saver, x, y, crafting=own)
    assert passes, "nothing was trained where nothing was handed over"


def test_chunks_joined_tell_the_training_once(saver, pictures, own, learned):
    from adaptbench.attacks import Crafted

    x, y = pictures
    attack = load_attack("amortised", SMALL)
    parts = [attack.craft(saver, x[s], y[s], crafting=own, learned=learned) for s in (slice(0, 25), slice(25, len(x)))]
    whole = Crafted.join(parts)
    for key in ("training_s", "training_passes", "training_queries", "held_out_recovery"):
        assert whole.details[key] == pytest.approx(learned.told[key])
    assert whole.details["generators"] == learned.told["generators"]


def test_what_is_learned_hangs_on_model_policy_seed_and_pictures(saver, pictures, own):
    x, y = pictures[0][:4], pictures[1][:4]
    attack = load_attack("amortised", SMALL | {"steps": 4})

    def made(**how):
        return attack.craft(saver, x, y, **{"crafting": own, **how}).details["generators"]

    first = made()
    assert made() == first
    assert (
        load_attack("amortised", SMALL | {"steps": 4}).craft(saver, x, y, crafting=own).details["generators"] == first
    )
    assert made(seed=1) != first
    assert made(crafting=(own[0][:60], own[1][:60])) != first
    policy = saver.policy
    try:
        saver.policy = UniformThreshold(0.5)
        assert made() != first
    finally:
        saver.policy = policy


def test_what_it_learns_from_is_none_of_what_judges_it(saver, pictures, own, learned):
    """A planted fault: what was handed over is checked like what is trained."""
    x, y = pictures[0][:6], pictures[1][:6]
    attack = load_attack("amortised", SMALL)
    mixed = (torch.cat([own[0], x[1:3]]), torch.cat([own[1], y[1:3]]))
    for handed in (None, learned):
        with pytest.raises(LeakageError, match="2 of the crafting pictures"):
            attack.craft(saver, x, y, crafting=mixed, learned=handed)
    test = Split("faint", "test", (own[0] * 255).round().byte(), own[1], torch.arange(200), tuple("abcd"))
    for give in (lambda: attack.craft(saver, x, y, crafting=test), lambda: attack.learn(saver, test)):
        with pytest.raises(LeakageError, match="test split"):
            give()
    with pytest.raises(CapabilityError, match="needs 10"):
        attack.learn(saver, (own[0][:9], own[1][:9]))
    with pytest.raises(CapabilityError, match="of another size"):
        attack.craft(saver, x, y, crafting=own, learned=replace(learned, tensors={"into.weight": torch.zeros(1)}))
    with pytest.raises(CapabilityError, match="learns nothing"):
        load_attack("ilfo").learn(saver, own)


@pytest.mark.parametrize("constraint", [{"eps": EPS}, {"constraint": {"l2": {"eps": 1.0}}}], ids=["linf", "l2"])
def test_steps_after_the_generator_make_no_picture_cheaper(saver, pictures, own, constraint):
    x, y = pictures
    few = {"steps": 8, "pictures": 150, "width": 4} | constraint
    plain = load_attack("amortised", few)
    learned = plain.learn(saver, own)
    macs = {}
    for steps in (0, 1, 3):
        attack = load_attack("amortised", few | {"refine": steps})
        crafted = attack.craft(saver, x, y, crafting=own, learned=learned)
        macs[steps] = saver.infer(crafted.images()).macs
        assert "outside_constraint" not in crafted.details
        assert crafted.details.get("refining_passes", 0) <= steps * len(x)
        assert crafted.details.get("refining_looks", 0) <= len(x)
    assert (macs[1] >= macs[0]).all()
    assert (macs[3] >= macs[1]).all()
    assert macs[1].double().mean() > macs[0].double().mean()
    assert (macs[0] < saver.max_macs).any(), "nothing was left to the steps"


def test_what_is_at_the_ceiling_takes_no_steps(saver, pictures, own, learned):
    x, y = pictures
    plain = load_attack("amortised", SMALL).craft(saver, x, y, crafting=own, learned=learned)
    dear = saver.infer(plain.images()).macs == saver.max_macs
    assert dear.any()
    made = load_attack("amortised", SMALL | {"refine": 2}).craft(saver, x, y, crafting=own, learned=learned)
    assert made.x_adv[dear].equal(plain.x_adv[dear])
    again = load_attack("amortised", SMALL | {"refine": 2}).craft(
        saver, x[dear], y[dear], crafting=own, learned=learned
    )
    assert again.details["refining_passes"] == int(dear.sum()), "only the look that finds it there"
    assert again.details["refining_looks"] == 0


def test_where_decisions_tell_no_costs_the_hard_pass_is_asked(saver, pictures, own, learned, monkeypatch):
    x, y = pictures
    attack = load_attack("amortised", SMALL | {"refine": 1})
    made = attack.craft(saver, x, y, crafting=own, learned=learned)
    monkeypatch.setattr(type(saver), "macs_of", lambda self, on: None)
    asked = attack.craft(saver, x, y, crafting=own, learned=learned)
    assert made.x_adv.equal(asked.x_adv)


def test_steps_change_the_hash_and_not_what_is_learned(own):
    plain, stepping = (load_attack("amortised", SMALL | more) for more in ({}, {"refine": 2}))
    assert load_attack("amortised", SMALL | {"refine": 0}).sha256 == plain.sha256
    assert stepping.sha256 != plain.sha256
    assert stepping.learns_as == plain.learns_as == plain.sha256
    assert load_attack("amortised", SMALL | {"refine": 2, "lr": 0.01}).learns_as != plain.learns_as
    assert load_attack("amortised", SMALL | {"objective": "hinge-margins"}).learns_as != plain.learns_as


def test_a_generator_that_is_no_attack_says_so(saver, pictures, own):
    attack = load_attack("amortised", SMALL | {"eps": "1/255", "steps": 1, "lr": 1e-6})
    crafted = attack.craft(saver, pictures[0][:5], pictures[1][:5], crafting=own)
    assert any("it is no attack" in note for note in crafted.details["notes"])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"keep": "first"}, "returned whatever it costs"),
        ({"label": "keep"}, "label cannot be asked of a generator"),
        ({"seconds": 1}, "seconds cannot be asked of a generator"),
        ({"shared": "all"}, "leave 'shared' out"),
        ({"access": {"black-box": {"queries": 50}}}, "gradients of the target"),
        ({"constraint": {"patch": {"area": 0.1}}}, "linf, l2"),
        ({"width": 0}, "width"),
        ({"refine": -1}, "refine: at least 0"),
        ({"refine_step": 0}, "refine_step: greater than 0"),
        ({"refine": 1.5}, "refine: a whole number"),
    ],
)
def test_what_a_generator_cannot_be_asked_is_refused(settings, says):
    with pytest.raises(RecipeError, match=says):
        load_attack("amortised", settings)


SUITE = [
    "data=digits",
    "models=[softmax-threshold]",
    "conditions=[clean, {noise-sign: {eps: 60/255}}, {amortised: {eps: 60/255, steps: 80, pictures: 300, width: 6}}]",
    "limit=60",
    "chunk=20",
    "measure=null",
]


@pytest.mark.slow
def test_a_run_trains_once_and_a_resumed_run_not_again(tmp_path, monkeypatch):
    from adaptbench.attacks import amortised

    trained = []
    real = amortised._Training.run
    monkeypatch.setattr(amortised._Training, "run", lambda self, source: (trained.append(1), real(self, source))[1])
    suite = load_suite("ci", SUITE)
    run = run_suite(suite, out=tmp_path)
    assert trained == [1]
    case = {c["condition"]: c for c in run.cases}
    assert case["amortised"]["recovery"] > case["noise-sign"]["recovery"]
    assert case["amortised"]["craft_s"] < case["amortised"]["craft_details"]["training_s"]
    plan = make_plan(suite, Options(out=tmp_path))
    (attacked,) = [e for e in plan.evaluations if e.condition.id == "amortised"]
    for key in [attacked.key, *plan.chunk_keys(attacked)]:
        for cell in (tmp_path / "cells").glob(f"{key}*"):
            cell.unlink()
    (tmp_path / "manifest.json").unlink()
    again = run_suite(suite, out=tmp_path)
    assert trained == [1], "the resumed run trained anew"
    assert {c["condition"]: c["recovery"] for c in again.cases} == {k: c["recovery"] for k, c in case.items()}


def test_one_craft_of_the_command_hands_it_from_chunk_to_chunk(monkeypatch):
    from adaptbench.bench import one_attack
    from adaptbench.bench.entries import Entry

    monkeypatch.setattr(one_attack, "CHUNK", 10)
    wish = Wish(Entry(net="softmax-threshold"), "digits", "amortised", {"steps": 8, "pictures": 100, "width": 4})
    made = craft(prepare(wish, Options(limit=20)), Options(limit=20))
    assert made.x_adv.shape[0] == 20
    assert made.details["training_passes"] == 8 * 32
    assert made.seconds < made.details["training_s"] + 60
