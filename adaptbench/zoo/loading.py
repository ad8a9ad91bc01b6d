"""From a name to a model with weights and a policy, and the other way: training a system and writing its files.

A zoo is a folder with one folder a data set; in it ``FAMILY.safetensors`` holds weights, ``MODEL.policy.safetensors`` a
fitted policy, each with a card (``….json``) that says how it was made.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adaptbench.adaptive import AdaptiveModel, DecisionGraph, Split
from adaptbench.data.base import DataSet
from adaptbench.errors import CheckpointError, PolicyError, UnknownNameError, UsageError
from adaptbench.models.cifar import CifarPlan
from adaptbench.registry import MODELS, did_you_mean
from adaptbench.zoo import checkpoints
from adaptbench.zoo.cifar import CifarTrainer
from adaptbench.zoo.recipes import OnEpoch, Trainer
from adaptbench.zoo.systems import PLANS, Plan, Settings, System

SHIPPED = Path(__file__).parent / "shipped"
ENVIRONMENT = "ADAPTBENCH_ZOO"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model ready to run, with what its cards say.

    Args:
        name: registry name. title, cite: of the system.
        model: in eval mode, weights frozen.
        card: {"weights": …, "policy": …}.
    """

    name: str
    title: str
    cite: str
    model: AdaptiveModel
    card: dict[str, Any]


def zoo_folders(zoo: Path | None) -> list[Path]:
    """Where checkpoints are looked for, in order."""
    if zoo is not None:
        return [zoo]
    named = os.environ.get(ENVIRONMENT)
    return [*([Path(named)] if named else []), SHIPPED]


_FOREIGN = (RuntimeError, LookupError, TypeError, ValueError, ArithmeticError, AttributeError)
"""What policies raise over settings that none of them wrote."""


def load_system(
    name: str, data: str = "digits", *, zoo: Path | None = None, device: str | torch.device = "cpu"
) -> Loaded:
    """A registered model with its shipped (or your own) weights.

    Args:
        name: in the model registry.
        data: name of the data set that it was trained for.
        zoo: folder to look in instead of the shipped checkpoints.
        device: where the model goes.

    Raises:
        UnknownNameError: no such model.
        CheckpointError: no checkpoint for that data set, or a damaged one.
    """
    target = MODELS.load(name)
    if not isinstance(target, System):
        return _from_plugin(name, target, data, device)
    plan = PLANS.get(data)
    if plan is None:
        raise UnknownNameError(
            f"model '{name}' has no plan for data '{data}'.",
            why="Layer sizes and the normaliser belong to a kind of picture.",
            todo=f"{did_you_mean(data, PLANS)}Data with plans: {', '.join(PLANS)}.",
        )
    model = target.build(plan)
    cards: dict[str, Any] = {"weights": _load_weights(target, model, plan, zoo, data, name)}
    if target.policy is not None:
        assert isinstance(model, DecisionGraph)
        policy_place = _find(zoo, data, f"{name}.policy.safetensors", name)
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
    target, plan = MODELS.load(name), PLANS.get(data)
    if not isinstance(target, System) or plan is None:
        return []
    if isinstance(plan, CifarPlan):
        weights = [part.file for part in target.parts(plan)]
    else:
        weights = [target.family] if target.family else []
    policy = [f"{name}.policy"] if weights and target.policy is not None else []
    return [f"{file}{checkpoints.SUFFIX}" for file in weights + policy]


def available(data: str, *, zoo: Path | None = None) -> list[str]:
    """The registered systems that have all their checkpoints for a data set, in the registry's order."""
    return [
        name
        for name in MODELS.names()
        if (files := files_of(name, data))
        and all(any((folder / data / file).exists() for folder in zoo_folders(zoo)) for file in files)
    ]


