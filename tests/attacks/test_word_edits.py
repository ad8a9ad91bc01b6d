"""Attacks on texts: the kit, the budget of words, what is never edited, one search under white and black box."""

import pytest
import torch

from adaptbench.attacks import load_attack
from adaptbench.attacks.word_edits import NEGATIONS, Thesaurus, WordEdits, misspelt, words_apart
from adaptbench.attacks.word_search import Text, WhiteJudge, WordBeam, WordJudge, taken_back
from adaptbench.errors import CapabilityError, RecipeError
from adaptbench.testing.attacks import AttackConformance
from adaptbench.testing.texts import LENGTH, planted_net, planted_texts, planted_words


class _OfTexts(AttackConformance):
    def subject(self):
        split = planted_texts("test", self.n_inputs)
        return planted_net(), split.inputs(), split.y, split.ids

    def crafting(self):
        return None


class TestWords(_OfTexts):
    def make(self):
        return load_attack("words", {"tries": 20})


class TestSame(_OfTexts):
    def make(self):
        return load_attack("same", {"tries": 20, "share": 0.3})


class TestWaffle(_OfTexts):
    def make(self):
        return load_attack("waffle", {"tries": 20, "similar": 0.0})


class TestWordsBlackBox(_OfTexts):
    def make(self):
        return load_attack("words-black-box", {"queries": 40})


class TestWordsAgain(_OfTexts):
    def make(self):
        return load_attack("words-again", {"queries": 40, "tries": 5})


class TestWordsBestOfN(_OfTexts):
    def make(self):
        return load_attack("words-best-of-n", {"queries": 40})


class TestWordsRandom(_OfTexts):
    never_cheaper = False

    def make(self):
        return load_attack("words-random", {"share": 0.3})


def recovery(net, x, crafted):
    clean, after = net.infer(x).macs, net.infer(crafted.x_adv).macs
    return float((after.sum() - clean.sum()) / (net.max_macs * len(x) - clean.sum()))


def test_a_word_or_two_take_back_what_random_edits_do_not():
    net, split = planted_net(), planted_texts("test", 100)
    x, y = split.inputs(), split.y
    taken = {
        name: recovery(net, x, load_attack(name, how).craft(net, x, y, ids=split.ids))
        for name, how in (
            ("words", {}),
            ("same", {}),
            ("words-black-box", {"queries": 100}),
            ("words-random", {}),
        )
    }
    assert min(taken[name] for name in ("words", "same", "words-black-box")) >= 0.5, taken
    assert abs(taken["words-random"]) < 0.1, taken


@pytest.mark.parametrize("name", ["words", "words-black-box", "words-random"])
@pytest.mark.parametrize("share", [0.1, 0.3])
def test_no_more_words_than_the_budget(name, share):
    net, split = planted_net(), planted_texts("test", 30)
    crafted = load_attack(name, {"share": share}).craft(net, split.inputs(), split.y)
    words = planted_words()
    for before, after in zip(split.x, crafted.x_adv, strict=True):
        own, other = words.unwound(before.tolist()), words.unwound(after.tolist())
        cut = bool((after != 0).all())
        assert words_apart(own, other, cut=cut) <= max(1, int(share * len(own) + 1e-9)), (own, other)
    assert crafted.details["words_edited"] >= 20
    assert "outside_constraint" not in crafted.details


def test_more_words_than_the_budget_are_found_out(monkeypatch):
    net, split = planted_net(), planted_texts("test", 20)
    attack = load_attack("words-random", {"share": 0.1})
    monkeypatch.setattr(WordEdits, "budget", lambda self, words: 4)
    edits = WordEdits(share=0.1)
    crafted = attack.craft(net, split.inputs(), split.y)
    monkeypatch.undo()
    assert edits.budget(["a"] * 10) == 1
    _, _, outside, _ = attack._measured(split.x, crafted.x_adv, net)
    assert int(outside.sum()) >= 15


def test_a_wider_beam_is_no_worse():
    net, split = planted_net(), planted_texts("test", 60)
    one, many = (
        recovery(
            net, split.inputs(), load_attack("words", {"share": 0.3, "beam": b}).craft(net, split.inputs(), split.y)
        )
        for b in (1, 5)
    )
    assert many >= one - 0.02


def test_what_is_never_edited():
    words = Thesaurus(planted_net(), WordEdits())
    for word in (*NEGATIONS, ".", "12", "[UNK]", "naïve"):
        assert not any(words.swaps(word, move) for move in ("substitute", "insert", "characters"))
    assert ("the", "film") in words.swaps("film", "insert")
    assert all(w[0] == "f" and abs(len(w) - 4) <= 1 for (w,) in words.swaps("film", "characters"))
    assert misspelt("the") == ()
    near = words.near("good")
    assert "good" not in near
    assert not set(near) & NEGATIONS


