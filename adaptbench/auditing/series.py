"""Checks of what a net of series sees: its sensor's range, its normaliser, and cheapness on the exact digits."""

from __future__ import annotations

import torch
from torch import Tensor

from adaptbench.adaptive import AdaptiveModel, Split
from adaptbench.adaptive.series import SeriesDomain
from adaptbench.auditing.changed import better_scaled, most_taken_back
from adaptbench.auditing.findings import Check
from adaptbench.auditing.pictures import MOVED
from adaptbench.bench.evaluate import as_input
from adaptbench.report import words

BITS = 12
"""Of the digitiser whose steps nobody would notice."""
NARROW, CLIPPED = 0.25, 0.01
"""Share of the declared range that values span at least, and that may lie on its ends, before it is in doubt."""


def range_used(model: AdaptiveModel, split: Split) -> Check:
    """Values span the range that the net declares: an attacker's share of a wider one is more than it seems."""
    domain = _domain(model)
    low, high = float(split.x.min()), float(split.x.max())
    ends = float(((split.x <= domain.low) | (split.x >= domain.high)).float().mean())
    unit = f" {domain.unit}" if domain.unit else ""
    seen = f"{len(split)} series from {low:.3g} to {high:.3g} of {domain.low:g} … {domain.high:g}{unit}"
    if high - low < NARROW * (domain.high - domain.low):
        return Check("range of the sensor", "doubt", f"{seen}: a share of the range is more of them than it seems")
    if ends > CLIPPED:
        told = f"{seen}, {words.percent(ends)} of the values on its ends: they were clipped"
        return Check("range of the sensor", "doubt", told)
    return Check("range of the sensor", "ok", seen)


def normaliser_inside(model: AdaptiveModel, split: Split, device: str) -> Check:
    """The net takes values as they were measured."""
    domain, x = _domain(model), model.taken(as_input(split.x, device))
    mean, std = x.mean((0, 2), keepdim=True), x.std((0, 2), keepdim=True).clamp_min(1e-6)
    middle, half = (domain.high + domain.low) / 2, (domain.high - domain.low) / 2
    scalings = {
        "standardised by channel": (x - mean) / std,
        "put in [−1, 1]": (x - middle) / half,
        "put in [0, 1]": (x - domain.low) / (2 * half),
    }
    return better_scaled(model, x, split.y, scalings, f"series in {domain.unit or 'the unit of its domain'}")


def cheap_by_content(model: AdaptiveModel, split: Split, seed: int, device: str) -> Check:
    """A net that knows the test series by their digits is cheap on them alone: a step of 12 bits takes its saving."""
    name, domain = "cost after re-encoding", _domain(model)
    worst = most_taken_back(model, split, _re_encoded(split.x, domain, seed), seed, device)
    if worst is None:
        return Check(name, "ok", "clean series cost the maximum already")
    back, what = worst
    seen = f"{what} takes back {words.percent(back.value)} {words.interval(back.ci)} of the saving"
    if back.low > MOVED:
        return Check(name, "cannot be trusted", f"{seen}: the net is cheap on the exact digits of these series only")
    return Check(name, "doubt" if back.value > MOVED else "ok", f"{seen}, and no other change of one step more")


def _re_encoded(x: Tensor, domain: SeriesDomain, seed: int) -> dict[str, Tensor]:
    """(N, C, T) each: what another digitiser or file format may make of the same series."""
    step, draw = (domain.high - domain.low) / 2**BITS, torch.Generator().manual_seed(seed)
    sign = torch.randint(0, 2, x.shape, generator=draw) * 2 - 1
    changed = {
        f"rounding to {BITS} bits of the range": domain.low + ((x - domain.low) / step).round() * step,
        f"one step of {BITS} bits more": x + step,
        f"one step of {BITS} bits less": x - step,
        f"±1 step of {BITS} bits": x + step * sign,
    }
    return {how: domain.clamp(value) for how, value in changed.items()}


def _domain(model: AdaptiveModel) -> SeriesDomain:
    assert isinstance(model.domain, SeriesDomain)
    return model.domain
