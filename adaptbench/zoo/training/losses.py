"""What the recipes minimise."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptbench.adaptive import Cascade, GatedNetwork
from adaptbench.adaptive.halting import HaltingNetwork
from adaptbench.policies.gates.learned_cascade import LearnedCascade, stage_losses
from adaptbench.policies.gates.selection_module import Estimator, cascade_objective, stopping_distribution


def cross_entropy(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Of a plain net."""
    return F.cross_entropy(module(x), y)


def plain_backbone(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of a gated net with every block run and no gate asked."""
    assert isinstance(module, GatedNetwork)
    return F.cross_entropy(module.plain_forward(x), y)


def gated_at_rate(rate: float, weight: float) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    """Cross-entropy through straight-through gates, plus the squared distance of each gate's mean opening from a rate.

    The rate is asked of every gate over the batch, not of every sample: which samples open it is the data's business.
    """

    def loss(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        assert isinstance(module, GatedNetwork)
        logits, margins = module.gated_forward(x)
        opening = torch.sigmoid(margins).mean(0)
        return F.cross_entropy(logits, y) + weight * (opening - rate).square().sum()

    return loss


def joint_cascade(price: float, estimator: Estimator) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    """Guan et al. 2018's J for nets and selection modules together.

    Nets: cross-entropy weighted by π(k|x). Selection modules, and the nets through the probabilities that the modules
    read: reward −(0/1 loss) − λ·A_k, by REINFORCE or the exact sum. (0/1 loss for the stops, because a confident
    mistake dominates cross-entropy.)
    """

    def loss(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        assert isinstance(module, Cascade)
        assert isinstance(module.policy, LearnedCascade)
        logits = module.dense_logits(x)
        stop = module.policy.stop_probabilities(logits)
        increments = torch.tensor(module.node_macs, dtype=logits.dtype)
        costs = increments.cumsum(0) / increments[-1]
        decisions = cascade_objective(
            stop,
            stage_losses(logits.detach(), y, "zero-one"),
            costs,
            price=price,
            estimator=estimator,
            entropy_bonus=1e-3,
        )
        chances = stopping_distribution(stop).detach()
        return decisions + (chances * stage_losses(logits, y, "cross-entropy")).sum(1).mean()

    return loss


def pondering(tau: float) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    """Cross-entropy of a halting net plus τ · Σ of its stages' ponder costs (Figurnov et al., CVPR 2017)."""

    def loss(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        assert isinstance(module, HaltingNetwork)
        logits, margins = module.unmasked(x)
        return F.cross_entropy(logits, y) + tau * module.ponder(margins).sum(1).mean()

    return loss
