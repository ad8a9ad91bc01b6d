"""Estimators of the cost: fitted on pictures of their own, judged within each picture, and found out when they learned
nothing."""

import pytest
import torch
from attack_toys import faint_pictures, random_model

from adaptbench.adaptive import Split
from adaptbench.attacks import load_attack
from adaptbench.attacks.access import BlackBox
from adaptbench.attacks.base import Crafted, Task
from adaptbench.attacks.estimator import Estimator, within_inputs
from adaptbench.attacks.ordinal import LEVELS, _Asked, _Link
from adaptbench.attacks.patterns import contours
from adaptbench.attacks.queried import Campaign
from adaptbench.attacks.soundness import doubts, with_doubts
from adaptbench.errors import CapabilityError, LeakageError, RecipeError
from adaptbench.policies import UniformThreshold
from adaptbench.testing.attacks import AttackConformance

QUICK = {"fit_pictures": 40, "fit_steps": 60, "probes": 6, "holdout": 0.34}
LEARNS = {"fit_pictures": 100, "fit_steps": 400, "probes": 12}
EPS = 40 / 255


class TestEstimatorOnDisjointPictures(AttackConformance):
    def make(self):
        return load_attack("ereba-disjoint", {"queries": 14, "fit_steps": 10, "fit_pictures": 30, "probes": 2})


class TestOrdinalEnsemble(AttackConformance):
    def make(self):
        return load_attack("ereba-ordinal", {"queries": 16, "first": 4, "every": 5, "fit_steps": 5})


@pytest.mark.slow
class TestOrdinalEnsembleUnderL2(AttackConformance):
    def make(self):
        return load_attack("ereba-ordinal", {"queries": 9, "first": 3, "pool": 4, "constraint": {"l2": {"eps": 0.4}}})


@pytest.fixture(scope="module")
def own():
    """Crafting pictures, none of those that judge."""
    return faint_pictures(120, 5)


def disjoint(**settings):
    return load_attack("ereba-disjoint", {"eps": EPS, **QUICK, **settings})


def recovery(model, x, crafted):
    clean, attacked = model.infer(x).macs.double().mean(), model.infer(crafted.images()).macs.double().mean()
    return float((attacked - clean) / (model.max_macs - clean))


@pytest.mark.slow
def test_it_learns_from_other_pictures_what_makes_these_dear(saver, pictures, own):
    x, y = pictures[0][:30], pictures[1][:30]
    crafted = disjoint(queries=40, **LEARNS).craft(saver, x, y, crafting=own)
    noise = load_attack("noise-sign", {"eps": EPS}).craft(saver, x, y)
    assert recovery(saver, x, crafted) > recovery(saver, x, noise) + 0.1
    assert crafted.details["estimator_spearman_within"] > 0.2
    assert not doubts(crafted.details)


def test_queries_of_the_fit_are_counted_and_not_hidden(saver, pictures, own):
    x, y, ids = pictures[0][:20], pictures[1][:20], torch.arange(20)
    attack = disjoint(queries=12)
    first = attack.craft(saver, x[:14], y[:14], ids=ids[:14], crafting=own)
    second = attack.craft(saver, x[14:], y[14:], ids=ids[14:], crafting=own)
    assert first.details["fit_queries"] == second.details["fit_queries"] == 40 * 7
    assert first.details["training_s"] == second.details["training_s"], "the fit is shared by the chunks of a run"
    joined = Crafted.join([first, second])
    assert joined.details["fit_queries"] == 40 * 7
    assert int(joined.queries.sum()) == joined.details["queries_total"] <= 12 * 20
    assert any("280 queries to 40 pictures" in note for note in joined.details["notes"])
    whole = disjoint(queries=12).craft(saver, x, y, ids=ids, crafting=own)
    assert torch.equal(whole.x_adv, joined.x_adv)


def test_it_is_fitted_anew_for_another_policy_or_seed(saver, pictures, own):
    x, y = pictures[0][:4], pictures[1][:4]
    attack = disjoint(queries=3, fit_steps=2)
    fits = [attack.craft(saver, x, y, crafting=own).details["training_s"]]
    policy = saver.policy
    try:
        saver.policy = UniformThreshold(0.5)
        fits.append(attack.craft(saver, x, y, crafting=own).details["training_s"])
    finally:
        saver.policy = policy
    fits.append(attack.craft(saver, x, y, seed=1, crafting=own).details["training_s"])
    assert len(set(fits)) == 3


