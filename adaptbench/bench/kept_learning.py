"""What attacks learn once and a run keeps: a resumed run, or the next chunk of it, trains nothing anew."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from adaptbench.adaptive import AdaptiveModel, Split
from adaptbench.attacks import Attack
from adaptbench.attacks.base import Learned
from adaptbench.attacks.identity import own_code
from adaptbench.errors import CapabilityError
from adaptbench.experiment.keys import digest_of, model_hash, split_hash
from adaptbench.results.writer import RunWriter

Told = Callable[[int, int], None]


def learned_in(
    cells: RunWriter | None,
    attack: Attack | None,
    model: AdaptiveModel,
    crafting: Split | None,
    *,
    seed: int,
    device: str,
    told: Told | None = None,
) -> Learned | None:
    """What an attack has learned, read from a cell or learned now and kept there; None for one that learns nothing.

    Args:
        cells: of the run; None keeps nothing. crafting: pictures that it learns from. seed: of the run.
        device: where the model is. told: (done, of) while it learns.

    Raises:
        CapabilityError: there are no crafting pictures, or the attack does not apply to the model.
    """
    if attack is None or not attack.learns:
        return None
    if crafting is None:
        raise CapabilityError(
            f"'{attack.name}' is trained on crafting pictures, and there are none.",
            todo="Give data with a calibration split.",
        )
    key = learned_key(attack, model, crafting, seed=seed, device=device)
    if cells is not None and cells.has(key):
        kept = cells.load(key)
        if kept.tensors is not None:
            tensors = {name: torch.from_numpy(np.array(array)) for name, array in kept.tensors.items()}
            return Learned(tensors, dict(kept.record["told"]))
    learned = attack.learn(model, crafting, seed=seed, on_progress=told)
    if cells is not None:
        arrays = {name: tensor.numpy() for name, tensor in learned.tensors.items()}
        cells.commit(key, {"told": learned.told}, tensors=arrays)
    return learned


def learned_key(attack: Attack, model: AdaptiveModel, crafting: Split, *, seed: int, device: str) -> str:
    """Of all that it hangs on; what is attacked afterwards is not in it."""
    parts = [own_code(), torch.__version__, model_hash(model), attack.learns_as, attack.versions]
    return f"learned-{digest_of([*parts, split_hash(crafting), seed, device.partition(':')[0]])}"
