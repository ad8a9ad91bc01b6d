"""One gate alone: who judges it, what never opens, and what every gate together would cost."""

import pytest
import torch
from attack_toys import random_model

from adaptbench.attacks import load_attack
from adaptbench.attacks.constraints import Linf
from adaptbench.attacks.gates import OneGate
from adaptbench.attacks.gates_alone import each_alone
from adaptbench.attacks.judging import GateJudge
from adaptbench.attacks.loading import build
from adaptbench.attacks.recipe import make_recipe
from adaptbench.errors import CapabilityError, RecipeError


def grey(n, seed=5):
    return (torch.rand(n, 1, 6, 6, generator=torch.Generator().manual_seed(seed)) * 255).round() / 255


def net(bias):
    """Three gates; each of them shut or opened on most pictures by a bias."""
    model = random_model("gated")
    with torch.no_grad():
        for gate, shift in zip(model.gates.gates, bias, strict=True):
            gate.bias += shift
    return model


@pytest.mark.parametrize("gate", [1, 2, 3])
def test_a_gate_that_can_open_is_opened_and_it_is_the_one_that_was_asked_for(gate):
    model, x = net([-0.3] * 3), grey(16)
    crafted = load_attack("one-gate", {"gate": gate, "eps": "64/255"}).craft(model, x, torch.zeros(16).long())
    before, after = model.infer(x).path[:, gate], model.infer(crafted.images()).path[:, gate]
    assert after[before].all()
    assert int(after.sum()) > int(before.sum())
    assert crafted.details["gate_open"] == int(after.sum())


def test_a_picture_that_is_dearer_with_the_gate_shut_is_no_success():
    model, x = net([0, -1e6, 0]), grey(16)
    crafted = load_attack("one-gate", {"gate": 2, "eps": "64/255"}).craft(model, x, torch.zeros(16).long())
    assert crafted.details["gate_open"] == 0
    assert (crafted.images() - x).abs().max() < 1 / 255, "nothing opened the gate, so the clean picture stays"


def test_the_loss_is_the_hinge_of_one_gate_and_its_slope_goes_through_the_gates_before_it():
    model, x = net([0, 0, 0]), grey(8).requires_grad_()
    objective = OneGate(gate=3)
    context = objective.prepare(model, x.detach())
    goal = objective.measure(model, x, x, context, torch.zeros(8).long())
    margins = model.relax(x.detach(), temperature=1.0).margins
    assert torch.allclose(goal.loss, (0.05 - margins[:, 2] / context["scale"][:, 2]).clamp_min(0))
    assert torch.equal(goal.reached, margins[:, 2] > 0)
    with torch.no_grad():
        model.gates.gates[2].weight.zero_()
    before = objective.measure(model, x, x, context, torch.zeros(8).long())
    (slope,) = torch.autograd.grad(before.loss.sum(), x)
    assert (slope == 0).all(), "a gate that looks at nothing has no slope, though the others have"


def test_a_planted_gate_that_never_opens_is_the_nets_limit_and_stands_in_the_bound():
    model, x = net([-0.3, -1e6, -0.3]), grey(12)
    dear = load_attack("standard", {"eps": "8/255"}).craft(model, x, torch.zeros(12).long())
    found = each_alone(model, x, torch.zeros(12).long(), dear.x_adv, Linf(64 / 255))
    assert not found.ever[:, 1].any()
    assert found.alone.any(), "in a ball eight times as large something opens that the attack left closed"
    assert not (found.alone & (found.clean | found.dear)).any()
    assert sum(found.by.values()) == int(found.alone.sum())
    bound, reached = found.bound(model.min_macs), model.infer(dear.images()).macs
    assert (bound >= reached).all()
    assert (bound <= model.max_macs - found.macs[1]).all()


def test_nothing_is_searched_where_every_gate_is_open():
    model, x = net([1e6] * 3), grey(4)
    found = each_alone(model, x, torch.zeros(4).long(), (x * 255).round().byte(), Linf(8 / 255))
    assert found.clean.all()
    assert found.steps == 0
    assert (found.bound(model.min_macs) == model.max_macs).all()


def test_what_it_means_nothing_on_is_refused_in_words():
    attack = load_attack("one-gate", {"gate": 4})
    assert "the net has 3" in attack.applies_to(random_model("gated"))
    assert "made for gates" in attack.applies_to(random_model("cascade"))
    assert attack.settings["aim"] == "one-gate"
    members = [{"objective": name, "search": "momentum"} for name in ("hinge-margins", "one-gate")]
    with pytest.raises(RecipeError, match="judged by cost"):
        build("t", make_recipe({"title": "t", "constraint": {"linf": {"eps": "8/255"}}, "members": members}, "t"), "t")
    with pytest.raises(CapabilityError, match="no gates"):
        each_alone(random_model("dag"), grey(2), torch.zeros(2).long(), grey(2).byte(), Linf(8 / 255))


def test_with_the_answer_kept_a_gate_counts_only_under_the_same_answer():
    model, x = net([-0.3] * 3), grey(16)
    answers = model.infer(x).predictions
    crafted = load_attack("one-gate", {"gate": 2, "eps": "64/255", "label": "keep"}).craft(model, x, answers)
    assert torch.equal(model.infer(crafted.images()).predictions, answers)
    judge = GateJudge(model, x, answers, gate=2, label="keep")
    other = (x.roll(1, 0) * 255).round().byte()
    changed = model.infer(x.roll(1, 0)).predictions != answers
    assert changed.any()
    assert (judge.score(torch.arange(16), other)[changed] == -1).all()
