"""Heads on an encoder that stays as it is, a small encoder from scratch, and both by the zoo's own way."""

import json
from dataclasses import replace
from itertools import pairwise, product

import pytest
import torch

from adaptbench.adaptive.model import frozen
from adaptbench.data import load_data
from adaptbench.data.encoders import Encoder
from adaptbench.models.text import TextNets, text_exits
from adaptbench.models.text_encoder import EncoderSize
from adaptbench.testing.texts import LENGTH, planted_texts, write_encoder
from adaptbench.zoo.loading import available, load_system
from adaptbench.zoo.parts import NETS
from adaptbench.zoo.recipes import RECIPES, minilm_recipe, small_text_recipe
from adaptbench.zoo.trainer import train_system
from adaptbench.zoo.training.exits import _Heads, train_heads
from adaptbench.zoo.training.loop import _of_like_length
from adaptbench.zoo.training.phase import Phase

PHASE = Phase(3, 3e-3, 32, optimiser="adamw")


@pytest.fixture
def net(tmp_path):
    torch.manual_seed(0)
    return text_exits(write_encoder(tmp_path / "encoder"), 2, length=LENGTH)


def test_heads_learn_and_the_encoder_stays(net):
    before = {name: t.clone() for name, t in net.stages.state_dict().items()}
    train_heads(net, planted_texts("train", 600), replace(PHASE, epochs=15, lr=1e-2), exits=range(3))
    assert all(torch.equal(t, before[name]) for name, t in net.stages.state_dict().items())
    test = planted_texts("test", 200)
    with frozen(net), torch.no_grad():
        right = (net.dense_logits(test.inputs()).argmax(-1) == test.y[:, None]).float().mean(0)
    assert (right > 0.8).all(), right


def test_states_that_are_kept_are_those_of_padded_rows(net):
    """Kept by length and without padding, in the order of the split."""
    split = planted_texts("train", 128)
    heads = _Heads(net, [0, 1, 2], 0.0, 3.0)
    with frozen(net), torch.no_grad():
        heads.keep(split)
        features = split.inputs()
        for kept, stage, head in zip(heads.kept, net.stages, net.heads, strict=True):
            features = stage(features)
            assert torch.allclose(kept, head[0](features), atol=1e-5)


def test_batches_are_of_like_length():
    x = planted_texts("train", 100).x
    draw = torch.Generator().manual_seed(0)
    rows = _of_like_length(torch.randperm(100, generator=draw), x, 10, draw)
    lengths = (x[rows] != 0).sum(1).view(10, 10)
    assert sorted(rows.tolist()) == list(range(100))
    spans = sorted((int(b.min()), int(b.max())) for b in lengths)
    assert all(high <= low for (_, high), (low, _) in pairwise(spans))
    assert [int(b.min()) for b in lengths] != sorted(int(b.min()) for b in lengths), "batches come short to long"


def write_reviews(folder):
    """Enough sentences for a policy to be fitted."""
    folder.mkdir(parents=True)
    places = ("of war", "from home", "in town", "by hand", "at last", "on ice", "for all")
    parts = (("a", "the", "this", "some", "one", "that"), ("film", "story", "play", "scene"), places)
    told = [
        (f"{a} {word} {b} {c} .", label)
        for label, words in ((0, ("poor", "dull", "bad")), (1, ("warm", "fine", "great")))
        for word, (a, b, c) in product(words, product(*parts))
    ]
    for name, rows in (("train.tsv", told), ("dev.tsv", told[::7])):
        text = "sentence\tlabel\n" + "".join(f"{sentence}\t{label}\n" for sentence, label in rows)
        (folder / name).write_text(text, encoding="utf-8")
    return folder.parent


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["text", "minilm", "tuned"])
def test_training_ends_in_a_zoo_that_loads(tmp_path, monkeypatch, kind):
    root = write_reviews(tmp_path / "data" / "SST-2")
    size = EncoderSize(6000, 16, 2, 2, 32, 64, eps=1e-5)
    if kind == "text":
        monkeypatch.setitem(NETS, "sst2", TextNets("text", 2, size=size))
        monkeypatch.setitem(RECIPES, "sst2", {"short": small_text_recipe(Phase(4, 5e-3, 32, optimiser="adamw"))})
    else:
        write_encoder(root / "encoders" / "planted")
        monkeypatch.setenv("ADAPTBENCH_DATA", str(root))
        planted = Encoder("planted", "", "no_such_package", "0 MB")
        monkeypatch.setattr("adaptbench.data.text.Sst2.encoder", planted)
        monkeypatch.setattr("adaptbench.data.text.LENGTH", LENGTH)
        monkeypatch.setattr("adaptbench.data.text.Sst2.shape", (LENGTH,))
        monkeypatch.setattr("adaptbench.models.text.LENGTH", LENGTH)
        monkeypatch.setattr(TextNets, "exits", lambda nets: text_exits(nets.encoder.folder(), 2, length=LENGTH))
        monkeypatch.setitem(NETS, "sst2", TextNets("minilm", 2, planted))
        monkeypatch.setitem(RECIPES, "sst2", {"short": minilm_recipe(*[Phase(8, 1e-2, 32, optimiser="adamw")] * 2)})
    data = load_data("sst2", root=root)
    name = "text-exits-tuned" if kind == "tuned" else "text-exits"
    train_system(name, data, tmp_path / "zoo")
    assert name in available("sst2", zoo=tmp_path / "zoo")
    loaded = load_system(name, "sst2", zoo=tmp_path / "zoo")
    test = data.split("test")
    inference = loaded.model.infer(test.inputs())
    assert (inference.predictions == test.y).float().mean() > 0.8
    part = {"text": "text-exits", "minilm": "minilm-heads", "tuned": "minilm-tuned"}[kind]
    card = json.loads((tmp_path / "zoo" / "sst2" / f"{part}.json").read_text())
    assert card["command"] == f"adaptbench train {part} --data sst2"
    assert loaded.model.policy_name == "uniform"
    if kind == "minilm":
        from safetensors.torch import load_file

        assert card["settings"]["backbone"] == "frozen"
        assert all(name[0].isdigit() for name in load_file(tmp_path / "zoo" / "sst2" / f"{part}.safetensors")), (
            "the encoder's weights were written"
        )
