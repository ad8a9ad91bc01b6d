"""Pictures that an attack learns from and is not judged on, and how a model is known again in the next craft."""

from __future__ import annotations

import hashlib
import json

from torch import Tensor

from adaptbench.adaptive import AdaptiveModel, DecisionGraph, Split
from adaptbench.attacks.base import Task, to_bytes
from adaptbench.attacks.judging import hard_macs
from adaptbench.attacks.purity import weights
from adaptbench.errors import CapabilityError, DomainError, LeakageError

FEWEST = 10
_CHUNK = 256


def pictures_apart(name: str, task: Task) -> tuple[Tensor, Tensor, str]:
    """Crafting pictures of a task on its device, float in [0, 1]; their labels; and what they are called.

    Args:
        name: of the attack, for messages.

    Raises:
        CapabilityError: none were given.
        LeakageError: some of them are among those that are attacked, or may only be judged on.
        DomainError: they are no such pictures as are attacked.
    """
    given = task.crafting
    if given is None:
        raise CapabilityError(
            f"'{name}' is crafted on pictures of its own, and none were given.",
            why="A change that was made for the pictures that judge it says nothing about others.",
            todo="Call craft(…, crafting=(x, y)), or crafting=data.split('calibration').",
        )
    if not isinstance(given, Split | tuple):
        given = given()
    if isinstance(given, Split):
        given.require("train", "calibration", purpose=f"crafting '{name}'")
        x, y, source = given.images(), given.y, f"{given.name}/{given.role}"
    else:
        (x, y), source = given, "pictures given"
        task.model.domain.check(x)
    if len(x) != len(y) or tuple(x.shape[1:]) != tuple(task.x.shape[1:]):
        raise DomainError(
            f"{len(x)} crafting pictures of shape {tuple(x.shape[1:])} were given with {len(y)} labels; "
            f"those attacked are of shape {tuple(task.x.shape[1:])}.",
            todo="Give pictures as the attacked ones are, and a label each.",
        )
    chosen = to_bytes(x)
    if both := len(_each(chosen) & _each(to_bytes(task.x))):
        raise LeakageError(
            f"{both} of the crafting pictures are among those that '{name}' is judged on.",
            why="A change that was made for the pictures that judge it says nothing about others.",
            todo="Give crafting pictures of another split.",
        )
    digest = hashlib.sha256(chosen.cpu().numpy().tobytes()).hexdigest()[:16]
    return chosen.to(task.x.device).float() / 255.0, y.to(task.x.device), f"{source} {digest}"


def require_enough(name: str, found: int, of: str = "") -> None:
    """Refuse to learn from a handful.

    Args:
        of: which pictures, for the message (" of class 3").

    Raises:
        CapabilityError: fewer than `FEWEST`.
    """
    if found < FEWEST:
        raise CapabilityError(
            f"there are {found} crafting pictures{of}; '{name}' needs {FEWEST} at least.",
            todo="Give more of them with crafting=, or leave the attack out.",
        )


def known_by(model: AdaptiveModel, seed: int, x: Tensor, *beside: Tensor) -> str:
    """Hash of what is learned from crafting pictures hangs on: seed, pictures, weights, policy, and what they cost.

    Args:
        x: (N, C, H, W) crafting pictures, float. beside: further tensors that tell the model apart.
    """
    told = model.policy.describe() if isinstance(model, DecisionGraph) else {}
    policy = json.dumps(told, sort_keys=True, default=str)
    digest = hashlib.sha256(f"{seed} {weights(model)} {model.max_macs} {policy}".encode())
    for tensor in (to_bytes(x), hard_macs(model, to_bytes(x[:_CHUNK])), *beside):
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _each(pictures: Tensor) -> set[bytes]:
    return {row.tobytes() for row in pictures.cpu().numpy()}
