"""Nets that transfer attacks work on: of the suite's own data set, or of another one of the zoo, ``cifar100/sdn``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from adaptbench.adaptive import AdaptiveModel
from adaptbench.attacks.access import foreign, unlike
from adaptbench.attacks.base import Attack
from adaptbench.zoo.factories import Wanted, load_net
from adaptbench.zoo.loading import Loaded


def home(name: str, data: str) -> tuple[str, str]:
    """A surrogate's data set and net.

    Args:
        name: as a recipe writes it. data: that of the targets.
    """
    other, net = foreign(name)
    return other or data, net


def load_surrogate(
    name: str, data: str, options: Wanted, own: Mapping[str, Loaded] | None = None, folder: Path | None = None
) -> AdaptiveModel:
    """The net under its policy.

    Args:
        name: as a recipe writes it. data: that of the targets. options: of the run.
        own: the suite's own models by label, which come first. folder: of the suite, for factories.

    Raises:
        AdaptBenchError: as `load_net`: no such net, no nets for such data, no checkpoint, a factory that may not run.
    """
    if own and name in own:
        return own[name].model
    where, net = home(name, data)
    return load_net(net, where, options, folder).model


def why_not(attack: Attack, net: str, model: AdaptiveModel, data: str, other: AdaptiveModel | None) -> str | None:
    """Why an attack means nothing on a model, its surrogate considered; or None.

    Args:
        net: the model's name, before policy and defence. data: that it is of. other: the attack's surrogate.
    """
    if attack.surrogate and home(attack.surrogate, data) == (data, net):
        return "it is the surrogate itself; that would be a white-box attack"
    if (reason := attack.applies_to(model)) or other is None:
        return reason
    apart = unlike(other, model)
    return f"the surrogate '{attack.surrogate}' cannot stand in for it: {apart}" if apart else None
