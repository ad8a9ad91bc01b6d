"""A training's state on disk: one safetensors file, its metadata the epochs and the recipe. No pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adaptbench.errors import CheckpointError

_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One epoch: its number from 1, of how many, the mean loss, the last step's rate, and `evaluate`'s figures."""

    epoch: int
    epochs: int
    loss: float
    lr: float
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LoopState:
    """The parts of a training that change: they are read when saving and overwritten when loading."""

    module: nn.Module
    optimiser: torch.optim.Optimizer
    average: dict[str, Tensor]


def save_progress(path: Path, state: LoopState, identity: Mapping[str, Any], history: Sequence[EpochRecord]) -> None:
    """Write the state after an epoch; a reader sees the old file or the new one, never a part.

    Random state is not stored: every epoch seeds its generators from (seed, epoch).
    """
    from safetensors.torch import save_file

    tensors = {f"model/{name}": t for name, t in state.module.state_dict().items()}
    tensors |= {f"ema/{name}": t for name, t in state.average.items()}
    plain: dict[str, dict[str, Any]] = {}
    for index, held in state.optimiser.state_dict()["state"].items():
        for key, value in held.items():
            if isinstance(value, Tensor):
                tensors[f"optimiser/{index}/{key}"] = value
            else:
                plain.setdefault(str(index), {})[key] = value
    meta = {
        "schema": _SCHEMA,
        "identity": identity,
        "optimiser": plain,
        "history": [asdict(record) for record in history],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    # Clones: tied weights share memory, which the format refuses.
    copies = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    save_file(copies, partial, metadata={"adaptbench-training": json.dumps(meta)})
    os.replace(partial, path)


def load_progress(path: Path, state: LoopState, identity: Mapping[str, Any]) -> list[EpochRecord]:
    """Put a saved state back; the history so far.

    Raises:
        CheckpointError: damaged, not a training checkpoint, or of another recipe, data or module.
    """
    tensors, meta = _read(path)
    if meta.get("schema") != _SCHEMA:
        raise _foreign(path, f"has schema {meta.get('schema')}, this version reads {_SCHEMA}")
    if (saved := meta["identity"]) != json.loads(json.dumps(identity)):
        raise _foreign(path, f"was written by another training: {_differences(saved, dict(identity))}")
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "ema": {}, "optimiser": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition("/")
        parts[part][rest] = tensor
    _fill(path, state.module.state_dict(), parts["model"])
    _fill(path, state.average, parts["ema"])
    state.optimiser.load_state_dict(_optimiser_state(state.optimiser, parts["optimiser"], meta["optimiser"]))
    return [EpochRecord(**record) for record in meta["history"]]


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("adaptbench-training")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError) as error:
        raise _foreign(path, f"cannot be read as safetensors ({error})") from error
    if text is None:
        raise _foreign(path, "is a safetensors file, but not of a training")
    return tensors, json.loads(text)


@torch.no_grad()
def _fill(path: Path, target: Mapping[str, Tensor], source: Mapping[str, Tensor]) -> None:
    shapes = {name: tuple(t.shape) for name, t in target.items()}
    if shapes != {name: tuple(t.shape) for name, t in source.items()}:
        odd = sorted(
            name
            for name in shapes.keys() | source.keys()
            if name not in source or shapes.get(name) != tuple(source[name].shape)
        )
        raise _foreign(path, f"is of another module: {', '.join(odd[:3])} differ")
    for name, tensor in target.items():
        tensor.copy_(source[name])


def _optimiser_state(
    optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]
) -> dict[str, Any]:
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    state: dict[int, dict[str, Any]] = {int(index): dict(values) for index, values in plain.items()}
    for name, tensor in tensors.items():
        index, _, key = name.partition("/")
        like = parameters[int(index)]
        # In the parameter's memory layout, as an undisturbed training would hold it.
        value = torch.empty_like(like).copy_(tensor) if tensor.shape == like.shape and tensor.ndim else tensor
        state.setdefault(int(index), {})[key] = value.detach()
    return {"state": state, "param_groups": optimiser.state_dict()["param_groups"]}


def _differences(saved: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    pairs = [(f"{key}", saved["recipe"].get(key), value) for key, value in asked["recipe"].items()]
    pairs += [("data", saved["data"][:12], asked["data"][:12])]
    return ", ".join(f"{key} {old} → {new}" for key, old, new in pairs if old != new)


def _foreign(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"the training checkpoint {path} {what}.",
        why="Going on from it would not be the training that was asked for.",
        todo="Delete the file to start afresh, or name another one.",
    )
