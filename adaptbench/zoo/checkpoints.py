"""Weights and their card: safetensors beside a JSON file that holds the weights' hash. Nothing here unpickles."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adaptbench.errors import CheckpointError, NonFiniteError

SUFFIX = ".safetensors"
_PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin")
_ZIP, _PICKLE_PROTOCOL = b"PK\x03\x04", b"\x80"
_SHOWN = 3
_DIGITS = 18
"""Of an integer of 64 bits, at least."""


def card_path(path: Path) -> Path:
    """Where the card of a weight file is: ``net.safetensors`` → ``net.json``."""
    return path.with_suffix(".json")


def save(path: Path, tensors: Mapping[str, Tensor], card: Mapping[str, Any]) -> str:
    """Write weights and card; the card gets the weights' hash under "sha256". Each file is replaced as a whole.

    Args:
        path: ``….safetensors``.
        tensors: name → tensor; tied ones are stored twice.
        card: what JSON can hold: recipe, data hash, accuracy, …

    Returns:
        The SHA-256 of the weight file.

    Raises:
        CheckpointError: another suffix, or a card that JSON cannot hold.
        NonFiniteError: a tensor holds NaN or infinity.
    """
    from safetensors.torch import save as to_bytes

    if path.suffix != SUFFIX:
        raise CheckpointError(f"weights were to be saved as {path.name}.", todo=f"Give a name that ends in {SUFFIX}.")
    _refuse_non_finite(path, tensors)
    # Clones: the format refuses tensors that share memory. Sorted: equal weights give equal bytes.
    data = to_bytes({name: tensors[name].detach().cpu().contiguous().clone() for name in sorted(tensors)})
    digest = hashlib.sha256(data).hexdigest()
    try:
        text = json.dumps({**card, "sha256": digest}, indent=2, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"the card of {path.name} cannot be written as JSON: {error}.",
            todo="Use numbers, strings, lists and dicts; null for what is missing.",
        ) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, data)
    _replace(card_path(path), f"{text}\n".encode())
    return digest


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read weights and card, on the CPU.

    Raises:
        CheckpointError: missing, truncated, changed since it was saved, or of a format that can run code.
        NonFiniteError: a tensor holds NaN or infinity.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load as from_bytes

    data = _weights(path)
    card = _card(path)
    if (digest := hashlib.sha256(data).hexdigest()) != card["sha256"]:
        raise CheckpointError(
            f"{path}: its SHA-256 is {digest[:12]}…, its card {card_path(path).name} says {str(card['sha256'])[:12]}…",
            why="The weights were cut off or changed after they were saved; the card's figures are not theirs.",
            todo="Fetch or train the checkpoint again.",
        )
    try:
        tensors: dict[str, Tensor] = from_bytes(data)
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is not a safetensors file: {error}.",
            why="It is truncated or of another format.",
            todo="Fetch or train it again.",
        ) from error
    _refuse_non_finite(path, tensors)
    return tensors, card


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], *, name: str = "the checkpoint") -> None:
    """Copy weights into a module, which keeps its device and memory layout.

    Raises:
        CheckpointError: names, shapes or kinds differ; the module is left as it was. The first that differ are named.
    """
    own = module.state_dict()
    odd = [
        text
        for key in sorted(own.keys() | tensors.keys())
        if (text := _difference(key, own.get(key), tensors.get(key)))
    ]
    if odd:
        more = f" and {len(odd) - _SHOWN} more" if len(odd) > _SHOWN else ""
        raise CheckpointError(
            f"{name} does not fit {type(module).__name__}: {'; '.join(odd[:_SHOWN])}{more}.",
            why="It holds the weights of another architecture or width.",
            todo="Build the module with the settings in the checkpoint's card, or train this one.",
        )
    with torch.no_grad():
        for key, tensor in own.items():
            tensor.copy_(tensors[key])


def _difference(key: str, own: Tensor | None, saved: Tensor | None) -> str:
    if own is None:
        return f"'{key}' is not in the module"
    if saved is None:
        return f"'{key}' is missing"
    if own.shape != saved.shape:
        return f"'{key}' has shape {tuple(saved.shape)}, the module's is {tuple(own.shape)}"
    if own.is_floating_point() != saved.is_floating_point():
        return f"'{key}' is {saved.dtype}, the module's is {own.dtype}"
    return ""


def _weights(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            head = file.read(4)
            # A pickle is refused by its first bytes or its name, before the rest is read.
            if head[:4] == _ZIP or head[:1] == _PICKLE_PROTOCOL or path.suffix in _PICKLES:
                raise _pickle(path)
            return head + file.read()
    except FileNotFoundError:
        raise CheckpointError(
            f"there is no checkpoint {path}.", todo="Check the name; `adaptbench train MODEL` makes one."
        ) from None
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read: {error.strerror}.", todo="Name a safetensors file that you may read."
        ) from error


def _card(path: Path) -> dict[str, Any]:
    place = card_path(path)
    try:
        card = json.loads(place.read_text(encoding="utf-8"), parse_int=_bounded, parse_constant=_no_figure)
    except FileNotFoundError:
        raise CheckpointError(
            f"{path} has no card {place.name} beside it.",
            why="Without the card nothing says what the weights are, or whether they are whole.",
            todo="Copy both files, or save the weights with adaptbench.zoo.checkpoints.save.",
        ) from None
    except (ValueError, OSError, RecursionError) as error:
        raise CheckpointError(f"the card {place} cannot be read: {error}.", todo="Fetch both files again.") from error
    if not isinstance(card, dict) or not isinstance(card.get("sha256"), str):
        raise CheckpointError(
            f'the card {place} has no "sha256".',
            why="Damage to the weights could not be told.",
            todo="Fetch both files again.",
        )
    return card


def _bounded(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


def _no_figure(name: str) -> None:
    raise ValueError(f"{name} is no figure")


def _pickle(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path} is a pickle (torch.save) or named like one.",
        why="Reading a pickle runs whatever code it holds.",
        todo="If you trust its source, convert it once:\n"
        '  python -c "import torch, safetensors.torch as s; '
        f"s.save_file(torch.load(r'{path}', weights_only=True), r'{path.with_suffix(SUFFIX)}')\"\n"
        "then load the tensors with safetensors and store them with adaptbench.zoo.checkpoints.save.",
    )


def _refuse_non_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    odd = [name for name, t in tensors.items() if t.is_floating_point() and not bool(torch.isfinite(t).all())]
    if odd:
        raise NonFiniteError(
            f"{path}: {len(odd)} tensors hold NaN or infinity, '{odd[0]}' first.",
            why="Every prediction of such a net is meaningless, and comparisons with NaN are silently false.",
            todo="Train again with a lower learning rate, or take an earlier checkpoint.",
        )


def _replace(path: Path, data: bytes) -> None:
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(data)
    os.replace(partial, path)
