"""Coarse patterns of signs: what moves a net's confidence is rarely one pixel."""

from __future__ import annotations

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from adaptbench.attacks.queried import Campaign


class Draws(Protocol):
    """Pictures, and random numbers for each; a `Campaign` gives an input its own."""

    @property
    def clean(self) -> Tensor:
        """(N, C, H, W) float in [0, 1], the attacker's own pictures."""

    def uniform(self, *shape: int) -> Tensor:
        """(N, *shape) float32 in [0, 1), fresh ones."""


_SHARES = (1 / 28, 1 / 14, 1 / 9, 1 / 7, 1 / 5, 1 / 4, 1 / 3, 1 / 2, 1.0)
"""Sides of cells, of the picture's side."""


def cells(campaign: Draws, height: Tensor, width: Tensor) -> Tensor:
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


def coarse(campaign: Draws, finest: float, stripes: float) -> Tensor:
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


def contours(campaign: Draws) -> Tensor:
    """Coarse signs that know the picture, of three kinds.

    As they are, turned where the picture is darker than its surroundings, or two patterns, one for its bright part and
    one for the dark.

    Returns:
        (N, C, H, W) float, ±1.
    """
    draw = campaign.uniform(2)[:, :, None, None, None]
    one, two = coarse(campaign, 1 / 4, 0.3), coarse(campaign, 1 / 4, 0.3)
    x = campaign.clean
    bright = x > draw[:, 0] / 2
    raised = torch.where(x > _surroundings(x), 1.0, -1.0)
    kind = draw[:, 1] * 3
    return torch.where(kind < 1, torch.where(bright, one, two), torch.where(kind < 2, raised * one, one))


def redrawn(campaign: Draws, pattern: Tensor, other: Tensor) -> Tensor:
    """A pattern turned, or replaced by another one, within one rectangle of a tenth to six tenths of the sides.

    Args:
        pattern, other: (N, C, H, W), ±1.
    """
    h, w = pattern.shape[2:]
    draw = campaign.uniform(5)
    share = 0.1 * 6.0 ** draw[:, :2]
    window = windows(campaign, _pixels(share[:, 0], h), _pixels(share[:, 1], w), draw[:, 2:4])
    turned = torch.where((draw[:, 4] < 0.5).view(-1, 1, 1, 1), -pattern, other)
    return torch.where(window, turned, pattern)


def signed_square(campaign: Draws, pattern: Tensor, share: float) -> Tensor:
    """A pattern with one square of one sign a channel, drawn so that something changes.

    Args:
        pattern: (N, C, H, W), ±1 or 0. share: of the picture that the square covers.
    """
    n, c, h, w = pattern.shape
    side = max(1, min(h, w, round(math.sqrt(share * h * w))))
    draw = campaign.uniform(2 + c)
    sides = torch.full((n,), side, device=pattern.device)
    window = windows(campaign, sides, sides, draw[:, :2])
    signs = torch.where(draw[:, 2:] < 0.5, -1.0, 1.0).view(n, c, 1, 1)
    changed = torch.where(window, signs, pattern)
    same = (changed == pattern).flatten(1).all(1).view(-1, 1, 1, 1)
    return torch.where(same & window, -pattern, changed)


def shrunk(campaign: Campaign, area: float, halvings: int) -> float:
    """The share of the picture that a square covers by now: halved so often, at equal distances of the budget."""
    return area / 2.0 ** math.floor(campaign.asked / campaign.budget * (halvings + 1))


def windows(campaign: Draws, height: Tensor, width: Tensor, place: Tensor) -> Tensor:
    """Rectangles that lie inside the picture.

    Args:
        height, width: (N,) int64 in pixels. place: (N, 2) in [0, 1), of the corner.

    Returns:
        (N, 1, H, W) bool.
    """
    h, w = campaign.clean.shape[2:]
    top, left = (place[:, 0] * (h - height + 1)).long(), (place[:, 1] * (w - width + 1)).long()
    return (_span(h, top, height)[:, :, None] & _span(w, left, width)[:, None, :])[:, None]


def _surroundings(x: Tensor) -> Tensor:
    """(N, C, H, W), the mean over a window of about a quarter of the sides."""
    reach = max(1, min(x.shape[2:]) // 8)
    return F.avg_pool2d(F.pad(x, (reach,) * 4, mode="replicate"), 2 * reach + 1, stride=1)


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
