"""Augmentation of uint8 batches with tensor operations and a generator of its own."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from adaptbench.errors import UsageError
from adaptbench.registry import did_you_mean

Augmentation = Callable[[Tensor, Generator], Tensor]

PAD = 2


def random_crop(x: Tensor, generator: Generator, pad: int = PAD) -> Tensor:
    """Pad with black and cut each picture out at a place of its own; x (N, C, H, W) uint8."""
    n, _, h, w = x.shape
    corner = torch.randint(0, 2 * pad + 1, (2, n), generator=generator).to(x.device)
    padded = F.pad(x, (pad, pad, pad, pad))
    rows = corner[0, :, None] + torch.arange(h, device=x.device)
    columns = corner[1, :, None] + torch.arange(w, device=x.device)
    batch = torch.arange(n, device=x.device)
    # Indices around a slice put the channel last.
    return padded[batch[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def random_flip(x: Tensor, generator: Generator) -> Tensor:
    """Mirror each picture left to right with probability ½; x (N, C, H, W) uint8."""
    heads = torch.rand(len(x), generator=generator).to(x.device) < 0.5
    return torch.where(heads[:, None, None, None], x.flip(-1), x)


def crop_and_flip(x: Tensor, generator: Generator) -> Tensor:
    """`random_crop`, then `random_flip`."""
    return random_flip(random_crop(x, generator), generator)


AUGMENTATIONS: dict[str, Augmentation | None] = {
    "none": None,
    "crop": random_crop,
    "flip": random_flip,
    "crop+flip": crop_and_flip,
}


def augmentation(name: str) -> Augmentation | None:
    """The augmentation of a name.

    Raises:
        UsageError: no such name.
    """
    if name not in AUGMENTATIONS:
        raise UsageError(
            f"no augmentation is called '{name}'.",
            todo=f"{did_you_mean(name, AUGMENTATIONS)}There are: {', '.join(AUGMENTATIONS)}.",
        )
    return AUGMENTATIONS[name]
