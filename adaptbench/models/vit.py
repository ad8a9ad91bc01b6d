"""Small vision transformers whose tokens leave between blocks.

Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021; the stem of small pictures is a few convolutions, after
Xiao et al., "Early Convolutions Help Transformers See Better", NeurIPS 2021, that of CIFAR a small trained ResNet's, as
their section 3.1 ("hybrid architecture") has it. Halting after A-ViT (Yin et al., CVPR 2022), sampling
after ATS (Fayyaz et al., ECCV 2022).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptbench.adaptive.domain import Domain
from adaptbench.adaptive.token_network import TokenNetwork
from adaptbench.adaptive.token_rules import CumulativeHalting, InverseTransformSampling

START = -2.5
"""Bias of every halting score at the start: σ(−2.5) ≈ 0.08, so that at first nobody leaves a net of up to 12 blocks."""
_LEAST = 1e-30  # of the attention that those seen have together


class TokenBlock(nn.Module):
    """Pre-norm attention and MLP, each with its residual. Products are spelled out: they are as fast at these sizes.

    Args:
        width: d. heads: that divide it. ratio: hidden width of the MLP, in d.
    """

    def __init__(self, width: int, heads: int, ratio: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, ratio * width), nn.Linear(ratio * width, width)

    def forward(self, h: Tensor, seen: Tensor | None = None) -> Tensor:
        """(n, k, d) → (n, k, d). seen: (n, k, k) weights from 0 to 1 of who looks at whom; None: everybody at all."""
        return self.answered(h, *self.attention(h, seen))

    def attention(self, h: Tensor, seen: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """What is looked at, and how much; whom nobody sees has a gradient towards being seen.

        Returns:
            weights (n, heads, k, k), values (n, heads, k, d / heads), and the sums (n, heads, k, 1) that the weights
            are still to be divided by, None for ones.
        """
        n, k, width = h.shape
        q, key, v = self.qkv(self.norm1(h)).view(n, k, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        weights = (q @ key.transpose(-1, -2) * (width // self.heads) ** -0.5).softmax(-1)
        if seen is None:
            return weights, v, None
        weights = weights * seen[:, None]
        return weights, v, weights.sum(-1, keepdim=True).clamp_min(_LEAST)

    def answered(self, h: Tensor, weights: Tensor, v: Tensor, sums: Tensor | None) -> Tensor:
        """What the block makes of its attention."""
        mixed = weights.to(v.dtype) @ v
        if sums is not None:
            mixed = mixed / sums.to(v.dtype)
        h = h + self.out(mixed.transpose(1, 2).flatten(2))
        return h + self.down(F.gelu(self.up(self.norm2(h))))  # type: ignore[no-any-return]


class SignificantBlock(TokenBlock):
    """The same over (n, k, d + 1): the last feature of a token that leaves it is its significance in this block.

    That is the class token's attention to it times the norm of its value (Fayyaz et al., ECCV 2022): of each head, in
    the mean over heads. There tokens leave between attention and the rest of the block; here behind the block.
    """

    def forward(self, h: Tensor, seen: Tensor | None = None) -> Tensor:
        """(n, k, d + 1) → (n, k, d + 1)."""
        h = h[..., :-1]
        weights, v, sums = self.attention(h, seen)
        looked_at = weights[:, :, 0] if sums is None else weights[:, :, 0] / sums[:, :, 0]
        significance = (looked_at * v.norm(dim=-1)).mean(1)
        return torch.cat([self.answered(h, weights, v, sums), significance[..., None].to(h.dtype)], -1)


class Tokens(nn.Module):
    """Features (n, c, H, W) → a class token and one token a place, each with its position.

    Args:
        channels: c. width: d. places: H · W.
    """

    def __init__(self, channels: int, width: int, places: int) -> None:
        super().__init__()
        self.project = nn.Linear(channels, width)
        self.first = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.positions = nn.Parameter(torch.randn(1, 1 + places, width) * 0.02)

    def forward(self, h: Tensor) -> Tensor:
        """(n, c, H, W) → (n, 1 + H·W, d)."""
        tokens = self.project(h.flatten(2).transpose(1, 2))
        return torch.cat([self.first.expand(len(h), -1, -1).to(tokens.dtype), tokens], 1) + self.positions


class BlankTokens(Tokens):
    """The same, each token with one more feature, 0: nothing is known of its significance."""

    def forward(self, h: Tensor) -> Tensor:
        """(n, c, H, W) → (n, 1 + H·W, d + 1)."""
        return F.pad(super().forward(h), (0, 1))


class Read(nn.Sequential):
    """A head that does not look at the last feature."""

    def forward(self, first: Tensor) -> Tensor:
        """(n, d + 1) → (n, C)."""
        return super().forward(first[..., :-1])  # type: ignore[no-any-return, no-untyped-call]


class Score(nn.Module):
    """A halting score before the sigmoid: linear in the normed token.

    Args:
        width: d.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(width), nn.Linear(width, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.constant_(self.linear.bias, START)

    def forward(self, tokens: Tensor) -> Tensor:
        """(n, k, d) → (n, k)."""
        return self.linear(self.norm(tokens)).squeeze(-1)  # type: ignore[no-any-return]


class FirstFeature(nn.Module):
    """A-ViT's own score before the sigmoid: γ · (the token's first feature) + β; it has no weights of its own.

    Args:
        gain: γ, 10 there. shift: β, −30 of the tiny net there.
    """

    def __init__(self, gain: float = 10.0, shift: float = -30.0) -> None:
        super().__init__()
        self.gain, self.shift = gain, shift

    def forward(self, tokens: Tensor) -> Tensor:
        """(n, k, d) → (n, k)."""
        return tokens[..., 0] * self.gain + self.shift


def halting_vit(
    trunk: nn.Module,
    channels: int,
    places: int,
    *,
    width: int,
    heads: int,
    depth: int,
    ratio: int = 4,
    domain: Domain,
    n_classes: int,
    **how: Any,
) -> TokenNetwork:
    """A transformer on a trunk's features, whose tokens leave by cumulative halting scores.

    Args:
        trunk: pictures → (n, channels, H, W), the normaliser inside. places: H · W.
        width, heads, depth: of the transformer. ratio: hidden width of its MLPs, in widths.
        domain, n_classes: what it takes and gives.
        how: of `CumulativeHalting`.
    """
    return TokenNetwork(
        stem=nn.Sequential(trunk, Tokens(channels, width, places)),
        blocks=[TokenBlock(width, heads, ratio) for _ in range(depth)],
        head=nn.Sequential(nn.LayerNorm(width), nn.Linear(width, n_classes)),
        rule=CumulativeHalting([Score(width) for _ in range(depth - 1)], **how),
        domain=domain,
        n_classes=n_classes,
    )


def sampling_vit(halting: TokenNetwork, samples: int) -> TokenNetwork:
    """The same transformer, with the same names of weights and fresh ones, its tokens sampled by their significance.

    Args:
        halting: of `halting_vit`. samples: of `InverseTransformSampling`.
    """
    tokens: Any = halting.stem[1]  # type: ignore[index]
    trunk: Any = halting.stem[0]  # type: ignore[index]
    blocks: Any = halting.blocks
    head: Any = halting.head
    width = tokens.project.out_features
    return TokenNetwork(
        stem=nn.Sequential(trunk, BlankTokens(tokens.project.in_features, width, tokens.positions.shape[1] - 1)),
        blocks=[SignificantBlock(width, block.heads, block.up.out_features // width) for block in blocks],
        head=Read(nn.LayerNorm(width), nn.Linear(width, head[-1].out_features)),
        rule=InverseTransformSampling(samples),
        domain=halting.domain,
        n_classes=halting.n_classes,
    )