def _load_weights(
    target: System, model: AdaptiveModel, plan: Plan, zoo: Path | None, data: str, name: str
) -> dict[str, Any]:
    """Fill a model without a policy from its weight files; what their cards say."""
    if isinstance(plan, CifarPlan):
        cards = {}
        for part in target.parts(plan):
            place = _find(zoo, data, f"{part.file}.safetensors", name)
            tensors, card = checkpoints.load(place)
            checkpoints.load_into(part.into(model), tensors, name=str(place))
            cards[part.file] = _brief(card)
        return cards
    place = _find(zoo, data, f"{target.family}.safetensors", name)
    tensors, card = checkpoints.load(place)
    if target.take is not None:
        prefix = target.take(plan)
        tensors = {f"stages.0.{k.removeprefix(prefix)}": v for k, v in tensors.items() if k.startswith(prefix)}
    checkpoints.load_into(model, tensors, name=str(place))
    return _brief(card)


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


def _find(zoo: Path | None, data: str, file: str, name: str) -> Path:
    places = [folder / data / file for folder in zoo_folders(zoo)]
    for place in places:
        if place.exists():
            return place
    raise CheckpointError(
        f"there is no checkpoint for '{name}' on '{data}': looked for {', '.join(map(str, places))}.",
        todo=f"Train it: adaptbench train {name} --data {data} --out ZOO, then pass --zoo ZOO.",
    )


def _brief(card: dict[str, Any]) -> dict[str, Any]:
    """A card without its epoch-by-epoch history."""
    return {k: v for k, v in card.items() if k != "history"}


def train_system(
    name: str,
    data: DataSet,
    out: Path,
    *,
    on_epoch: OnEpoch | None = None,
    seed: int | None = None,
    recipe: str = "short",
    device: str = "cpu",
) -> list[Path]:
    """Train a system's weights by the committed recipe, fit its policy, write both with cards.

    Args:
        name: in the model registry; on CIFAR also a part, such as "resnet20-sdn-heads".
        data: with train, calibration and test splits; test is used once, for the card's accuracy.
        out: zoo folder; progress is kept in ``out/DATA/progress`` and resumed from there.
        on_epoch: told the phase's name and each epoch's record.
        seed: other than the recipe's.
        recipe: "short" or "full", on CIFAR. device: where CIFAR parts are trained.

    Returns:
        The files written.

    Raises:
        UsageError: the entry is a plug-in's, or the data set has no recipe.
    """
    plan = PLANS.get(data.name)
    if plan is None:
        raise UsageError(f"there is no recipe for '{data.name}'.", todo=f"Recipes: {', '.join(PLANS)}.")
    folder = out / data.name
    if isinstance(plan, CifarPlan):
        cifar = CifarTrainer(
            plan,
            data.split("train"),
            data.split("calibration"),
            folder,
            recipe=recipe,
            device=device,
            on_epoch=on_epoch,
            seed=seed,
        )
        return _train_parts(name, plan, data, cifar)
    system = MODELS.load(name)
    if not isinstance(system, System):
        raise UsageError(f"'{name}' comes from a plug-in, which trains its own weights.")
    if system.train is None:
        raise UsageError(f"'{name}' has no recipe on '{data.name}'.", todo="Train it on cifar10 or cifar100.")
    trainer = Trainer(data.name, data.split("train"), folder / "progress", on_epoch=on_epoch, seed=seed)
    calibration = data.split("calibration")
    trained = system.train(trainer, calibration)
    trained.eval()
    assert isinstance(trained, AdaptiveModel)
    weights = {k: v for k, v in trained.state_dict().items() if not k.startswith("policy.")}
    place = folder / f"{system.family}.safetensors"
    checkpoints.save(
        place,
        weights,
        {
            "family": system.family,
            "data": data.name,
            "train_sha256": trainer.train.sha256,
            "recipe": asdict(trainer.recipe),
            "seed": trainer.seed,
            "parameters": sum(p.numel() for n, p in trained.named_parameters() if not n.startswith("policy.")),
            "node_names": list(trained.node_names),
            "node_macs": list(trained.node_macs),
            "accuracy_test": _exit_accuracy(trained, data.split("test")),
            "accuracy_calibration": _exit_accuracy(trained, calibration),
            "torch": str(torch.__version__),
            "command": f"adaptbench train {name} --data {data.name}",
            "history": trainer.history,
        },
    )
    written = [place, checkpoints.card_path(place)]
    return written + _fit_policy(system, trained, calibration, folder, trainer.recipe)


