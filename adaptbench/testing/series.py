"""A made set of series in the form of UCI HAR, and a small net with exits: for tests and examples, no measurement."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

ACTIVITIES = ("SLOW", "FAST", "BURSTS", "STILL")
CHANNELS = ("body_acc_x", "body_acc_y", "body_gyro_x")
STEPS = 64
"""Of a window; the published ones have nine channels of 128."""


def write_har(folder: Path | str, *, windows: int = 400, seed: int = 0) -> Path:
    """Waves that nobody measured, a kind a class, under noise of a strength of their own.

    Args:
        folder: made if it is not there. windows: in train, and half as many in test. seed: of all that is drawn.
    """
    place = Path(folder)
    draw = np.random.RandomState(seed)
    for part, n in (("train", windows), ("test", windows // 2)):
        signals = place / part / "Inertial Signals"
        signals.mkdir(parents=True, exist_ok=True)
        y = np.arange(n) % len(ACTIVITIES)
        x = np.stack([_window(int(label), draw) for label in y])
        for c, channel in enumerate(CHANNELS):
            np.savetxt(signals / f"{channel}_{part}.txt", x[:, c], fmt="%.5e")
        np.savetxt(place / part / f"y_{part}.txt", y + 1, fmt="%d")
        np.savetxt(place / part / f"subject_{part}.txt", 1 + np.arange(n) * 10 // n, fmt="%d")
    lines = "".join(f"{i} {name}\n" for i, name in enumerate(ACTIVITIES, 1))
    (place / "activity_labels.txt").write_text(lines, encoding="utf-8")
    return place


def _window(label: int, draw: np.random.RandomState) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    t = np.arange(STEPS) / STEPS
    phase = draw.rand(len(CHANNELS), 1) * 2 * np.pi
    waves = {
        0: np.sin(2 * np.pi * 2 * t + phase),
        1: np.sin(2 * np.pi * 7 * t + phase),
        2: np.sin(2 * np.pi * 7 * t + phase) * (np.sin(2 * np.pi * t + phase[0]) > 0),
        3: np.zeros((len(CHANNELS), STEPS)),
    }
    strength = 0.05 + 0.6 * draw.rand() ** 2
    window: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = np.clip(
        0.6 * waves[label] + strength * draw.randn(len(CHANNELS), STEPS), -2, 2
    )
    return window


class SeriesNet(nn.Module):
    """Three one-dimensional convolutions with a head after each, as a stranger would write it."""

    def __init__(self, channels: int = len(CHANNELS), classes: int = len(ACTIVITIES), width: int = 12) -> None:
        super().__init__()
        sizes = (channels, width, 2 * width, 4 * width)
        self.convs = nn.ModuleList(nn.Conv1d(a, b, 5, stride=2, padding=2) for a, b in pairwise(sizes))
        self.heads = nn.ModuleList(nn.Linear(size, classes) for size in sizes[1:])

    def forward(self, x: Tensor) -> list[Tensor]:
        """(n, C, T) → logits (n, classes) of each head."""
        outs = []
        for conv, head in zip(self.convs, self.heads, strict=True):
            x = torch.relu(conv(x))
            outs.append(head(x.mean(2)))
        return outs
