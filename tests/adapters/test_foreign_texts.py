"""Nets of token ids, and nets of several inputs, as people publish them: adapted in one call, the same function."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import adaptbench as ab
from adaptbench.adaptive import MacCounter
from adaptbench.adaptive.tokens import WordEmbedding
from adaptbench.attacks import load_attack
from adaptbench.errors import CapabilityError, DomainError, GraphError
from adaptbench.models.text import infer_unpadded
from adaptbench.testing import check_model
from adaptbench.testing.texts import LENGTH, VOCABULARY, planted_texts

WIDTH, CLASSES = 16, 2
IDS = torch.zeros(1, LENGTH, dtype=torch.int64)


@pytest.fixture(autouse=True)
def a_fixed_seed():
    torch.manual_seed(0)


class Encoder(nn.Module):
    """Ids alone; the mask is made inside. A head on each layer's mean."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(len(VOCABULARY), WIDTH, padding_idx=0)
        self.places = nn.Embedding(LENGTH, WIDTH)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(WIDTH, 2, 32, batch_first=True, dropout=0.0) for _ in range(2)
        )
        self.heads = nn.ModuleList(nn.Linear(WIDTH, CLASSES) for _ in range(2))

    def forward(self, tokens):
        empty = tokens == 0
        h = self.words(tokens) + self.places(torch.arange(tokens.shape[1], device=tokens.device))
        out = []
        for layer, head in zip(self.layers, self.heads, strict=True):
            h = layer(h, src_key_padding_mask=empty)
            real = (~empty).unsqueeze(-1).to(h.dtype)
            out.append(head((h * real).sum(1) / real.sum(1)))
        return out


class TwoInputs(Encoder):
    """The form of a widespread library: ids, a mask, kinds of segments, a dictionary of outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.segments = nn.Embedding(2, WIDTH)

    def forward(self, input_ids, attention_mask, token_type_ids=None, return_dict=True):
        h = self.words(input_ids)
        if token_type_ids is not None:
            h = h + self.segments(token_type_ids)
        out = []
        for layer, head in zip(self.layers, self.heads, strict=True):
            h = layer(h, src_key_padding_mask=attention_mask == 0)
            out.append(head(h[:, 0]))
        return {"logits": out[-1], "early": out[0]} if return_dict else tuple(out)


class Averages(nn.Module):
    """Means over every column, padding too: a row cut shorter is another text to it."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(len(VOCABULARY), WIDTH)
        self.wide = nn.Conv1d(WIDTH, 32, 3, padding=1)
        self.early, self.late = nn.Linear(WIDTH, CLASSES), nn.Linear(32, CLASSES)

    def forward(self, ids):
        h = self.words(ids)
        return self.early(h.mean(1)), self.late(self.wide(h.transpose(1, 2)).relu().amax(2))


