"""Nets of text: a small encoder with all its exits, heads on an encoder that stays as it is or is tuned a little."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from adaptbench.adaptive import DecisionGraph, TokenDomain
from adaptbench.models.text import few_weights
from adaptbench.zoo.training.exits import train_heads
from adaptbench.zoo.training.loop import fit
from adaptbench.zoo.training.objective import fit_objective
from adaptbench.zoo.training.phase import Phase
from adaptbench.zoo.training.session import Session
from adaptbench.zoo.training.strategies import strategy


@dataclass(frozen=True, slots=True)
class TextExits:
    """An encoder and all its exits from scratch, Σ of their cross-entropies, the later the heavier.

    Args:
        hidden: share of the pieces that are shown as another one, drawn anew in every step: a small set of texts is
            otherwise learned by heart.
    """

    phase: Phase
    hidden: float = 0.2

    def __call__(self, net: DecisionGraph, needed: Sequence[Any], session: Session) -> None:
        """Weights k / Σk, as PABEE trains (Zhou et al. 2020)."""
        session.run("", fit, net, self.phase, _all_exits(self.hidden), channels_last=False)


@dataclass(frozen=True, slots=True)
class TextHeads:
    """Exit heads on an encoder's states, the last one's too; the encoder stays as it is.

    Args:
        encoder: whose weights the stages hold, for the card.
    """

    phase: Phase
    encoder: str
    backbone: str = field(default="frozen", init=False)

    def __call__(self, net: DecisionGraph, needed: Sequence[Any], session: Session) -> None:
        """All heads at once: they share nothing. The encoder runs once over the texts."""
        session.run("", train_heads, net, self.phase, exits=range(len(net.heads)), channels_last=False)


@dataclass(frozen=True, slots=True)
class TunedExits:
    """An encoder and all its exits together; of the encoder only biases and layer norms move (`few_weights`).

    Args:
        encoder, sha256: whose weights the stages start from, and their hash, for the card.
        strategy: how the exits' losses are weighed, one of `STRATEGIES`; EENet's own. options: of the strategy.
    """

    phase: Phase
    encoder: str
    sha256: str
    strategy: str = "distilled"
    options: Mapping[str, Any] = field(default_factory=dict)
    backbone: str = field(default="biases and layer norms", init=False)

    def __call__(self, net: DecisionGraph, needed: Sequence[Any], session: Session) -> None:
        """What is not trained keeps its bytes."""
        net.requires_grad_(False)
        few_weights(net).requires_grad_(True)
        how = strategy(self.strategy, net, **self.options)
        with sdpa_kernel(SDPBackend.MATH) if session.device == "cpu" else nullcontext():
            # there the fused kernel's backward pass in bfloat16 takes five to eight times as long
            session.run("", fit_objective, how, self.phase, channels_last=False)


def _all_exits(hidden: float) -> Any:
    def loss(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        assert isinstance(net, DecisionGraph)
        assert isinstance(net.domain, TokenDomain)
        x = net.domain.trimmed(x)
        drawn = torch.randint_like(x, 1, len(net.domain.vocabulary))
        struck = (torch.rand(x.shape, device=x.device) < hidden) & (x != net.domain.pad)
        struck[:, 0] = False
        logits = net.dense_logits(torch.where(struck, drawn, x))
        weights = torch.arange(1, logits.shape[1] + 1, device=x.device, dtype=logits.dtype)
        losses = torch.stack([F.cross_entropy(z, y) for z in logits.unbind(1)])
        return (losses * weights).sum() / weights.sum()

    return loss
