"""Training of nets whose tokens leave: first without leaving, then with a share of the tokens asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptbench.adaptive.splits import Split
from adaptbench.adaptive.token_network import TokenNetwork
from adaptbench.models.vit import START, Score
from adaptbench.zoo.training.loop import fit
from adaptbench.zoo.training.phase import Phase
from adaptbench.zoo.training.session import Session

_LOOKED_AT = 500
_JUDGED = 1000
_SHIFT = 0.01


@dataclass(frozen=True, slots=True)
class TokenHalting:
    """A transformer with all its tokens, then transformer and halting scores together at a share of the tokens.

    Args:
        phases: these two.
        share: of the tokens' runs behind the first block, asked of the mean over a batch; A-ViT asks for a depth by a
            prior over the layers instead, and adds the ponder cost.
        weight: of the squared distance from it. ponder: price of A-ViT's ponder cost N + R, a token in the mean.
        whole: share of each batch that goes through with all its tokens, so that the backbone stays one.
        temperature: of the straight-through decisions.
        start: bias of the halting scores where the second phase begins.
        settled: share of the runs that all scores are shifted to at the end, on training images; None: as trained.
    """

    phases: tuple[Phase, Phase]
    share: float = 0.5
    weight: float = 10.0
    ponder: float = 0.0
    whole: float = 0.25
    temperature: float = 0.25
    start: float = START
    settled: float | None = None

    def __call__(self, net: TokenNetwork, needed: Sequence[nn.Sequential], session: Session) -> None:
        """A trained net that is needed gives its layers but the last to the stem, where they stay as they are."""
        for trunk in needed:
            own: nn.Module = net.stem[0]  # type: ignore[index]
            own.load_state_dict({k: v for k, v in trunk.state_dict().items() if not k.startswith("head.")})
            own.requires_grad_(False)
        first, second = self.phases

        def judge(net: nn.Module) -> dict[str, float]:
            assert isinstance(net, TokenNetwork)
            return judged(net, session.calibration, session.device)

        session.run("plain", fit, net, first, plain_tokens, evaluate=judge)
        for module in net.rule.modules():
            if isinstance(module, Score):
                nn.init.constant_(module.linear.bias, self.start)
        loss = halted_at_share(self.share, self.weight, self.ponder, self.whole, self.temperature)
        session.run("halting", fit, net, second, loss, evaluate=judge)
        if self.settled is not None:
            settle(net, session.some(), self.settled)


def plain_tokens(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy with every token in every block."""
    assert isinstance(module, TokenNetwork)
    return F.cross_entropy(module.plain_forward(x), y)


def halted_at_share(
    share: float, weight: float, ponder: float, whole: float, temperature: float
) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    """Cross-entropy with tokens leaving, plus the squared distance of the share that runs; arguments as above."""

    def loss(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        assert isinstance(module, TokenNetwork)
        spared = int(whole * len(x))
        logits, margins = module.masked_forward(x[spared:], temperature=temperature)
        least = margins.float().cummin(1).values
        soft = torch.sigmoid(least / temperature)
        runs = (least > 0).to(soft.dtype) + soft - soft.detach()
        value = F.cross_entropy(logits, y[spared:], reduction="sum")
        if spared:
            value = value + F.cross_entropy(module.plain_forward(x[:spared]), y[:spared], reduction="sum")
        value = value / len(x) + weight * (runs.mean() - share).square()
        return value + ponder * ponder_cost(margins).mean() if ponder else value

    return loss


def ponder_cost(margins: Tensor, epsilon: float = 0.01) -> Tensor:
    """(n, T) A-ViT's ρ = N + R of each token: blocks run, and what was left of one for the last of them.

    N has no gradient; R = 1 − Σ_{i<N} h has that of the scores before the last.

    Args:
        margins: (n, B − 1, T), 1 − ε − Σh after each block but the last. epsilon: ε.
    """
    runs = margins.cummin(1).values > 0
    spent = torch.where(runs, (1 - epsilon) - margins, torch.zeros_like(margins)).amax(1)
    return 1 + runs.sum(1) + (1 - spent)


@torch.no_grad()
def settle(net: TokenNetwork, x: Tensor, share: float) -> float:
    """Shift all halting scores by one number, so that a share of the tokens' runs behind the first block is left.

    Args:
        x: (n, C, H, W) training images. share: that they are to have; found to a hundredth of a logit.

    Returns:
        The shift of the biases.
    """
    biases = [module.linear.bias for module in net.rule.modules() if isinstance(module, Score)]
    own = [bias.clone() for bias in biases]
    low, high = -8.0, 8.0
    while high - low > _SHIFT:
        middle = (low + high) / 2
        for bias, was in zip(biases, own, strict=True):
            bias.copy_(was + middle)
        low, high = (middle, high) if _share_left(net, x) > share else (low, middle)
    return middle


def _share_left(net: TokenNetwork, x: Tensor) -> float:
    runs = net.infer(x).path[:, 1:-1].view(len(x), len(net.blocks), -1)[:, 1:]
    return float(runs.double().mean())


@torch.no_grad()
def judged(net: TokenNetwork, split: Split, device: str) -> dict[str, float]:
    """Of up to 1 000: accuracy with all tokens and with those that the rule leaves, and MACs saved; for the card."""
    whole, left, macs, n = 0, 0, 0, min(len(split), _JUDGED)
    for start in range(0, n, _LOOKED_AT):
        x, y = split.images(start, min(n, start + _LOOKED_AT)), split.y[start : min(n, start + _LOOKED_AT)]
        given = x.to(device)
        whole += int((net.plain_forward(given).argmax(1).cpu() == y).sum())
        inference = net.infer(given)
        left += int((inference.predictions.cpu() == y).sum())
        macs += int(inference.macs.sum())
    return {
        "accuracy_some_of_calibration": left / n,
        "accuracy_some_of_calibration_all_tokens": whole / n,
        "saving": 1 - macs / n / net.macs_full,
    }
