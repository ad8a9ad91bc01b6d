"""Attacks by their papers' names, made in one line: the shipped recipes, with keywords laid over their settings."""

from __future__ import annotations

from typing import Any

from adaptbench.attacks.access import BlackBox
from adaptbench.attacks.best_of import BestOfAttack
from adaptbench.attacks.composed import ComposedAttack, Parts, QueriedAttack, RandomAttack, RecipeAttack
from adaptbench.attacks.ereba import EstimatedAttack
from adaptbench.attacks.loading import load_attack
from adaptbench.attacks.ranges import shown
from adaptbench.errors import RecipeError


def _shipped(name: str, settings: dict[str, Any]) -> RecipeAttack:
    attack = load_attack(name, settings)
    assert isinstance(attack, RecipeAttack)
    return attack


def _queried(name: str, settings: dict[str, Any]) -> tuple[Parts, BlackBox]:
    attack = _shipped(name, settings)
    assert isinstance(attack, QueriedAttack)
    return attack.parts, attack.via


class ILFO(ComposedAttack):
    """Haque, Chauhan, Liu, Yang, CVPR 2020, as in ``attacks/ilfo.yaml``; settings: eps, steps, lr, kappa.

    >>> ILFO(eps=4 / 255, steps=50).settings["steps"]
    50
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(_shipped("ilfo", settings).parts)


class DeepSloth(ComposedAttack):
    """Hong, Kaya, Modoranu, Dumitraş, ICLR 2021, as in ``attacks/deepsloth.yaml``; settings: eps, step, steps, init."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(_shipped("deepsloth", settings).parts)


class Noise(RandomAttack):
    """One random draw on the ball: what an attack of equal norm must beat.

    Args:
        shape: "uniform" or "sign".
        settings: as for `load_attack`: eps, …
    """

    def __init__(self, *, shape: str = "uniform", **settings: Any) -> None:
        if shape not in ("uniform", "sign"):
            raise RecipeError(f"noise of shape {shown(shape)} is not known.", todo="Shapes: uniform, sign.")
        super().__init__(_shipped("noise" if shape == "uniform" else "noise-sign", settings).parts)


class EREBA(EstimatedAttack):
    """Haque, Yadlapalli, Yang, Liu, ICSE 2022, as in ``attacks/ereba.yaml``; settings: eps, queries, rounds, climbs."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(*_queried("ereba", settings))


class BestOfN(BestOfAttack):
    """Chance with as many questions, as in ``attacks/best-of-n.yaml``; settings: eps, queries, shape, block."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(*_queried("best-of-n", settings))
