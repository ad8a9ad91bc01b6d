"""`standard` and its kin: the worst case of members, answers kept, momentum, terms, time."""

from dataclasses import replace

import pytest
import torch
from attack_toys import random_model

from adaptbench.attacks import load_attack
from adaptbench.attacks.base import Task, to_bytes
from adaptbench.attacks.constraints import L2, Linf
from adaptbench.attacks.decisions import NearMargins
from adaptbench.attacks.engine import Deadline, Optimiser, gradient_of
from adaptbench.attacks.judging import NEVER, Best, Judge
from adaptbench.attacks.loading import build
from adaptbench.attacks.mixtures import LabelMargin, Mixed, SharedPass, WeightedSum
from adaptbench.attacks.momentum import MomentumDescent, checkpoints
from adaptbench.attacks.objectives import ExpectedMacs, Goal, HingeMargins, UniformHeads, at_dearest, hinges_of
from adaptbench.attacks.recipe import make_recipe
from adaptbench.attacks.registry import OBJECTIVES
from adaptbench.errors import RecipeError, UnknownNameError
from adaptbench.registry import Entry

MEMBERS = [
    {"objective": "hinge-margins", "search": {"momentum": {"steps": 12}}},
    {"objective": {"expected-macs": {"temperature": 1}}, "search": {"momentum": {"steps": 12}}},
    {"objective": "next-closed", "search": {"momentum": {"steps": 12}}, "start": "noise"},
]


def make(**content):
    return build("tried", make_recipe({"title": "t", "constraint": {"linf": {"eps": "4/255"}}, **content}, "t"), "t")


def grey(n, seed=5):
    return (torch.rand(n, 1, 6, 6, generator=torch.Generator().manual_seed(seed)) * 255).round() / 255


@pytest.mark.parametrize("shape", ["multi-exit", "cascade", "dag", "gated"])
@pytest.mark.parametrize("label", ["free", "keep"])
def test_the_ensemble_is_as_dear_as_every_member_on_every_sample(shape, label):
    model, x = random_model(shape), grey(24)
    y = model.infer(x).predictions
    worst = model.infer(make(members=MEMBERS, label=label).craft(model, x, y).images()).macs
    for member in MEMBERS:
        alone = model.infer(make(members=[member], label=label).craft(model, x, y).images()).macs
        assert (worst >= alone).all()
    assert (worst > model.infer(x).macs).any()


def test_a_sample_at_the_ceiling_is_not_attacked_again(saver, pictures):
    x, y = pictures
    crafted = make(members=MEMBERS[:1] * 3, constraint={"linf": {"eps": "32/255"}}).craft(saver, x, y)
    assert crafted.details["raised_by_1"] > 0
    once = make(members=MEMBERS[:1], constraint={"linf": {"eps": "32/255"}}).craft(saver, x, y)
    missing = len(x) - once.details["at_max_macs"]
    assert crafted.details["steps_run"] <= once.details["steps_run"] + 2 * 12 * missing


@pytest.mark.slow
@pytest.mark.parametrize("name", ["standard-kept", "margin-kept", "ilfo-kept", "deepsloth-kept"])
def test_a_kept_answer_is_kept_on_every_sample_and_most_of_the_cost_is_reached(saver, pictures, name):
    x, y = pictures
    crafted = load_attack(name, {"eps": "24/255"}).craft(saver, x, y)
    inference = saver.infer(crafted.images())
    assert torch.equal(inference.predictions, saver.infer(x).predictions)
    assert (inference.macs > saver.infer(x).macs).any()


def test_early_and_wrong_is_cheap_and_wrong_where_it_changed_anything(saver, pictures):
    x, _ = pictures
    y = saver.infer(x).predictions
    crafted = load_attack("early-wrong", {"eps": "32/255", "steps": 40}).craft(saver, x, y)
    inference = saver.infer(crafted.images())
    changed = (crafted.x_adv != to_bytes(x)).flatten(1).any(1)
    assert changed.any()
    assert (inference.predictions != y)[changed].all()
    assert inference.macs[changed].float().mean() < 0.6 * saver.max_macs
    best = (inference.macs == saver.min_macs) & (inference.predictions != y)
    assert crafted.details["cheapest_and_wrong"] == int(best.sum()) > 0
    assert "at_max_macs" not in crafted.details


