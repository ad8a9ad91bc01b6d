"""What attacks learn beforehand is a cell of the run: once, whoever crafts, and not again after a kill."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from attack_toys import faint_pictures

from adaptbench.attacks import bomb, ereba_disjoint, load_attack, universal
from adaptbench.bench.kept_learning import learned_in
from adaptbench.bench.plan import make_plan
from adaptbench.bench.runner import run_suite
from adaptbench.bench.suite import load_suite
from adaptbench.errors import CapabilityError
from adaptbench.experiment.options import Options
from adaptbench.results.writer import RunWriter

FIT = {"queries": 6, "fit_steps": 5, "steps": 3, "rounds": 1, "climbs": 2, "probes": 2}
LESSONS = {
    "universal-noise": ({"steps": 4, "pictures": 40}, (universal._Crafting, "run")),
    "deepsloth-class-universal": ({"steps": 2, "pictures": 20, "batch": 10}, (universal._Crafting, "run")),
    "ereba-disjoint": ({**FIT, "fit_pictures": 30}, (ereba_disjoint.DisjointAttack, "_fitted")),
    "ereba-universal": ({**FIT, "shared": {"all": {"pictures": 30, "batch": 5}}}, (bomb.BombAttack, "_make")),
}


@pytest.fixture(scope="module")
def own() -> tuple[torch.Tensor, torch.Tensor]:
    return faint_pictures(160, 5)


@pytest.fixture(params=LESSONS)
def lesson(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, Any], list[int]]:
    """A recipe, its settings, and one entry each time that somebody learns."""
    settings, (home, name) = LESSONS[request.param]
    learned: list[int] = []
    real = getattr(home, name)

    def counted(self: Any, *args: Any) -> Any:
        learned.append(1)
        return real(self, *args)

    monkeypatch.setattr(home, name, counted)
    return request.param, settings, learned


def test_what_was_learned_is_handed_on_and_crafts_the_same_bytes(lesson, saver, pictures, own, tmp_path: Path) -> None:
    name, settings, learned = lesson
    x, y = pictures[0][:12], pictures[1][:12]
    alone = load_attack(name, settings).craft(saver, x, y, crafting=own)
    crafting = _split(own)
    cells = RunWriter(tmp_path / "run")
    for _ in range(2):  # the second reads the cell that a killed run left
        lessons = learned_in(cells, load_attack(name, settings), saver, crafting, seed=0, device="cpu")
    assert lessons is not None
    before = len(learned)
    halves = [
        load_attack(name, settings).craft(saver, x[s], y[s], ids=torch.arange(12)[s], crafting=own, learned=lessons)
        for s in (slice(0, 5), slice(5, 12))
    ]
    assert len(learned) == before, "a chunk learned again"
    assert torch.equal(torch.cat([half.x_adv for half in halves]), alone.x_adv)
    for half in halves:
        assert half.details["training_s"] == lessons.told["training_s"]
        assert half.details["changes" if "universal" in name else "fit_queries"] is not None
        assert half.seconds < 60


def test_a_killed_run_learns_nothing_again(lesson, tmp_path: Path) -> None:
    name, settings, learned = lesson
    overrides = ["data=digits", "models=[softmax-threshold]", "limit=8", "chunk=4", "measure=null", "gate={}"]
    suite = load_suite("ci", [*overrides, f"conditions=[clean, {{{name}: {_flow(settings)}}}]"])
    run = run_suite(suite, out=tmp_path)
    once = len(learned)
    assert once == (10 if "class" in name else 1)
    plan = make_plan(suite, Options(out=tmp_path))
    (attacked,) = [e for e in plan.evaluations if e.attack]
    for key in [attacked.key, *plan.chunk_keys(attacked)]:
        for cell in (tmp_path / "cells").glob(f"{key}*"):
            cell.unlink()
    (tmp_path / "manifest.json").unlink()
    again = run_suite(suite, out=tmp_path)
    assert len(learned) == once
    told = [next(c for c in r.cases if c["condition"] == name) for r in (run, again)]
    assert told[0]["inputs_sha256"] == told[1]["inputs_sha256"]
    assert told[0]["craft_details"]["training_s"] == told[1]["craft_details"]["training_s"]


def test_queries_after_the_fit_change_the_attack_and_not_what_it_learned() -> None:
    short, long, other = (load_attack("ereba-disjoint", FIT | more) for more in ({}, {"queries": 9}, {"probes": 3}))
    assert short.learns_as == long.learns_as != other.learns_as
    assert short.sha256 != long.sha256


def test_what_is_of_another_attack_is_refused(saver, pictures, own) -> None:
    x, y = pictures[0][:4], pictures[1][:4]
    attack = load_attack("ereba-disjoint", LESSONS["ereba-disjoint"][0])
    given = attack.learn(saver, _split(own))
    wrong = replace(given, tensors={**given.tensors, "layers.0.weight": torch.zeros(1)})
    with pytest.raises(CapabilityError, match="of another size"):
        attack.craft(saver, x, y, crafting=own, learned=wrong)
    classes = load_attack("deepsloth-class-universal", LESSONS["deepsloth-class-universal"][0])
    lone = own[1] != int(y[0])
    given = classes.learn(saver, _split((own[0][lone], own[1][lone])))
    with pytest.raises(CapabilityError, match=f"no change of class {int(y[0])}"):
        classes.craft(saver, x, y, crafting=own, learned=given)


def _split(pictures: tuple[torch.Tensor, torch.Tensor]) -> Any:
    from adaptbench.adaptive import Split

    x, y = pictures
    return Split("faint", "calibration", (x * 255).round().byte(), y, torch.arange(len(x)), tuple("abcd"))


def _flow(settings: dict[str, Any]) -> str:
    """As YAML has it in one line."""
    inner = (f"{key}: {_flow(value) if isinstance(value, dict) else value}" for key, value in settings.items())
    return "{" + ", ".join(inner) + "}"
