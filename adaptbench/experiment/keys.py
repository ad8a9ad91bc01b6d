"""Content keys: hashes over everything that a cell hangs on, so that nothing stale is ever read back."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from adaptbench.adaptive import AdaptiveModel, DecisionGraph, Split
from adaptbench.attacks import Attack
from adaptbench.attacks.identity import foreign_sources, own_code
from adaptbench.version import __version__


def digest_of(content: Any) -> str:
    """SHA-256 of JSON content with sorted keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def evaluation_key(
    identity: Sequence[object],
    model: AdaptiveModel,
    split: Split,
    attack: Attack | None,
    surrogate: AdaptiveModel | None,
    *,
    seed: int,
    device: str,
    chunk: int,
    crafting: Split | None = None,
) -> str:
    """What the rows of one evaluation hang on.

    Args:
        identity: fields that tell it apart. model: weights, policy and code. split: inputs, labels and ids.
        attack: None for clean inputs. surrogate: for transfer attacks. seed: of crafting and drawing.
        device: its kind is enough, so that shards may be crafted on several machines. chunk: where batches are cut.
        crafting: pictures for attacks that share one change.
    """
    return digest_of({
        "adaptbench": __version__,
        "code": own_code(),
        "torch": torch.__version__,
        "evaluation": list(identity),
        "model": model_hash(model),
        "data": split_hash(split),
        "attack": None if attack is None else [attack.sha256, attack.versions],
        "surrogate": None if surrogate is None else model_hash(surrogate),
        "crafting": None if crafting is None else split_hash(crafting),
        "seed": seed,
        "device": device.partition(":")[0],
        "chunk": chunk,
    })  # fmt: skip


def split_hash(split: Split) -> str:
    """SHA-256 over name, role, pictures, labels and ids; random numbers are drawn from the ids."""
    return digest_of([split.name, split.role, split.sha256, _spelled(split.ids)])


def model_hash(model: AdaptiveModel) -> str:
    """SHA-256 over every tensor, every plain setting, the structure and, for foreign classes, their code."""
    digest = hashlib.sha256()
    for name, module in model.named_modules():
        _add(digest, f"module {name} {type(module).__module__}.{type(module).__qualname__}")
        for key, value in sorted(_settings(module).items()):
            _add(digest, f"{name}.{key} = {_spelled(value)}")
        if isinstance(code := _code(module), str):
            _add(digest, code)
    # buffers that are not kept in checkpoints (a normaliser's means) count like any other
    for name, tensor in sorted([*model.named_parameters(), *model.named_buffers()]):
        _add(digest, f"tensor {name} {_spelled(tensor)}")
    _add(digest, json.dumps(foreign_sources({type(m) for m in model.modules()})))
    if isinstance(model, DecisionGraph):
        _add(digest, f"{model.policy.name} {json.dumps(model.policy.describe(), sort_keys=True, default=str)}")
    return digest.hexdigest()


def _add(digest: Any, text: str) -> None:
    digest.update(text.encode())
    digest.update(b"\0")


def _settings(module: nn.Module) -> dict[str, Any]:
    """Public attributes; private ones are caches."""
    return {k: v for k, v in vars(module).items() if not k.startswith("_") and k != "training"}


def _code(module: nn.Module) -> str | None:
    """Generated code of traced and scripted modules, whose classes say nothing."""
    if isinstance(module, torch.fx.GraphModule):
        return str(module.code)
    if isinstance(module, torch.jit.ScriptModule):
        try:
            return str(module.inlined_graph)
        except RuntimeError:  # no forward of its own
            return None
    return None


def _spelled(value: Any) -> str:
    """A value as text that is the same in every process; objects by their class only."""
    if isinstance(value, Tensor):
        raw = value.detach().cpu().contiguous().reshape(-1)
        data = raw.dequantize() if raw.is_quantized else raw
        content = hashlib.sha256(data.view(torch.uint8).numpy().tobytes()).hexdigest()
        return f"{value.dtype} {tuple(value.shape)} {content}"
    if isinstance(value, dict):
        return str(sorted((str(k), _spelled(v)) for k, v in value.items()))
    if isinstance(value, list | tuple):
        return str([_spelled(v) for v in value])
    if isinstance(value, set | frozenset):
        return str(sorted(_spelled(v) for v in value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return str([(f.name, _spelled(getattr(value, f.name))) for f in dataclasses.fields(value)])
    if value is None or isinstance(value, bool | int | float | str | torch.dtype | torch.Size):
        return repr(value)
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    return re.sub(r" at 0x[0-9a-f]+", "", repr(type(value)))