def test_the_judge_never_takes_another_answer_when_it_must_stay(saver, pictures):
    x, y = pictures
    judge = Judge(saver, x, y, label="keep")
    other = x[torch.arange(len(x)).roll(1)]
    differs = saver.infer(other).predictions != saver.infer(x).predictions
    assert differs.any()
    assert (judge.score(torch.arange(len(x)), to_bytes(other))[differs] == NEVER).all()


# ---------------------------------------------------------------------- standard


def test_standard_is_a_versioned_name(saver, pictures):
    attack = load_attack("standard")
    assert attack.name == "standard-3"
    assert attack.sha256 == load_attack("standard-3").sha256 != load_attack("standard-kept").sha256
    assert load_attack("standard-kept").sha256 == load_attack("standard-2-kept").sha256
    assert len(attack.settings["members"]) == 13


def test_standard_1_is_what_was_published_under_the_name():
    """A change of composition is another number: this hash never changes."""
    assert load_attack("standard-1", {"eps": "8/255"}).settings["members"] == [
        "hinge-margins(kappa=0.05, unmask=0.01, temperature=0.1) by momentum(steps=60)",
        "expected-macs(temperature=1.0) by momentum(steps=40)",
        "next-closed(kappa=0.05, temperature=0.1) by momentum(steps=40)",
        "logit-gap by momentum(steps=40)",
        "expected-macs(temperature=1.0) by momentum(steps=40) from noise",
        "next-closed(kappa=0.05, temperature=0.1) by adam-tanh(lr=0.1, steps=100)",
        "hinge-margins(kappa=0.05, unmask=0.01, temperature=0.1) by adam-tanh(lr=0.1, steps=80) from best",
    ]


@pytest.mark.parametrize("kept", ["", "-kept"])
@pytest.mark.parametrize("shape", ["multi-exit", "cascade", "dag"])
def test_standard_2_is_standard_1_on_exits(shape, kept):
    model = random_model(shape)

    def members(name):
        stages = load_attack(name).stages_for(model).values()
        return [(s.parts.objective, s.parts.search, s.start) for s in stages]

    assert len(members(f"standard-1{kept}")) == 7
    assert members(f"standard-1{kept}") == members(f"standard-2{kept}")
    assert load_attack(f"standard-1{kept}").parts.recipe.label == load_attack(f"standard-2{kept}").parts.recipe.label


@pytest.mark.parametrize("kept", ["", pytest.param("-kept", marks=pytest.mark.slow)])
@pytest.mark.parametrize("shape", ["multi-exit", "cascade", "dag"])
def test_standard_2_crafts_the_bytes_of_standard_1_on_exits(shape, kept):
    """So that what was published of standard-1 on exits, cascades and DAGs may be cited as standard-2's."""
    model, x = random_model(shape), grey(8)
    first, second = (
        load_attack(f"standard-{n}{kept}", {"eps": "12/255"}).craft(model, x, torch.zeros(8).long(), seed=3)
        for n in (1, 2)
    )
    assert torch.equal(first.x_adv, second.x_adv)
    assert (first.linf > 0).any()
    assert first.details["steps_run"] == second.details["steps_run"] > 0


def test_standard_2_is_another_attack_on_gates():
    model, x = random_model("gated"), grey(24)
    first, second = (load_attack(f"standard-{n}").craft(model, x, torch.zeros(24).long()) for n in (1, 2))
    assert not torch.equal(first.x_adv, second.x_adv)


@pytest.mark.parametrize("kept", ["", "-kept"])
def test_standard_2_spends_all_its_steps_on_near_margins_on_gates(kept):
    stages = list(load_attack(f"standard-2{kept}").stages_for(random_model("gated")).values())
    assert [type(s.parts.objective).__name__ for s in stages] == ["NearMargins"] * 3
    assert sum(s.parts.search.steps for s in stages) == 400


