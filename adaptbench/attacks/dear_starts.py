"""Where a search may begin: at the change that leads from a picture towards another one that is dear as it is.

Of crafting pictures, which judge nothing, the dearest are kept. Each attacked picture tries them in turn, clipped into
its own constraint, x + clip(x_dear − x), and begins with the one that costs most by the hard pass.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor

from adaptbench.attacks.base import Learned, Task, to_bytes
from adaptbench.attacks.constraints import Constraint
from adaptbench.attacks.disjoint import pictures_apart, require_enough
from adaptbench.attacks.judging import Best, hard_macs

PICTURES = 500
"""Crafting pictures that are looked at, the first of them."""
KEPT = 8
"""The dearest of these, which every attacked picture tries."""
NAME = f"dear: {KEPT} of {PICTURES}"
"""What is learned, for its hash."""


def dearest_pictures(name: str, task: Task) -> Learned:
    """The dearest crafting pictures by executed MACs, the first of equals, as `dear`: (K, C, H, W) uint8.

    Args:
        name: of the attack, for messages.

    Raises:
        CapabilityError, LeakageError, DomainError: as `pictures_apart` and `require_enough`.
    """
    x, _, source = pictures_apart(name, task)
    if task.learned is not None:
        return task.learned
    require_enough(name, len(x))
    began, pictures = time.monotonic(), to_bytes(x[:PICTURES])
    macs, order = torch.sort(hard_macs(task.model, pictures), descending=True, stable=True)
    told = {
        "crafted_on": [source],
        "dear_starts_macs": float(macs[:KEPT].double().mean()),
        "training_queries": float(len(pictures)),
        "training_s": time.monotonic() - began,
    }
    if macs[0] == macs[-1]:
        told["notes"] = ["no crafting picture is dearer than another: the searches that begin at one begin anywhere"]
    return Learned({"dear": pictures[order[:KEPT]].cpu()}, told)


def towards(best: Best, constraint: Constraint, dear: Tensor, rows: Tensor, clean: Tensor) -> Tensor:
    """(n, C, H, W) float, the dearest way towards a dear picture; it is offered to `best`, too.

    Args:
        best: whose judge is asked. dear: (K, C, H, W) uint8. rows: (n,) who begins. clean: (n, C, H, W) their pictures.
    """
    places = [constraint.project(one.expand_as(clean), clean) for one in dear.to(clean.device).float() / 255.0]
    scores = torch.stack([best.judge.score(rows, constraint.quantise(place, clean)) for place in places])
    found = torch.stack(places)[scores.argmax(0), torch.arange(len(rows), device=rows.device)]  # the first of equals
    best.offer(rows, constraint.quantise(found, clean), torch.zeros(len(rows), device=clean.device))
    return found
