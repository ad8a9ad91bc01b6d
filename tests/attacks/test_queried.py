import pytest
import torch
from attack_toys import random_model
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptbench.attacks import load_attack
from adaptbench.attacks.base import Crafted, Task
from adaptbench.attacks.composed import Parts
from adaptbench.attacks.patterns import coarse, contours, redrawn, signed_square
from adaptbench.attacks.queried import MARKS, Campaign, QuerySearch, SearchedAttack
from adaptbench.errors import CapabilityError, RecipeError
from adaptbench.testing.attacks import AttackConformance

SEARCHES = ("blocks", "square", "evolution", "spsa", "black-box", "black-box-logits")
UNPLANNED = ("best-of-n", "blocks", "evolution", "spsa", "black-box")
"""Those whose moves do not depend on the budget."""
L2 = {"constraint": {"l2": {"eps": 0.4}}}
EPS = 32 / 255


class TestBlocks(AttackConformance):
    def make(self):
        return load_attack("blocks", {"queries": 12})


class TestBlocksUnderL2(AttackConformance):
    def make(self):
        return load_attack("blocks", {"queries": 6, **L2})


class TestSquare(AttackConformance):
    def make(self):
        return load_attack("square", {"queries": 12})


class TestSquareUnderL2(AttackConformance):
    def make(self):
        return load_attack("square", {"queries": 6, **L2})


class TestEvolution(AttackConformance):
    def make(self):
        return load_attack("evolution", {"queries": 16, "population": 4})


class TestEvolutionUnderL2(AttackConformance):
    def make(self):
        return load_attack("evolution", {"queries": 8, "population": 3, **L2})


class TestSpsa(AttackConformance):
    def make(self):
        return load_attack("spsa", {"queries": 12, "pairs": 2})


class TestSpsaUnderL2(AttackConformance):
    def make(self):
        return load_attack("spsa", {"queries": 7, **L2})


class TestBlackBox(AttackConformance):
    def make(self):
        return load_attack("black-box", {"queries": 12, "first": 4})


class TestBlackBoxUnderL2(AttackConformance):
    def make(self):
        return load_attack("black-box", {"queries": 8, "first": 3, **L2})


class TestBlackBoxLogits(AttackConformance):
    def make(self):
        return load_attack("black-box-logits", {"queries": 14, "first": 4})


class TestBlackBoxLogitsUnderL2(AttackConformance):
    def make(self):
        return load_attack("black-box-logits", {"queries": 8, "first": 3, **L2})


def craft(name, model, x, **more):
    seed = more.pop("seed", 0)
    return load_attack(name, {"eps": EPS, **more}).craft(model, x, torch.zeros(len(x), dtype=torch.int64), seed=seed)


@settings(max_examples=10, deadline=None)
@given(name=st.sampled_from(SEARCHES), queries=st.integers(2, 30), seed=st.integers(0, 99))
def test_the_budget_is_spent_to_the_last_query_and_never_exceeded(name, queries, seed):
    x = torch.rand(5, 1, 6, 6, generator=torch.Generator().manual_seed(seed))
    crafted = craft(name, random_model("gated"), x, queries=queries, seed=seed)
    assert crafted.queries.tolist() == [queries] * 5


@pytest.mark.parametrize("name", UNPLANNED)
def test_a_shorter_run_is_the_beginning_of_a_longer_one(name, saver, pictures):
    x = pictures[0][:20]
    short, long = craft(name, saver, x, queries=20), craft(name, saver, x, queries=60)
    assert short.details["macs_at_20"] == long.details["macs_at_20"]
    assert short.details["macs_at_20"] == float(saver.infer(short.images()).macs.double().mean())


def test_the_curve_never_falls_and_ends_with_what_is_returned(saver, pictures):
    x = pictures[0][:20]
    details = (crafted := craft("blocks", saver, x, queries=30)).details
    marks = [mark for mark in MARKS if mark < 30] + [30]
    for kind in ("macs", "moved"):
        curve = [details[f"{kind}_at_{mark}"] for mark in marks]
        assert curve == sorted(curve)
    assert details["macs_at_1"] == float(saver.infer(x).macs.double().mean())
    assert details["macs_at_30"] == float(saver.infer(crafted.images()).macs.double().mean())
    assert details["moved_at_30"] >= details["dearer_than_clean"] / 20


def test_curves_of_chunks_join_by_size(saver, pictures):
    x, y = pictures[0][:20], pictures[1][:20]
    attack = load_attack("blocks", {"queries": 12, "eps": EPS})
    ids = torch.arange(20)
    whole = attack.craft(saver, x, y, ids=ids)
    parts = [attack.craft(saver, x[rows], y[rows], ids=ids[rows]) for rows in (ids[:14], ids[14:])]
    joined = Crafted.join(parts)
    for key, value in whole.details.items():
        assert joined.details[key] == pytest.approx(value), key


def test_an_input_that_no_query_moves_is_counted(saver, pictures):
    crafted = craft("blocks", saver, pictures[0][:20], queries=3, eps=1 / 255)
    assert crafted.details["never_moved"] > 0


@pytest.mark.parametrize("name", SEARCHES)
def test_coarse_patterns_beat_noise_at_equal_queries(name, saver, pictures):
    x = pictures[0][:40]
    noise = craft("best-of-n", saver, x, queries=40, eps=20 / 255)
    found = craft(name, saver, x, queries=40, eps=20 / 255)
    assert found.details["macs_at_40"] >= noise.details["macs_at_1"]
    assert found.details["dearer_than_clean"] > 0


