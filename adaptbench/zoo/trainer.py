"""Training what a name stands for: parts by the recipe's table, then the policy on top; files with cards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adaptbench.adaptive import AdaptiveModel, DecisionGraph, PixelExits, Split, TokenNetwork
from adaptbench.adaptive.pixels import class_counts
from adaptbench.adaptive.tokens import without_padding
from adaptbench.data.base import DataSet
from adaptbench.errors import CheckpointError, UnknownNameError, UsageError
from adaptbench.registry import MODELS, did_you_mean
from adaptbench.results.quality import miou, pixel_accuracy
from adaptbench.zoo import checkpoints
from adaptbench.zoo.loading import filled, net_on
from adaptbench.zoo.parts import NETS, Part, TrainingRecipe
from adaptbench.zoo.recipes import RECIPES
from adaptbench.zoo.systems import System
from adaptbench.zoo.training.procedures import BACKTRACK, TEACHER, Exits, FrozenHeads
from adaptbench.zoo.training.session import OnEpoch, Session
from adaptbench.zoo.training.strategies import STRATEGIES
from adaptbench.zoo.training.text import TunedExits

_HALF_MIN = 256
_WITHOUT_POLICY = {"gated": ("ungated", "gated"), "tokens": ("all tokens", "tokens left")}
_OF_A_TEACHER = ("distil", "temperature")
_HALVED = "float16 weights; statistics, biases and small tensors float32"


def train_system(
    name: str,
    data: DataSet,
    out: Path,
    *,
    on_epoch: OnEpoch | None = None,
    seed: int | None = None,
    recipe: str = "short",
    device: str = "cpu",
    strategy: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Train a system's weights by the committed recipe, fit its policy, write both with cards.

    Args:
        name: in the model registry, or a part of the recipe's, such as "resnet20-sdn-heads".
        data: with train, calibration and test splits; test is used once, for the card's accuracy.
        out: zoo folder; progress is kept in ``out/DATA/progress`` and resumed from there, finished parts are read back.
        on_epoch: told the phase's name and each epoch's record.
        seed: other than the recipe's.
        recipe: "short", or "full" on CIFAR. device: where parts are trained.
        strategy: how exits that are trained with their net are weighed, or "backtrack", in place of the recipe's.
        options: of the strategy.

    Returns:
        The files written.

    Raises:
        UnknownNameError: no such model, part or recipe, or a data set without recipes.
        UsageError: the entry is a plug-in's that trains its own weights, or no part takes a strategy.
        CheckpointError: a finished part is of another training.
    """
    system, table = find_recipe(name, data.name, recipe, strategy, options)
    trainer = Trainer(data, out / data.name, table, recipe, device=device, seed=seed, on_epoch=on_epoch)
    names = [name] if system is None else _parts_of(system, data.name)
    for part in names:
        trainer.part(part)
    written = [trainer.place(part) for part in names]
    if system is not None:
        written += trainer.fit_policy(system)
    return [*written, *(checkpoints.card_path(place) for place in written)]


def find_recipe(
    name: str, data: str, scale: str, strategy: str | None = None, options: Mapping[str, Any] | None = None
) -> tuple[System | None, TrainingRecipe]:
    """The system of a name, None where it is a part's, and the recipe whose table holds its parts.

    Raises:
        UnknownNameError: no such model, part or recipe, or a data set without recipes.
        UsageError: a plug-in that trains its own weights, a model that is not built for the data, no such strategy, or
            no part that takes one.
    """
    scales = RECIPES.get(data)
    if scales is None:
        raise UnknownNameError(
            f"there is no training recipe for '{data}'.",
            todo=f"{did_you_mean(data, RECIPES)}Data with recipes: {', '.join(RECIPES)}.",
        )
    if scale not in scales:
        raise UnknownNameError(f"'{data}' has no recipe called '{scale}'.", todo=f"It has: {', '.join(scales)}.")
    table = scales[scale]
    if name not in MODELS:
        if name in table.parts:
            return None, _weighed(table, name, [name], strategy, options)
        known = [*MODELS.names(), *table.parts]
        raise UnknownNameError(
            f"no model is called '{name}', and no part for '{data}'.",
            todo=f"{did_you_mean(name, known)}Models: `adaptbench list models`. Parts: {', '.join(table.parts)}.",
        )
    system = MODELS.load(name)
    if not isinstance(system, System):
        raise UsageError(
            f"'{name}' comes from a plug-in, which trains its own weights.",
            todo="Train it as its package says, or let its entry point be a System with parts.",
        )
    table = replace(table, parts={**table.parts, **system.parts})
    return system, _weighed(table, name, _parts_of(system, data), strategy, options)


def _parts_of(system: System, data: str) -> list[str]:
    return [weights.part for weights in net_on(system, data).weights(NETS[data])]


