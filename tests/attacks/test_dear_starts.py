"""Searches that begin on the way towards other pictures that are dear as they are."""

from __future__ import annotations

import pytest
import torch
from attack_toys import faint_pictures

from adaptbench.adaptive import Split
from adaptbench.attacks.base import Learned, to_bytes
from adaptbench.attacks.constraints import Linf
from adaptbench.attacks.dear_starts import KEPT, towards
from adaptbench.attacks.judging import Best, Judge
from adaptbench.attacks.loading import build
from adaptbench.attacks.recipe import make_recipe
from adaptbench.errors import CapabilityError, LeakageError

EPS = 16 / 255


def ensemble(start="dear", steps=6, objective="hinge-margins", **more):
    members = [{"objective": objective, "search": {"momentum": {"steps": steps}}, "start": start}]
    content = {"title": "t", "constraint": {"linf": {"eps": EPS}}, "members": members, **more}
    return build("tried", make_recipe(content, "t"), "t")


@pytest.fixture(scope="module")
def own():
    return faint_pictures(120, 5)


def test_the_dearest_crafting_pictures_are_kept_the_first_of_equals(saver, own):
    learned = ensemble().learn(saver, own)
    macs = saver.infer(to_bytes(own[0]).float() / 255).macs.tolist()
    wanted = sorted(range(len(macs)), key=lambda i: (-macs[i], i))[:KEPT]
    assert torch.equal(learned.tensors["dear"], to_bytes(own[0])[wanted])
    assert learned.told["training_queries"] == 120
    assert learned.told["dear_starts_macs"] == pytest.approx(sum(macs[i] for i in wanted) / KEPT)


def test_each_picture_begins_at_the_dearest_clipped_way(saver, pictures, own):
    """Against every way tried by hand, picture by picture."""
    x, ball = to_bytes(pictures[0][:20]).float() / 255, Linf(EPS)
    dear = ensemble().learn(saver, own).tensors["dear"]
    best = Best(Judge(saver, x, pictures[1][:20]), "first")
    found = towards(best, ball, dear, torch.arange(20), x)
    assert float((found - x).abs().max()) <= EPS + 1e-6
    for row in range(20):
        ways = [(x[row] + (one.float() / 255 - x[row]).clamp(-EPS, EPS)).clamp(0, 1) for one in dear]
        costs = [int(saver.infer(to_bytes(way[None]).float() / 255).macs) for way in ways]
        assert torch.allclose(found[row], ways[costs.index(max(costs))], atol=1e-6), "the first of equals"
        assert int(best.score[row]) == max(*costs, int(saver.infer(x[row : row + 1]).macs))


def test_nothing_else_of_a_run_with_it_changes_and_without_it_nothing_is_needed(saver, pictures, own):
    x, y = pictures[0][:16], pictures[1][:16]
    plain, dear = ensemble("noise"), ensemble()
    assert (plain.needs_crafting, plain.learns, dear.needs_crafting, dear.learns) == (False, False, True, True)
    assert plain.sha256 != dear.sha256
    assert dear.settings["members"] == [title.replace("from noise", "from dear") for title in plain.settings["members"]]
    whole = dear.craft(saver, x, y, crafting=own)
    learned = dear.learn(saver, own)
    halves = [
        ensemble().craft(saver, x[s], y[s], ids=torch.arange(16)[s], crafting=own, learned=learned).x_adv
        for s in (slice(0, 5), slice(5, 16))
    ]
    assert torch.equal(torch.cat(halves), whole.x_adv)
    back = torch.arange(15, -1, -1)
    assert torch.equal(dear.craft(saver, x[back], y[back], ids=back, crafting=own).x_adv[back], whole.x_adv)
    assert ensemble(steps=9).learns_as == dear.learns_as, "what is dear hangs on no member"


def test_a_kept_answer_is_kept(saver, pictures, own):
    x = pictures[0][:20]
    y = saver.infer(x).predictions
    made = ensemble(label="keep", steps=3).craft(saver, x, y, crafting=own)
    assert torch.equal(saver.infer(made.images()).predictions, y)


def test_it_needs_pictures_of_its_own(saver, pictures, own):
    x, y = pictures[0][:4], pictures[1][:4]
    with pytest.raises(CapabilityError, match="none were given"):
        ensemble().craft(saver, x, y)
    with pytest.raises(LeakageError, match="1 of the crafting"):
        ensemble().craft(saver, x, y, crafting=(torch.cat([own[0], x[:1]]), torch.cat([own[1], y[:1]])))
    judged = Split("faint", "test", to_bytes(own[0]), own[1], torch.arange(120), tuple("abcd"))
    with pytest.raises(LeakageError):
        ensemble().craft(saver, x, y, crafting=judged)
    with pytest.raises(CapabilityError, match="needs 10"):
        ensemble().learn(saver, (own[0][:9], own[1][:9]))


def test_a_set_without_a_dear_picture_is_said(saver, pictures, own):
    """All crafting pictures are one picture: nothing is dearer than anything."""
    same = (own[0][:1].expand(12, -1, -1, -1), own[1][:1].expand(12))
    learned = ensemble().learn(saver, same)
    assert isinstance(learned, Learned)
    assert "no crafting picture is dearer" in learned.told["notes"][0]
    made = ensemble().craft(saver, pictures[0][:4], pictures[1][:4], crafting=same)
    assert any("no crafting picture is dearer" in note for note in made.details["notes"])