def _fit_policy(
    system: System, trained: AdaptiveModel, calibration: Split, folder: Path, recipe: Settings
) -> list[Path]:
    """Fit a system's policy and write it with its card."""
    if system.policy is None or system.fit is None:
        return []
    assert isinstance(trained, DecisionGraph)
    policy, more = system.fit(trained, calibration, recipe)
    place = folder / f"{system.name}.policy.safetensors"
    tensors: dict[str, Tensor] = dict(policy.state_dict())
    card = {
        "policy": policy.name,
        "settings": policy.describe(),
        "fitted_on": f"{calibration.name}/{calibration.role}",
        "fitted_on_sha256": calibration.sha256,
        **more,
    }
    checkpoints.save(place, tensors, card)
    return [place, checkpoints.card_path(place)]


def _train_parts(name: str, plan: CifarPlan, data: DataSet, trainer: CifarTrainer) -> list[Path]:
    """A system's parts on CIFAR, or one part by its own name; test accuracies go into the last card, once."""
    folder = trainer.folder
    system = MODELS.load(name) if name in MODELS else None
    if system is not None and not isinstance(system, System):
        raise UsageError(f"'{name}' comes from a plug-in, which trains its own weights.")
    files = [part.file for part in system.parts(plan)] if system else [name]
    for file in files:
        trainer.part(file)
    written = [folder / f"{file}.safetensors" for file in files]
    if system is not None:
        model = load_parts(system, plan, folder)
        written += _fit_policy(system, model, data.split("calibration"), folder, trainer.recipe)
        _note_accuracy(files, folder, model, data)
    return [*written, *(checkpoints.card_path(p) for p in written if p.suffix == checkpoints.SUFFIX)]


def load_parts(system: System, plan: CifarPlan, folder: Path) -> AdaptiveModel:
    """A CIFAR system from the parts in one folder, without a policy."""
    model = system.build(plan)
    for part in system.parts(plan):
        tensors, _ = checkpoints.load(folder / f"{part.file}.safetensors")
        checkpoints.load_into(part.into(model), tensors)
    return model.eval().requires_grad_(False)


def _note_accuracy(files: list[str], folder: Path, model: AdaptiveModel, data: DataSet) -> None:
    """Write the finished model's accuracies into the last part's card."""
    place = folder / f"{files[-1]}.safetensors"
    tensors, card = checkpoints.load(place)
    if "accuracy_test" in card:
        return
    card["node_names"], card["node_macs"] = list(model.node_names), list(model.node_macs)
    card["accuracy_calibration"] = _exit_accuracy(model, data.split("calibration"))
    card["accuracy_test"] = _exit_accuracy(model, data.split("test"))
    checkpoints.save(place, tensors, card)


@torch.no_grad()
def _exit_accuracy(model: AdaptiveModel, split: Split) -> dict[str, float]:
    """Accuracy of each exit on every sample (gated nets: of the ungated backbone and of the gated net)."""
    logits = torch.cat([model.dense_logits(x) for x, _, _ in split.chunks(1000)])
    found = {
        (name if model.shape != "gated" else "ungated"): round(
            (logits[:, k].argmax(1) == split.y).float().mean().item(), 5
        )
        for k, name in enumerate(model.exit_names)
    }
    if model.shape == "gated":
        right = torch.cat([model.infer(x).predictions == y for x, y, _ in split.chunks(1000)])
        found["gated"] = round(right.float().mean().item(), 5)
    return found
