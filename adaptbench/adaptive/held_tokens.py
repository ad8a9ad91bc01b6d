"""The tokens of a batch that are still there: rows of different lengths one after another, none of them padded."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Part(NamedTuple):
    """Rows with as many tokens left, behind a block.

    Args:
        at: (m, k) where their tokens lay. tokens: (m, k, d). keep: (m, k). noted: (m, k − 1) of the rule, or None.
    """

    at: Tensor
    tokens: Tensor
    keep: Tensor
    noted: Tensor | None


class Held(NamedTuple):
    """The tokens of a batch that are still there, row after row.

    Args:
        tokens: (P, d). rows, places: (P,) whose they are, and where in it, 0 the class token. state: (P,) of the rule.
    """

    tokens: Tensor
    rows: Tensor
    places: Tensor
    state: Tensor | None

    def after(self, parts: list[Part]) -> Held:
        """The same without those that left."""
        at, keep = torch.cat([p.at.flatten() for p in parts]), torch.cat([p.keep.flatten() for p in parts])
        tokens = torch.cat([p.tokens.flatten(0, 1) for p in parts])
        going = at.argsort()
        going = going[keep[going]]
        left = at[going]
        state = None
        if any(p.noted is not None for p in parts):
            empty = next(p.noted for p in parts if p.noted is not None)
            noted = [empty.new_zeros(p.at.shape[0], 0) if p.noted is None else p.noted for p in parts]
            state = torch.cat([F.pad(part, (1, 0)).flatten() for part in noted])[going]
        return Held(tokens[going], self.rows[left], self.places[left], state)


def by_count(rows: Tensor, n: int) -> list[Tensor]:
    """(m, k) places of the tokens of the rows with k left, for each k that occurs. It waits for the device.

    Args:
        rows: (P,) ascending, whose each token is. n: rows.
    """
    counts = rows.new_zeros(n).scatter_add_(0, rows, torch.ones_like(rows))
    starts = counts.cumsum(0) - counts
    sizes = counts.bincount().tolist()
    groups = torch.split(starts[counts.argsort(stable=True)], sizes)
    return [group[:, None] + torch.arange(k, device=rows.device) for k, group in enumerate(groups) if sizes[k]]
