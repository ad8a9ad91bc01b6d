"""One attack on one model: crafted, judged by the hard pass before and after, and handed back as pictures and rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from adaptbench.adaptive import AdaptiveModel, Split
from adaptbench.attacks import Attack, load_attack
from adaptbench.attacks.base import join_details
from adaptbench.attacks.soundness import with_doubts
from adaptbench.bench.crafting import crafting_split
from adaptbench.bench.entries import Entry, Fitting
from adaptbench.bench.evaluate import evaluate_chunk
from adaptbench.bench.plan import Evaluation
from adaptbench.bench.records import cost_bounds
from adaptbench.bench.suite import Condition
from adaptbench.data import load_data
from adaptbench.errors import CapabilityError, Stopped
from adaptbench.experiment.environment import check_device
from adaptbench.experiment.keys import digest_of, model_hash, split_hash
from adaptbench.experiment.options import Options
from adaptbench.results.metrics import summarise
from adaptbench.results.schema import Record
from adaptbench.zoo.loading import Loaded, load_system

CHUNK = 500
"""As suites cut; the same samples come out of both."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be attacked, and how.

    Args:
        entry: the net, and the policy it is put under. data: name. recipe: name or file.
        settings: laid over the recipe. seed: of policy and attack.
    """

    entry: Entry
    data: str
    recipe: str
    settings: dict[str, Any]
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Job:
    """A wish with everything loaded, found to fit together.

    Args:
        split: test pictures. surrogate: for transfer attacks, else None.
        crafting: pictures for attacks that share one change, else None.
    """

    wish: Wish
    loaded: Loaded
    attack: Attack
    split: Split
    surrogate: AdaptiveModel | None
    crafting: Split | None
    device: str

    @property
    def attack_sha256(self) -> str:
        """As in a run: with the surrogate's weights and the crafting pictures."""
        beside = [] if self.surrogate is None else [model_hash(self.surrogate)]
        if self.crafting is not None:
            beside.append(split_hash(self.crafting))
        return digest_of([self.attack.sha256, *beside]) if beside else self.attack.sha256


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came out.

    Args:
        x_adv: (N, C, H, W) uint8. clean, attacked: rows as in ``samples.parquet``, in the same order.
        figures: the attacked case's figures, as in ``summary.json``. before: the clean case's.
        details: what the attack has to say. seconds: of crafting.
    """

    x_adv: NDArray[np.uint8]
    clean: pd.DataFrame
    attacked: pd.DataFrame
    figures: Record
    before: Record
    details: dict[str, Any]
    seconds: float


def prepare(wish: Wish, options: Options) -> Job:
    """Load model, pictures and recipe.

    Raises:
        CapabilityError: the attack means nothing on this model, or the surrogate is the model itself.
        AdaptBenchError: a name, a setting or a file that is not what it should be.
    """
    device = check_device(options.device)
    wish.entry.check()
    attack = load_attack(wish.recipe, wish.settings)
    data = load_data(wish.data, root=options.data_root, download=options.download)
    net = load_system(wish.entry.net, data.name, zoo=options.zoo, device=device)
    loaded = Fitting(lambda: data.split("calibration"), wish.seed, {}).apply(wish.entry, net)
    surrogate = None
    reason = attack.applies_to(loaded.model)
    if attack.surrogate == wish.entry.net:
        reason = "it is the surrogate itself; that would be a white-box attack"
    if reason:
        raise CapabilityError(
            f"'{attack.name}' cannot attack '{loaded.name}': {reason}.",
            todo="Take another attack (`adaptbench list attacks`), or another model.",
        )
    if attack.surrogate:
        surrogate = load_system(attack.surrogate, data.name, zoo=options.zoo, device=device).model
    crafting = crafting_split(data) if attack.needs_crafting else None
    return Job(wish, loaded, attack, data.split("test").first(options.limit), surrogate, crafting, device)


def craft(job: Job, options: Options) -> Outcome:
    """Craft in chunks, as a suite does, and judge by the hard pass on the 8-bit pictures.

    Raises:
        Stopped: Ctrl-C.
    """
    attacked = _evaluation(job, job.attack)
    clean = replace(attacked, id="clean", kind="clean", attack=None)
    progress, n = options.progress, len(job.split)
    rows: dict[str, list[pd.DataFrame]] = {"clean": [], "attacked": []}
    pictures: list[NDArray[np.uint8]] = []
    details: list[dict[str, Any]] = []
    seconds = 0.0
    progress.begin(f"crafting  {job.attack.name} → {job.loaded.name}", n)
    try:
        for start in range(0, n, CHUNK):
            stop = min(start + CHUNK, n)

            def told(done: int, of: int, start: int = start, stop: int = stop) -> None:
                progress.advance(start + (stop - start) * done // max(of, 1))

            for name, evaluation in (("clean", clean), ("attacked", attacked)):
                chunk = evaluate_chunk(
                    evaluation,
                    start,
                    stop,
                    device=job.device,
                    surrogate=lambda _: _there(job),
                    crafting=job.crafting,
                    on_progress=told,
                )
                rows[name].append(chunk.samples)
            assert chunk.crafted is not None  # the attacked one is the last
            pictures.append(chunk.crafted["x_adv"])
            details.append(chunk.details)
            seconds += chunk.seconds or 0.0
    except KeyboardInterrupt:
        raise Stopped("nothing was written: pictures are when all are crafted") from None
    finally:
        progress.end()
    before, after = (pd.concat(rows[name], ignore_index=True) for name in ("clean", "attacked"))
    bounds = cost_bounds(job.loaded.model)
    return Outcome(
        np.concatenate(pictures),
        before,
        after,
        summarise(after, before, bounds, seed=job.wish.seed),
        summarise(before, None, bounds, seed=job.wish.seed),
        with_doubts(join_details(details, [len(part) for part in pictures])),
        seconds,
    )


def _there(job: Job) -> AdaptiveModel:
    assert job.surrogate is not None
    return job.surrogate


def _evaluation(job: Job, attack: Attack) -> Evaluation:
    wish = job.wish
    condition = Condition(id=attack.name, ref=wish.recipe, settings=wish.settings)
    return Evaluation(attack.name, attack.kind, wish.entry, job.loaded, condition, attack, wish.seed, job.split, key="")
