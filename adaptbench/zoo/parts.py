"""A row of the zoo's table: what a weight file holds, how its net is built, what it starts from, how it is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import nn

from adaptbench.adaptive import DecisionGraph, MultiExit
from adaptbench.models.cifar import CIFAR_NETS, CifarNets
from adaptbench.models.segmentation import PIXEL_NETS, PixelNets
from adaptbench.models.small import SMALL_NETS, SmallNets
from adaptbench.models.text import TEXT_NETS, TextNets
from adaptbench.zoo.training.procedures import Procedure

Nets = SmallNets | CifarNets | TextNets | PixelNets
"""The nets for one data set; `kind` says for which pictures or texts."""
Module = TypeVar("Module", bound=nn.Module)

NETS: dict[str, Nets] = {**SMALL_NETS, **CIFAR_NETS, **TEXT_NETS, **PIXEL_NETS}


def itself(net: Module) -> Module:
    """The whole net."""
    return net


def stage(i: int) -> Callable[[DecisionGraph], nn.Module]:
    """One node's module."""
    return lambda net: net.stages[i]


def bolted_heads(net: MultiExit) -> nn.ModuleList:
    """The bolted-on heads, without the net's own."""
    return nn.ModuleList(list(net.heads)[:-1])


def all_heads(net: DecisionGraph) -> nn.ModuleList:
    """Every head, the last one among them."""
    return net.heads


@dataclass(frozen=True, slots=True)
class Part:
    """A weight file, by whose stem the table lists it.

    Args:
        build: the fresh net that it is trained in, from the nets of a data set.
        train: how. needs: parts that it starts from or is bolted onto, trained before it.
        holds: the module, inside the net, whose weights the file holds.
        base: the module, inside the net, that the first part needed goes into and stays in; None where none does.
    """

    build: Callable[[Any], nn.Module]
    train: Procedure
    needs: tuple[str, ...] = ()
    holds: Callable[[Any], nn.Module] = itself
    base: Callable[[Any], nn.Module] | None = None


@dataclass(frozen=True, slots=True)
class TrainingRecipe:
    """How everything for one data set is trained, on one scale.

    Args:
        parts: the table: name → part.
        halved: large weights are stored as float16.
        prices: λ values that selection modules are fitted for.
        drop: accuracy fraction that policies may give up on the choosing part of the calibration split.
        epsilon: of the softmax-threshold policy.
        seed: of everything.
    """

    parts: Mapping[str, Part]
    halved: bool
    prices: tuple[float, ...]
    drop: float = 0.005
    epsilon: float = 0.01
    seed: int = 0