def test_substitutes_are_near_by_the_nets_own_embeddings():
    net = planted_net()
    table, ids = net.stages[0][0].words.weight, planted_words().ids
    for least in (0.0, 0.3):
        for word in Thesaurus(net, WordEdits(similar=least)).near("great"):
            cosine = torch.cosine_similarity(table[ids["great"]], table[ids[word]], dim=0)
            assert cosine >= least - 1e-6
    assert not Thesaurus(net, WordEdits(similar=0.999)).near("great")


def test_words_apart():
    a = ["the", "film", "is", "good", "fun"]
    assert words_apart(a, a, cut=False) == 0
    assert words_apart(a, ["the", "film", "is", "bad", "fun"], cut=False) == 1
    assert words_apart(a, ["the", "the", "film", "is", "good", "fun"], cut=False) == 1
    assert words_apart(a, ["the", "film", "is", "good"], cut=False) == 1
    assert words_apart(a, ["the", "also", "film", "is", "go"], cut=True) == 1, "the end was pushed out"


def test_the_gradient_finds_the_word_that_matters():
    """With one try a step the white box spends it on a word of the class."""
    net, split = planted_net(), planted_texts("test", 60)
    x = split.inputs()
    easy = net.infer(x).exit == 0
    crafted = load_attack("words", {"tries": 1, "moves": ["characters"]}).craft(net, x[easy], split.y[easy])
    words, told = planted_words(), {"good", "fine", "great", "warm", "bad", "poor", "dull", "cold"}
    hit = [
        next((a for a, b in zip(p, q, strict=False) if a != b), "")
        for p, q in (
            (words.unwound(b.tolist()), words.unwound(a.tolist())) for b, a in zip(x[easy], crafted.x_adv, strict=True)
        )
    ]
    changed = [word for word in hit if word]
    assert len(changed) >= 10
    assert sum(word in told for word in changed) / len(changed) > 0.6


def test_queries_are_what_the_model_was_asked():
    net, split = planted_net(), planted_texts("test", 20)
    asked = 0
    infer = type(net).infer

    class Counted(type(net)):
        def infer(self, x, **how):
            nonlocal asked
            asked += len(x)
            return infer(self, x, **how)

    net.__class__ = Counted
    crafted = load_attack("words-black-box", {"queries": 30}).craft(net, split.inputs(), split.y)
    assert asked == int(crafted.queries.sum()) == crafted.details["queries_total"]
    assert crafted.queries.max() <= 30


def test_costs_alone_are_all_that_is_looked_at():
    net, split = planted_net(), planted_texts("test", 40)
    how = {"access": {"black-box": {"queries": 60}}}
    blind = load_attack("words-black-box", how)
    assert blind.settings["returns"] == "cost"
    assert recovery(net, split.inputs(), blind.craft(net, split.inputs(), split.y)) >= 0


def test_pictures_are_not_edited_by_words():
    from adaptbench.testing.planted import planted_graph, planted_split

    with pytest.raises(CapabilityError, match="edits words"):
        load_attack("words").craft(planted_graph("chain"), planted_split("test", 4).images(), torch.zeros(4).long())


@pytest.mark.parametrize(
    "change",
    [
        {"constraint": {"linf": {"eps": "8/255"}}},
        {"search": {"adam-tanh": {"lr": 0.1, "steps": 3}}},
        {"access": "none"},
        {"access": {"black-box": {"queries": 9}}},
        {"search": "random-words"},
        {"label": "keep"},
        {"keep": "last"},
        {"share": 0},
        {"moves": ["shout"]},
        {"beam": 0},
    ],
)
def test_recipes_that_name_no_attack(change):
    with pytest.raises(RecipeError):
        load_attack("words", change)


def test_the_length_of_the_row_is_kept():
    net, split = planted_net(), planted_texts("test", 30)
    full = split.x[(split.x != 0).all(1)]
    if len(full):
        crafted = load_attack("words", {"share": 0.5}).craft(net, full, torch.zeros(len(full)).long())
        assert crafted.x_adv.shape[1] == LENGTH


def test_a_white_box_that_goes_by_cost_takes_back_as_much_as_queries_do():
    net, split = planted_net(), planted_texts("test", 60)
    how = {"share": 0.2, "beam": 1, "tries": 40}
    taken = {
        by: recovery(net, split.inputs(), load_attack("words", how | {"by": by}).craft(net, split.inputs(), split.y))
        for by in ("cost", "loss")
    }
    asked = load_attack("words-black-box", {"share": 0.2, "queries": 60}).craft(net, split.inputs(), split.y)
    assert taken["cost"] >= taken["loss"] - 0.02
    assert taken["cost"] >= recovery(net, split.inputs(), asked) - 0.02


