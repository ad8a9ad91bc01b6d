import pytest
import torch
from attack_toys import random_model

from adaptbench.adaptive import Static
from adaptbench.attacks import EREBA, ILFO, DeepSloth, Noise, load_attack
from adaptbench.errors import CapabilityError
from adaptbench.policies import Oracle

EPS = 32 / 255
RECIPES = {
    "noise": {},
    "noise-sign": {},
    "ilfo": {"steps": 40},
    "ilfo-min-distance": {"steps": 40},
    "deepsloth": {},
    "ereba": {"queries": 30, "rounds": 2, "fit_steps": 10, "probes": 4},
    "best-of-n": {"queries": 30},
    "transfer": {"steps": 15},
}


def recovery(model, x, crafted):
    clean, attacked = model.infer(x).macs.double().mean(), model.infer(crafted.images()).macs.double().mean()
    return float((attacked - clean) / (model.max_macs - clean))


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("shape", ["multi-exit", "cascade", "dag", "gated"])
def test_each_recipe_on_each_shape(name, shape, pictures):
    model, (x, y) = random_model(shape), (pictures[0][:16], pictures[1][:16])
    attack = load_attack(name, RECIPES[name])
    if reason := attack.applies_to(model):
        assert (name, shape) == ("deepsloth", "gated")
        with pytest.raises(CapabilityError, match="one exit"):
            attack.craft(model, x, y)
        assert reason
        return
    crafted = attack.craft(model, x, y, surrogate=lambda _: random_model(shape))
    assert not crafted.details.get("outside_constraint")
    if attack.kind == "attack":
        assert recovery(model, x, crafted) >= 0
        assert (model.infer(crafted.images()).macs >= model.infer(x).macs).all()


def test_ilfo_takes_the_saving_back_and_noise_of_equal_norm_does_not(saver, pictures):
    x, y = pictures
    assert saver.infer(x).macs.float().mean() < 0.2 * saver.max_macs
    attacked = ILFO(eps=EPS, steps=120).craft(saver, x, y)
    assert recovery(saver, x, attacked) >= 0.9
    for shape in ("uniform", "sign"):
        noise = Noise(eps=EPS, shape=shape).craft(saver, x, y)
        assert float(noise.linf.min()) == pytest.approx(EPS, abs=1 / 255)
        assert recovery(saver, x, noise) < 0.2


def test_min_distance_opens_the_dearest_path_and_comes_nearer_than_the_bounded_one(saver, pictures):
    x, y = pictures[0][:20], pictures[1][:20]
    near = load_attack("ilfo-min-distance", {"steps": 150}).craft(saver, x, y)
    assert near.details["at_max_macs"] == 20
    bounded = ILFO(eps=48 / 255, steps=150).craft(saver, x, y)
    both = saver.infer(bounded.images()).macs == saver.max_macs
    assert both.any()
    assert near.l2[both].mean() < bounded.l2[both].mean()


def test_deepsloth_slows_and_stays_in_the_papers_ball(saver, pictures):
    x, y = pictures
    crafted = DeepSloth(eps=EPS, step=0.01).craft(saver, x, y)
    assert recovery(saver, x, crafted) > 0.4
    assert float(DeepSloth().craft(saver, x, y).linf.max()) <= 0.03125


@pytest.mark.slow
def test_ereba_beats_noise_without_gradients_and_says_how_well_it_estimates(saver, pictures):
    x, y = pictures[0][:30], pictures[1][:30]
    saver.capabilities = frozenset({"queries"})
    try:
        crafted = EREBA(eps=EPS, queries=120, rounds=4, fit_steps=40).craft(saver, x, y)
    finally:
        del saver.capabilities
    assert recovery(saver, x, crafted) > recovery(saver, x, Noise(eps=EPS).craft(saver, x, y)) + 0.1
    assert -1 <= crafted.details["estimator_spearman"] <= 1
    assert crafted.queries.max() <= 120
    assert crafted.details["queries_total"] == int(crafted.queries.sum())


def test_ereba_never_asks_for_a_gradient(saver, pictures, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a black-box attack looked inside")

    monkeypatch.setattr(type(saver), "relax", refuse)
    monkeypatch.setattr(type(saver), "forward", refuse)
    EREBA(queries=12, rounds=1, probes=2, fit_steps=3).craft(saver, pictures[0][:4], pictures[1][:4])


def test_transfer_never_touches_the_target(saver, pictures, monkeypatch):
    x, y = pictures[0][:6], pictures[1][:6]
    target = random_model("multi-exit")

    def refuse(*_, **__):
        raise AssertionError("the target was asked")

    monkeypatch.setattr(target, "infer", refuse)
    monkeypatch.setattr(target, "relax", refuse)
    asked = []
    attack = load_attack("transfer", {"surrogate": "saver", "eps": EPS, "steps": 30})
    crafted = attack.craft(target, x, y, surrogate=lambda name: asked.append(name) or saver)
    assert asked == ["saver"]
    assert "notes" not in crafted.details
    assert recovery(saver, x, crafted) > 0.3


def test_a_surrogate_that_is_the_target_is_named(saver, pictures):
    attack = load_attack("transfer", {"steps": 2})
    crafted = attack.craft(saver, pictures[0][:4], pictures[1][:4], surrogate=lambda _: saver)
    assert any("white-box" in note for note in crafted.details["notes"])


def test_transfer_without_a_way_to_find_models_says_what_to_give(saver, pictures):
    with pytest.raises(CapabilityError, match="surrogate="):
        load_attack("transfer").craft(saver, pictures[0][:2], pictures[1][:2])


def test_a_model_with_one_path_has_nothing_to_take(pictures):
    from torch import nn

    model = Static(nn.Sequential(nn.Flatten(), nn.Linear(36, 4)), input_shape=(1, 6, 6)).eval()
    for name in ("ilfo", "deepsloth", "ereba", "transfer"):
        assert "one path" in load_attack(name).applies_to(model)
    for name in ("noise", "torchattacks/PGD"):
        assert load_attack(name).applies_to(model) is None


def test_an_oracle_is_not_attacked_but_may_be_given_noise():
    model = random_model("dag")
    model.policy = Oracle()
    assert "label" in load_attack("ilfo").applies_to(model)
    assert "label" in load_attack("torchattacks/PGD").applies_to(model)
    assert load_attack("noise").applies_to(model) is None


def test_called_as_torchattacks_has_it(saver, pictures):
    x, y = pictures[0][:5], pictures[1][:5]
    attack = ILFO(eps=EPS, steps=10)(saver)
    out = attack(x, y)
    assert out.shape == x.shape
    assert float((out - x).abs().max()) <= EPS + 1e-6
    assert torch.equal(out, ILFO(eps=EPS, steps=10).craft(saver, x, y).images())
