"""From a name to a model with weights and a policy.

A zoo is a folder with one folder a data set; in it ``PART.safetensors`` holds weights, ``MODEL.policy.safetensors`` a
fitted policy, each with a card (``….json``) that says how it was made.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from adaptbench.adaptive import AdaptiveModel, DecisionGraph
from adaptbench.errors import CheckpointError, PolicyError, UnknownNameError, UsageError
from adaptbench.registry import MODELS, did_you_mean
from adaptbench.zoo import checkpoints
from adaptbench.zoo.parts import NETS
from adaptbench.zoo.recipes import RECIPES
from adaptbench.zoo.systems import Net, System, Weights

SHIPPED = Path(__file__).parent / "shipped"
ENVIRONMENT = "ADAPTBENCH_ZOO"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model ready to run, with what its cards say.

    Args:
        name: registry name. title, cite: of the system.
        model: in eval mode, weights frozen.
        card: {"weights": {part: …}, "policy": …}.
    """

    name: str
    title: str
    cite: str
    model: AdaptiveModel
    card: dict[str, Any]


def zoo_folders(zoo: Path | None) -> list[Path]:
    """Where checkpoints are looked for, in order: the folder given, ADAPTBENCH_ZOO's, those that ship.

    Raises:
        CheckpointError: one that is named is no folder.
    """
    named = os.environ.get(ENVIRONMENT)
    own = [folder for folder in (zoo, Path(named) if named else None) if folder is not None]
    for folder in own:
        if not folder.is_dir():
            raise CheckpointError(
                f"there is no zoo folder {folder}.",
                why="The shipped weights would stand in for yours, unsaid.",
                todo=f"Train into it: adaptbench train MODEL --data NAME --out {folder}; or name another.",
            )
    return [*dict.fromkeys([*own, SHIPPED])]


_FOREIGN = (RuntimeError, LookupError, TypeError, ValueError, ArithmeticError, AttributeError)
"""What policies raise over settings that none of them wrote."""


def load_system(
    name: str, data: str = "digits", *, zoo: Path | None = None, device: str | torch.device = "cpu"
) -> Loaded:
    """A registered model with its shipped (or your own) weights.

    Args:
        name: in the model registry.
        data: name of the data set that it was trained for.
        zoo: folder to look in first, before the shipped checkpoints.
        device: where the model goes.

    Raises:
        UnknownNameError: no such model.
        CheckpointError: no checkpoint for that data set, a damaged one, or one that was made for other weights.
    """
    target = MODELS.load(name)
    if not isinstance(target, System):
        return _from_plugin(name, target, data, device)
    places = _Places(zoo, data, name)
    model, weights = filled(target, data, places.of)
    if isinstance(target.on[NETS[data].kind], str):
        places.check_order()
    cards: dict[str, Any] = {"weights": weights}
    if target.policy is not None:
        assert isinstance(model, DecisionGraph)
        policy_place = places.of(f"{name}.policy")
        places.check_last()
        policy_tensors, policy_card = checkpoints.load(policy_place)
        try:
            model.policy = target.policy.from_state(policy_card["settings"], policy_tensors)
        except (PolicyError, *_FOREIGN) as error:
            said = next(iter(str(error).splitlines()), type(error).__name__)
            raise CheckpointError(
                f"{policy_place} does not hold a policy for '{name}': {said}",
                todo=f"Fit it again: adaptbench train {name} --data {data}.",
            ) from error
        cards["policy"] = _brief(policy_card)
    model.eval().requires_grad_(False).to(device)
    return Loaded(name, target.title, target.cite, model, cards)


def files_of(name: str, data: str) -> list[str]:
    """The zoo files that a registered system needs for a data set; none where it is not built for it.

    Raises:
        UnknownNameError: no such model.
    """
    target = MODELS.load(name)
    if not isinstance(target, System) or data not in NETS or NETS[data].kind not in target.on:
        return []
    files = [*dict.fromkeys(weights.part for weights in net_on(target, data).weights(NETS[data]))]
    policy = [f"{name}.policy"] if target.policy is not None else []
    return [f"{file}{checkpoints.SUFFIX}" for file in files + policy]


def available(data: str, *, zoo: Path | None = None) -> list[str]:
    """The registered systems that have all their checkpoints for a data set, in the registry's order."""
    folders = [folder / data for folder in zoo_folders(zoo)]
    return [
        name
        for name in MODELS.names()
        if (files := files_of(name, data))
        and all(any((folder / file).exists() for folder in folders) for file in files)
    ]