def test_words_are_weighed_by_what_the_text_costs_without_them():
    """One word keeps the text sure: what is left without it is dearer, so it is looked at first."""
    net, split = planted_net(), planted_texts("test", 40)
    words = Thesaurus(net, WordEdits())
    text = Text(words.words(split.x[0]), 3, [((0.0, 0.0), {})])
    objective = load_attack("words").parts.objective
    judge = WhiteJudge(
        words,
        split.ids[:1],
        0,
        lambda done, of: None,
        objective=objective,
        clean=split.x[:1],
        y=split.y[:1],
        by_cost=True,
    )
    judge._weigh({0: text})
    rows = [words.row([w for k, w in enumerate(text.words) if k != p], {}) for p in judge.weighed[0]]
    costs = net.infer(torch.tensor(rows)).macs.tolist()
    assert costs == sorted(costs, reverse=True)
    assert set(judge.weighed[0]) == {p for p, w in enumerate(text.words) if words.may_edit(w)}


class _Table(WordJudge):
    """Knows what a set of edits costs by a table; tells all tries, in the table's order of words."""

    def __init__(self, costs):
        class _Words:
            class model:  # what `judge_done` looks at
                max_macs = 100

        self.words, self.costs, self.asked = _Words, costs, []
        self.progress = lambda done, of: None

    def order(self, rows, texts, tries):
        return [[(p, ("x",)) for p in range(len(t.words)) if p not in t.best[1]][:tries] for t in texts]

    def score(self, rows, texts, edits, keep):
        self.asked += [frozenset(e) for e in edits]
        return [(float(self.costs.get(frozenset(e), 0)), 0.0) for e in edits]


GREEDY_IS_WRONG = {frozenset({0}): 5, frozenset({0, 1}): 6, frozenset({0, 2}): 7, frozenset({1, 2}): 9}


@pytest.mark.parametrize(("again", "found"), [(0, {0, 2}), (1, {1, 2})])
def test_an_edit_that_was_spent_is_taken_back_for_a_better_one(again, found):
    """Words 1 and 2 are dearest together and worth nothing alone, so that steps without a way back miss them."""
    judge, text = _Table(GREEDY_IS_WRONG), Text(["a", "b", "c"], 2, [((0.0, 0.0), {})])
    WordBeam(beam=1, tries=3, again=again).hunt([text], judge)
    assert set(text.best[1]) == found
    assert len(text.best[1]) <= text.budget
    assert len(judge.asked) == len(set(judge.asked)), "what was asked once is not asked again"


def test_rounds_look_further_where_the_nearest_tries_were_made():
    """Of each head one try more a round: the fourth word has its turn in the fourth."""
    judge, text = _Table({frozenset({0}): 1, frozenset({3}): 2}), Text(["a", "b", "c", "d"], 1, [((0.0, 0.0), {})])
    WordBeam(beam=1, tries=1, again=3).hunt([text], judge)
    assert set(text.best[1]) == {0}
    WordBeam(beam=1, tries=1, again=4).hunt([text], judge)
    assert set(text.best[1]) == {3}


def test_who_is_at_the_ceiling_is_asked_no_more():
    judge, text = _Table({frozenset({0}): 100}), Text(["a", "b"], 1, [((0.0, 0.0), {})])
    WordBeam(beam=1, tries=1, again=5).hunt([text], judge)
    assert judge.asked == [frozenset({0})]


def test_what_is_taken_back():
    spent = Text(["a", "b", "c"], 2, [((1.0, 0.0), {0: ("x",), 2: ("y",)})])
    assert taken_back(spent) == [{2: ("y",)}, {0: ("x",)}]
    spent.budget = 3
    assert taken_back(spent) == [{0: ("x",), 2: ("y",)}], "a word is left to edit"
    assert taken_back(Text([], 0, [((0.0, 0.0), {})])) == []


def test_tries_again_take_back_more_at_the_same_questions():
    net, split = planted_net(), planted_texts("test", 60)
    how = {"share": 0.3, "queries": 120, "tries": 10}
    once, again = (
        load_attack("words-again", how | {"again": rounds}).craft(net, split.inputs(), split.y) for rounds in (0, 10)
    )
    assert recovery(net, split.inputs(), again) >= recovery(net, split.inputs(), once)
    assert again.queries.max() <= 120
    assert "outside_constraint" not in again.details


def test_rounds_that_are_not_asked_for_leave_the_hash():
    assert load_attack("words").sha256 == load_attack("words", {"again": 0}).sha256
    assert load_attack("words").sha256 != load_attack("words", {"again": 1}).sha256
    with pytest.raises(RecipeError):
        load_attack("words", {"again": -1})
