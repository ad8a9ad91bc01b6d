"""``adaptbench train``: weights and policies by the committed recipes, with a bar for each phase."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from adaptbench.data import load_data
from adaptbench.decoding.training import NAME as CHARACTER_LM
from adaptbench.decoding.training import train as train_character_lm
from adaptbench.errors import UsageError
from adaptbench.experiment.environment import check_device
from adaptbench.terminal import console
from adaptbench.watching import watcher
from adaptbench.zoo.trainer import find_recipe, train_system
from adaptbench.zoo.training.progress import EpochRecord


def train(
    model: str,
    data: str,
    out: Path,
    *,
    seed: int | None,
    recipe: str,
    strategy: str | None,
    options: list[str],
    device: str,
    data_root: Path | None,
    download: bool,
) -> None:
    """Train a model or a part; the files written are named."""
    if options and strategy is None:
        raise UsageError("--strategy-option was given without --strategy.", todo="Name the strategy, too.")
    settings = dict(map(_option, options))
    if model == CHARACTER_LM:
        _refuse_settings(recipe, strategy)
    else:
        find_recipe(model, data, recipe, strategy, settings)  # before any data is fetched
    phase = ""
    with watcher(console(stderr=True)) as bars:

        def on_epoch(name: str, record: EpochRecord) -> None:
            nonlocal phase
            if name != phase:
                bars.begin(f"training  {name}", record.epochs)
                phase = name
            bars.advance(record.epoch, f"loss {record.loss:.3f}")

        device, found = check_device(device), load_data(data, root=data_root, download=download)
        if model == CHARACTER_LM:
            files = train_character_lm(found, out, seed=seed or 0, device=device, on_epoch=on_epoch)
        else:
            files = train_system(
                model,
                found,
                out,
                on_epoch=on_epoch,
                seed=seed,
                recipe=recipe,
                device=device,
                strategy=strategy,
                options=settings,
            )
    for file in files:
        console().print(f"wrote    {file}", soft_wrap=True)
    console().print(f"use      adaptbench run SUITE --zoo {out}", soft_wrap=True)


def _refuse_settings(recipe: str, strategy: str | None) -> None:
    """The character model is trained one way."""
    if recipe != "short" or strategy is not None:
        said = f"--recipe {recipe}" if recipe != "short" else f"--strategy {strategy}"
        raise UsageError(
            f"{said} was given to '{CHARACTER_LM}', which has one recipe, and one loss over its exits.",
            todo="Leave it out.",
        )


def _option(text: str) -> tuple[str, Any]:
    name, given, value = text.partition("=")
    try:
        if name and given:
            return name, yaml.safe_load(value)
    except yaml.YAMLError:
        pass
    raise UsageError(
        f"--strategy-option {text} is not readable.", todo="Give NAME=VALUE, such as values=[0.3,0.7,1.0]."
    )
