import pytest
import torch
from attack_toys import faint_pictures, random_model

from adaptbench.attacks import load_attack
from adaptbench.attacks.access import QueriedModel
from adaptbench.attacks.base import Crafted
from adaptbench.attacks.constraints import Linf
from adaptbench.attacks.taught import SharedDraws, Taught
from adaptbench.errors import CapabilityError, LeakageError, RecipeError
from adaptbench.testing.attacks import AttackConformance

EPS = 14 / 255
FEW = {"fit_pictures": 20, "candidates": 12, "opening": 3}
OF = [{"waves": {}}, {"contours": {}}]


class TestBlackBox2(AttackConformance):
    def make(self):
        return load_attack("black-box-2", {"queries": 12, "first": 6, **FEW})


class TestBlackBox2UnderL2(AttackConformance):
    def make(self):
        return load_attack("black-box-2", {"queries": 8, "first": 3, "constraint": {"l2": {"eps": 0.4}}, **FEW})


@pytest.fixture
def lessons():
    return faint_pictures(60, 77)


def made(**settings):
    return load_attack("black-box-2", {"eps": EPS, **FEW, **settings})


def craft(attack, model, pictures, lessons, n=20, **more):
    return attack.craft(model, pictures[0][:n], pictures[1][:n], crafting=lessons, **more)


@pytest.fixture
def lessons_given(monkeypatch):
    """How often somebody learned."""
    given = []
    learn = Taught.learn

    def counted(self, *args):
        given.append(self)
        return learn(self, *args)

    monkeypatch.setattr(Taught, "learn", counted)
    return given


def test_queries_of_the_lesson_are_counted_apart_and_once(saver, pictures, lessons, lessons_given):
    attack = made(queries=9)
    first, second = craft(attack, saver, pictures, lessons), craft(attack, saver, pictures, lessons)
    assert first.queries.tolist() == [9] * 20
    assert first.details["fit_queries"] == second.details["fit_queries"] == 20 * 13
    assert "260 queries to 20 pictures" in first.details["notes"][0]
    assert torch.equal(first.x_adv, second.x_adv)
    joined = Crafted.join([first, second]).details
    assert (joined["fit_queries"], len(lessons_given)) == (260, 1)
    assert len([note for note in joined["notes"] if "260 queries" in note]) == 1


def test_a_net_or_a_seed_that_is_another_is_asked_anew(saver, pictures, lessons, lessons_given):
    attack = made(queries=5)
    craft(attack, saver, pictures, lessons)
    craft(attack, saver, pictures, lessons, seed=1)
    craft(attack, random_model("gated"), pictures, lessons, seed=1)
    assert len(lessons_given) == 3


def test_every_budget_goes_by_the_one_lesson(saver, pictures, lessons, lessons_given):
    """A run keeps it as a cell, under what `learn` hangs on."""
    short, long, other = made(queries=5), made(queries=9), made(queries=5, candidates=13)
    assert short.learns_as == long.learns_as != other.learns_as
    assert short.sha256 != long.sha256
    learned = short.learn(saver, lessons)
    handed = craft(long, saver, pictures, lessons, learned=learned)
    assert len(lessons_given) == 1
    assert torch.equal(handed.x_adv, craft(made(queries=9), saver, pictures, lessons).x_adv)


def test_the_first_patterns_are_the_greedy_cover_of_what_was_asked(saver, lessons):
    """Against a cover found by trying every candidate at every place."""
    search = Taught(of=OF, fit_pictures=20, candidates=12, opening=5)
    x, ball = lessons[0][:20], Linf(EPS)
    queried = QueriedModel(saver, 20, 13)
    chosen = search.learn(x, queried, ball, seed=3)
    assert queried.used.tolist() == [13] * 20

    def cost(key):
        changed = ball.quantise(ball.scatter(x, search.draw(SharedDraws(x, 3, key))), x)
        return saver.infer(changed.float() / 255).macs

    costs = {key: cost(key) for key in range(12)}
    best = saver.infer(x).macs
    for key in chosen:
        sums = {k: int(torch.maximum(best, c).sum()) for k, c in costs.items()}
        assert sums[key] == max(sums.values()) > int(best.sum())
        best = torch.maximum(best, costs[key])
    left = max(int(torch.maximum(best, c).sum()) for c in costs.values())
    assert len(chosen) == 5 or left == int(best.sum()), "it stops where no other adds anything"


