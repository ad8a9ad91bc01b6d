"""Inputs that a model must refuse."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from adaptbench.adaptive.model import AdaptiveModel
from adaptbench.adaptive.outcome import Inference
from adaptbench.errors import CapabilityError, DomainError
from adaptbench.testing.compare import refuses


def outside_is_refused(
    model: AdaptiveModel, x: Tensor, labels: Tensor, infer: Callable[..., Inference], *, relaxes: bool
) -> None:
    """A wrong shape, type or value is refused, with or without gradients.

    Raises:
        AssertionError: something was taken.
    """
    low, high = float(x.amin()), float(x.amax())
    one = x[:2].clone()
    bad: dict[str, Tensor] = {
        "a single picture without a batch": x[0],
        "an empty batch": x[:0],
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
    for what, given in bad.items():
        refuses(lambda given=given: infer(given, labels=labels[:2]), DomainError, what)  # type: ignore[misc]
        if relaxes:
            refuses(lambda given=given: model.relax(given), DomainError, f"relax: {what}")  # type: ignore[misc]
    few = torch.zeros(1, dtype=torch.int64)
    refuses(lambda: infer(one, seeds=few, labels=labels[:2]), DomainError, "seeds for fewer samples")
    refuses(lambda: infer(one, labels=few), DomainError, "labels for fewer samples")
    short = torch.ones(len(model.node_names) + 1, dtype=torch.bool)
    refuses(lambda: infer(one, force=short), CapabilityError, "a forced path of another length")
