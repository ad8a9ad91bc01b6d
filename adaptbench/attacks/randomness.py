"""Random numbers that belong to a sample: a pure function of seed, sample id, draw and pixel, whatever the batch."""

from __future__ import annotations

import torch
from torch import Tensor

from adaptbench.adaptive.outcome import uniform_from


def sample_keys(ids: Tensor, seed: int, draw: int = 0) -> Tensor:
    """(N,) int64, one well-mixed key a sample.

    Args:
        ids: (N,) int64 sample ids. seed: of the run. draw: which of the attack's draws.
    """
    key = ids.to(torch.int64)
    for word in (seed, draw):
        key = _mix(key ^ _mix(torch.full_like(key, word)))
    return key


def uniform_pixels(ids: Tensor, shape: tuple[int, ...], seed: int, draw: int = 0) -> Tensor:
    """(N, *shape) float32 in [−1, 1).

    Args:
        ids: (N,) int64. shape: of one sample.
    """
    size = int(torch.tensor(shape).prod())
    lanes = torch.arange(size, device=ids.device, dtype=torch.int64)
    keys = sample_keys(ids, seed, draw)[:, None] + lanes * 0x5851F42D4C957F2D
    return (uniform_from(keys, 0) * 2 - 1).view(len(ids), *shape)


def _mix(z: Tensor) -> Tensor:
    """The 64-bit finaliser of splitmix64, on int64."""
    z = (z ^ _shift(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shift(z, 27)) * _signed(0x94D049BB133111EB)
    return z ^ _shift(z, 31)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _shift(z: Tensor, bits: int) -> Tensor:
    """Logical right shift."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)