@pytest.mark.parametrize("shape", ["multi-exit", "cascade", "dag", "gated"])
def test_standard_3_is_standard_2_but_where_gates_plan(shape):
    """So that what was published of standard-2 there may be cited as standard-3's."""
    model, x = random_model(shape), grey(8)
    second, third = (load_attack(f"standard-{n}", {"eps": "12/255"}) for n in (2, 3))

    def members(attack):
        return [(s.parts.objective, s.parts.search, s.start) for s in attack.stages_for(model).values()]

    assert members(second) == members(third)
    ours, theirs = (attack.craft(model, x, torch.zeros(8).long(), seed=3) for attack in (second, third))
    assert torch.equal(ours.x_adv, theirs.x_adv)
    assert ours.details["steps_run"] == theirs.details["steps_run"] > 0


def test_standard_3_takes_five_times_the_steps_where_a_step_runs_the_planner_alone():
    second, third = (load_attack(f"standard-{n}").stages_for(random_model("planned")).values() for n in (2, 3))
    assert [s.on for s in third] == ["planned-gates"] * 3
    assert sum(s.parts.search.steps for s in third) == 2120 > 5 * sum(s.parts.search.steps for s in second)


def test_near_margins_pushes_what_is_near_its_boundary_most():
    """Its value is Σ log(1 + h / k); against a sum of hinges, the slope of each decision is 1 / (k + h)."""
    model, objective = random_model("gated"), NearMargins(kappa=0.05, knee=1.0, until=0.1)
    x = grey(6)
    context = objective.prepare(model, x) | {"progress": torch.tensor([0.0, 0.5, 1.0] * 2)}
    goal = objective.measure(model, x, x, context, torch.zeros(6, dtype=torch.int64))
    relaxed = model.relax(x, temperature=1.0)
    far = hinges_of(model, relaxed, context["scale"], 0.05)
    knee = torch.tensor([1.0, 10**-0.5, 0.1] * 2)
    wanted = at_dearest(model, relaxed, (1 + far / knee[:, None]).log().sum(1))
    assert torch.allclose(goal.loss, wanted.loss)
    assert far.max() > 0


@pytest.mark.parametrize("shape", ["multi-exit", "cascade", "dag", "gated", "planned"])
def test_the_search_that_standard_is_measured_against_costs_ten_times_as_much(shape):
    """And holds each of its members, settings and all, with more steps, on whatever shape of net."""

    def steps(name):
        stages = load_attack(name).stages_for(random_model(shape)).values()
        return [(s.parts.objective, replace(s.parts.search, steps=1), s.start, s.parts.search.steps) for s in stages]

    short, long = steps("standard"), steps("exhaustive")
    assert sum(n for *_, n in long) >= 10 * sum(n for *_, n in short)
    for *member, n in short:
        assert max((more for *other, more in long if other == member), default=0) > n, member


@pytest.mark.parametrize(
    "setting", [{"members": []}, {"label": "keep"}, {"seconds": 3}, {"steps": 5}, {"keep": "last"}]
)
def test_standard_takes_eps_and_nothing_else(setting):
    with pytest.raises(RecipeError, match="fixed"):
        load_attack("standard", setting)
    assert load_attack("standard", {"eps": "4/255"}).settings["eps"] == 4 / 255


def test_members_that_mean_nothing_on_a_model_are_named(pictures):
    model, x = random_model("gated"), grey(6)
    crafted = load_attack("standard-1").craft(model, x, torch.zeros(6, dtype=torch.int64))
    assert crafted.details["members_skipped"] == ["logit-gap by momentum(steps=40)"]
    assert not any("logit-gap" in note for note in crafted.details.get("notes", []))
    assert len(crafted.details["members_run"]) == 6
    crafted = load_attack("standard").craft(model, x, torch.zeros(6, dtype=torch.int64))
    assert len(crafted.details["members_skipped"]) == 10
    assert len(crafted.details["members_run"]) == 3


