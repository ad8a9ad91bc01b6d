import math
from dataclasses import replace

import pytest
import torch
from attack_toys import CLASSES, faint_pictures, random_model

from adaptbench.adaptive import Split
from adaptbench.attacks import load_attack
from adaptbench.attacks.objectives import UniformHeads
from adaptbench.bench.crafting import crafting_split
from adaptbench.bench.manifest import attack_hash
from adaptbench.bench.plan import make_plan
from adaptbench.bench.runner import run_suite
from adaptbench.bench.suite import load_suite
from adaptbench.errors import CapabilityError, DomainError, LeakageError, RecipeError
from adaptbench.policies import UniformThreshold

EPS = 40 / 255


@pytest.fixture(scope="module")
def own():
    """Crafting pictures, none of those that judge."""
    return faint_pictures(200, 5)


def as_split(pictures, role="calibration"):
    x, y = pictures
    return Split("faint", role, (x * 255).round().byte(), y, torch.arange(len(x)), tuple("abcd"))


def recovery(model, x, crafted):
    clean, attacked = model.infer(x).macs.double().mean(), model.infer(crafted.images()).macs.double().mean()
    return float((attacked - clean) / (model.max_macs - clean))


def changes(x, crafted):
    return crafted.x_adv.int() - (x * 255).round().int()


def test_one_change_costs_pictures_that_it_never_saw(saver, pictures, own):
    x, y = pictures
    crafted = load_attack("universal-noise", {"eps": EPS, "steps": 60}).craft(saver, x, y, crafting=own)
    found = recovery(saver, x, crafted)
    noise = load_attack("noise-sign", {"eps": EPS}).craft(saver, x, y)
    assert found > 0.2
    assert found > recovery(saver, x, noise) + 0.1
    assert crafted.details["held_out_recovery"] == pytest.approx(found, abs=0.25)
    inner = ((crafted.x_adv > 0) & (crafted.x_adv < 255)).all(0)
    assert (changes(x, crafted)[:, inner] == changes(x, crafted)[0, inner]).all()
    assert len(crafted.details["changes"]) == 1


def test_a_class_has_a_change_of_its_own(saver, pictures, own):
    x, y = pictures
    attack = load_attack("deepsloth-class-universal", {"eps": EPS, "steps": 40, "pictures": 40, "batch": 20})
    crafted = attack.craft(saver, x, y, crafting=own)
    seen = [changes(x, crafted)[y == label] for label in range(CLASSES)]
    for label, mine in enumerate(seen):
        inner = ((crafted.x_adv[y == label] > 0) & (crafted.x_adv[y == label] < 255)).all(0)
        assert (mine[:, inner] == mine[0, inner]).all(), label
    assert len({told.partition(": ")[2] for told in crafted.details["changes"]}) == CLASSES
    only = attack.craft(saver, x[y == 2], y[y == 2], crafting=own)
    assert torch.equal(only.x_adv, crafted.x_adv[y == 2]), "a class's change hangs on which others are attacked"


def test_one_patch_is_pasted_into_all(saver, pictures, own):
    x, y = pictures
    attack = load_attack("universal-patch", {"side": 3, "steps": 60})
    crafted = attack.craft(saver, x, y, crafting=own)
    assert (crafted.x_adv[:, :, :3, :3] == crafted.x_adv[:1, :, :3, :3]).all()
    assert not changes(x, crafted)[:, :, 3:].any()
    assert not changes(x, crafted)[:, :, :, 3:].any()
    assert crafted.details["pixels_changed_mean"] <= 9
    assert recovery(saver, x, crafted) > 0.1


@pytest.mark.parametrize("shape", ["multi-exit", "cascade", "dag", "gated"])
@pytest.mark.parametrize("name", ["universal-noise", "universal-patch"])
def test_every_shape_can_be_given_one_change(name, shape, pictures, own):
    model, (x, y) = random_model(shape), (pictures[0][:8], pictures[1][:8])
    attack = load_attack(name, {"steps": 12, "pictures": 40} | ({"side": 2} if name == "universal-patch" else {}))
    crafted = attack.craft(model, x, y, crafting=own)
    assert not crafted.details.get("outside_constraint")
    assert crafted.details["training_steps"] <= 12


def test_a_change_is_crafted_once_and_anew_where_anything_it_hangs_on_is_other(saver, pictures, own):
    x, y = pictures
    attack = load_attack("universal-noise", {"eps": EPS, "steps": 11, "pictures": 50})
    first = attack.craft(saver, x[:20], y[:20], crafting=own)
    second = attack.craft(saver, x[20:], y[20:], ids=torch.arange(20, 60), crafting=as_split(own))
    assert (first.details["training_steps"], second.details["training_steps"]) == (11, 0)
    assert first.details["changes"] == second.details["changes"]
    again = load_attack("universal-noise", {"eps": EPS, "steps": 11, "pictures": 50}).craft(saver, x, y, crafting=own)
    assert torch.equal(again.x_adv, torch.cat([first.x_adv, second.x_adv]))
    policy = saver.policy
    try:
        saver.policy = UniformThreshold(0.5)
        assert attack.craft(saver, x[:5], y[:5], crafting=own).details["training_steps"] == 11, "another policy"
    finally:
        saver.policy = policy
    other = attack.craft(saver, x[:5], y[:5], seed=1, crafting=own)
    assert other.details["changes"] != first.details["changes"], "another seed"
    few = (own[0][:60], own[1][:60])
    assert attack.craft(saver, x[:5], y[:5], crafting=few).details["training_steps"] == 11, "other pictures"


