"""Made-up texts, a tokenizer and an encoder's folder for them: what tests of text need, with no file from elsewhere."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from adaptbench.adaptive.graph import DecisionGraph
from adaptbench.adaptive.splits import Role, Split
from adaptbench.adaptive.tokens import TokenDomain
from adaptbench.data.base import ROLES
from adaptbench.data.wordpiece import WordPiece
from adaptbench.errors import UsageError
from adaptbench.models.text import exits_on
from adaptbench.models.text_encoder import EncoderSize, stages_of
from adaptbench.policies.thresholds.uniform import UniformThreshold

LENGTH = 16
GOOD, BAD = ("good", "fine", "great", "warm"), ("bad", "poor", "dull", "cold")
_PLAIN = ("a", "the", "this", "film", "story", "plot", "actor", "scene", "with", "and", "of", "in", "some", "very")
_LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")
VOCABULARY = (
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", ".", ","),
    *_LETTERS,
    *(f"##{c}" for c in _LETTERS),
    *(word for word in (*_PLAIN, *GOOD, *BAD) if len(word) > 1),
)


def planted_words() -> WordPiece:
    """A tokenizer of 76 pieces: two dozen words, and letters for the rest."""
    return WordPiece(VOCABULARY)


def planted_domain() -> TokenDomain:
    """Rows of 16 of its pieces."""
    return TokenDomain(LENGTH, VOCABULARY)


def planted_texts(role: Role = "calibration", n: int = 400) -> Split:
    """Sentences of 4 to 13 words, 2 classes: one to three words of the class, and in some one of the other.

    The same every time; roles differ.
    """
    rng = np.random.RandomState(ROLES.index(role))
    words, texts = planted_words(), []
    y = rng.randint(0, 2, n)
    for label in y:
        own, other = (GOOD, BAD) if label else (BAD, GOOD)
        told = [*rng.choice(own, rng.randint(1, 4)), *rng.choice(other, rng.randint(0, 2))]
        told += list(rng.choice(_PLAIN, rng.randint(3, 9)))
        rng.shuffle(told)
        texts.append(" ".join(told))
    ids = torch.arange(n) + 10_000 * ROLES.index(role)
    return Split("planted-texts", role, torch.from_numpy(words.rows(texts, LENGTH)), torch.from_numpy(y), ids, _CLASSES)


class PlantedTexts:
    """The made-up texts as a data set, for `DATA.add("planted-texts", "adaptbench.testing.texts:PlantedTexts", …)`."""

    name, class_names, n_classes, shape = "planted-texts", ("negative", "positive"), 2, (LENGTH,)

    def __init__(self, argument: str = "", *, root: Path | None = None, download: bool = False) -> None: ...

    def split(self, role: Role) -> Split:
        """400 texts of a role.

        Raises:
            UsageError: no such role.
        """
        if role not in ROLES:
            raise UsageError(f"there is no split '{role}'.", todo=f"Ask for one of: {', '.join(ROLES)}.")
        return planted_texts(role)


_CLASSES = PlantedTexts.class_names
_SIZE = EncoderSize(len(VOCABULARY), 32, 3, 4, 64, LENGTH, types=2)
_NAMES = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "out": "attention.output.dense",
    "norm": "attention.output.LayerNorm",
    "wide": "intermediate.dense",
    "narrow": "output.dense",
    "last_norm": "output.LayerNorm",
}


def write_encoder(folder: Path | str, *, seed: int = 0) -> Path:
    """An untrained encoder of three layers in the ecosystem's form: config.json, model.safetensors, tokenizer.json.

    Args:
        folder: made if it is not there. seed: of the weights.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        stages = stages_of(_SIZE)
    entry, first = stages[0].children()
    tensors: dict[str, Tensor] = {
        "embeddings.word_embeddings.weight": entry.words.weight,  # type: ignore[union-attr, dict-item]
        "embeddings.position_embeddings.weight": entry.places.weight,  # type: ignore[union-attr, dict-item]
        "embeddings.token_type_embeddings.weight": entry.segments.weight,  # type: ignore[union-attr, dict-item]
        "embeddings.LayerNorm.weight": entry.norm.weight,  # type: ignore[union-attr, dict-item]
        "embeddings.LayerNorm.bias": entry.norm.bias,  # type: ignore[union-attr, dict-item]
    }
    for i, layer in enumerate([first, *stages[1:]]):
        for name, tensor in layer.state_dict().items():
            part, _, kind = name.partition(".")
            tensors[f"encoder.layer.{i}.{_NAMES[part]}.{kind}"] = tensor
    save_file({name: t.detach().clone() for name, t in tensors.items()}, place / "model.safetensors")
    config = {
        "model_type": "bert",
        "vocab_size": _SIZE.pieces,
        "hidden_size": _SIZE.width,
        "num_hidden_layers": _SIZE.layers,
        "num_attention_heads": _SIZE.heads,
        "intermediate_size": _SIZE.inner,
        "max_position_embeddings": _SIZE.positions,
        "type_vocab_size": _SIZE.types,
        "hidden_act": "gelu",
    }
    (place / "config.json").write_text(json.dumps(config), encoding="utf-8")
    tokenizer = {"model": {"type": "WordPiece", "vocab": {piece: i for i, piece in enumerate(VOCABULARY)}}}
    (place / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    return place


@cache
def _trained() -> dict[str, Tensor]:
    """Weights of the small encoder after a few hundred steps on the made-up texts."""
    net, split = _fresh(), planted_texts("train", 800)
    step = torch.optim.AdamW(net.parameters(), lr=3e-3)
    draw = torch.Generator().manual_seed(0)
    net.requires_grad_(True).train()
    for _ in range(6):
        for rows in torch.randperm(len(split), generator=draw).view(-1, 32):
            loss = sum(F.cross_entropy(z, split.y[rows]) for z in net.dense_logits(split.x[rows]).unbind(1))
            step.zero_grad()
            loss.backward()  # type: ignore[union-attr]
            step.step()
    return net.state_dict()


def _fresh() -> DecisionGraph:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return exits_on(stages_of(_SIZE), _SIZE.width, 2, planted_domain())


def planted_net(threshold: float = 0.9) -> DecisionGraph:
    """The small encoder with its three exits, trained on the made-up texts (a few seconds, once a process).

    Args:
        threshold: of confidence, at every exit but the last.
    """
    net = _fresh()
    net.load_state_dict(_trained(), strict=False)
    net.policy = UniformThreshold(threshold)
    return net.eval().requires_grad_(False)
