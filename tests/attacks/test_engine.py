from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from attack_toys import SHAPE, random_model
from torch import nn

from adaptbench.adaptive import ChainPolicy, MultiExit
from adaptbench.adaptive.gated import decides_ahead
from adaptbench.attacks import Crafted, load_attack
from adaptbench.attacks.base import Task
from adaptbench.attacks.constraints import Linf, Unbounded
from adaptbench.attacks.engine import Optimiser
from adaptbench.attacks.objectives import Goal, GradientObjective, HingeMargins
from adaptbench.attacks.purity import untouched
from adaptbench.attacks.searches import AdamTanh, SignDescent


@dataclass(frozen=True)
class CrossEntropy(GradientObjective):
    """What PGD climbs."""

    name = "cross-entropy"

    def measure(self, model, x, clean, context, y):
        return Goal(-F.cross_entropy(model(x), y, reduction="none"))


def task(model, x, y, seed=0):
    return Task(model, x, y, torch.arange(len(x)), seed, None, lambda done, n: None)


@pytest.mark.parametrize("eps", [8 / 255, 0.05])
@pytest.mark.parametrize("steps", [1, 7])
def test_sign_descent_on_cross_entropy_is_torchattacks_pgd(saver, pictures, eps, steps):
    torchattacks = pytest.importorskip("torchattacks")
    x, y = pictures
    with untouched(saver):
        theirs = torchattacks.PGD(saver, eps=eps, alpha=eps / 3, steps=steps, random_start=False)(x, y)
        search, ball = SignDescent(step=eps / 3, steps=steps), Linf(eps)
        state = search.begin(x, ball, torch.zeros_like(x))
        for step in range(steps):
            variable = state["variable"].detach().requires_grad_()
            goal = CrossEntropy().measure(saver, variable, x, {}, y)
            (gradient,) = torch.autograd.grad(goal.loss.sum(), variable)
            search.advance(state, gradient, torch.full((len(x),), step), ball)
        torch.testing.assert_close(state["variable"], theirs, atol=1e-6, rtol=0)
        ours = Optimiser(task(saver, x, y), saver, CrossEntropy(), ball, search, "last").run().x_adv
        assert torch.equal(ours, ball.quantise(theirs, x))


def test_adam_in_tanh_space_is_torch_adam(saver, pictures):
    x, y = pictures[0][:8], pictures[1][:8]
    search, ball, objective = AdamTanh(lr=0.05, steps=6), Linf(16 / 255), HingeMargins()
    with untouched(saver):
        context = objective.prepare(saver, x)
        state = search.begin(x, ball, torch.zeros_like(x))
        theirs = state["variable"].clone().requires_grad_()
        optimiser = torch.optim.Adam([theirs], lr=0.05)
        for step in range(6):
            variable = state["variable"].detach().requires_grad_()
            (gradient,) = torch.autograd.grad(
                objective.measure(saver, ball.squash(variable, x), x, context, y).loss.sum(), variable
            )
            search.advance(state, gradient, torch.full((8,), step), ball)
            optimiser.zero_grad()
            objective.measure(saver, ball.squash(theirs, x), x, context, y).loss.sum().backward()
            optimiser.step()
    torch.testing.assert_close(state["variable"], theirs.detach(), atol=1e-4, rtol=1e-4)


def test_what_is_returned_is_the_best_that_was_visited(saver, pictures):
    """Against a plain loop that runs the hard pass on every iterate."""
    x, y = pictures[0][:16], pictures[1][:16]
    ball, objective, search = Linf(24 / 255), HingeMargins(), AdamTanh(steps=25)
    with untouched(saver):
        unaudited = Optimiser(task(saver, x, y), saver, objective, ball, search, "first").run()
        best = saver.infer(x).macs
        context = objective.prepare(saver, x)
        state = search.begin(x, ball, torch.zeros_like(x))
        for step in range(25):
            variable = state["variable"].detach().requires_grad_()
            point = ball.squash(variable, x)
            best = torch.maximum(best, saver.infer(ball.quantise(point.detach(), x).float() / 255).macs)
            (gradient,) = torch.autograd.grad(objective.measure(saver, point, x, context, y).loss.sum(), variable)
            search.advance(state, gradient, torch.full((16,), step), ball)
        best = torch.maximum(best, saver.infer(ball.quantise(ball.squash(state["variable"], x), x).float() / 255).macs)
    assert torch.equal(saver.infer(unaudited.x_adv.float() / 255).macs, best)
    assert unaudited.details["hard_checks"] < 26 * 16, "the hard pass ran on every iterate"


def test_a_sample_at_the_ceiling_costs_no_more_steps(saver, pictures):
    x, y = pictures[0][:12], pictures[1][:12]
    few = load_attack("ilfo", {"eps": "48/255", "steps": 300}).craft(saver, x, y)
    assert few.details["at_max_macs"] == 12
    assert few.details["steps_run"] < 0.5 * 12 * 300
    again = load_attack("ilfo", {"steps": 300}).craft(saver, few.images(), y)
    assert again.details["steps_run"] == 0
    assert torch.equal(again.x_adv, few.x_adv)


