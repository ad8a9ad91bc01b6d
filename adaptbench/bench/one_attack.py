"""One attack on one model: crafted, judged by the hard pass before and after, and handed back as pictures and rows."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from adaptbench.adaptive import AdaptiveModel, Split
from adaptbench.adaptive.pixels import require_labels_of
from adaptbench.attacks import Attack, load_attack
from adaptbench.attacks.base import Learned, join_details
from adaptbench.attacks.soundness import with_doubts
from adaptbench.bench.crafting import crafting_split
from adaptbench.bench.entries import Entry, Fitting
from adaptbench.bench.evaluate import Chunk, evaluate_chunk
from adaptbench.bench.kept_learning import learned_in
from adaptbench.bench.plan import Evaluation
from adaptbench.bench.records import cost_bounds
from adaptbench.bench.suite import Condition
from adaptbench.bench.surrogates import load_surrogate, why_not
from adaptbench.data import load_data
from adaptbench.errors import CapabilityError, Stopped
from adaptbench.experiment.environment import check_device
from adaptbench.experiment.keys import digest_of, evaluation_key, model_hash, split_hash
from adaptbench.experiment.options import Options
from adaptbench.results.metrics import summarise
from adaptbench.results.schema import Record
from adaptbench.results.writer import RunWriter
from adaptbench.zoo.factories import load_net
from adaptbench.zoo.loading import Loaded

CHUNK = 500
"""As suites cut; the same samples come out of both."""
PARTS = ".parts"
"""Finished chunks of a craft that was stopped, in the directory of its pictures."""


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
        CapabilityError: the attack means nothing on this model, or the surrogate is the model or takes other inputs.
        UsageError: a factory whose file may not be run, or that gives no net.
        AdaptBenchError: a name, a setting or a file that is not what it should be.
    """
    device = check_device(options.device)
    wish.entry.check()
    attack = load_attack(wish.recipe, wish.settings)
    data = load_data(wish.data, root=options.data_root, download=options.download)
    net = load_net(wish.entry.net, data.name, options)
    require_labels_of(net.model, data.split("test"))
    loaded = Fitting(lambda: data.split("calibration"), wish.seed, {}).apply(wish.entry, net)
    surrogate = load_surrogate(attack.surrogate, data.name, options) if attack.surrogate else None
    if reason := why_not(attack, wish.entry.net, loaded.model, data.name, surrogate):
        raise CapabilityError(
            f"'{attack.name}' cannot attack '{loaded.name}': {reason}.",
            todo="Take another attack (`adaptbench list attacks`), or another model.",
        )
    crafting = crafting_split(data) if attack.needs_crafting else None
    return Job(wish, loaded, attack, data.split("test").first(options.limit), surrogate, crafting, device)


def craft(job: Job, options: Options, place: Path | None = None) -> Outcome:
    """Craft in chunks, as a suite does, and judge by the hard pass on the 8-bit pictures.

    Args:
        place: where each chunk is kept as soon as it is finished, and read back from; None for nowhere.

    Raises:
        Stopped: Ctrl-C; says what is kept.
    """
    parts = None if place is None else RunWriter(place / PARTS)
    attacked = _evaluation(job, job.attack)
    clean = replace(attacked, id="clean", kind="clean", attack=None)
    progress, n = options.progress, len(job.split)
    rows: dict[str, list[pd.DataFrame]] = {"clean": [], "attacked": []}
    pictures: list[NDArray[np.uint8]] = []
    details: list[dict[str, Any]] = []
    seconds = 0.0
    learned = learned_in(
        parts, job.attack, job.loaded.model, job.crafting, seed=job.wish.seed, device=job.device, told=None
    )
    progress.begin(f"crafting  {job.attack.name} → {job.loaded.name}", n)
    try:
        for start in range(0, n, CHUNK):
            stop = min(start + CHUNK, n)

            def told(done: int, of: int, start: int = start, stop: int = stop) -> None:
                progress.advance(start + (stop - start) * done // max(of, 1))

            rows["clean"].append(_evaluated(job, clean, start, stop, told).samples)
            make = partial(_evaluated, job, attacked, start, stop, told, learned)
            chunk = _kept(parts, f"{attacked.key}-{start}", make)
            assert chunk.crafted is not None
            rows["attacked"].append(chunk.samples)
            pictures.append(chunk.crafted["x_adv"])
            details.append(chunk.details)
            seconds += chunk.seconds or 0.0
            progress.advance(stop)
    except KeyboardInterrupt:
        raise _stopped(place, sum(map(len, pictures)), n) from None
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


def _evaluated(
    job: Job,
    evaluation: Evaluation,
    start: int,
    stop: int,
    told: Callable[[int, int], None],
    learned: Learned | None = None,
) -> Chunk:
    return evaluate_chunk(
        evaluation,
        start,
        stop,
        device=job.device,
        surrogate=lambda _: _there(job),
        crafting=job.crafting,
        learned=learned,
        on_progress=told,
    )


def _kept(parts: RunWriter | None, key: str, make: Callable[[], Chunk]) -> Chunk:
    """A chunk as an interrupted craft left it, else a new one, which is kept."""
    if parts is not None and parts.has(key):
        cell = parts.load(key)
        assert cell.samples is not None
        return Chunk(cell.samples, cell.tensors, cell.record["seconds"], cell.record["details"])
    chunk = make()
    if parts is not None:
        assert chunk.crafted is not None
        record = {"seconds": chunk.seconds, "details": chunk.details}
        parts.commit(key, record, samples=chunk.samples, tensors={"x_adv": chunk.crafted["x_adv"]})
    return chunk


def _stopped(place: Path | None, done: int, n: int) -> Stopped:
    if place is None or not done:
        forget_parts(place)
        return Stopped(f"nothing was written: pictures are finished {CHUNK} at a time, and none were")
    return Stopped(f"the first {done} of {n} pictures are kept in {place / PARTS}, to be written when all are there")


def forget_parts(place: Path | None) -> None:
    """Remove what an interrupted craft kept: all of it is written, or none of it is wanted."""
    if place is not None:
        shutil.rmtree(place / PARTS, ignore_errors=True)


def _there(job: Job) -> AdaptiveModel:
    assert job.surrogate is not None
    return job.surrogate


def _evaluation(job: Job, attack: Attack) -> Evaluation:
    wish = job.wish
    condition = Condition(id=attack.name, ref=wish.recipe, settings=wish.settings)
    key = evaluation_key(
        [job.split.name, job.loaded.name, attack.name],
        job.loaded.model,
        job.split,
        attack,
        job.surrogate,
        seed=wish.seed,
        device=job.device,
        chunk=CHUNK,
        crafting=job.crafting,
    )
    return Evaluation(attack.name, attack.kind, wish.entry, job.loaded, condition, attack, wish.seed, job.split, key)