def test_judged_pictures_are_refused_to_the_byte(saver, pictures, own):
    x, y = pictures[0][:6], pictures[1][:6]
    attack = disjoint(queries=3)
    with pytest.raises(CapabilityError, match=r"crafting=\(x, y\)"):
        attack.craft(saver, x, y)
    with pytest.raises(LeakageError, match="1 of the crafting pictures"):
        attack.craft(saver, x, y, crafting=(torch.cat([own[0], x[:1]]), torch.cat([own[1], y[:1]])))
    judged = Split("faint", "test", (own[0] * 255).round().byte(), own[1], torch.arange(120), tuple("abcd"))
    with pytest.raises(LeakageError, match="test split"):
        attack.craft(saver, x, y, crafting=judged)
    with pytest.raises(CapabilityError, match="needs 10"):
        attack.craft(saver, x, y, crafting=(own[0][:9], own[1][:9]))


def test_no_gradient_of_the_target_is_asked_for(saver, pictures, own, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a black-box attack looked inside")

    monkeypatch.setattr(type(saver), "relax", refuse)
    monkeypatch.setattr(type(saver), "forward", refuse)
    disjoint(queries=6, fit_steps=2).craft(saver, pictures[0][:4], pictures[1][:4], crafting=own)


def test_settings_of_the_other_fit_change_no_hash():
    plain = load_attack("ereba")
    assert "fit_on" not in plain.settings
    assert "fit_pictures" not in plain.settings
    assert load_attack("ereba", {"fit_on": "own"}).sha256 == plain.sha256
    assert load_attack("ereba", {"fit_on": "disjoint"}).sha256 != plain.sha256
    assert load_attack("ereba", {"fit_on": "disjoint"}).needs_crafting


def test_costs_that_never_move_teach_nothing_and_it_is_said(pictures, own):
    model = random_model("multi-exit")
    model.policy = UniformThreshold(0.0)
    crafted = disjoint(queries=4).craft(model, pictures[0][:3], pictures[1][:3], crafting=own)
    assert any("nothing to learn" in note for note in crafted.details["notes"])
    assert crafted.details["estimator_spearman_within"] is None


def test_rank_correlation_is_within_each_input():
    costs, owners = torch.tensor([1, 2, 3, 7, 8, 9, 5, 5, 5]), torch.arange(3).repeat_interleave(3)
    assert within_inputs(costs.double(), costs, owners) == pytest.approx(1.0)
    between = owners.double()
    assert within_inputs(between, costs, owners) == 0.0, "knows the inputs, and nothing of what moves them"
    assert within_inputs(torch.full((9,), 0.5), costs, owners) == 0.0
    assert within_inputs(costs.double(), torch.full((9,), 4), owners) is None


def _constant(self, x):
    return torch.full((len(x),), 0.5) + _without_effect(self, x)


def _of_the_input_only(self, x):
    """Sees the picture in the coarse, as an estimator does that knows inputs apart and nothing of their changes."""
    return (x.flatten(1).mean(1) * 8).round() + _without_effect(self, x)


def _without_effect(self, x):
    """Nothing, with a slope of nothing."""
    return 0 * (x.flatten(1).sum(1) + self.layers[-1].bias)


@pytest.mark.slow
@pytest.mark.parametrize("fault", [_constant, _of_the_input_only])
@pytest.mark.parametrize("name", ["ereba", "ereba-disjoint"])
def test_an_estimator_that_learned_nothing_is_found(name, fault, saver, pictures, own, monkeypatch):
    x, y = pictures[0][:20], pictures[1][:20]
    settings = {"queries": 60, "eps": EPS, "rounds": 2, **({} if name == "ereba" else LEARNS)}
    attack = load_attack(name, settings)
    sound = attack.craft(saver, x, y, crafting=own).details
    assert not any("learned nothing" in said for said in doubts(sound))
    monkeypatch.setattr(Estimator, "logit", fault)
    faulty = load_attack(name, settings).craft(saver, x, y, crafting=own).details
    assert faulty["estimator_spearman_within"] < 0.1
    assert any("the estimator learned nothing" in said for said in with_doubts(faulty)["notes"])


def ordinal(**settings):
    return load_attack("ereba-ordinal", {"eps": EPS, "queries": 60, "first": 10, "explore": 0.3, **settings})


@pytest.mark.slow
def test_ordinal_models_rank_what_chance_drew_and_beat_noise(saver, pictures):
    x, y = pictures[0][:30], pictures[1][:30]
    crafted = ordinal().craft(saver, x, y)
    assert crafted.queries.tolist() == [60] * 30
    assert crafted.details["estimator_spearman_within"] > 0.2
    assert crafted.details["held_out"] > 200
    noise = load_attack("best-of-n", {"eps": EPS, "queries": 60}).craft(saver, x, y)
    assert recovery(saver, x, crafted) > recovery(saver, x, noise)


def test_ordinal_models_that_learned_nothing_are_found(saver, pictures, monkeypatch):
    x, y = pictures[0][:20], pictures[1][:20]
    monkeypatch.setattr(_Link, "fit", lambda self, asked, steps: None)
    monkeypatch.setattr(_Link, "chances", lambda self, asked, patterns, rows: torch.full(
        (len(rows), len(self.levels) - 1), 0.5))  # fmt: skip
    faulty = ordinal().craft(saver, x, y).details
    assert faulty["estimator_spearman_within"] == 0.0
    assert any("the estimator learned nothing" in said for said in doubts(faulty))


def test_thresholds_rise_so_that_a_dearer_level_is_never_likelier(saver, pictures):
    task = Task(saver, pictures[0][:6], pictures[1][:6], torch.arange(6), 0, None, lambda done, n: None)
    campaign = Campaign(task, load_attack("ereba-ordinal").parts.constraint, BlackBox(queries=9))
    asked = _Asked(campaign)
    for _ in range(4):
        asked.ask(contours(campaign))
    link = _Link(asked, torch.tensor([1.0, 2.0, 5.0, 9.0], dtype=torch.float64), 4, 0)
    link.fit(asked, 10)
    rows = torch.arange(6)
    chances = link.chances(asked, asked.patterns[0], rows)
    assert chances.shape == (6, 3)
    assert (chances[:, :-1] >= chances[:, 1:]).all()


def test_many_costs_are_joined_into_few_levels(saver, pictures):
    task = Task(saver, pictures[0][:6], pictures[1][:6], torch.arange(6), 0, None, lambda done, n: None)
    asked = _Asked(Campaign(task, load_attack("ereba-ordinal").parts.constraint, BlackBox(queries=3)))
    asked.costs.append(torch.arange(1000))
    levels = asked.levels()
    assert len(levels) == LEVELS
    assert (levels[1:] > levels[:-1]).all()


@pytest.mark.slow
class TestBomb(AttackConformance):
    never_cheaper = False

    def make(self):
        small = {"shared": {"all": {"pictures": 30, "batch": 5}}, "queries": 12, "fit_steps": 5, "steps": 4}
        return load_attack("ereba-universal", {**small, "rounds": 2, "climbs": 2, "probes": 2})


@pytest.mark.slow
def test_one_picture_is_led_from_noise_to_where_everything_is_dear(saver, pictures, own):
    x, y = pictures[0][:20], pictures[1][:20]
    attack = load_attack("ereba-universal", {"queries": 40, "pictures": 60, "batch": 10, "rounds": 2, "climbs": 2})
    first = attack.craft(saver, x[:12], y[:12], ids=torch.arange(12), crafting=own)
    second = attack.craft(saver, x[12:], y[12:], ids=torch.arange(12, 20), crafting=own)
    joined = Crafted.join([first, second])
    assert (joined.x_adv == joined.x_adv[0]).all(), "one picture for all"
    costs = saver.infer(joined.images()).macs
    assert int(costs[0]) == saver.max_macs
    assert joined.details["fit_queries"] == 60 * 9
    assert joined.details["queries_total"] == 40
    assert (joined.queries == 40).all()
    assert any("none of the judged pictures was" in note for note in joined.details["notes"])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"constraint": {"linf": {"eps": "8/255"}}}, "stays near none"),
        ({"shared": "class"}, "stays near none"),
        ({"access": "white-box"}, "stays near none"),
        ({"fit_on": "own"}, "fit_on: disjoint"),
        ({"fit_pictures": 50}, "leave fit_pictures out"),
        ({"cost": "seconds"}, "counted MACs"),
    ],
)
def test_a_bomb_is_what_it_says(settings, words):
    with pytest.raises(RecipeError, match=words):
        load_attack("ereba-universal", settings)
