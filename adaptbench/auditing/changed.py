"""The same inputs, written otherwise: is the net right more often, or dearer?"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from adaptbench.adaptive import AdaptiveModel, Split
from adaptbench.adaptive.model import frozen
from adaptbench.auditing.findings import Check
from adaptbench.bench.evaluate import as_input, sample_seeds
from adaptbench.report import words
from adaptbench.results import metrics, statistics
from adaptbench.results.statistics import Estimate

GAIN, SURE = 0.05, 0.01
"""Of accuracy by another scaling, and the p of McNemar's test, from which the normaliser seems to be outside."""


def better_scaled(model: AdaptiveModel, x: Tensor, y: Tensor, scalings: Mapping[str, Tensor], plain: str) -> Check:
    """The net answers no better when inputs are scaled in one of the usual ways first.

    Args:
        x: (N, …) as the net takes them. y: (N,). scalings: how → the same scaled. plain: what `x` is, in words.
    """
    name = "normaliser inside"
    right = _right(model, x, y)
    found = f"the net answers {words.percent(right.mean())} right on {plain}"
    for how, scaled in scalings.items():
        other = _right(model, scaled, y)
        _, _, p = statistics.mcnemar_exact(right, other)
        if other.mean() >= right.mean() + GAIN and p < SURE:
            return Check(
                name,
                "cannot be trusted",
                f"{found} and {words.percent(other.mean())} where they are {how} first: its normaliser is outside",
            )
    return Check(name, "ok", f"{found}, and no better where they are scaled in another usual way first")


def _right(model: AdaptiveModel, x: Tensor, y: Tensor) -> np.ndarray:
    with frozen(model), torch.no_grad():
        answers = torch.cat([model.run_reference(part) for part in torch.split(x, 100)])
    right: np.ndarray = (answers.argmax(1).cpu() == y).numpy()
    return right


def most_taken_back(
    model: AdaptiveModel, split: Split, changed: Mapping[str, Tensor], seed: int, device: str
) -> tuple[Estimate, str] | None:
    """The largest recovery among changes that nobody aimed, and which it was; None where nothing is saved.

    Args:
        changed: what was done → the stored inputs (N, …) after it.
    """
    seeds = sample_seeds(split.ids, seed).to(device)
    clean = _costs(model, split.x, seeds, device)
    if clean.mean() >= model.max_macs:
        return None
    worst: tuple[Estimate, str] | None = None
    for how, x in changed.items():
        back = metrics.recovery(clean, _costs(model, x, seeds, device), model.max_macs, seed=seed)
        if back is not None and (worst is None or back.value > worst[0].value):
            worst = back, how
    return worst


def _costs(model: AdaptiveModel, x: Tensor, seeds: Tensor, device: str) -> np.ndarray:
    parts = zip(torch.split(x, 500), torch.split(seeds, 500), strict=True)
    macs = torch.cat([model.infer(as_input(part, device), seeds=own).macs.cpu() for part, own in parts])
    return macs.double().numpy()