def _weighed(
    table: TrainingRecipe, name: str, parts: list[str], strategy: str | None, options: Mapping[str, Any] | None
) -> TrainingRecipe:
    """The recipe with another strategy for those of a name's parts that are trained by one."""
    if strategy is None:
        return table
    if strategy not in (known := [*STRATEGIES, BACKTRACK, TEACHER]):
        raise UsageError(
            f"no training strategy is called '{strategy}'.",
            todo=f"{did_you_mean(strategy, known)}There are: {', '.join(known)}.",
        )
    kinds = {TEACHER: (FrozenHeads,), BACKTRACK: (Exits,)}.get(strategy, (Exits, TunedExits))
    able = [part for part, row in table.parts.items() if isinstance(row.train, kinds)]
    if not (takers := [part for part in parts if part in able]):
        raise UsageError(
            f"the strategy '{strategy}' was given to '{name}', none of whose parts is trained so.",
            why="A teacher is asked of heads on a frozen net, any other strategy of exits trained with their net.",
            todo=f"Leave it out, or train one of: {', '.join(able) or 'none here'}.",
        )
    given: dict[str, Any] = {**(options or {})}
    if strategy == TEACHER and any(k not in _OF_A_TEACHER or type(v) not in (int, float) for k, v in given.items()):
        raise UsageError(f"a teacher cannot be had from {given}.", todo="Its options: distil, temperature; numbers.")
    changes = {"distil": 1.0, **given} if strategy == TEACHER else {"strategy": strategy, "options": given}
    rows = {}
    for part in takers:
        how: Any = table.parts[part].train
        rows[part] = replace(table.parts[part], train=replace(how, **changes))
    return replace(table, parts={**table.parts, **rows})


class Trainer:
    """Trains parts of one data set; each phase resumes from its own checkpoint, finished parts are read back.

    Args:
        data: its splits. folder: zoo folder of the data set. recipe, scale: how, and what that is called.
        device: where it trains. seed: other than the recipe's. on_epoch: told the phase's name and each epoch's record.
    """

    def __init__(
        self,
        data: DataSet,
        folder: Path,
        recipe: TrainingRecipe,
        scale: str,
        *,
        device: str = "cpu",
        seed: int | None = None,
        on_epoch: OnEpoch | None = None,
    ) -> None:
        self.data, self.nets, self.folder, self.recipe, self.scale = data, NETS[data.name], folder, recipe, scale
        self.train, self.calibration = data.split("train"), data.split("calibration")
        self.device, self.on_epoch = device, on_epoch
        self.seed = recipe.seed if seed is None else seed

    def place(self, name: str) -> Path:
        """The weight file of a part."""
        return self.folder / f"{name}{checkpoints.SUFFIX}"

    def part(self, name: str) -> nn.Module:
        """The module of a part, on the CPU and in eval mode, trained or read back."""
        part, place = self.recipe.parts[name], self.place(name)
        how: Any = part.train
        session = Session(
            name,
            self.train,
            self.calibration,
            self.folder / "progress",
            self.device,
            self.seed,
            asdict(how),
            self.on_epoch,
        )
        net = session.fresh(lambda: part.build(self.nets))
        held = part.holds(net)
        if place.exists():
            tensors, card = checkpoints.load(place)
            self._refuse_another(place, card, session)
            checkpoints.load_into(held, tensors, name=str(place))
            return held.eval()
        needed = [self.part(other) for other in part.needs]
        part.train(net.to(self.device), needed, session)
        net.to("cpu").eval()
        tensors = halved(held.state_dict()) if self.recipe.halved else held.state_dict()
        checkpoints.load_into(held, tensors)  # what is kept is what later parts build on
        checkpoints.save(place, tensors, self._card(session, part, net))
        return held

    def _refuse_another(self, place: Path, card: Mapping[str, Any], session: Session) -> None:
        """A part that was trained otherwise is not what was asked for, and what is built on it would not be."""
        asked = {"train_sha256": self.train.sha256, "seed": self.seed, "recipe": self.scale, **session.about}
        said = {**card, **card.get("settings", {})}
        odd = [
            f"{key} {said[key]} → {value}"
            for key, value in json.loads(json.dumps(asked)).items()
            # a recipe or phase written out may lack a setting that came later; the recipe's name stands for it
            if key in said and key not in ("phase", "phases") and not isinstance(said[key], dict) and said[key] != value
        ]
        if odd:
            raise CheckpointError(
                f"{place} is finished and of another training: {', '.join(odd)}.",
                why="Reading it back would not give what was asked for.",
                todo="Name another folder with --out, or delete the file and its card.",
            )

    def _card(self, session: Session, part: Part, net: nn.Module) -> dict[str, Any]:
        name, scale, committed = session.part, self.scale, RECIPES[self.data.name]
        command = f"adaptbench train {name} --data {self.data.name}"
        asked = "" if scale == "short" else f" --recipe {scale}"
        asked += "" if self.seed == self.recipe.seed else f" --seed {self.seed}"
        if name in committed[scale].parts and part.train != committed[scale].parts[name].train:
            said: dict[str, Any] = {
                "strategy": TEACHER,
                "options": {k: v for k, v in session.about.items() if k in _OF_A_TEACHER},
            }
            said |= session.about
            asked += f" --strategy {said['strategy']}"
            asked += "".join(f" --strategy-option '{k}={v}'" for k, v in said["options"].items())
        card = {
            "part": name,
            "data": self.data.name,
            "train_sha256": self.train.sha256,
            "recipe": scale,
            "settings": session.about,
            "seed": self.seed,
            "parameters": sum(p.numel() for p in part.holds(net).parameters()),
            "stored": _HALVED if self.recipe.halved else "as trained",
            "torch": str(torch.__version__),
            "device": self.device,
            "command": command + asked,
        }
        if "full" in committed:
            card["full_command"] = f"{command} --recipe full --device cuda"
        if isinstance(net, AdaptiveModel):
            card |= {
                "node_names": list(net.node_names),
                "node_macs": list(net.node_macs),
                **({"pair_macs": net.max_macs - sum(net.node_macs)} if isinstance(net, TokenNetwork) else {}),
                **_told_of("calibration", net, self.calibration),
                **_told_of("test", net, self.data.split("test")),
            }
        return {**card, "history": session.history}

    def fit_policy(self, system: System) -> list[Path]:
        """Fit a system's policy on its trained parts and write it with its card."""
        if system.policy is None:
            return []
        net, _ = filled(system, self.data.name, self.place)
        assert isinstance(net, DecisionGraph)
        net.eval().requires_grad_(False)
        more: dict[str, object] = {}
        if system.fit is not None:
            policy, more = system.fit(net, self.calibration, self.recipe, self.seed)
        else:
            settings = {name: getattr(self.recipe, name) for name in system.settings}
            policy = system.policy.fit(net.log(self.calibration), seed=self.seed, **settings)
        place = self.folder / f"{system.name}.policy{checkpoints.SUFFIX}"
        tensors: dict[str, Tensor] = dict(policy.state_dict())
        card = {
            "policy": policy.name,
            "settings": policy.describe(),
            "fitted_on": f"{self.calibration.name}/{self.calibration.role}",
            "fitted_on_sha256": self.calibration.sha256,
            **more,
        }
        checkpoints.save(place, tensors, card)
        return [place]