@pytest.mark.parametrize("name", SEARCHES)
def test_no_gradient_is_asked_for(name, saver, pictures, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a black-box attack looked inside")

    monkeypatch.setattr(type(saver), "relax", refuse)
    monkeypatch.setattr(type(saver), "forward", refuse)
    craft(name, saver, pictures[0][:4], queries=8)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"constraint": "none"}, ["'square'", "'none'", "one radius", "linf, l2"]),
        ({"access": "white-box"}, ["asks for costs", "black-box"]),
        ({"objective": "expected-macs"}, ["takes no objective"]),
        ({"keep": "nearest"}, ["keep", "first of the dearest"]),
        ({"area": 0}, ["search.square.area"]),
    ],
)
def test_what_does_not_go_together_is_refused_in_words(settings, words):
    with pytest.raises(RecipeError) as caught:
        load_attack("square", settings)
    for word in words:
        assert word in str(caught.value)


def test_logits_are_a_threat_that_is_named_and_never_assumed():
    plain, told = load_attack("square"), load_attack("black-box-logits")
    assert "returns" not in plain.settings
    assert told.settings["returns"] == "cost+logits"
    cost, both = {"queries": 9}, {"queries": 9, "returns": "cost+logits"}
    with pytest.raises(RecipeError, match=r"'square' looks at cost; access returns cost\+logits"):
        load_attack("square", {"access": {"black-box": both}})
    with pytest.raises(RecipeError, match=r"looks at cost\+logits; access returns cost"):
        load_attack("black-box-logits", {"access": {"black-box": cost}})
    with pytest.raises(RecipeError, match="fitted on costs"):
        load_attack("ereba", {"access": {"black-box": both}})
    with pytest.raises(RecipeError, match="returns"):
        load_attack("square", {"access": {"black-box": {"queries": 9, "returns": "everything"}}})


def test_who_sees_costs_only_cannot_look_at_logits(saver, pictures):
    with pytest.raises(CapabilityError, match="only costs come back"):
        _made(_Peeping()).craft(saver, pictures[0][:3], pictures[1][:3])


def test_logits_take_back_more_than_costs_at_equal_queries(saver, pictures):
    x = pictures[0][:40]
    cost = craft("black-box", saver, x, queries=200, eps=20 / 255)
    logits = craft("black-box-logits", saver, x, queries=200, eps=20 / 255)
    assert logits.details["macs_at_200"] > cost.details["macs_at_200"]


def test_patterns_are_signs_of_every_kind_of_picture():
    for shape in ((1, 1, 1), (3, 5, 9), (1, 28, 28)):
        task = Task(None, torch.rand(6, *shape), None, torch.arange(6), 0, None, None)
        campaign = Campaign.__new__(Campaign)
        campaign.clean, campaign.ids, campaign._task, campaign._draws = task.x, task.ids, task, 0
        for pattern in (contours(campaign), coarse(campaign, 0.25, 0.5), redrawn(campaign, -task.x.sign(), task.x)):
            assert pattern.shape == task.x.shape
        assert (contours(campaign).abs() == 1).all()
        changed = signed_square(campaign, pattern := coarse(campaign, 0.5, 0), 0.1)
        assert (changed != pattern).flatten(1).any(1).all()


class _Greedy(QuerySearch):
    """A planted fault: asks once more than it may."""

    name = "greedy"

    def hunt(self, campaign):
        for _ in range(campaign.budget):
            campaign.ask(campaign.clean)


class _Neighbourly(QuerySearch):
    """A planted fault: takes over a neighbour's pattern and does not say that it couples inputs."""

    name = "neighbourly"

    def hunt(self, campaign):
        while campaign.left:
            campaign.ask(campaign.at(campaign.uniform(*campaign.clean.shape[1:]).roll(1, 0) * 2 - 1))


class _Peeping(QuerySearch):
    """A planted fault: looks at what was not returned."""

    name = "peeping"

    def hunt(self, campaign):
        assert campaign.logits is not None


class _Bold(QuerySearch):
    """Asks for pictures far outside the ball, which the campaign puts back into it."""

    name = "bold"

    def hunt(self, campaign):
        while campaign.left:
            campaign.ask(1 - campaign.clean)


def _made(search, queries=12):
    like = load_attack("blocks", {"queries": queries, "eps": EPS})
    return SearchedAttack(Parts("planted", like.parts.recipe, None, like.parts.constraint, search), like.via)


def test_a_search_that_overspends_is_stopped(saver, pictures):
    with pytest.raises(CapabilityError, match="its budget is 12 queries"):
        _made(_Greedy()).craft(saver, pictures[0][:3], pictures[1][:3])


def test_a_search_that_leaves_the_ball_is_put_back(saver, pictures):
    crafted = _made(_Bold()).craft(saver, pictures[0][:5], pictures[1][:5])
    assert "outside_constraint" not in crafted.details
    assert float(crafted.linf.max()) <= EPS + 1e-6


def test_the_kit_catches_patterns_of_neighbours_that_nobody_declared():
    class Kit(AttackConformance):
        def make(self):
            return _made(_Neighbourly())

        def subject(self):
            x = torch.rand(12, 1, 6, 6, generator=torch.Generator().manual_seed(0)).mul(255).round().div(255)
            return random_model("gated"), x, torch.zeros(12, dtype=torch.int64), torch.arange(12)

    with pytest.raises(AssertionError, match="depend on the batch"):
        Kit().test_chunks_and_order_change_nothing()