def test_a_hand_made_standard_of_the_same_name_in_the_folder_has_another_hash(tmp_path, monkeypatch):
    shipped = load_attack("standard").sha256
    (tmp_path / "attacks").mkdir()
    (tmp_path / "attacks" / "standard-3.yaml").write_text(
        "title: weak\naccess: white-box\nconstraint: {linf: {eps: 8/255}}\n"
        "members: [{objective: hinge-margins, search: {momentum: {steps: 1}}}]\n"
    )
    monkeypatch.chdir(tmp_path)
    assert load_attack("standard").sha256 != shipped


def test_the_hash_holds_a_members_settings_to_the_last_digit():
    """Titles were written with six digits, so that a weaker member could pass for the published one."""
    one, other = (
        make(members=[{"objective": {"hinge-margins": {"kappa": kappa}}, "search": "momentum"}])
        for kappa in (0.05, 0.0500000001)
    )
    assert one.sha256 != other.sha256


def test_the_hash_holds_the_code_of_parts_that_plug_ins_bring(tmp_path, monkeypatch):
    """Cells and baselines that hang on a plug-in's objective would be taken for those of another."""
    place = tmp_path / "pushy_objective.py"
    source = (
        "from dataclasses import dataclass\n"
        "from adaptbench.attacks.objectives import ExpectedMacs\n\n\n"
        "@dataclass(frozen=True)\nclass Pushy(ExpectedMacs):\n    name = 'pushy'\n"
    )
    place.write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(OBJECTIVES._entries, "pushy", Entry("pushy", "pushy_objective:Pushy", "a plug-in's"))
    written = [
        {"objective": "pushy", "search": "momentum"},
        {"members": [MEMBERS[0], {"objective": "pushy", "search": "momentum"}]},
        {"objective": {"mixed": {"of": [{"hinge-margins": {}}, {"pushy": {}}]}}, "search": "momentum"},
    ]
    before = [make(**content).sha256 for content in written]
    place.write_text(source + "# mended\n")
    assert all(make(**content).sha256 != then for content, then in zip(written, before, strict=True))


def test_weights_of_exits_are_asked_of_chains_only():
    attack = make(search="momentum", objective="weighted-heads")
    assert attack.applies_to(random_model("cascade")) is None
    assert "chain" in attack.applies_to(random_model("dag"))


