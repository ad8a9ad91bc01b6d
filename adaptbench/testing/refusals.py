"""Inputs that a model must refuse."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from adaptbench.adaptive.model import AdaptiveModel
from adaptbench.adaptive.outcome import Inference
from adaptbench.adaptive.tokens import TokenDomain
from adaptbench.errors import CapabilityError, DomainError
from adaptbench.testing.compare import refuses


def outside_is_refused(
    model: AdaptiveModel, x: Tensor, labels: Tensor, infer: Callable[..., Inference], *, relaxes: bool
) -> None:
    """A wrong shape, type or value is refused, with or without gradients.

    Raises:
        AssertionError: something was taken.
    """
    one = x[:2].clone()
    bad = {"a single input without a batch": x[0], "an empty batch": x[:0]}
    bad |= _no_texts(model.domain, one) if isinstance(model.domain, TokenDomain) else _no_pictures(x, one)
    for what, given in bad.items():
        refuses(lambda given=given: infer(given, labels=labels[:2]), DomainError, what)  # type: ignore[misc]
        if relaxes:
            refuses(lambda given=given: model.relax(given), DomainError, f"relax: {what}")  # type: ignore[misc]
    few = torch.zeros(1, dtype=torch.int64)
    refuses(lambda: infer(one, seeds=few, labels=labels[:2]), DomainError, "seeds for fewer samples")
    refuses(lambda: infer(one, labels=few), DomainError, "labels for fewer samples")
    short = torch.ones(len(model.node_names) + 1, dtype=torch.bool)
    refuses(lambda: infer(one, force=short), CapabilityError, "a forced path of another length")


def _no_pictures(x: Tensor, one: Tensor) -> dict[str, Tensor]:
    low, high = float(x.amin()), float(x.amax())
    bad = {
        "whole numbers": torch.zeros_like(one, dtype=torch.uint8),
        "another width": torch.cat([one, one], -1),
        "another number of channels": torch.cat([one, one], 1),
    }
    for name, value in (
        ("NaN", torch.nan),
        ("infinity", torch.inf),
        ("too large", high + 1e3),
        ("too small", low - 1e3),
    ):
        bad[name] = one.clone().index_fill_(0, torch.tensor([1], device=one.device), value)
    return bad


def _no_texts(domain: TokenDomain, one: Tensor) -> dict[str, Tensor]:
    beyond, below, gap = one.clone(), one.clone(), one.clone()
    beyond[1, 0], below[1, 0], gap[1, 0] = len(domain.vocabulary), -1, domain.pad
    fixed = {} if domain.trims or domain.length == 1 else {"fewer columns than the model takes": one[:, :-1]}
    return {
        **fixed,
        "fractions": one.float(),
        "more columns than the model takes": torch.cat([one, one], 1),
        "no column": one[:, :0],
        "an id beyond the vocabulary": beyond,
        "a negative id": below,
        "padding before a token": gap,
    }