class Recurrent(nn.Module):
    """An LSTM that is read at each text's last word; it looks at values, so that no graph holds it."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(len(VOCABULARY), WIDTH)
        self.first, self.second = (nn.LSTM(WIDTH, WIDTH, batch_first=True) for _ in range(2))
        self.early, self.late = nn.Linear(WIDTH, CLASSES), nn.Linear(WIDTH, CLASSES)

    def forward(self, ids):
        if int(ids.max()) >= self.words.num_embeddings:
            raise ValueError("unknown piece")
        last = (ids != 0).sum(1) - 1
        rows = torch.arange(len(ids), device=ids.device)
        h, _ = self.first(self.words(ids))
        out = [self.early(h[rows, last])]
        h, _ = self.second(h)
        return [*out, self.late(h[rows, last])]


HALF = torch.tensor([[1, 0] * 8])
BOTH = {"input_ids": IDS + 5, "attention_mask": torch.ones_like(IDS), "token_type_ids": torch.zeros_like(IDS)}
KINDS = [
    (Encoder, IDS, {}),
    (TwoInputs, BOTH, {}),
    (TwoInputs, IDS, {"inputs": lambda ids: (ids, (ids != 0).long())}),
    (Averages, IDS, {}),
    (Recurrent, IDS, {"exits": ["early", "late"]}),
]
NAMES = ["Encoder", "TwoInputs-example", "TwoInputs-inputs", "Averages", "Recurrent"]


def wrapped(kind, example, how):
    module = kind().eval()
    return module, ab.wrap(module, example=example, domain=ab.TokenDomain(LENGTH, VOCABULARY), **how)


def own_logits(module, x, example):
    with torch.no_grad():
        if not isinstance(module, TwoInputs):
            return torch.stack(list(module(x)), 1)
        kinds = torch.zeros_like(x) if isinstance(example, dict) else None
        out = module(x, (x != 0).long(), kinds)
        return torch.stack([out["early"], out["logits"]], 1)


@pytest.mark.parametrize(("kind", "example", "how"), KINDS, ids=NAMES)
def test_every_kind_is_the_same_function_and_its_later_part_is_not_run(kind, example, how):
    module, net = wrapped(kind, example, how)
    x = planted_texts("test", 12).inputs()
    assert bool((x == 0).any()), "some are padded"
    for n in (1, 7, 12):
        want = own_logits(module, x[:n], example)
        with torch.no_grad():
            torch.testing.assert_close(net.dense_logits(x[:n]), want, rtol=1e-5, atol=1e-5)
        leaves = torch.arange(n) % 2
        got = net.infer(x[:n], force=torch.arange(2) <= leaves[:, None])
        torch.testing.assert_close(got.logits, want[torch.arange(n), leaves], rtol=1e-5, atol=1e-5)
    first = torch.tensor([True, False])
    net.infer(x, force=first)
    with MacCounter() as counter:
        net.infer(x, force=first)
    exits = net.explain().exits
    assert counter.macs == len(x) * exits[0].macs < len(x) * exits[-1].macs
    assert max(e.difference for e in exits) < 1e-4
    assert type(module.words) is nn.Embedding, "the author's module stays as it is"


@pytest.mark.parametrize(("kind", "example", "how"), KINDS, ids=NAMES)
def test_of_every_kind_the_laws_hold(kind, example, how):
    _, net = wrapped(kind, example, how)
    net.policy = ab.policies.UniformThreshold(0.55)
    check_model(net, n_inputs=16)


def test_padding_is_left_out_where_the_author_leaves_it_out_and_paid_for_where_not():
    _, masked = wrapped(Encoder, IDS, {})
    _, averaged = wrapped(Averages, IDS, {})
    x = planted_texts("test", 40).inputs()
    short = x[masked.domain.lengths(x) <= 9]
    assert (masked.domain.trims, averaged.domain.trims) == (False, False), "positions of 16 columns are in its graph"
    _, recurrent = wrapped(*KINDS[-1])
    assert recurrent.domain.trims
    cut = recurrent.domain.trimmed(short)
    assert cut.shape[1] <= 9
    assert (recurrent.infer(cut).macs < recurrent.infer(short).macs).all()
    assert averaged.domain.trimmed(short) is short
    assert "16 columns" in str(averaged.explain())
    with pytest.raises(DomainError, match=r"takes \(N, 16\)"):
        averaged.infer(x[:, :9])
    with pytest.raises(CapabilityError, match="no fewer columns"):
        infer_unpadded(averaged, x)


def test_the_vocabulary_and_the_padding_are_read_off_the_table():
    net = ab.wrap(Encoder(), example=IDS)
    assert (len(net.domain.vocabulary), net.domain.pad, net.domain.length) == (len(VOCABULARY), 0, LENGTH)
    x = planted_texts("test", 4)
    with pytest.raises(CapabilityError, match="names no pieces"):
        load_attack("words").craft(net, x.inputs(), x.y)


@pytest.mark.parametrize("recipe", ["words", "waffle", "words-black-box", "words-random"])
def test_words_of_somebodys_net_are_edited(recipe):
    module, net = wrapped(Encoder, IDS, {})
    for head in module.heads:
        nn.init.normal_(head.weight)
    net.policy = ab.policies.UniformThreshold(0.8)
    assert all(e.has_gradient for e in net.explain().exits)
    x = planted_texts("test", 12)
    settings = {"queries": 30} if recipe == "words-black-box" else {}
    found = load_attack(recipe, settings).craft(net, x.inputs(), x.y)
    assert bool((found.x_adv != x.inputs()).any())
    if recipe != "words-random":
        assert (net.infer(found.x_adv).macs >= net.infer(x.inputs()).macs).all()


def test_exits_are_put_on_a_classifier_of_text_and_fitted():
    class Plain(Encoder):
        def forward(self, tokens):
            return super().forward(tokens)[-1]

    module = Plain().eval()
    net = ab.attach_exits(module, after=["layers.0"], example=IDS, domain=ab.TokenDomain(LENGTH, VOCABULARY))
    assert net.exit_names == ("layers.0", "final")
    train = planted_texts("train", 200)
    before = [p.clone() for p in module.parameters()]
    first, _ = ab.fit_heads(net, train, epochs=25)
    assert first > 0.7
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))


class Depth(nn.Module):
    """Colour and depth apart: two pictures a sample."""

    def __init__(self) -> None:
        super().__init__()
        self.colour, self.depth = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(1, 4, 3, padding=1)
        self.early, self.late = nn.Linear(4, 3), nn.Linear(8, 3)

    def forward(self, rgb, depth):
        a = self.colour(rgb).relu().mean((2, 3))
        return [self.early(a), self.late(torch.cat([a, self.depth(depth).relu().mean((2, 3))], 1))]


def test_two_pictures_a_sample_are_one_tensor():
    module = Depth().eval()
    net = ab.wrap(module, example=torch.zeros(1, 4, 8, 8), inputs=lambda x: {"rgb": x[:, :3], "depth": x[:, 3:]})
    x = torch.rand(5, 4, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(net.dense_logits(x), torch.stack(module(x[:, :3], x[:, 3:]), 1))
    net.policy = ab.policies.UniformThreshold(0.4)
    check_model(net, n_inputs=16)


class Positions(Encoder):
    def forward(self, ids, position_ids, mask):
        return super().forward(ids * mask)


class NoTable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(50, WIDTH))
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, ids):
        h = self.table[ids].mean(1)
        return [self.head(h), self.head(h.relu())]


@pytest.mark.parametrize(
    ("kind", "example", "how", "error", "message"),
    [
        (TwoInputs, IDS, {}, GraphError, r"without a value: attention_mask(.|\n)*inputs=lambda x"),
        (
            TwoInputs,
            IDS,
            {"inputs": lambda x: {"input_ids": x, "mask": x}},
            GraphError,
            "takes no input 'mask'",
        ),
        (
            TwoInputs,
            {**BOTH, "attention_mask": HALF},
            {},
            DomainError,
            "what 'attention_mask' is",
        ),
        (TwoInputs, BOTH, {"inputs": lambda x: x}, DomainError, "both given"),
        (NoTable, IDS, {}, DomainError, "vocabulary is not known"),
        (Encoder, IDS, {"domain": ab.TokenDomain(8, VOCABULARY)}, DomainError, r"takes ids \(n, 8\)"),
        (Encoder, IDS.float(), {"domain": ab.TokenDomain(LENGTH, VOCABULARY)}, DomainError, r"takes ids \(n, 16\)"),
        (Encoder, IDS.float(), {}, DomainError, "nor of token ids"),
    ],
)
def test_what_is_no_text_is_refused_with_the_way_out(kind, example, how, error, message):
    with pytest.raises(error, match=message):
        ab.wrap(kind(), example=example, **how)


def test_a_table_that_is_none_of_torchs_takes_no_gradient_and_says_so():
    net = ab.wrap(NoTable(), example=IDS, domain=ab.TokenDomain(LENGTH, VOCABULARY[:50]))
    assert not any(e.has_gradient for e in net.explain().exits)
    assert "gradients" not in net.capabilities
    assert not any(isinstance(m, WordEmbedding) for m in net.modules())


def test_positions_and_masks_follow_from_the_ids():
    example = {"ids": IDS + 3, "position_ids": torch.arange(LENGTH)[None], "mask": torch.ones_like(IDS)}
    assert ab.wrap(Positions(), example=example).explain().exits[0].difference < 1e-5
