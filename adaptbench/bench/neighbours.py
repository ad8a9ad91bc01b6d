"""What attacked rows do to their batch: the same batches with none, one and a few of them, timed side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adaptbench.adaptive import AdaptiveModel
from adaptbench.bench.plan import Evaluation, Plan
from adaptbench.errors import CapabilityError
from adaptbench.experiment.timed import make_arm
from adaptbench.meters.windows import Arm
from adaptbench.results.identity import mixed_id, timed_id


@dataclass(frozen=True, slots=True)
class Mixed:
    """One arm: clean batches in which some rows are attacked.

    Args:
        arm: for the session. attacked: rows of each batch. macs: of one batch, mean.
    """

    arm: Arm
    attacked: int
    macs: float


def mixtures(asked: Sequence[int], size: int) -> list[int]:
    """How many rows of a batch are attacked, none first; nothing where no clean neighbour would be left."""
    some = [k for k in asked if k < size]
    return [0, *some] if some else []


def mixed_cases(plan: Plan, size: int) -> dict[str, Evaluation]:
    """Windows of a session that are of mixed batches, by case, in order."""
    spec = plan.suite.suite.measure
    asked = mixtures(spec.neighbours, size) if spec is not None else []
    return {mixed_id(timed_id(e.id, size), k): e for e in plan.timed if e.kind == "attack" for k in asked}


def mixed_batches(clean: Tensor, attacked: Tensor, size: int, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Clean inputs, as many as fill whole batches; of each batch k rows, spread evenly, are their attacked versions.

    Args:
        clean, attacked: (n, C, H, W), row for row the same inputs. size: of a batch. k: below it.

    Returns:
        (m, C, H, W) inputs, (m,) int64 rows of `clean` that they are, and (m,) bool: attacked.
    """
    n = max(len(clean), size) // size * size
    rows = torch.arange(n, device=clean.device) % len(clean)
    is_attacked = torch.zeros(n // size, size, dtype=torch.bool, device=clean.device)
    if k:
        is_attacked[:, torch.arange(k, device=clean.device) * size // k] = True
    flat = is_attacked.flatten()
    return torch.where(flat[:, None, None, None], attacked[rows], clean[rows]), rows, flat


def mixed_arm(
    case: str, model: AdaptiveModel, clean: Tensor, attacked: Tensor, seeds: Tensor, size: int, k: int
) -> Mixed:
    """An arm of mixed batches, once it is clear that no clean row costs otherwise beside attacked ones.

    Args:
        case: its id. model: under its policy. clean, attacked: (n, C, H, W) on the device. seeds: (n,).

    Raises:
        CapabilityError: a clean row does, no decision of it being a tie: rows of a batch touch each other.
    """
    x, rows, is_attacked = mixed_batches(clean, attacked, size, k)
    own = seeds.to(rows.device)[rows]
    arm, inputs = make_arm(case, model, x, own, size)
    macs = torch.from_numpy(inputs.macs)
    alone = [model.infer(clean[part], seeds=seeds.to(part.device)[part]) for part in torch.split(rows, size)]
    before = torch.cat([inference.macs for inference in alone]).cpu()
    tie = torch.cat([inference.tie for inference in alone]).cpu()
    moved = (macs != before) & ~tie & ~is_attacked.cpu()
    if moved.any():
        row = int(moved.nonzero()[0])
        raise CapabilityError(
            f"{int(moved.sum())} of {int((~is_attacked).sum())} clean rows cost otherwise beside {k} attacked ones: "
            f"row {row} {int(macs[row])} MACs, alone {int(before[row])}.",
            why="Rows of a batch touch each other, so that what one costs is no figure of its own.",
            todo="Run `adaptbench audit`: its laws say where.",
        )
    return Mixed(arm, k, float(macs.sum()) / (len(x) // size))
