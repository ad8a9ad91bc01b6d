"""Checks of what the net sees: range, normaliser, and whether cheapness hangs on the exact bytes of the pictures."""

from __future__ import annotations

import torch
from torch import Tensor

from adaptbench.adaptive import AdaptiveModel, Split
from adaptbench.adaptive.domain import pictures_of
from adaptbench.auditing.changed import better_scaled, most_taken_back
from adaptbench.auditing.findings import Check
from adaptbench.bench.evaluate import as_input
from adaptbench.report import words

MOVED = 0.05
"""Share of the saving that ±1 grey level may take back before the clean figures are in doubt."""


def full_range(split: Split) -> Check:
    """8-bit pictures use their range; floats cast to bytes, or pictures of 16 grey levels, do not."""
    low, high = int(split.x.min()), int(split.x.max())
    values = len(torch.unique(split.x))
    seen = f"{len(split)} pictures with {values} values from {low} to {high} of 0 … 255"
    if high <= 1:
        return Check("8-bit range", "cannot be trusted", f"{seen}: floats in [0, 1] were cast to bytes, it seems")
    if high < 128:
        return Check("8-bit range", "doubt", f"{seen}: eps is a larger part of their range than it seems")
    return Check("8-bit range", "ok", seen)


def normaliser_inside(model: AdaptiveModel, split: Split, device: str) -> Check:
    """The net takes [0, 1], and answers no better when the pictures are scaled in one of the usual ways first."""
    name = "normaliser inside"
    domain = pictures_of(model.domain, "a check of pictures")
    if (domain.low, domain.high) != (0.0, 1.0):
        return Check(
            name,
            "cannot be trusted",
            f"the net declares inputs in [{domain.low:g}, {domain.high:g}]; attacks work on pictures in "
            "[0, 1], so its normaliser is outside",
        )
    x, y = model.taken(as_input(split.x, device)), split.y
    return better_scaled(model, x, y, _scalings(x), "pictures in [0, 1]")


def _scalings(x: Tensor) -> dict[str, Tensor]:
    mean, std = x.mean((0, 2, 3), keepdim=True), x.std((0, 2, 3), keepdim=True).clamp_min(1e-6)
    scaled = {"standardised": (x - mean) / std, "put in [−1, 1]": 2 * x - 1, "put in [0, 255]": 255 * x}
    return scaled | ({"given blue first": x.flip(1)} if x.shape[1] == 3 else {})


def cheap_by_content(model: AdaptiveModel, split: Split, seed: int, device: str) -> Check:
    """A net that knows the test pictures by their bytes is cheap on them alone: ±1 grey level takes its saving away."""
    name = "cost after re-encoding"
    worst = most_taken_back(model, split, _re_encoded(split.x, seed), seed, device)
    if worst is None:
        return Check(name, "ok", "clean pictures cost the maximum already")
    back, what = worst
    seen = f"{what} takes back {words.percent(back.value)} {words.interval(back.ci)} of the saving"
    if back.low > MOVED:
        return Check(name, "cannot be trusted", f"{seen}: the net is cheap on the exact bytes of these pictures only")
    return Check(name, "doubt" if back.value > MOVED else "ok", f"{seen}, and no other change of ±1 more")


def _re_encoded(x: Tensor, seed: int) -> dict[str, Tensor]:
    """(N, C, H, W) uint8 each: what another decoder, camera or file format may make of the same pictures."""
    wide, draw = x.to(torch.int16), torch.Generator().manual_seed(seed)
    sign = torch.randint(0, 2, x.shape, generator=draw, dtype=torch.int16) * 2 - 1
    one = torch.zeros_like(wide)
    one[:, :, x.shape[2] // 2, x.shape[3] // 2] = 1
    one = torch.where(wide == 255, -one, one)
    changed = {
        "one grey level more": wide + 1,
        "one grey level less": wide - 1,
        "±1 grey level": wide + sign,
        "one grey level in the middle": wide + one,
    }
    return {how: value.clamp(0, 255).to(torch.uint8) for how, value in changed.items()}
