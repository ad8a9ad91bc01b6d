"""Inputs for the kits, drawn from a model's domain."""

from __future__ import annotations

import torch
from torch import Tensor

from adaptbench.adaptive.domain import Domain, ImageDomain
from adaptbench.adaptive.series import SeriesDomain


def drawn_inputs(domain: Domain, n: int, generator: torch.Generator) -> Tensor:
    """(n, …) inputs: pictures and series from flat to full contrast, texts from short to long."""
    order = torch.randperm(n, generator=generator)
    if isinstance(domain, ImageDomain | SeriesDomain):
        low, high = float(domain.low), float(domain.high)
        contrast = torch.linspace(0.05, 1.0, n)[order].view(-1, *[1] * len(domain.shape))
        noise = torch.rand((n, *domain.shape), generator=generator) - 0.5
        return low + (high - low) * (0.5 + contrast * noise)
    ids = domain.drawn(n, generator)
    lengths = torch.linspace(1, domain.length, n).round()[order]
    return torch.where(torch.arange(domain.length) < lengths[:, None], ids, domain.pad)