def halved(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Large weight matrices and kernels in float16; statistics, biases and small tensors as they are."""
    return {
        name: t.half() if t.is_floating_point() and t.ndim >= 2 and t.numel() >= _HALF_MIN else t
        for name, t in tensors.items()
    }


def _told_of(role: str, net: AdaptiveModel, split: Split) -> dict[str, dict[str, float]]:
    """What judges each exit, for the card."""
    if not net.per_pixel:
        return {f"accuracy_{role}": exit_accuracy(net, split)}
    by_class, by_pixel = exit_miou(net, split)
    return {f"miou_{role}": by_class, f"pixel_accuracy_{role}": by_pixel}


@torch.no_grad()
def exit_miou(model: AdaptiveModel, split: Split) -> tuple[dict[str, float], dict[str, float]]:
    """MIoU and share of right pixels of each exit, every image through all of them."""
    assert isinstance(model, PixelExits)
    counts = np.zeros((len(model.exit_names), 3 * model.n_classes))
    for x, y, _ in split.chunks(100):
        for k, answer in enumerate(model.answers(x).argmax(2).unbind(1)):
            counts[k] += np.concatenate([c.sum(0).numpy() for c in class_counts(answer, y, model.n_classes)])
    return tuple(  # type: ignore[return-value]
        dict(zip(model.exit_names, of(counts).round(5).tolist(), strict=True)) for of in (miou, pixel_accuracy)
    )


@torch.no_grad()
def exit_accuracy(model: AdaptiveModel, split: Split) -> dict[str, float]:
    """Accuracy of each exit on every sample (where no policy decides: of the backbone run whole, and of the net)."""
    logits = torch.cat([without_padding(model.domain, x, model.dense_logits) for x, _, _ in split.chunks(1000)])
    whole, left = _WITHOUT_POLICY.get(model.shape, (None, None))
    accuracy = {
        (whole or name): round((logits[:, k].argmax(1) == split.y).float().mean().item(), 5)
        for k, name in enumerate(model.exit_names)
    }
    if left is not None:
        right = torch.cat([model.infer(x).predictions == y for x, y, _ in split.chunks(1000)])
        accuracy[left] = round(right.float().mean().item(), 5)
    return accuracy
