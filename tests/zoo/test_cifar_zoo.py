"""CIFAR parts and systems: trained on toy pictures, read back, put together; names and mistakes."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from adaptbench.adaptive import DecisionGraph, GatedNetwork, Split
from adaptbench.errors import CheckpointError, UnknownNameError, UsageError
from adaptbench.models.cifar import CIFAR_NETS, CifarNets
from adaptbench.registry import MODELS
from adaptbench.zoo import loading, parts, systems
from adaptbench.zoo.loading import load_system, net_on
from adaptbench.zoo.recipes import DEPTHS, RECIPES, cifar_recipe
from adaptbench.zoo.trainer import train_system
from adaptbench.zoo.training import procedures
from adaptbench.zoo.training.phase import Phase
from adaptbench.zoo.training.procedures import BlockDropPlan, Halting, SkipNet
from adaptbench.zoo.training.tokens import TokenHalting

TOY = CifarNets("cifar10", 10, (8, 20), 20)
TINY = Phase(1, 0.01, 16, "none", sizes=((0.0, 8),))
PLAIN = Phase(1, 0.01, 16, "none")


class ToyData:
    name = "cifar10"

    def split(self, role):
        n = {"train": 32, "calibration": 100, "test": 20}[role]
        generator = torch.Generator().manual_seed(len(role))
        x = torch.randint(0, 256, (n, 3, 32, 32), generator=generator, dtype=torch.uint8)
        y = torch.arange(n) % 10
        return Split("cifar10", role, x, y, torch.arange(n), tuple("abcdefghij"))


def toy_recipe(**plan):
    return cifar_recipe(
        nets={8: TINY, 20: TINY},
        heads=PLAIN,
        joint=TINY,
        gates=SkipNet((TINY, TINY)),
        plan=BlockDropPlan((TINY, TINY), **plan),
        halting=Halting(TINY, 0.1),
        tokens=TokenHalting((TINY, TINY)),
        scratch=TINY,
        grown={20: 8},
        prices=(0.1, 0.3),
    )


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setitem(RECIPES, "cifar10", {"short": toy_recipe()})
    monkeypatch.setitem(parts.NETS, "cifar10", TOY)


@pytest.mark.slow
def test_a_cascade_is_trained_read_back_and_runs(tmp_path, quick):
    files = train_system("dag-selection", ToyData(), tmp_path)
    assert {f.name for f in files} == {
        "resnet8.safetensors", "resnet8.json", "resnet20.safetensors", "resnet20.json",
        "dag-selection.policy.safetensors", "dag-selection.policy.json",
    }  # fmt: skip
    loaded = load_system("dag-selection", "cifar10", zoo=tmp_path)
    assert loaded.model.node_names == ("resnet8", "resnet20")
    assert loaded.card["weights"]["resnet20"]["settings"]["grown_from"] == 8
    inference = loaded.model.infer(ToyData().split("test").images())
    assert len(inference) == 20
    card = json.loads((tmp_path / "cifar10" / "resnet20.json").read_text())
    assert set(card["accuracy_test"]) == {"resnet20"}
    assert [h["epoch"] for h in card["history"]] == [1]
    assert {"accuracy_calibration", "nll"} <= set(card["history"][0])
    kernels = load_file(tmp_path / "cifar10" / "resnet20.safetensors")
    assert kernels["stage1_0.body.0.0.weight"].dtype == torch.float16
    assert kernels["stage1_0.body.0.1.running_var"].dtype == torch.float32


@pytest.mark.slow
def test_exits_are_bolted_onto_the_net_as_trained(tmp_path, quick):
    train_system("resnet20", ToyData(), tmp_path)
    before = (tmp_path / "cifar10" / "resnet20.safetensors").read_bytes()
    train_system("sdn", ToyData(), tmp_path)
    train_system("exits-and-nets", ToyData(), tmp_path)
    weights = load_file(tmp_path / "cifar10" / "resnet20.safetensors")
    x = ToyData().split("test").images()
    net = load_system("resnet20", "cifar10", zoo=tmp_path).model
    for name in ("sdn", "exits-and-nets"):
        model = load_system(name, "cifar10", zoo=tmp_path).model
        assert isinstance(model, DecisionGraph)
        torch.testing.assert_close(model.dense_logits(x)[:, -1], net.dense_logits(x)[:, 0])
    assert (tmp_path / "cifar10" / "resnet20.safetensors").read_bytes() == before
    assert weights.keys() == net.stages[0].state_dict().keys()


@pytest.mark.parametrize(
    "part", ["resnet20-paper-joint", "resnet20-class-means", "skipnet20-rnn", "blockdrop20", "act20"]
)
def test_every_kind_of_part_trains(tmp_path, quick, part):
    train_system(part, ToyData(), tmp_path)
    card = json.loads((tmp_path / "cifar10" / f"{part}.json").read_text())
    assert card["part"] == part
    assert card["command"] == f"adaptbench train {part} --data cifar10"


def test_frozen_heads_may_learn_from_the_last_exit(tmp_path, quick):
    with pytest.raises(UsageError, match="Its options: distil, temperature"):
        train_system("resnet8-paper-heads", ToyData(), tmp_path, strategy="teacher", options={"alpha": 1})
    train_system("resnet8-paper-heads", ToyData(), tmp_path, strategy="teacher", options={"temperature": 2.0})
    card = json.loads((tmp_path / "cifar10" / "resnet8-paper-heads.json").read_text())
    assert card["settings"]["distil"] == 1.0
    assert card["command"].endswith(
        "--strategy teacher --strategy-option 'distil=1.0' --strategy-option 'temperature=2.0'"
    )


@pytest.mark.slow
def test_a_plan_started_straight_through_begins_from_the_small_net_and_says_so(tmp_path, quick, monkeypatch):
    monkeypatch.setitem(RECIPES, "cifar10", {"short": toy_recipe(plan_rate=0.5)})
    begun = []
    fit = procedures.fit

    def seen(module, *args, **settings):
        if settings["checkpoint"].name.startswith("blockdrop"):
            begun.append({k: v.clone() for k, v in module.gates.planner.state_dict().items()})
        return fit(module, *args, **settings)

    monkeypatch.setattr(procedures, "fit", seen)
    train_system("blockdrop20", ToyData(), tmp_path)
    card = json.loads((tmp_path / "cifar10" / "blockdrop20.json").read_text())
    small = load_file(tmp_path / "cifar10" / "resnet8.safetensors")
    (planner,) = begun
    for name, tensor in small.items():
        if not name.startswith("head."):
            torch.testing.assert_close(planner[name], tensor.to(planner[name].dtype), msg=name)
    assert card["settings"]["plan_rate"] == 0.5
    assert [h["phase"] for h in card["history"]] == ["blockdrop20.before", "blockdrop20.joint"]


@pytest.mark.slow
@pytest.mark.parametrize("part", ["skipnet20-rnn", "blockdrop20"])
def test_gated_nets_are_moved_before_their_first_training(tmp_path, quick, monkeypatch, part):
    """An objective's buffers are made where the net is; a net moved later, or never, trains on the CPU."""
    seen = []
    move = GatedNetwork.to
    monkeypatch.setattr(GatedNetwork, "to", lambda net, *a, **k: seen.append(a) or move(net, *a, **k))
    for loop in ("fit", "fit_objective"):
        run = getattr(procedures, loop)
        monkeypatch.setattr(procedures, loop, lambda *a, run=run, **k: seen.append("trained") or run(*a, **k))
    train_system(part, ToyData(), tmp_path)
    phases = [i for i, what in enumerate(seen) if what == "trained"][-2:]
    assert ("cpu",) in seen[: phases[0]]