def test_the_pool_is_refilled_and_changes_nothing(saver, pictures, monkeypatch):
    x, y = pictures
    attack = load_attack("ilfo", {"eps": "24/255", "steps": 20})
    whole = attack.craft(saver, x, y)
    monkeypatch.setattr("adaptbench.attacks.engine.POOL", 6)
    small = attack.craft(saver, x, y)
    assert (whole.x_adv == small.x_adv).flatten(1).all(1).float().mean() >= 0.9
    assert torch.equal(saver.infer(whole.images()).macs, saver.infer(small.images()).macs)


def test_inside_a_steady_model_nobody_looks_whether_it_has_changed(saver, pictures):
    """Looks at each module were two thirds of a step on a small net."""
    first, before, classes = saver.max_macs, saver.heads[0], saver.n_classes
    with saver.steady(), saver.steady():
        assert saver.max_macs == first
        saver.heads[0] = nn.Sequential(before, nn.Linear(classes, classes))
        assert saver.max_macs == first
    try:
        assert saver.max_macs > first  # outside it is looked at again
    finally:
        saver.heads[0] = before
    assert saver.max_macs == first


def test_pushing_decisions_does_not_run_what_only_the_last_exit_answers_with(saver, pictures):
    x, y = pictures[0][:4], pictures[1][:4]
    ran = []
    hook = saver.heads[-1].register_forward_pre_hook(
        lambda module, given: ran.append(torch.is_grad_enabled() and len(given[0]) == 4)
    )
    try:
        load_attack("ilfo", {"steps": 3}).craft(saver, x, y)
        assert not any(ran)  # the hard pass may, and counting does; the pass with gradients does not
        load_attack("ilfo-kept", {"steps": 3}).craft(saver, x, y)
        assert any(ran)
    finally:
        hook.remove()


def test_a_flip_that_can_gain_nothing_is_not_checked(saver, pictures, monkeypatch):
    """Against an engine that checks each flip: the same pictures for fewer hard passes."""
    x, y = pictures[0][:24], pictures[1][:24]
    attack = load_attack("margin", {"eps": "12/255", "steps": 40})
    few = attack.craft(saver, x, y)
    monkeypatch.setattr(Optimiser, "_promising", lambda self, pool, on, margins, flipped: flipped)
    many = attack.craft(saver, x, y)
    assert few.details["hard_checks"] < many.details["hard_checks"]
    assert torch.equal(few.x_adv, many.x_adv)


def test_pushing_gates_that_plan_runs_no_block(pictures):
    model, (x, y) = random_model("planned"), (pictures[0][:4], pictures[1][:4])
    assert [decides_ahead(m) for m in (model, random_model("gated"))] == [True, False]
    ran = []
    for part in (model.stem, *model.bodies, model.head):
        part.register_forward_pre_hook(lambda module, given: ran.append(torch.is_grad_enabled() and len(given[0]) == 4))
    load_attack("margin", {"eps": "48/255", "steps": 3}).craft(model, x, y)
    assert ran  # by the hard pass
    assert not any(ran)
    load_attack("margin-kept", {"eps": "48/255", "steps": 3}).craft(model, x, y)
    assert any(ran)


@pytest.mark.parametrize("keep", ["first", "nearest", "deepest"])
def test_what_decisions_alone_tell_to_be_no_dearer_is_not_checked(pictures, monkeypatch, keep):
    """Against an engine that checks each of them: the same pictures, for fewer hard passes where a tie is no gain."""
    model, (x, y) = random_model("planned"), (pictures[0][:24], pictures[1][:24])

    def craft():
        return Optimiser(task(model, x, y), model, HingeMargins(), Linf(16 / 255), AdamTanh(0.1, 40), keep).run()

    few = craft()
    monkeypatch.setattr(Optimiser, "_dearer", lambda self, rows, pictures: torch.ones_like(rows, dtype=torch.bool))
    many = craft()
    assert torch.equal(few.x_adv, many.x_adv)
    assert (model.infer(few.x_adv.float() / 255).macs > model.infer(x).macs).any()
    fewer = many.details["hard_checks"] - few.details["hard_checks"]
    assert fewer > 0 if keep == "first" else fewer >= 0


class _Blind(ChainPolicy):
    """Leaves at once and has no slope: a masked gradient."""

    def margin(self, node, signals):
        return (signals.logits[:, 0].detach() * 0 - 1) + 0 * signals.logits[:, 0]


def test_a_masked_gradient_is_named(pictures):
    model = random_model("multi-exit")
    model.policy = _Blind()
    x, y = pictures[0][:10], pictures[1][:10]
    crafted = load_attack("ilfo", {"steps": 3, "unmask": 0}).craft(model, x, y)
    assert crafted.details["zero_gradient"] == crafted.details["started"] == 10
    assert "masked" in crafted.details["notes"][0]
    assert "notes" not in load_attack("ilfo", {"steps": 3}).craft(model, x, y).details