def test_the_first_questions_are_the_learned_ones(pictures, lessons):
    """What a run of so many queries keeps is the dearest of the clean picture and of these patterns."""
    x, saver = pictures[0][:20], random_model("gated")
    attack = made(queries=4, candidates=40)
    crafted = craft(attack, saver, pictures, lessons)
    chosen = attack.learn(saver, lessons).tensors["opening"].tolist()
    search, ball = attack.parts.search, attack.parts.constraint
    assert len(chosen) >= 2
    costs = [saver.infer(x).macs]
    for key in chosen:
        changed = ball.quantise(ball.scatter(x, search.draw(SharedDraws(x, 0, key))), x)
        costs.append(saver.infer(changed.float() / 255).macs)
    assert torch.equal(saver.infer(crafted.images()).macs, torch.stack(costs).max(0).values)


def test_a_lesson_is_worth_its_queries(saver, pictures, lessons):
    taught = craft(made(queries=6, fit_pictures=60, candidates=60, opening=5), saver, pictures, lessons, n=60)
    blind = load_attack("black-box", {"eps": EPS, "queries": 6}).craft(saver, pictures[0][:60], pictures[1][:60])
    assert taught.details["macs_at_6"] > blind.details["macs_at_6"]


def test_a_shorter_run_is_the_beginning_of_a_longer_one(saver, pictures, lessons):
    short, long = (craft(made(queries=q, first=8), saver, pictures, lessons) for q in (10, 30))
    assert short.details["macs_at_10"] == long.details["macs_at_10"]
    assert long.details["macs_at_30"] >= long.details["macs_at_10"] > long.details["macs_at_1"]


def test_shared_draws_are_the_same_for_every_picture_and_others_for_every_key():
    x = torch.rand(4, 1, 6, 6)
    one, again, other, seed = (SharedDraws(x, s, k).uniform(3, 2) for s, k in ((0, 5), (0, 5), (0, 6), (1, 5)))
    assert one.shape == (4, 3, 2)
    assert torch.equal(one, one[:1].expand_as(one))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert not torch.equal(one, seed)
    draws = SharedDraws(x, 0, 5)
    assert not torch.equal(draws.uniform(8), draws.uniform(8))
    assert bool(((one >= 0) & (one < 1)).all())


def test_nothing_to_learn_is_said(pictures, lessons, saver, monkeypatch):
    monkeypatch.setattr(Taught, "draw", lambda self, draws: torch.zeros_like(draws.clean))
    crafted = craft(made(queries=4), saver, pictures, lessons)
    assert any("nothing to learn" in note for note in crafted.details["notes"])
    assert crafted.queries.tolist() == [4] * 20


def test_no_gradient_is_asked_for(saver, pictures, lessons, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a black-box attack looked inside")

    monkeypatch.setattr(type(saver), "relax", refuse)
    monkeypatch.setattr(type(saver), "forward", refuse)
    craft(made(queries=5), saver, pictures, lessons, n=4)


def test_pictures_that_judge_are_none_to_learn_from(saver, pictures, lessons):
    mixed = (torch.cat([lessons[0], pictures[0][:1]]), torch.cat([lessons[1], pictures[1][:1]]))
    with pytest.raises(LeakageError, match="1 of the crafting pictures"):
        craft(made(queries=5), saver, pictures, mixed)
    with pytest.raises(CapabilityError, match="needs 10 at least"):
        craft(made(queries=5), saver, pictures, (lessons[0][:9], lessons[1][:9]))


def test_a_clock_is_no_teacher_here():
    with pytest.raises(RecipeError, match="learned of counted MACs"):
        load_attack("black-box-2", {"access": {"black-box": {"queries": 9, "cost": "seconds"}}})


def test_black_box_stays_what_it_was():
    """Figures are cited by its name and hash."""
    assert load_attack("black-box").sha256.startswith("4501283021765a43")
    assert load_attack("black-box").sha256 != load_attack("black-box-2").sha256
