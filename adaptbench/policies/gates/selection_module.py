"""The small network behind learned stop-or-go decisions, and how its stop probabilities make an objective."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from adaptbench.errors import UsageError

Estimator = Literal["exact", "reinforce"]


def selection_module(width: int, actions: int, hidden: int = 32) -> nn.Sequential:
    """Features (n, width) → (n, actions)."""
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, actions))


def stopping_distribution(stop: Tensor) -> Tensor:
    """π(k|x) = s_k · Π_{j<k} (1 − s_j), with s_K ≡ 1 (Guan et al. 2018).

    Args:
        stop: (N, K−1) probabilities of stopping after each net but the last.

    Returns:
        (N, K), rows sum to 1.
    """
    going = torch.cumprod(1 - stop, dim=1)
    ones = stop.new_ones(len(stop), 1)
    return torch.cat([stop, ones], 1) * torch.cat([ones, going], 1)


def cascade_objective(
    stop: Tensor,
    losses: Tensor,
    accumulated_cost: Tensor,
    *,
    price: float,
    estimator: Estimator,
    generator: torch.Generator | None = None,
    entropy_bonus: float = 0.0,
) -> Tensor:
    """−J, to be minimised: E over inputs and stops of ℓ(y, p_k) + λ·A_k (Guan et al. 2018).

    Args:
        stop: (N, K−1) in (0, 1).
        losses: (N, K) ℓ of each net; gradients flow to the nets where they are attached.
        accumulated_cost: (K,) A_k, normalised by the last net's own cost.
        price: λ.
        estimator: "exact" sums over k (all nets were run anyway), "reinforce" samples one k a row, with the mean
            reward under π as baseline.
        generator: for "reinforce".
        entropy_bonus: weight of the mean entropy of s_k.

    Raises:
        UsageError: an unknown estimator.
    """
    chances = stopping_distribution(stop)
    reward = -losses - price * accumulated_cost
    if estimator == "exact":
        objective = -(chances * reward).sum(1).mean()
    elif estimator == "reinforce":
        drawn = torch.multinomial(chances.detach(), 1, generator=generator)
        got = reward.gather(1, drawn).squeeze(1)
        baseline = (chances * reward).sum(1).detach()
        likelihood = chances.gather(1, drawn).squeeze(1).clamp_min(1e-8).log()
        # score-function term for the stops, path-wise term for the nets' own loss
        objective = -(((got - baseline).detach() * likelihood) + got).mean()
    else:
        raise UsageError(f"no estimator is called '{estimator}'.", todo="Use 'reinforce' or 'exact'.")
    if entropy_bonus:
        objective = objective - entropy_bonus * (torch.special.entr(stop) + torch.special.entr(1 - stop)).mean()
    return objective
