"""BERT's encoder (Devlin et al. 2019), as stages that an exit can follow, over weights in the ecosystem's own form."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from torch import Tensor, nn
from torch.nn import functional as F

from adaptbench.adaptive.tokens import WordEmbedding
from adaptbench.errors import CheckpointError, DataFormatError

_ARCHITECTURE = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
States = tuple[Tensor, Tensor]
"""Hidden states (N, L, d) and which of them are of tokens, (N, L) bool."""


@dataclass(frozen=True, slots=True)
class EncoderSize:
    """What config.json says of an encoder.

    Args:
        pieces: of the vocabulary. width: d. layers, heads: how many. inner: width of the feed-forward part.
        positions: the longest row. types: segments. eps: of the layer norms. pad: id of the padding.
    """

    pieces: int
    width: int
    layers: int
    heads: int
    inner: int
    positions: int
    types: int = 1
    eps: float = 1e-12
    pad: int = 0

    @classmethod
    def read(cls, file: Path) -> Self:
        """From a folder's config.json.

        Raises:
            DataFormatError: no such file, or another architecture than BERT's.
        """
        try:
            told: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            other = {key: told[key] for key, ours in _ARCHITECTURE.items() if told.get(key, ours) != ours}
            if not other:
                return cls(
                    told["vocab_size"],
                    told["hidden_size"],
                    told["num_hidden_layers"],
                    told["num_attention_heads"],
                    told["intermediate_size"],
                    told["max_position_embeddings"],
                    told.get("type_vocab_size", 2),
                    told.get("layer_norm_eps", 1e-12),
                    told.get("pad_token_id", 0),
                )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataFormatError(
                f"{file} does not describe an encoder: {type(error).__name__}: {error}.",
                todo="Name a folder with config.json, model.safetensors and tokenizer.json.",
            ) from error
        raise DataFormatError(
            f"{file} says {', '.join(f'{key}: {value}' for key, value in other.items())}.",
            why="Only encoders of BERT's architecture are built here.",
            todo="Name one of them (BERT, MiniLM, TinyBERT …).",
        )


class Entry(nn.Module):
    """Words, places and segment 0 added up and normalised; ids (N, L) → states."""

    def __init__(self, size: EncoderSize) -> None:
        super().__init__()
        self.pad = size.pad
        self.words = WordEmbedding(size.pieces, size.width)
        self.places = nn.Embedding(size.positions, size.width)
        self.segments = nn.Embedding(size.types, size.width)
        self.norm = nn.LayerNorm(size.width, size.eps)

    def forward(self, ids: Tensor) -> States:
        """The columns that are there, padding among them, are what every later layer runs on."""
        h = self.words(ids) + self.places.weight[: ids.shape[1]] + self.segments.weight[0]
        return self.norm(h), ids != self.pad


class Layer(nn.Module):
    """Attention over the tokens, then a feed-forward part; each added and normalised."""

    def __init__(self, size: EncoderSize) -> None:
        super().__init__()
        self.heads = size.heads
        self.query, self.key, self.value, self.out = (nn.Linear(size.width, size.width) for _ in range(4))
        self.norm = nn.LayerNorm(size.width, size.eps)
        self.wide, self.narrow = nn.Linear(size.width, size.inner), nn.Linear(size.inner, size.width)
        self.last_norm = nn.LayerNorm(size.width, size.eps)

    def forward(self, states: States) -> States:
        """States → states; padding is attended by nobody."""
        h, real = states
        q, k, v = (
            part(h).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=real[:, None, None, :])
        h = self.norm(h + self.out(seen.transpose(1, 2).flatten(2)))
        return self.last_norm(h + self.narrow(F.gelu(self.wide(h)))), real


class TokenMean(nn.Module):
    """(N, d) mean of the hidden states of tokens."""

    def forward(self, states: States) -> Tensor:
        """Padding weighs nothing."""
        h, real = states
        weights = real.to(h.dtype)
        return (h * weights[..., None]).sum(1) / weights.sum(1, keepdim=True)


def exit_head(width: int, n_classes: int) -> nn.Sequential:
    """Mean over the tokens, a tanh layer, a linear one over the classes (DeeBERT's, Xin et al. 2020, on means).

    Args:
        width: d; the tanh layer is as wide, up to 128. n_classes: C.
    """
    hidden = min(width, 128)
    return nn.Sequential(TokenMean(), nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, n_classes))


def stages_of(size: EncoderSize) -> list[nn.Module]:
    """Fresh stages: the entry with the first layer, then a layer each; ends of a normal of 0.02, as BERT begins."""
    layers = [Layer(size) for _ in range(size.layers)]
    entry = Entry(size)
    for module in (m for part in (entry, *layers) for m in part.modules()):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
    return [nn.Sequential(entry, layers[0]), *layers[1:]]


_ENTRY = {
    "embeddings.word_embeddings.weight": "words.weight",
    "embeddings.position_embeddings.weight": "places.weight",
    "embeddings.token_type_embeddings.weight": "segments.weight",
    "embeddings.LayerNorm.weight": "norm.weight",
    "embeddings.LayerNorm.bias": "norm.bias",
}
_LAYER = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "out",
    "attention.output.LayerNorm": "norm",
    "intermediate.dense": "wide",
    "output.dense": "narrow",
    "output.LayerNorm": "last_norm",
}


def read_stages(folder: Path, *, sha256: str = "") -> tuple[EncoderSize, list[nn.Module]]:
    """An encoder's stages with the weights of its folder.

    Args:
        folder: with config.json and model.safetensors.
        sha256: that model.safetensors must have, where heads were fitted on one encoder.

    Raises:
        DataFormatError: config.json is missing or of another architecture.
        CheckpointError: weights that are missing, damaged, of other shapes or of another encoder.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    size, file = EncoderSize.read(folder / "config.json"), folder / "model.safetensors"
    try:
        data = file.read_bytes()
        told = load(data)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{file} could not be read: {error}.", todo="Put the encoder's own model.safetensors there."
        ) from error
    if sha256 and (seen := hashlib.sha256(data).hexdigest()) != sha256:
        raise CheckpointError(
            f"{file} has the SHA-256 {seen[:12]}…, not {sha256[:12]}….",
            why="The heads that ship were fitted on other weights.",
            todo="Fetch the encoder that docs/text.md names, or fit heads of your own.",
        )
    tensors = {name.removeprefix("bert."): t for name, t in told.items()}
    stages = stages_of(size)
    entry, layers = stages[0][0], [stages[0][1], *stages[1:]]  # type: ignore[index]
    _fill(entry, {ours: tensors.get(theirs) for theirs, ours in _ENTRY.items()}, file)
    for i, layer in enumerate(layers):
        of_layer = {
            f"{ours}.{kind}": tensors.get(f"encoder.layer.{i}.{theirs}.{kind}")
            for theirs, ours in _LAYER.items()
            for kind in ("weight", "bias")
        }
        _fill(layer, of_layer, file)
    return size, stages


def _fill(module: nn.Module, tensors: dict[str, Tensor | None], file: Path) -> None:
    own = module.state_dict()
    for name, tensor in tensors.items():
        if tensor is None or tensor.shape != own[name].shape:
            seen = "nothing" if tensor is None else tuple(tensor.shape)
            raise CheckpointError(
                f"{file} holds {seen} for '{name}' of shape {tuple(own[name].shape)}.",
                why="It does not belong to the config.json beside it.",
                todo="Fetch the encoder's folder again.",
            )
    module.load_state_dict({name: t.to(own[name].dtype) for name, t in tensors.items() if t is not None})
