"""Coarse patterns of signs: what moves a net's confidence is rarely one pixel."""

from __future__ import annotations

import torch
from torch import Tensor

from adaptbench.attacks.queried import Campaign

_SHARES = (1 / 28, 1 / 14, 1 / 9, 1 / 7, 1 / 5, 1 / 4, 1 / 3, 1 / 2, 1.0)
"""Sides of cells, of the picture's side."""


def cells(campaign: Campaign, height: Tensor, width: Tensor) -> Tensor:
    """Random signs, equal within cells that start anywhere; a channel's own.

    Args:
        height, width: (N,) int64 sides of an input's cells, in pixels; a side of the whole picture makes stripes.

    Returns:
        (N, C, H, W) float, ±1.
    """
    c, h, w = campaign.clean.shape[1:]
    signs = torch.where(campaign.uniform(c, h + 1, w + 1) < 0.5, -1.0, 1.0)
    start = campaign.uniform(2)
    down, across = _places(h, height, start[:, 0]), _places(w, width, start[:, 1])
    rows = signs.gather(2, down[:, None, :, None].expand(-1, c, -1, w + 1))
    return rows.gather(3, across[:, None, None, :].expand(-1, c, h, -1))


def coarse(campaign: Campaign, finest: float, stripes: float) -> Tensor:
    """Random signs at a random scale: squares, or stripes across the whole picture.

    Args:
        finest: the smallest side of a square, a share of the picture's. stripes: share of patterns.

    Returns:
        (N, C, H, W) float, ±1.
    """
    h, w = campaign.clean.shape[2:]
    square, stripe, kind = campaign.uniform(3).unbind(1)
    sides = [share for share in _SHARES if share >= finest] or [1.0]
    side, thin = _choose(square, sides), _choose(stripe, list(_SHARES))
    lying, standing = kind < stripes / 2, (kind >= stripes / 2) & (kind < stripes)
    one = torch.ones_like(side)
    height = torch.where(lying, thin, torch.where(standing, one, side))
    width = torch.where(standing, thin, torch.where(lying, one, side))
    return cells(campaign, _pixels(height, h), _pixels(width, w))


def windows(campaign: Campaign, height: Tensor, width: Tensor, place: Tensor) -> Tensor:
    """Rectangles that lie inside the picture.

    Args:
        height, width: (N,) int64 in pixels. place: (N, 2) in [0, 1), of the corner.

    Returns:
        (N, 1, H, W) bool.
    """
    h, w = campaign.clean.shape[2:]
    top, left = (place[:, 0] * (h - height + 1)).long(), (place[:, 1] * (w - width + 1)).long()
    return (_span(h, top, height)[:, :, None] & _span(w, left, width)[:, None, :])[:, None]


def _span(length: int, start: Tensor, size: Tensor) -> Tensor:
    places = torch.arange(length, device=start.device)
    return (places >= start[:, None]) & (places < (start + size)[:, None])


def _places(length: int, side: Tensor, start: Tensor) -> Tensor:
    """(N, length) int64: the cell that each place lies in."""
    offset = (start * side).long()
    return (torch.arange(length, device=side.device) + offset[:, None]) // side[:, None]


def _choose(uniform: Tensor, options: list[float]) -> Tensor:
    """(N,) one of the options for each number in [0, 1)."""
    return uniform.new_tensor(options)[(uniform * len(options)).long()]


def _pixels(share: Tensor, length: int) -> Tensor:
    return (share * length).round().clamp(1, length).long()