def test_finished_parts_are_not_trained_again(tmp_path, quick, monkeypatch):
    train_system("resnet8", ToyData(), tmp_path)
    monkeypatch.setattr(procedures, "fit", lambda *_, **__: pytest.fail("trained again"))
    train_system("resnet8", ToyData(), tmp_path)


def test_mistakes_are_named(tmp_path, quick, monkeypatch):
    with pytest.raises(UnknownNameError, match="no model is called 'resnet', and no part for 'cifar10'"):
        train_system("resnet", ToyData(), tmp_path)
    with pytest.raises(UnknownNameError, match="no recipe called 'shortt'"):
        train_system("resnet8", ToyData(), tmp_path, recipe="shortt")
    with pytest.raises(UsageError, match="not built for 'digits'"):
        load_system("sdn", "digits")
    monkeypatch.setattr("adaptbench.zoo.loading.SHIPPED", tmp_path)
    with pytest.raises(CheckpointError, match="there is no checkpoint for 'sdn'"):
        load_system("sdn", "cifar100", zoo=tmp_path)


def test_the_full_recipe_covers_every_published_depth():
    for recipe in RECIPES["cifar10"].values():
        assert {f"resnet{depth}" for depth in DEPTHS} <= set(recipe.parts)
    assert all(RECIPES["cifar10"]["full"].parts[f"resnet{d}"].train.phase.epochs >= 100 for d in DEPTHS)
    for depth in DEPTHS:
        if start := RECIPES["cifar10"]["short"].parts[f"resnet{depth}"].train.grown_from:
            assert (depth - 2) % (start - 2) == 0, "blocks must be a multiple"


def test_what_a_part_needs_is_in_the_table():
    for scales in RECIPES.values():
        for recipe in scales.values():
            assert {name for part in recipe.parts.values() for name in part.needs} <= set(recipe.parts)


@pytest.mark.slow
def test_every_registered_system_builds_for_cifar():
    skipped = {"msdnet", "densenet121", "boosted-exits"}  # built in tests/models
    for entry in MODELS:
        system = MODELS.load(entry.name)
        if not isinstance(system, systems.System) or entry.name in skipped or "cifar" not in system.on:
            continue
        net, nets = net_on(system, "cifar10"), CIFAR_NETS["cifar10"]
        model = net.build(nets)
        for weights in net.weights(nets):
            assert weights.into(model).state_dict(), f"{entry.name}: {weights.part}"
            assert weights.part in RECIPES["cifar10"]["short"].parts


def test_shipped_cifar_cards_state_their_accuracy():
    for data in CIFAR_NETS:
        for place in sorted((loading.SHIPPED / data).glob("resnet*.json")):
            card = json.loads(place.read_text(encoding="utf-8"))
            assert card["data"] == data
            assert bool(card["history"]) != ("means" in card["settings"]), place
