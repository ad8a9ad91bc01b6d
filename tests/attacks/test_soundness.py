"""What an attack says against itself: each check with a planted fault that it must find, and none without."""

from __future__ import annotations

import copy

import pytest
import torch
from attack_toys import random_model
from torch import nn

from adaptbench.adaptive import ChainPolicy
from adaptbench.attacks import load_attack
from adaptbench.attacks.base import TRAINING, Task
from adaptbench.attacks.constraints import Linf
from adaptbench.attacks.objectives import HingeMargins
from adaptbench.attacks.purity import untouched
from adaptbench.attacks.soundness import PROBED, doubts, slopes, with_doubts


class Straight(ChainPolicy):
    """Leaves at once, with the slope that it should have."""

    def margin(self, node, signals):
        return 0.2 - signals.logits.softmax(-1).amax(-1)


class Hard(Straight):
    """The same without a slope: the straight-through part was forgotten."""

    def margin(self, node, signals):
        return super().margin(node, signals).detach() + 0 * signals.logits[:, 0]


class Another(Straight):
    """The slope is that of something else."""

    def margin(self, node, signals):
        return super().margin(node, signals).detach() + (wrong := 9 * signals.logits[:, 1]) - wrong.detach()


def checked(policy, pictures, **hinge):
    model = random_model("multi-exit")
    model.policy = policy
    x, y = pictures[0][:8], pictures[1][:8]
    task = Task(model, x, y, torch.arange(8), 0, None, lambda done, n: None)
    with untouched(model), torch.enable_grad():
        return slopes(task, model, HingeMargins(unmask=0, **hinge))


def test_a_sound_slope_is_let_pass(pictures):
    counts = checked(Straight(), pictures)
    assert counts == {"slopes_checked": PROBED, "slopes_masked": 0, "slopes_differ": 0}
    assert not doubts({"n": 8, **counts})


def test_decisions_without_a_slope_are_found(pictures):
    counts = checked(Hard(), pictures)
    assert counts["slopes_masked"] == PROBED
    assert "gradient is masked" in doubts({"n": 8, **counts})[0]


def test_a_slope_of_something_else_is_found(pictures):
    counts = checked(Another(), pictures)
    assert counts["slopes_differ"] == PROBED
    assert "does not go where its gradient points" in doubts({"n": 8, **counts})[0]


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["multi-exit", "cascade", "dag", "gated"])
def test_shipped_attacks_have_no_doubts_on_any_shape(shape, pictures):
    x, y = pictures[0][:8], pictures[1][:8]
    for name in ("ilfo", "standard"):
        settings = {"steps": 5} if name == "ilfo" else {}
        crafted = load_attack(name, settings).craft(random_model(shape), x, y)
        assert crafted.details["slopes_checked"] == PROBED
        assert not [said for said in doubts(crafted.details) if "slope" in said or "gradient" in said]


def test_a_relaxation_that_promises_what_rounding_takes_back_is_found(saver, pictures, monkeypatch):
    x, y = pictures[0][:12], pictures[1][:12]
    attack = load_attack("ilfo", {"eps": 64 / 255, "steps": 40})
    sound = attack.craft(saver, x, y).details
    assert sound["relaxed_open"] > 6
    assert not sound["closed_by_hard_pass"]
    assert 0 < sound["rounding_linf_mean"] <= 0.5 / 255 + 1e-6
    monkeypatch.setattr(Linf, "quantise", lambda self, moved, clean: (clean * 255).round().to(torch.uint8))
    faulty = attack.craft(saver, x, y).details
    assert faulty["closed_by_hard_pass"] == faulty["relaxed_open"] > 6
    assert any("relaxation calls the dearest path open" in said for said in doubts(faulty))


def test_a_ball_that_is_left_is_said(saver, pictures, monkeypatch):
    x, y = pictures[0][:5], pictures[1][:5]
    monkeypatch.setattr(Linf, "quantise", lambda self, moved, clean: ((1 - clean) * 255).round().to(torch.uint8))
    details = load_attack("noise").craft(saver, x, y).details
    assert "5 of 5 pictures lie outside the constraint" in doubts(details)[0]


def test_train_mode_is_said_and_changes_nothing(saver, pictures):
    x, y = pictures[0][:6], pictures[1][:6]
    attack = load_attack("ilfo", {"steps": 10, "eps": 32 / 255})
    sound = attack.craft(saver, x, y)
    assert TRAINING not in sound.details.get("notes", [])
    handed_over = copy.deepcopy(saver)
    handed_over.stages[1].append(nn.Dropout(0.5))
    handed = attack.craft(handed_over.train(), x, y)
    assert TRAINING in handed.details["notes"]
    assert torch.equal(handed.x_adv, sound.x_adv)


@pytest.mark.slow
def test_an_estimator_that_learned_nothing_is_said(saver, pictures, monkeypatch):
    from adaptbench.attacks.estimator import Estimator

    x, y = pictures[0][:12], pictures[1][:12]
    attack = load_attack("ereba", {"queries": 60, "rounds": 2, "eps": 64 / 255})
    sound = attack.craft(saver, x, y).details
    assert sound["estimator_spearman_within"] > 0.3
    assert not doubts(sound)
    monkeypatch.setattr(Estimator, "logit", lambda self, x: 0 * (x.flatten(1).sum(1) + self.layers[-1].bias))
    faulty = attack.craft(saver, x, y).details
    assert any("the estimator learned nothing" in said for said in with_doubts(faulty)["notes"])


def test_doubts_join_the_notes_once():
    details = {"n": 4, "outside_constraint": 2, "notes": ["a deadline"]}
    assert with_doubts(with_doubts(details)) == with_doubts(details)
    assert with_doubts(details)["notes"][0] == "a deadline"
    assert with_doubts({"n": 4}) == {"n": 4}
