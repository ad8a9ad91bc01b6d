"""An encoder tuned by its biases and layer norms: what moves, what is stored, and which encoder it may be put on."""

import hashlib
import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from adaptbench.errors import CheckpointError, UsageError
from adaptbench.models.text import few_weights, text_exits
from adaptbench.testing.texts import LENGTH, planted_texts, write_encoder
from adaptbench.zoo import checkpoints
from adaptbench.zoo.loading import SHIPPED
from adaptbench.zoo.parts import NETS
from adaptbench.zoo.recipes import RECIPES
from adaptbench.zoo.trainer import find_recipe
from adaptbench.zoo.training.phase import Phase
from adaptbench.zoo.training.session import Session
from adaptbench.zoo.training.strategies import strategy
from adaptbench.zoo.training.text import TunedExits

PHASE = Phase(8, 1e-2, 32, optimiser="adamw")
TUNED = TunedExits(PHASE, "planted", "")


@pytest.fixture
def folder(tmp_path):
    return write_encoder(tmp_path / "encoder")


def fresh(folder, **settings):
    torch.manual_seed(0)
    return text_exits(folder, 2, length=LENGTH, **settings)


def session(folder, n=400):
    texts = planted_texts("train", n), planted_texts("calibration", 100)
    return Session("planted", *texts, folder / "progress", "cpu", 0, {"by": "test"})


def dense(net):
    with torch.no_grad():
        return net.dense_logits(planted_texts("test", 100).inputs())


def test_few_weights_are_the_nets_own_and_all_its_biases_and_norms(folder):
    net = fresh(folder)
    few, whole = dict(few_weights(net).named_parameters()), dict(net.named_parameters())
    assert all(parameter is whole[name] for name, parameter in few.items())
    assert {name for name in whole if name not in few} == {
        name for name, p in whole.items() if p.ndim > 1 and not name.startswith("heads.")
    }, "a weight matrix of the encoder moves, or a bias or a norm's gain stays"


def test_what_is_not_tuned_keeps_its_bytes_and_what_is_learns(folder):
    net, start = fresh(folder), fresh(folder)
    TUNED(net, [], session(folder))
    few, before = dict(few_weights(net).named_parameters()), dict(start.named_parameters())
    for name, parameter in net.named_parameters():
        assert torch.equal(parameter, before[name]) or name in few, name
    in_stages = [name for name in few if name.startswith("stages.")]
    assert sum(not torch.equal(few[name], before[name]) for name in in_stages) > len(in_stages) / 2
    right = (dense(net).argmax(-1) == planted_texts("test", 100).y[:, None]).float().mean(0)
    assert (right > 0.8).all(), right


def test_gradients_are_those_of_the_whole_net_and_of_finite_differences(folder):
    """Freezing the matrices cuts no path to a bias below them; every exit pulls at every layer under it."""
    split = planted_texts("train", 64)
    few_only, whole = fresh(folder).double(), fresh(folder).double()
    few_only.requires_grad_(False)
    few_weights(few_only).requires_grad_(True)
    whole.requires_grad_(True)
    for net in (few_only, whole):
        strategy("uniform", net).loss(split.x, split.y).backward()
    theirs = dict(few_weights(whole).named_parameters())
    for name, parameter in few_weights(few_only).named_parameters():
        assert torch.allclose(parameter.grad, theirs[name].grad, rtol=1e-9, atol=1e-12), name
    assert all(p.grad is None for p in few_only.parameters() if not p.requires_grad)
    lowest = few_only.stages[0][1].wide.bias
    loss, step = strategy("uniform", few_only), 1e-5
    with torch.no_grad():
        lowest[3] += step
        above = loss.loss(split.x, split.y)
        lowest[3] -= 2 * step
        below = loss.loss(split.x, split.y)
    assert float((above - below) / (2 * step)) == pytest.approx(float(lowest.grad[3]), rel=1e-4)


def test_what_is_stored_on_the_encoder_is_the_net_that_was_trained(folder, tmp_path):
    net = fresh(folder)
    TUNED(net, [], session(folder, 96))
    place = tmp_path / "tuned.safetensors"
    checkpoints.save(place, few_weights(net).state_dict(), {})
    again = text_exits(folder, 2, length=LENGTH).eval()
    assert not torch.equal(dense(again), dense(net))
    checkpoints.load_into(few_weights(again), checkpoints.load(place)[0])
    assert torch.equal(dense(again), dense(net))


def test_a_killed_training_goes_on(folder, tmp_path):
    whole, killed = fresh(folder), fresh(folder)
    TUNED(whole, [], session(folder, 96))

    class Killed(Exception):
        pass

    def stop(_, record):
        if record.epoch == 3:
            raise Killed

    there = replace(session(tmp_path, 96), on_epoch=stop)
    with pytest.raises(Killed):
        TUNED(killed, [], there)
    killed = fresh(folder)
    TUNED(killed, [], replace(there, on_epoch=None))
    assert torch.equal(dense(killed), dense(whole))


def test_another_encoder_is_refused_in_words(folder):
    """What was tuned on one encoder's weights says nothing of another's."""
    own = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    fresh(folder, sha256=own)
    write_encoder(folder, seed=1)
    with pytest.raises(CheckpointError, match=r"has the SHA-256 .* not .*\n.*fitted on other weights"):
        fresh(folder, sha256=own)
    asked = RECIPES["sst2-minilm"]["short"].parts["minilm-tuned"].train
    assert NETS["sst2-minilm"].encoder.sha256 == asked.sha256, "what is trained is not what is asked for at loading"


def test_strategies_weigh_tuned_exits():
    _, table = find_recipe("text-exits-tuned", "sst2-minilm", "short", "weighted", {"values": [0, 0, 0, 0, 0, 1]})
    assert table.parts["minilm-tuned"].train.strategy == "weighted"
    for other in ("teacher", "backtrack"):
        with pytest.raises(UsageError, match=f"'{other}' was given to 'text-exits-tuned'"):
            find_recipe("text-exits-tuned", "sst2-minilm", "short", other)


def test_what_ships_is_small_and_holds_no_matrix_of_the_encoder():
    place = SHIPPED / "sst2-minilm" / "minilm-tuned.safetensors"
    assert place.stat().st_size < 1_000_000
    assert all(t.ndim == 1 or name.startswith("heads.") for name, t in load_file(place).items())
    card = json.loads(place.with_suffix(".json").read_text(encoding="utf-8"))
    accuracies = list(card["accuracy_test"].values())
    assert accuracies[0] + 0.03 < accuracies[-1], "exits that are all alike leave nothing to choose"
