"""Training by the table: doors of the strategies, parts of another training, phases apart, systems of plug-ins."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from adaptbench.adaptive import MultiExit
from adaptbench.data import load_data
from adaptbench.errors import CheckpointError, UsageError
from adaptbench.policies import UniformThreshold
from adaptbench.registry import MODELS
from adaptbench.zoo.loading import load_model
from adaptbench.zoo.parts import Part
from adaptbench.zoo.recipes import RECIPES, small_recipe
from adaptbench.zoo.systems import System
from adaptbench.zoo.trainer import train_system
from adaptbench.zoo.training.phase import Phase
from adaptbench.zoo.training.procedures import Exits
from adaptbench.zoo.training.strategies import STRATEGIES
from adaptbench.zoo.training.tokens import TokenHalting

PHASE = Phase(1, 0.1, 64, ema=0.9)


def build(nets):
    """A plug-in's net."""
    stages = [torch.nn.Sequential(nets.normalise(), torch.nn.Flatten(), torch.nn.Linear(64, 8)), torch.nn.ReLU()]
    return MultiExit(stages, [torch.nn.Linear(8, 10), torch.nn.Linear(8, 10)], input_shape=nets.shape)


ours = System(
    "ours",
    "a plug-in's net with its own training",
    "",
    {"small": "ours"},
    UniformThreshold,
    ("drop",),
    parts={"ours": Part(build, Exits(PHASE, "adaloss"))},
)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setitem(
        RECIPES,
        "digits",
        {
            "short": replace(
                small_recipe(PHASE, PHASE, PHASE, PHASE, eps=0.05, tokens=TokenHalting((PHASE, PHASE))), prices=(0.1,)
            )
        },
    )


def card_of(zoo, part):
    return json.loads((zoo / "digits" / f"{part}.json").read_text(encoding="utf-8"))


def test_every_strategy_has_a_door(tmp_path):
    """Each is in its card, and none trains what another does; "distilled" is "linear" in its first three quarters."""
    seen = {}
    for strategy in [None, *sorted(STRATEGIES.keys() - {"weighted", "boosted"}), "backtrack"]:
        zoo = tmp_path / str(strategy)
        train_system("multi-exit", load_data("digits"), zoo, strategy=strategy)
        card = card_of(zoo, "multi-exit")
        assert card["settings"]["strategy"] == strategy or strategy is None
        seen[strategy] = card["sha256"]
    assert seen.pop("distilled") == seen["linear"]
    assert len(set(seen.values())) == len(seen)


def test_boosted_exits_are_a_model_of_their_own(tmp_path):
    train_system("boosted-exits", load_data("digits"), tmp_path)
    assert card_of(tmp_path, "boosted-exits")["settings"]["strategy"] == "boosted"
    assert load_model("boosted-exits", "digits", zoo=tmp_path).infer(torch.rand(2, 1, 8, 8)).logits.shape == (2, 10)


def test_options_reach_the_strategy(tmp_path):
    train_system("multi-exit", load_data("digits"), tmp_path, strategy="weighted", options={"values": [0, 0, 0, 1]})
    card = card_of(tmp_path, "multi-exit")
    assert card["settings"]["options"] == {"values": [0, 0, 0, 1]}
    assert card["command"].endswith("--strategy weighted --strategy-option 'values=[0, 0, 0, 1]'")


@pytest.mark.parametrize(
    ("name", "strategy", "options", "told"),
    [
        ("softmax-threshold", "adalos", {}, "Did you mean 'adaloss'"),
        ("skipnet", "adaloss", {}, "train one of: multi-exit, boosted-exits"),
        ("multi-exit", "weighted", {}, "Its options: values"),
        ("multi-exit", "weighted", {"values": [1, 1]}, "2 weights were given to 4 exits"),
        ("multi-exit", "adaloss", {"decays": 0.9}, "Its options: decay"),
        ("multi-exit", "adaloss", {"decay": "much"}, "decay"),
        ("multi-exit", "boosted", {}, "whose exits answer each for itself"),
        ("multi-exit", "teacher", {}, "none of whose parts"),
    ],
)
def test_strategies_that_cannot_be_are_told(tmp_path, name, strategy, options, told):
    with pytest.raises(UsageError, match=told):
        train_system(name, load_data("digits"), tmp_path, strategy=strategy, options=options)


@pytest.mark.parametrize(
    ("change", "told"), [({"seed": 1}, "seed 0 → 1"), ({"strategy": "sdn"}, "strategy weighted → sdn")]
)
def test_a_finished_part_of_another_training_is_refused(tmp_path, change, told):
    """It was read back as what was asked for, and the card of what was built on it said so."""
    train_system("multi-exit", load_data("digits"), tmp_path)
    with pytest.raises(CheckpointError, match=told):
        train_system("multi-exit", load_data("digits"), tmp_path, **change)


def test_an_unfinished_part_is_not_gone_on_with_under_another_loss(tmp_path):
    class Killed(BaseException):
        pass

    def kill(name, record):
        raise Killed

    with pytest.raises(Killed):
        train_system("multi-exit", load_data("digits"), tmp_path, on_epoch=kill)
    with pytest.raises(CheckpointError, match="strategy weighted → linear"):
        train_system("multi-exit", load_data("digits"), tmp_path, strategy="linear")
    train_system("multi-exit", load_data("digits"), tmp_path)


@pytest.mark.slow
def test_a_killed_training_of_several_parts_ends_in_the_same_bytes(tmp_path):
    told = []

    def kill(name, record):
        told.append(name)
        if name == "ladder.large":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_system("learned-cascade", load_data("digits"), tmp_path / "killed", on_epoch=kill)
    assert told == ["ladder.small", "ladder.medium", "ladder.large"]
    for zoo in ("killed", "whole"):
        train_system("learned-cascade", load_data("digits"), tmp_path / zoo)
    one, other = (tmp_path / zoo / "digits" for zoo in ("killed", "whole"))
    for file in ("ladder", "cascade", "learned-cascade.policy"):
        assert (one / f"{file}.safetensors").read_bytes() == (other / f"{file}.safetensors").read_bytes(), file


def test_a_plug_in_brings_a_model_with_its_own_training(tmp_path, monkeypatch):
    from adaptbench.registry import Registry

    table = Registry("model", "models", {"ours": (f"{__name__}:ours", "ours")})
    for room in ("loading", "trainer"):
        monkeypatch.setattr(f"adaptbench.zoo.{room}.MODELS", table)
    assert "ours" not in MODELS
    train_system("ours", load_data("digits"), tmp_path)
    model = load_model("ours", "digits", zoo=tmp_path)
    assert model.policy_name == "uniform"
    assert card_of(tmp_path, "ours")["settings"]["strategy"] == "adaloss"
