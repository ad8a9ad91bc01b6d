"""SkipNet on a CIFAR ResNet: gates before residual blocks, the blocks' weights shared with the plain net.

Wang, Yu, Dou, Darrell, Gonzalez, "SkipNet: Learning Dynamic Routing in Convolutional Networks", ECCV 2018; gates as in
the authors' CIFAR code.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from adaptbench.adaptive import Block, FeedForwardGates, GatedNetwork, Gates, ImageDomain
from adaptbench.errors import UsageError
from adaptbench.models.blocks import conv_bn
from adaptbench.models.resnet import BasicBlock

GateKind = Literal["ffgate1", "ffgate2", "rnn"]

EMBEDDING = HIDDEN = 10


class ConvolutionalGate(nn.Module):
    """Features → one margin, the difference of two logits.

    FFGate-I: 2×2 max pooling, 3×3 convolution, 3×3 convolution of stride 2. FFGate-II: the strided one alone, on the
    whole map. Then global average pooling and a 1×1 convolution to (skip, run).

    Args:
        channels: of the features. second: FFGate-II. open_by: added to the margin at the start.
    """

    def __init__(self, channels: int, *, second: bool = False, open_by: float = 0.0) -> None:
        super().__init__()
        first = [] if second else [nn.MaxPool2d(2), conv_bn(channels, channels)]
        self.features = nn.Sequential(*first, conv_bn(channels, channels, stride=2))
        self.decide = nn.Linear(channels, 2)
        with torch.no_grad():
            self.decide.bias.copy_(torch.tensor([0.0, open_by]))

    def forward(self, h: Tensor) -> Tensor:
        """(n, channels, H, W) → (n,)."""
        skip, run = self.decide(self.features(h).mean((2, 3))).unbind(1)
        return run - skip  # type: ignore[no-any-return]


class RecurrentGates(Gates):
    """One LSTM cell walks along the blocks: average pooling, a linear map to 10 of each block's own, the cell, linear.

    Args:
        channels: of the features that each gated block reads, in order, by index of the block.
        open_by: the margin's bias at the start.
    """

    name = "recurrent gates"

    def __init__(self, channels: dict[int, int], open_by: float = 0.0) -> None:
        super().__init__()
        self.embeddings = nn.ModuleDict({str(b): nn.Linear(width, EMBEDDING) for b, width in channels.items()})
        self.cell = nn.LSTMCell(EMBEDDING, HIDDEN)
        self.to_margin = nn.Linear(HIDDEN, 1)
        nn.init.constant_(self.to_margin.bias, open_by)

    def start(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden and cell state, (n, 10) zeros each."""
        return x.new_zeros(len(x), HIDDEN), x.new_zeros(len(x), HIDDEN)

    def margin(self, block: int, features: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One step of the cell."""
        hidden, cell = self.cell(self.embeddings[str(block)](features.mean((2, 3))), state)
        return self.to_margin(hidden).squeeze(1), (hidden, cell)


def residual_blocks(net: nn.Sequential) -> dict[str, BasicBlock]:
    """The residual blocks of a CIFAR ResNet by name.

    Raises:
        UsageError: not a net of the form stem, blocks, head.
    """
    blocks = {name: part for name, part in net.named_children() if isinstance(part, BasicBlock)}
    names = list(blocks)
    if not blocks or [name for name, _ in net.named_children()] != ["normalise", "stem", *names, "head"]:
        raise UsageError(
            "gates were asked for a net that is no CIFAR ResNet.",
            why=f"Its parts are {', '.join(name for name, _ in net.named_children())}.",
            todo="Give one from adaptbench.models.resnet.resnet(depth, n_classes).",
        )
    return blocks


def gate_blocks(net: nn.Sequential, gates: Gates, ungated: tuple[str, ...], side: int) -> GatedNetwork:
    """A ResNet's own modules as a gated network.

    Option A shortcuts pass on what a skipped block leaves, so a block that halves the map can be skipped too.

    Args:
        net: from `resnet`; shared, not copied.
        gates: one margin for each block that is not among `ungated`.
        side: pixels a side.
    """
    parts = dict(net.named_children())
    blocks = [
        Block(name, block.body, block.shortcut, block.relu, gated=name not in ungated)
        for name, block in residual_blocks(net).items()
    ]
    return GatedNetwork(
        stem=nn.Sequential(parts["normalise"], parts["stem"]),
        blocks=blocks,
        head=parts["head"],
        gates=gates,
        domain=ImageDomain((3, side, side)),
        n_classes=parts["head"][-1].out_features,  # type: ignore[index]
    )


def skipnet(net: nn.Sequential, gates: GateKind = "rnn", *, open_by: float = 0.0, side: int = 32) -> GatedNetwork:
    """A SkipNet on a ResNet's own weights; the first block always runs, all others are gated (as released).

    Deviates: shortcuts are option A where the released nets have 1×1 convolutions, as our backbones are He et al.'s.

    Args:
        net: from `resnet`; shared, not copied.
        gates: "ffgate1", "ffgate2" (SkipNet-110's) or "rnn".
        open_by: bias of every margin at the start. Released: 0; above 0, a trained net begins with most blocks run.
        side: pixels a side.

    Raises:
        UsageError: no such gates, or no CIFAR ResNet.
    """
    if gates not in get_args(GateKind):
        raise UsageError(f"no gates are called '{gates}'.", todo=f"There are: {', '.join(get_args(GateKind))}.")
    blocks = residual_blocks(net)
    widths = [block.body[0][0].in_channels for block in blocks.values()]  # type: ignore[index]
    made: Gates
    if gates == "rnn":
        made = RecurrentGates({b: int(width) for b, width in enumerate(widths) if b}, open_by)
    else:
        made = FeedForwardGates([
            ConvolutionalGate(int(width), second=gates == "ffgate2", open_by=open_by) if b else nn.Identity()
            for b, width in enumerate(widths)
        ])  # fmt: skip
    return gate_blocks(net, made.to(next(net.parameters()).device), (next(iter(blocks)),), side)
