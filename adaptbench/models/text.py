"""Encoders of text with an exit after each layer: one small enough to train here, one over a folder's weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor, nn

from adaptbench.adaptive import DecisionGraph, Inference, Node, Policy, TokenDomain
from adaptbench.adaptive.outcome import seeds_from_content
from adaptbench.data.encoders import MINILM, Encoder
from adaptbench.data.text import LENGTH, english
from adaptbench.data.wordpiece import WordPiece
from adaptbench.errors import CapabilityError
from adaptbench.models.text_encoder import EncoderSize, exit_head, read_stages, stages_of

SMALL = EncoderSize(6000, 64, 6, 4, 256, LENGTH, eps=1e-5)


def exits_on(
    stages: Sequence[nn.Module],
    width: int,
    n_classes: int,
    domain: TokenDomain,
    *,
    policy: Policy | None = None,
) -> DecisionGraph:
    """A chain of stages with a fresh head after each.

    Args:
        stages: as `stages_of` and `read_stages` give them. width: of their states. n_classes: C.
        domain: of the tokenizer that the stages were trained with. policy: decides at every exit but the last.
    """
    names = [f"layer{k + 1}" for k in range(len(stages))]
    nodes = [
        Node(
            name,
            stage,
            exit_head(width, n_classes),
            reads=names[k - 1] if k else "input",
            to=tuple(names[k + 1 : k + 2]),
        )
        for k, (name, stage) in enumerate(zip(names, stages, strict=True))
    ]
    return DecisionGraph(nodes, domain=domain, n_classes=n_classes, policy=policy, reference=names, shape="multi-exit")


def text_exits(
    folder: Path | str, n_classes: int, *, length: int = LENGTH, sha256: str = "", policy: Policy | None = None
) -> DecisionGraph:
    """An encoder's folder as a net with an exit after each layer; the heads are fresh, the encoder is frozen.

    Args:
        folder: config.json, model.safetensors and tokenizer.json (or vocab.txt), as the ecosystem stores them.
        n_classes: C. length: columns of the rows that it takes. sha256: that the weights must have.
        policy: decides at every exit but the last.

    Raises:
        DataFormatError: another architecture or tokenizer. DataMissingError: no tokenizer.
        CheckpointError: weights that are missing, damaged or of another encoder.
    """
    size, stages = read_stages(Path(folder), sha256=sha256)
    for stage in stages:
        stage.requires_grad_(False)
    words = WordPiece.read(Path(folder))
    return exits_on(stages, size.width, n_classes, TokenDomain(length, words.vocabulary, words.pad), policy=policy)


def few_weights(net: DecisionGraph) -> nn.Module:
    """What tuning with few weights moves: the heads, and the biases and layer norms of the stages.

    That is BitFit (Ben Zaken, Goldberg, Ravfogel, ACL 2022), with the layer norms' gains.

    Returns:
        A module that holds these tensors alone, the net's own, by their names in the net: its state dict is what is
        stored beside the name of an encoder.
    """
    few = nn.Module()
    for place, module in net.named_modules():
        inside = "heads" in place.split(".")[:1]
        for name, parameter in module.named_parameters(recurse=False):
            if inside or name == "bias" or isinstance(module, nn.LayerNorm):
                _at(few, place).register_parameter(name, parameter)
    return few


def _at(tree: nn.Module, place: str) -> nn.Module:
    """The module of a dotted name, made where there is none."""
    for part in place.split("."):
        if part not in dict(tree.named_children()):
            tree.add_module(part, nn.Module())
        tree = tree.get_submodule(part)
    return tree


@dataclass(frozen=True, slots=True)
class TextNets:
    """The nets for one data set of texts.

    Args:
        kind: "text": the small encoder, on the house's pieces; "minilm": `encoder`'s, on its own. n_classes: C.
        encoder: whose weights the stages hold; None for the small one. size: of the small one.
    """

    kind: str
    n_classes: int
    encoder: Encoder | None = None
    size: EncoderSize = SMALL

    def exits(self) -> DecisionGraph:
        """An exit after each of the six layers.

        Raises:
            DataMissingError: the encoder is not here.
        """
        if self.encoder is not None:
            return text_exits(self.encoder.folder(), self.n_classes, sha256=self.encoder.sha256)
        words = english()
        domain = TokenDomain(LENGTH, words.vocabulary, words.pad)
        return exits_on(stages_of(self.size), self.size.width, self.n_classes, domain)


TEXT_NETS = {
    "sst2": TextNets("text", 2),
    "ag-news": TextNets("text", 4),
    "sst2-minilm": TextNets("minilm", 2, MINILM),
    "ag-news-minilm": TextNets("minilm", 4, MINILM),
}
"""Data set → nets."""


def infer_unpadded(net: DecisionGraph, x: Tensor, *, seeds: Tensor | None = None) -> Inference:
    """The hard pass with no padding at all: texts of equal length run together.

    Answers are those of `net.infer(x)`, ties aside; `macs` are what the texts themselves cost, to be told beside those
    of rows that are padded.

    Args:
        x: (N, L) ids. seeds: (N,), for policies that draw.

    Raises:
        CapabilityError: the net takes rows of one length only.
    """
    domain = net.domain
    assert isinstance(domain, TokenDomain)
    if not domain.trims:
        raise CapabilityError(
            f"the net takes rows of {domain.length} columns and no fewer columns.",
            why="Without padding a text is shorter, and its forward says something else, or nothing, of shorter rows.",
            todo="Take net.infer: padding is part of what this net costs.",
        )
    if net.policy.draws and seeds is None:
        seeds = seeds_from_content(x)
    places, parts = [], []
    for rows, ids in domain.by_length(x):
        places.append(rows)
        parts.append(net.infer(ids, seeds=None if seeds is None else seeds[rows]))
    whole, order = Inference.join(parts), torch.cat(places).argsort()
    return Inference(*(getattr(whole, f.name)[order] for f in fields(Inference)))
