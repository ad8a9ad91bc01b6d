"""Attacks on energy: objective × constraint × search × access, each a part by name, put together by recipes.

Torch and the algorithms load on first use; listing recipes needs neither.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adaptbench.attacks.base import Attack, Crafted
    from adaptbench.attacks.catalogue import Listed, list_attacks
    from adaptbench.attacks.loading import load_attack
    from adaptbench.attacks.named import EREBA, ILFO, BestOfN, DeepSloth, Noise
    from adaptbench.attacks.torchattack import TorchAttack

_HOMES = {
    "Attack": "base",
    "BestOfN": "named",
    "Crafted": "base",
    "DeepSloth": "named",
    "EREBA": "named",
    "ILFO": "named",
    "Listed": "catalogue",
    "Noise": "named",
    "TorchAttack": "torchattack",
    "list_attacks": "catalogue",
    "load_attack": "loading",
}

__all__ = [
    "EREBA",
    "ILFO",
    "Attack",
    "BestOfN",
    "Crafted",
    "DeepSloth",
    "Listed",
    "Noise",
    "TorchAttack",
    "list_attacks",
    "load_attack",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'adaptbench.attacks' has no attribute '{name}'")
    return getattr(importlib.import_module(f"adaptbench.attacks.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
