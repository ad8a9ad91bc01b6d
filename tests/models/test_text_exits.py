"""Encoders of text: torch's own layer says the same, padding changes the price alone, wrong folders are no nets."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import adaptbench as ab
from adaptbench.adaptive.counting import counting
from adaptbench.adaptive.model import frozen
from adaptbench.attacks import load_attack
from adaptbench.errors import (
    CapabilityError,
    CheckpointError,
    DataFormatError,
    DataMissingError,
    DomainError,
)
from adaptbench.models.text import TextNets, infer_unpadded, text_exits
from adaptbench.models.text_encoder import read_stages
from adaptbench.policies import PabeeBudget, Patience, UniformThreshold
from adaptbench.testing.models import ModelConformance
from adaptbench.testing.texts import LENGTH, planted_texts, planted_words, write_encoder


@pytest.fixture
def folder(tmp_path):
    return write_encoder(tmp_path / "encoder")


@pytest.fixture
def net(folder):
    torch.manual_seed(3)
    net = text_exits(folder, 2, length=LENGTH).eval()
    for head in net.heads:  # fresh heads are near ½ everywhere
        nn.init.normal_(head[-1].weight)
    net.policy = UniformThreshold(0.96)
    return net


class TestTheLaws(ModelConformance):
    def model(self):
        torch.manual_seed(3)
        net = TextNets("text", 4).exits().eval()
        for head in net.heads:
            nn.init.normal_(head[-1].weight, std=0.5)
        net.policy = UniformThreshold(0.4)
        return net


def test_a_layer_is_torchs_own(folder):
    """An independent implementation over the same tensors."""
    size, stages = read_stages(folder)
    entry, own = stages[0][0], stages[0][1]
    theirs = nn.TransformerEncoderLayer(
        size.width, size.heads, size.inner, dropout=0.0, activation="gelu", layer_norm_eps=size.eps, batch_first=True
    ).eval()
    theirs.self_attn.in_proj_weight.data = torch.cat([own.query.weight, own.key.weight, own.value.weight])
    theirs.self_attn.in_proj_bias.data = torch.cat([own.query.bias, own.key.bias, own.value.bias])
    pairs = {"self_attn.out_proj": own.out, "linear1": own.wide, "linear2": own.narrow, "norm1": own.norm}
    for name, part in {**pairs, "norm2": own.last_norm}.items():
        theirs.get_submodule(name).load_state_dict(part.state_dict())
    x = planted_texts("test", 8).inputs()
    h, real = entry(x)
    with torch.no_grad():
        want = theirs(h, src_key_padding_mask=~real)
        got, _ = own((h, real))
    assert torch.allclose(got[real], want[real], atol=1e-5)
    assert bool((~real).any())


def test_padding_changes_the_price_and_nothing_else(net):
    x = planted_texts("test", 60).inputs()
    padded, own = net.infer(x), infer_unpadded(net, x)
    sure = ~(padded.tie | own.tie)
    assert torch.equal(padded.path[sure], own.path[sure])
    assert torch.allclose(padded.logits, own.logits, atol=1e-5)
    assert len(padded.exit.unique()) > 1
    full = net.domain.lengths(x) == LENGTH
    assert torch.equal(padded.macs[full], own.macs[full])
    assert (padded.macs[~full & sure] > own.macs[~full & sure]).all()


def test_a_trimmed_batch_pays_for_the_columns_that_it_has(net):
    x = planted_texts("test", 60).inputs()
    short = x[net.domain.lengths(x) <= 9]
    trimmed = net.domain.trimmed(short)
    assert trimmed.shape[1] <= 9 < short.shape[1]
    _ = net.infer(trimmed)
    with counting() as counter:
        inference = net.infer(trimmed)
    assert counter.macs == int(inference.macs.sum()) < int(net.infer(short).macs.sum())


def test_gradients_reach_the_embeddings(net):
    from adaptbench.adaptive.tokens import followed

    x = planted_texts("test", 4).inputs()
    assert "gradients" in net.capabilities
    with followed(x) as (given, leaf):
        expected = net.relax(given).expected_macs.sum()
    (slope,) = torch.autograd.grad(expected, leaf())
    assert slope.shape == (4, LENGTH, 32)
    real = x != 0
    assert (slope.abs().sum(-1) > 0)[real].any()
    assert not (slope.abs().sum(-1) > 0)[~real].any(), "padding is attended"


def test_every_kind_of_policy_runs(net):
    log = net.log(planted_texts("calibration", 400))
    x = planted_texts("test", 40).inputs()
    for policy in (PabeeBudget.fit(log, budget=0.7 * net.macs_full), Patience.fit(log)):
        assert net.under(policy).infer(x).macs.max() <= net.max_macs


@pytest.mark.parametrize("recipe", ["ilfo", "noise", "deepsloth", "ereba", "square", "corruption-blur"])
def test_what_is_not_a_picture_is_never_attacked_as_one(net, recipe):
    split = planted_texts("test", 4)
    with pytest.raises(CapabilityError, match="values of pixels"):
        load_attack(recipe).craft(net, split.inputs(), split.y)


@pytest.mark.parametrize("defence", ["quantise", "smooth"])
def test_a_defence_of_pixels_is_refused(net, defence):
    with pytest.raises(CapabilityError, match="a model of text"):
        net.defended(defence)


def test_texts_are_no_pictures():
    with pytest.raises(DomainError, match="pictures were asked of the texts"):
        planted_texts().images()


def test_floats_in_the_place_of_ids(net):
    with pytest.raises(DomainError, match="float32"):
        net.infer(torch.zeros(2, LENGTH))


def test_an_audit_of_texts_trusts_nothing_where_only_attacks_on_pictures_were_asked_for(net):
    audit = ab.audit(net, planted_texts("test", 40), attacks=["noise"])
    assert not audit.trusted
    assert any("noise" in str(doubt) for doubt in audit.doubts)


def test_the_encoder_is_frozen_and_the_heads_are_not(folder):
    net = text_exits(folder, 2, length=LENGTH)
    assert {p.requires_grad for p in net.stages.parameters()} == {False}
    assert {p.requires_grad for p in net.heads.parameters()} == {True}


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (lambda f: (f / "config.json").unlink(), DataFormatError, "does not describe an encoder"),
        (lambda f: _config(f, model_type="roberta"), DataFormatError, "model_type: roberta"),
        (lambda f: _config(f, hidden_size=64), CheckpointError, "of shape"),
        (lambda f: (f / "model.safetensors").unlink(), CheckpointError, "could not be read"),
        (lambda f: (f / "model.safetensors").write_bytes(b"x"), CheckpointError, "could not be read"),
        (lambda f: _drop(f, "encoder.layer.1.output.dense.bias"), CheckpointError, "nothing"),
        (lambda f: (f / "tokenizer.json").unlink(), DataMissingError, "neither tokenizer.json nor vocab.txt"),
        (lambda f: (f / "tokenizer.json").write_text("{"), DataFormatError, "is no tokenizer"),
        (
            lambda f: (f / "tokenizer.json").write_text('{"model": {"type": "BPE", "vocab": {}}}'),
            DataFormatError,
            "BPE",
        ),
    ],
)
def test_a_folder_that_is_no_encoder(folder, change, error, match):
    change(folder)
    with pytest.raises(error, match=match):
        text_exits(folder, 2)


def test_heads_belong_to_one_encoder(folder):
    with pytest.raises(CheckpointError, match="fitted on other weights"):
        text_exits(folder, 2, sha256="0" * 64)


def test_the_names_of_a_task_model_are_read_too(folder):
    file = folder / "model.safetensors"
    tensors = load_file(file)
    want = read_stages(folder)[1][0][0].words.weight.clone()
    save_file({f"bert.{name}": t for name, t in tensors.items()}, file)
    assert torch.equal(read_stages(folder)[1][0][0].words.weight, want)


def test_a_vocabulary_in_a_plain_file(folder):
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join(planted_words().vocabulary) + "\n")
    net = text_exits(folder, 2, length=LENGTH)
    with frozen(net):
        assert net.domain.vocabulary == planted_words().vocabulary


def _config(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def _drop(folder, name):
    file = folder / "model.safetensors"
    tensors = load_file(file)
    del tensors[name]
    save_file(tensors, file)