# ---------------------------------------------------------------------- recipes that cannot be


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"members": MEMBERS, "search": {"momentum": {}}}, "one or the other"),
        ({"access": "white-box"}, "search is missing"),
        ({"members": MEMBERS, "aim": "cheap-and-wrong", "label": "keep"}, "cannot be wrong and kept"),
        ({"members": [{"search": {"random": {}}}]}, "objective with a gradient"),
        ({"members": [{"objective": "hinge-margins", "search": "momentum", "start": "there"}]}, "start"),
        ({"members": MEMBERS, "access": {"black-box": {"queries": 5}}}, "white-box"),
        ({"search": {"random": {}}, "access": "none", "label": "keep"}, "without gradients"),
        ({"search": {"momentum": {"steps": 0}}, "objective": "hinge-margins"}, "at least 1"),
        ({"search": "momentum", "objective": {"mixed": {"of": []}}}, "a list such as"),
        ({"search": "momentum", "objective": {"mixed": {"of": [{"hinge-margins": {}, "weight": -1}]}}}, "weight"),
        ({"search": "momentum", "objective": {"mixed": {"of": [{"estimator": {}}]}}}, "no gradient"),
        (
            {"search": "momentum", "objective": {"mixed": {"of": [{"hinge-margins": {"kapa": 1}}]}}},
            "no setting is called 'kapa'. Did you mean 'kappa'",
        ),
        ({"search": "momentum", "objective": "hinge-margins", "seconds": 0}, "seconds"),
        ({"members": MEMBERS, "keep": "nearest"}, "leave keep out"),
        (
            {"search": "momentum", "objective": {"mixed": {"of": [{"hinge-margins": {}, "from": 0.5, "until": 0.5}]}}},
            "until a later one",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_words(content, said):
    with pytest.raises((RecipeError, UnknownNameError), match=said):
        make(**content)


def test_momentum_needs_a_radius(saver, pictures):
    attack = make(search="momentum", objective="hinge-margins", constraint="none")
    with pytest.raises(RecipeError, match="takes its step from the constraint's eps"):
        attack.craft(saver, *pictures)


# ---------------------------------------------------------------------- momentum


@pytest.mark.parametrize(("steps", "norm"), [(20, "Linf"), (50, "Linf"), (50, "L2")])
def test_momentum_walks_as_the_published_apgd_does(saver, pictures, steps, norm):
    """Against torchattacks' APGD on the same loss, from the clean picture: same iterates, so the same best loss."""
    torchattacks = pytest.importorskip("torchattacks")
    x, y = pictures[0][:12], pictures[1][:12]
    eps = 12 / 255 if norm == "Linf" else 0.6
    theirs = torchattacks.APGD(saver, norm=norm, eps=eps, steps=steps, n_restarts=1, rho=0.75)
    theirs.eps_for_division = 1e-10
    losses = []
    original = torch.nn.functional.cross_entropy

    search, ball = MomentumDescent(steps=steps), Linf(eps) if norm == "Linf" else L2(eps)
    state = search.begin(x, ball, torch.zeros_like(x))
    age = torch.zeros(len(x), dtype=torch.int64)
    for _ in range(steps):
        variable = state["variable"].detach().requires_grad_()
        loss = -original(saver(variable), y, reduction="none")
        (gradient,) = torch.autograd.grad(loss.sum(), variable)
        state["loss"] = loss.detach()
        losses.append(loss.detach())
        search.advance(state, gradient, age, ball)
        age += 1
    best = torch.stack(losses).amin(0)
    assert torch.equal(best, state["best_loss"])
    assert ((state["variable"] - x).flatten(1).norm(dim=1, p=torch.inf if norm == "Linf" else 2) <= eps + 1e-5).all()
    with torch.no_grad():
        attacked = theirs(x, y)
        reached = -original(saver(attacked), y, reduction="none")
    # theirs begins at a random point of the ball, so the losses agree, not the pictures
    assert best.mean() <= reached.mean() + 0.1 * reached.mean().abs()


def test_checkpoints_are_the_published_ones():
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(1) == []


def test_the_step_halves_where_the_loss_no_longer_falls():
    search, ball = MomentumDescent(steps=20), Linf(0.1)
    x = torch.full((2, 1, 2, 2), 0.5)
    state = search.begin(x, ball, x)
    falling = torch.tensor([1.0, 0.0])
    for step in range(20):
        state["loss"] = 1.0 - falling * step
        search.advance(state, torch.ones_like(x), torch.full((2,), step), ball)
    assert state["eta"][0] > state["eta"][1]
    assert state["eta"][1] < 0.02


# ---------------------------------------------------------------------- sums of objectives


def test_a_sum_is_the_sum_and_runs_one_pass_a_temperature(saver, pictures, monkeypatch):
    x, y = pictures
    calls = []
    relax = type(saver).relax
    monkeypatch.setattr(type(saver), "relax", lambda self, *a, **k: calls.append(k) or relax(self, *a, **k))
    terms = [(HingeMargins(), 1.0, 0.0, 1.0), (UniformHeads(), 0.5, 0.0, 1.0), (ExpectedMacs(), 2.0, 0.5, 1.0)]
    both = WeightedSum(terms)
    context = both.prepare(saver, x)
    context["progress"] = torch.linspace(0, 0.99, len(x))
    calls.clear()
    goal = both.measure(saver, x, x, context, y)
    assert len(calls) == 1
    want = torch.zeros(len(x))
    for i, (objective, weight, begin, _) in enumerate(terms):
        own = {k.removeprefix(f"{i}."): v for k, v in context.items()}
        want += weight * (context["progress"] >= begin) * objective.measure(saver, x, x, own, y).loss
    torch.testing.assert_close(goal.loss, want)


def test_the_last_exit_runs_only_where_a_term_reads_it(saver, pictures, monkeypatch):
    x, y = pictures
    asked = []
    relax = type(saver).relax

    def spied(self, *given, temperature=0.1, last=True):
        asked.append((temperature, last))
        return relax(self, *given, temperature=temperature, last=last)

    monkeypatch.setattr(type(saver), "relax", spied)

    def passes(*terms):
        both = WeightedSum([(term, 1.0, 0.0, 1.0) for term in terms])
        context = both.prepare(saver, x) | {"progress": torch.zeros(len(x))}
        losses = []
        for _ in range(2):
            asked.clear()
            losses.append(both.measure(saver, x, x, context, y).loss)
        torch.testing.assert_close(*losses, rtol=0, atol=0)
        return asked

    assert passes(HingeMargins(), UniformHeads()) == [(0.1, False)]
    assert passes(HingeMargins(temperature=0.5), LabelMargin()) == [(0.5, False), (0.1, True)]
    assert passes(HingeMargins(), LabelMargin()) == [(0.1, True)], "from the second step on both share the whole pass"


def test_a_shared_pass_is_the_models(saver, pictures):
    shared = SharedPass(saver, set())
    assert shared.max_macs == saver.max_macs
    assert shared.relax(pictures[0]) is shared.relax(pictures[0])
    assert torch.equal(shared.relax(pictures[0]).margins, saver.relax(pictures[0]).margins)


def test_mixed_settings_are_those_written():
    attack = make(search="momentum", objective={"mixed": {"of": [{"hinge-margins": {}}, {"label-margin": {}}]}})
    assert attack.settings["of"] == [{"hinge-margins": {}}, {"label-margin": {}}]
    assert Mixed([{"label-margin": {}}]).requires == LabelMargin.requires


def test_a_guard_takes_out_what_points_against_it():
    x = torch.zeros(2, 1, 1, 2, requires_grad=True)
    plain = Goal(x.flatten(1) @ torch.tensor([1.0, 1.0]))
    guarded = Goal(plain.loss, guard=x.flatten(1) @ torch.tensor([-1.0, 0.0]))
    torch.testing.assert_close(gradient_of(guarded, x).flatten(1), torch.tensor([[0.0, 1.0]] * 2))
    agreeing = Goal(plain.loss, guard=x.flatten(1) @ torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(gradient_of(agreeing, x), gradient_of(plain, x))


# ---------------------------------------------------------------------- time


def test_when_the_time_is_over_what_was_reached_is_kept_and_said(saver, pictures):
    x, y = pictures
    task = Task(saver, x, y, torch.arange(len(x)), 0, None, lambda done, n: None)
    over = Deadline(1e-9)
    assert over.over()
    unaudited = Optimiser(task, saver, HingeMargins(), Linf(8 / 255), MomentumDescent(50), "first", deadline=over).run()
    assert "the time was over" in unaudited.details["notes"][0]
    assert (saver.infer(unaudited.x_adv.float() / 255).macs >= saver.infer(x).macs).all()


def test_seconds_are_part_of_what_an_attack_is():
    assert "seconds" not in make(search="momentum", objective="hinge-margins").settings
    timed = make(search="momentum", objective="hinge-margins", seconds=2)
    assert timed.settings["seconds"] == 2
    assert timed.sha256 != make(search="momentum", objective="hinge-margins").sha256


def test_a_start_at_the_best_is_where_the_best_is(saver, pictures):
    x, y = pictures
    best = Best(Judge(saver, x, y), "first")
    moved = Linf(8 / 255).quantise(x + 8 / 255, x)
    best.take(torch.arange(len(x)), moved, best.score.clone(), torch.zeros(len(x)))
    task = Task(saver, x, y, torch.arange(len(x)), 0, None, lambda done, n: None)
    loop = Optimiser(task, saver, HingeMargins(), Linf(8 / 255), MomentumDescent(5), "first", best=best, start="best")
    pool = loop._enter(torch.arange(len(x)))
    torch.testing.assert_close(pool.state["variable"], moved.float() / 255)