def test_what_it_is_crafted_on_is_none_of_what_judges_it(saver, pictures, own):
    x, y = pictures[0][:6], pictures[1][:6]
    attack = load_attack("universal-noise", {"steps": 3})
    with pytest.raises(CapabilityError, match=r"crafting=\(x, y\)"):
        attack.craft(saver, x, y)
    with pytest.raises(LeakageError, match="2 of the crafting pictures"):
        attack.craft(saver, x, y, crafting=(torch.cat([own[0], x[1:3]]), torch.cat([own[1], y[1:3]])))
    with pytest.raises(LeakageError, match="test split"):
        attack.craft(saver, x, y, crafting=as_split(own, "test"))
    with pytest.raises(LeakageError):
        attack.craft(saver, x, y, crafting=lambda: as_split(own, "test"))
    with pytest.raises(CapabilityError, match="needs 10"):
        attack.craft(saver, x, y, crafting=(own[0][:9], own[1][:9]))
    with pytest.raises(DomainError):
        attack.craft(saver, x, y, crafting=(own[0][:, :, :5], own[1]))
    lone = own[1] != int(y[0])
    with pytest.raises(CapabilityError, match=f"of class {int(y[0])}"):
        load_attack("deepsloth-class-universal", {"steps": 2}).craft(saver, x, y, crafting=(own[0][lone], own[1][lone]))


def test_a_change_that_is_no_attack_says_so(saver, pictures, own):
    """One level, one step: nothing moves the cost of what was held out."""
    attack = load_attack("universal-noise", {"eps": "1/255", "steps": 1, "step": "1/255", "init": 0})
    crafted = attack.craft(saver, pictures[0][:5], pictures[1][:5], crafting=own)
    assert any("no iterate raised" in note for note in crafted.details["notes"])


def test_shared_is_a_setting_and_absent_where_it_is_not_set():
    assert "shared" not in load_attack("deepsloth").settings
    assert "exits" not in load_attack("deepsloth").settings
    assert load_attack("deepsloth-exit1").settings["exits"] == "first"
    assert load_attack("deepsloth", {"shared": "none"}).sha256 == load_attack("deepsloth").sha256
    assert load_attack("deepsloth-universal", {"shared": "none"}).settings.get("pictures") is None
    universal = load_attack("deepsloth-universal", {"pictures": 70})
    assert (universal.settings["shared"], universal.settings["pictures"]) == ("all", 70)
    assert universal.needs_crafting
    for ref, settings in (
        ("noise", {"shared": "class"}),
        ("transfer", {"shared": "all"}),
    ):
        with pytest.raises(RecipeError, match="gradients of the target"):
            load_attack(ref, settings)
    with pytest.raises(RecipeError, match="an estimator leads to one picture"):  # of no ball: ereba-universal has none
        load_attack("ereba", {"shared": "all"})
    with pytest.raises(RecipeError, match="label cannot be asked of a change that is shared"):
        load_attack("ilfo", {"shared": "all", "label": "keep"})
    with pytest.raises(RecipeError, match="Did you mean 'class'"):
        load_attack("ilfo", {"shared": "clas"})


def test_the_first_exit_alone_is_pushed(saver, pictures):
    x, y = pictures[0][:30], pictures[1][:30]
    logits = saver.relax(x).exit_logits
    pull = -logits.log_softmax(-1).mean(-1) / math.log(CLASSES)
    first, every = (UniformHeads(exits=exits).measure(saver, x, x, {}, y).loss for exits in ("first", "all"))
    torch.testing.assert_close(first, pull[:, 0])
    torch.testing.assert_close(every, pull[:, 0] + pull[:, 1])
    crafted = load_attack("deepsloth-exit1", {"eps": EPS, "step": 0.01}).craft(saver, x, y)
    assert float((saver.infer(crafted.images()).exit == 0).double().mean()) < 0.2


def test_the_runner_crafts_on_calibration_without_what_is_judged(own, pictures):
    class Data:
        name, class_names, n_classes, shape = "faint", tuple("abcd"), 4, (1, 6, 6)

        def split(self, role):
            return calibration if role == "calibration" else test

    test = as_split(pictures, "test")
    twice = (torch.cat([own[0], pictures[0][:3]]), torch.cat([own[1], pictures[1][:3]]))
    calibration = as_split(twice)
    apart = crafting_split(Data())
    assert len(apart) == len(own[0])
    assert apart.sha256 == as_split(own).sha256 == replace(calibration.first(len(own[0]))).sha256
    calibration = as_split(own)
    assert crafting_split(Data()) is calibration


def test_chunks_of_a_run_share_the_change_and_its_pictures_count_in_every_key(tmp_path, monkeypatch):
    overrides = [
        "models=[softmax-threshold]",
        "conditions=[clean, noise, {universal-noise: {eps: 32/255, steps: 11, pictures: 40}}]",
        "limit=9",
        "chunk=4",
        "gate={}",
    ]
    suite = load_suite("ci", overrides)
    run = run_suite(suite, out=tmp_path / "run")
    case = next(c for c in run.cases if c["condition"] == "universal-noise")
    assert len(case["craft_details"]["changes"]) == 1, "chunks were given different changes"
    assert case["craft_details"]["training_steps"] == 11, "each chunk crafted anew"
    assert case["craft_s"] < case["craft_details"]["training_s"], "what was learned once is no crafting"
    assert case["craft_details"]["crafted_on"][0].startswith("digits/calibration")
    plan = make_plan(suite)
    monkeypatch.setattr("adaptbench.bench.plan.crafting_split", lambda data: data.split("calibration").first(60))
    other = make_plan(suite)
    assert [a.key == b.key for a, b in zip(plan.evaluations, other.evaluations, strict=True)] == [True, True, False]
    assert [attack_hash(plan, c) == attack_hash(other, c) for c in ("noise", "universal-noise")] == [True, False]
