"""Whether gradients of the answers come as far as the pictures."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from adaptbench.adaptive.model import AdaptiveModel, frozen
from adaptbench.adaptive.tokens import followed


def reaches_pictures(model: AdaptiveModel, logits: Callable[[Tensor], Tensor]) -> bool:
    """Autograd finds a way from every exit's logits back to the pictures, or to the embeddings of a text.

    Args:
        logits: (1, C, H, W) → (1, K, C).
    """
    return all(reached_exits(model, logits))


def reached_exits(model: AdaptiveModel, logits: Callable[[Tensor], Tensor]) -> list[bool]:
    """Of each exit, whether autograd finds a way from its logits back to the pictures; arguments as above."""
    with frozen(model), torch.enable_grad():
        try:
            with followed(model._blank()) as (x, reached):
                answers = logits(x)
                leaf = reached()
        except RuntimeError:  # an operator without a derivative
            return [False] * len(model.exit_names)
        weights = torch.linspace(1, 2, answers.shape[2]).to(answers)
        return [_reaches(z @ weights, leaf) for z in answers[0]]


def _reaches(value: Tensor, leaf: Tensor) -> bool:
    try:
        return bool(torch.autograd.grad(value, leaf, retain_graph=True)[0].any())
    except RuntimeError:  # cut off
        return False
