import json
import sys

import pytest
import torch

from adaptbench.attacks import load_attack
from adaptbench.attacks.torchattack import class_names
from adaptbench.errors import MissingExtraError, RecipeError, UnknownNameError

pytest.importorskip("torchattacks")

FAST = {
    "GN": {}, "FGSM": {}, "BIM": {"steps": 2}, "PGD": {"steps": 2}, "MIFGSM": {"steps": 2}, "APGD": {"steps": 2},
    "CW": {"steps": 3}, "PGDL2": {"steps": 2, "eps": 0.3}, "DeepFool": {"steps": 2}, "Square": {"n_queries": 5},
    "SPSA": {"nb_sample": 4, "max_batch_size": 4}, "FAB": {"steps": 2, "n_classes": 4},
    "OnePixel": {"steps": 1, "popsize": 2},
    "Pixle": {"restarts": 1, "max_iterations": 1, "x_dimensions": [1, 2], "y_dimensions": [1, 2]}, "UPGD": {"steps": 2},
}  # fmt: skip


@pytest.mark.parametrize("name", FAST)
def test_classes_run_by_name_and_are_audited(name, saver, pictures, capsys):
    x, y = pictures[0][:6], pictures[1][:6]
    attack = load_attack(f"torchattacks/{name}", FAST[name])
    crafted = attack.craft(saver, x, y, seed=3)
    assert crafted.x_adv.shape == x.shape
    assert not crafted.details.get("outside_constraint")
    if "eps" in attack.settings and attack.ball is not None:
        assert float((crafted.l2 if name == "PGDL2" else crafted.linf).max()) <= attack.settings["eps"] + 1e-6
    assert json.dumps(attack.settings)
    assert capsys.readouterr().out == ""


def test_pgd_is_what_torchattacks_computes(saver, pictures):
    import torchattacks

    x, y = pictures
    ours = load_attack("torchattacks/PGD", {"eps": "8/255", "alpha": "2/255", "steps": 4, "random_start": False})
    theirs = torchattacks.PGD(saver, eps=8 / 255, alpha=2 / 255, steps=4, random_start=False)(x, y)
    assert torch.equal(ours.craft(saver, x, y).x_adv, (theirs * 255).round().to(torch.uint8))
    assert ours.settings["eps"] == 8 / 255


def test_the_seed_decides_random_starts(saver, pictures):
    x, y = pictures
    attack = load_attack("torchattacks/PGD", {"steps": 1})
    assert torch.equal(attack.craft(saver, x, y, seed=1).x_adv, attack.craft(saver, x, y, seed=1).x_adv)
    assert not torch.equal(attack.craft(saver, x, y, seed=1).x_adv, attack.craft(saver, x, y, seed=2).x_adv)


class _Clock:
    """A clock that moves a second a look."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 1.0
        return self.now


def test_a_deadline_stops_the_loop_and_keeps_what_is_finished(saver, pictures, monkeypatch):
    monkeypatch.setattr("adaptbench.attacks.torchattack.CHUNK", 20)
    x, y = pictures
    attack = load_attack("torchattacks/PGD", {"steps": 10, "deadline_s": 25})
    attack.clock = _Clock()
    crafted = attack.craft(saver, x, y)
    assert crafted.details["unfinished"] == 20
    assert "deadline of 25 s" in crafted.details["notes"][0]
    assert (crafted.linf[:40] > 0).all()
    assert (crafted.linf[40:] == 0).all()


def test_a_deadline_that_leaves_nothing_gives_clean_pictures(saver, pictures):
    attack = load_attack("torchattacks/SparseFool", {"deadline_s": 2})
    attack.clock = _Clock()
    crafted = attack.craft(saver, *pictures)
    assert crafted.details["unfinished"] == len(crafted.x_adv)
    assert float(crafted.linf.max()) == 0


def test_every_listed_class_can_be_made():
    names = class_names()
    assert {"PGD", "AutoAttack", "SparseFool"} <= set(names)
    assert not {"LGV", "MultiAttack"} & set(names)
    for name in names:
        attack = load_attack(f"torchattacks/{name}")
        assert json.loads(json.dumps(attack.settings)) == attack.settings
        assert attack.kind == ("control" if name in ("GN", "VANILA") else "attack")


def test_wrong_names_and_keywords_offer_the_nearest():
    with pytest.raises(UnknownNameError, match="Did you mean 'torchattacks/PGDL2'"):
        load_attack("torchattacks/pgdl")
    with pytest.raises(RecipeError, match="Did you mean 'steps'"):
        load_attack("torchattacks/PGD", {"step": 3})
    with pytest.raises(RecipeError, match="deadline_s"):
        load_attack("torchattacks/PGD", {"deadline_s": -1})
    with pytest.raises(UnknownNameError):
        load_attack("torchattacks/LGV")


def test_without_torchattacks_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchattacks", None)
    with pytest.raises(MissingExtraError, match=r"adaptbench\[attacks\]"):
        load_attack("torchattacks/PGD")