def test_a_saturated_head_is_still_attacked(pictures):
    """The margin is flat at p = 1 (its slope is lost in the ε of Adam), the pull to uniform heads is not."""
    torch.manual_seed(0)
    model = MultiExit([nn.Flatten(), nn.Linear(36, 8)], [nn.Linear(36, 4), nn.Linear(8, 4)], input_shape=SHAPE).eval()
    from adaptbench.policies import UniformThreshold

    model.policy = UniformThreshold(0.9)
    with torch.no_grad():
        model.heads[0].weight.mul_(26)
        model.heads[0].bias.copy_(torch.tensor([60.0, 0, 0, 0]))
    x, y = pictures[0][:10], pictures[1][:10]
    wide = {"constraint": "none", "steps": 150, "lr": 0.3}
    assert load_attack("ilfo", {**wide, "unmask": 0}).craft(model, x, y).details["at_max_macs"] == 0
    assert load_attack("ilfo", wide).craft(model, x, y).details["at_max_macs"] == 10


def test_nothing_depends_on_the_unit_of_the_margins(saver, pictures):
    class Scaled(ChainPolicy):
        def __init__(self, inner, factor):
            super().__init__()
            self.inner, self.factor = inner, factor

        def margin(self, node, signals):
            scores = self.inner.scores(node, signals)
            return (scores[:, 1] - scores[:, 0]) * self.factor

    x, y = pictures[0][:8], pictures[1][:8]
    plain, inner = [], saver.policy
    try:
        for factor in (1.0, 64.0):
            saver.policy = Scaled(inner, factor)
            context = HingeMargins(unmask=0).prepare(saver, x)
            plain.append(HingeMargins(unmask=0).measure(saver, x + 0.01, x, context, y).loss)
    finally:
        saver.policy = inner
    torch.testing.assert_close(plain[0], plain[1])


def test_unbounded_search_may_go_anywhere_in_the_box(saver, pictures):
    x = pictures[0][:3]
    assert torch.equal(Unbounded().project(torch.full_like(x, 7.0), x), torch.ones_like(x))


def test_join_puts_chunks_together(saver, pictures):
    x, y = pictures
    attack = load_attack("ilfo", {"steps": 5})
    ids = torch.arange(len(x))
    parts = [attack.craft(saver, x[s], y[s], ids=ids[s]) for s in (slice(0, 25), slice(25, 60))]
    whole = Crafted.join(parts)
    assert len(whole.x_adv) == len(whole.linf) == whole.details["n"] == 60
    assert whole.queries is None
    assert whole.details["steps_run"] == sum(p.details["steps_run"] for p in parts)
    assert whole.seconds == pytest.approx(sum(p.seconds for p in parts))


def test_joined_details_add_average_and_unite():
    def part(n, **details):
        zero = torch.zeros(n)
        return Crafted(
            torch.zeros(n, 1, 2, 2, dtype=torch.uint8), zero, zero, torch.ones(n, dtype=torch.int64), 1.0, details
        )

    joined = Crafted.join(
        [part(1, a=2, rho=0.5, notes=["x"]), part(3, a=3, rho=None, notes=["x", "y"]), part(3, rho=0.9)]
    )
    assert joined.details == {"a": 5, "rho": pytest.approx((0.5 + 2.7) / 4), "notes": ["x", "y"]}
    assert len(joined.queries) == 7


def test_the_curve_over_steps_is_what_shorter_searches_find(saver, pictures):
    """Adam knows nothing of its end: after ten steps a long search is where a short one ends, bar its last look."""
    x, y = pictures[0][:24], pictures[1][:24]
    found = load_attack("ilfo", {"steps": 30, "eps": 48 / 255}).craft(saver, x, y)
    curve = {int(k.rpartition("_")[2]): v for k, v in found.details.items() if k.startswith("macs_at_step_")}
    assert list(curve) == [1, 2, 5, 10, 20, 30]
    assert list(curve.values()) == sorted(curve.values())
    assert curve[30] == pytest.approx(saver.infer(found.images()).macs.double().mean().item())
    assert curve[1] == pytest.approx(saver.infer(x).macs.double().mean().item())
    short = load_attack("ilfo", {"steps": 10, "eps": 48 / 255}).craft(saver, x, y)
    assert curve[10] <= short.details["macs_at_step_10"] + 1e-6 <= curve[20] + saver.max_macs * 0.05
    kept = load_attack("ilfo", {"steps": 5, "label": "keep"}).craft(saver, x, y)
    assert not [k for k in kept.details if k.startswith("macs_at_step_")], "scores are no costs there"


def test_seconds_are_those_of_the_attack_and_not_of_its_checks(saver, pictures, monkeypatch):
    x, y = pictures
    attack, now = load_attack("ilfo", {"eps": 16 / 255, "steps": 2}), [0.0]
    monkeypatch.setattr(attack, "clock", lambda: now[0])
    for name, took in (("_craft", 1.0), ("_against_itself", 10.0), ("_measured", 100.0)):
        real = getattr(attack, name)

        def slow(*given, real=real, took=took):
            now[0] += took
            return real(*given)

        monkeypatch.setattr(attack, name, slow)
    assert attack.craft(saver, x, y).seconds == 1.0
    assert now[0] == 111.0