def net_on(system: System, data: str) -> Net:
    """A system's net for a data set.

    Raises:
        UnknownNameError: the zoo has no nets for it.
        UsageError: the system is not built for it.
    """
    if data not in NETS:
        raise UnknownNameError(
            f"the zoo has no nets for data '{data}', so none for model '{system.name}'.",
            why="Layer sizes and the normaliser belong to a kind of picture.",
            todo=f"{did_you_mean(data, NETS)}Data with nets: {', '.join(NETS)}.",
        )
    nets = NETS[data]
    if nets.kind not in system.on:
        built = [other for other in NETS if NETS[other].kind in system.on]
        raise UsageError(f"model '{system.name}' is not built for '{data}'.", todo=f"Ask for data {', '.join(built)}.")
    net = system.on[nets.kind]
    if isinstance(net, Net):
        return net
    name = net.format(nets=nets)
    part = {**RECIPES[data]["short"].parts, **system.parts}[name]  # nets are the same on every scale
    base = [Weights(part.needs[0], part.base)] if part.base else []
    return Net(part.build, lambda _: [*base, Weights(name, part.holds)])


def filled(system: System, data: str, place_of: Callable[[str], Path]) -> tuple[AdaptiveModel, dict[str, Any]]:
    """A system's net with its weights and without a policy, and what each part's card says.

    Args:
        place_of: part → its weight file.

    Raises:
        UnknownNameError, UsageError: as `net_on`.
        CheckpointError: a file is missing, damaged or of another net.
    """
    net = net_on(system, data)
    model = net.build(NETS[data])
    cards = {}
    for weights in net.weights(NETS[data]):
        place = place_of(weights.part)
        tensors, card = checkpoints.load(place)
        taken = {k.removeprefix(weights.only): v for k, v in tensors.items() if k.startswith(weights.only)}
        checkpoints.load_into(weights.into(model), taken, name=str(place))
        cards[weights.part] = _brief(card)
    return model, cards


def load_model(
    name: str, data: str = "digits", *, zoo: Path | None = None, device: str | torch.device = "cpu"
) -> AdaptiveModel:
    """A registered model, ready to run; see `load_system`.

    >>> model = load_model("softmax-threshold", "digits")
    >>> model.policy_name, model.min_macs, model.max_macs
    ('softmax-threshold', 21056, 677952)
    """
    return load_system(name, data, zoo=zoo, device=device).model


def _from_plugin(name: str, factory: Callable[[str], AdaptiveModel], data: str, device: str | torch.device) -> Loaded:
    model = factory(data)
    if not isinstance(model, AdaptiveModel):
        raise UsageError(
            f"the plug-in '{name}' returned {type(model).__name__}, not an AdaptiveModel.",
            todo="Its entry point is a function: name of the data set → AdaptiveModel.",
        )
    return Loaded(name, MODELS.entry(name).summary, "", model.eval().requires_grad_(False).to(device), {})


class _Places:
    """Where the files of one model lie; each folder is looked into before the next.

    Args:
        zoo: the folder given. data: data set. name: of the model.
    """

    def __init__(self, zoo: Path | None, data: str, name: str) -> None:
        self.data, self.name, self.folders = data, name, zoo_folders(zoo)
        self.placed: list[tuple[int, Path]] = []

    def of(self, file: str) -> Path:
        """The first place that has a file.

        Raises:
            CheckpointError: none has.
        """
        places = [folder / self.data / f"{file}{checkpoints.SUFFIX}" for folder in self.folders]
        for rank, place in enumerate(places):
            if place.exists():
                self.placed.append((rank, place))
                return place
        raise CheckpointError(
            f"there is no checkpoint for '{self.name}' on '{self.data}': looked for {', '.join(map(str, places))}.",
            todo=f"Train it: adaptbench train {self.name} --data {self.data} --out ZOO, then pass --zoo ZOO.",
        )

    def check_order(self) -> None:
        """Heads, after the net that they were trained on.

        Raises:
            CheckpointError: as `check_last`.
        """
        for i in range(2, len(self.placed) + 1):
            self._check(self.placed[:i])

    def check_last(self) -> None:
        """The last file was made for all before it.

        Raises:
            CheckpointError: it comes from a later folder than one of them.
        """
        self._check(self.placed)

    def _check(self, placed: list[tuple[int, Path]]) -> None:
        *before, (rank, last) = placed
        other = next((place for earlier, place in before if earlier < rank), None)
        if other is not None:
            raise CheckpointError(
                f"{last} belongs to the weights beside it, and {other} would take their place.",
                why="What is fitted or trained on one net says nothing of another.",
                todo=f"Make it for yours, too: adaptbench train {self.name} --data {self.data} --out ZOO.",
            )


def _brief(card: dict[str, Any]) -> dict[str, Any]:
    """A card without its epoch-by-epoch history."""
    return {k: v for k, v in card.items() if k != "history"}
