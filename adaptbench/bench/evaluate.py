"""One chunk of one evaluation: craft where there is an attack, run the hard pass, keep a row a sample."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from adaptbench.adaptive import AdaptiveModel, DecisionGraph, Inference, MeteredInference, Split, TokenDomain
from adaptbench.adaptive.pixels import class_counts, profile
from adaptbench.attacks import Attack
from adaptbench.attacks.base import Learned
from adaptbench.bench.metered import metering_of
from adaptbench.results.schema import METERED_COLUMNS, NO_LABEL, PIXEL_COLUMNS

GALLERY = 16


class Evaluated(Protocol):
    """What of an evaluation its rows hang on."""

    @property
    def id(self) -> str:
        """Of the rows."""

    @property
    def seed(self) -> int:
        """Of crafting and drawing."""

    @property
    def split(self) -> Split:
        """Its inputs."""

    @property
    def attack(self) -> Attack | None:
        """None for inputs as they are."""

    @property
    def model(self) -> AdaptiveModel:
        """The network."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """What a chunk leaves.

    Args:
        samples: rows of ``samples.parquet``. crafted: arrays for ``crafted/``, None for clean inputs.
        seconds: spent crafting, None for clean. details: what the attack has to say.
    """

    samples: pd.DataFrame
    crafted: dict[str, np.ndarray] | None = None
    seconds: float | None = None
    details: dict[str, Any] = field(default_factory=dict)


def evaluate_chunk(
    evaluation: Evaluated,
    start: int,
    stop: int,
    *,
    device: str,
    surrogate: Callable[[str], AdaptiveModel],
    crafting: Split | None = None,
    given: Tensor | None = None,
    learned: Learned | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Chunk:
    """Craft and evaluate the samples start … stop of an evaluation.

    Args:
        evaluation: of the plan.
        start, stop: rows of its split; chunks are cut at fixed places, so that any shard sees the same batches.
        device: where it runs.
        surrogate: name → another model, for transfer attacks.
        crafting: pictures for attacks that share one change.
        given: (stop − start, C, H, W) uint8, crafted elsewhere: nothing is crafted here.
        learned: by an attack that learns beforehand; without it, it learns here, and that is in no seconds.
        on_progress: told (done, of) while crafting.
    """
    split = evaluation.split
    clean, labels, ids = split.x[start:stop], split.y[start:stop], split.ids[start:stop]
    inputs, crafted, seconds, details, queries = clean, None, None, {}, None
    if given is not None:
        inputs = given
    elif evaluation.attack is not None:
        began = time.perf_counter()
        made = evaluation.attack.craft(
            evaluation.model,
            as_input(clean, device),
            labels.to(device),
            ids=ids,
            seed=evaluation.seed,
            surrogate=surrogate,
            crafting=crafting,
            metering=metering_of(evaluation.attack, device),
            learned=learned,
            on_progress=on_progress,
        )
        seconds, details, queries = time.perf_counter() - began, dict(made.details), made.queries
        if evaluation.attack.learns:
            seconds = made.seconds
        inputs = made.x_adv.cpu()
        crafted = {"x_adv": inputs.numpy(), "sample_id": ids.numpy(), "gallery_clean": clean[:GALLERY].numpy()}
    seeds = sample_seeds(ids, evaluation.seed).to(device)
    inference = evaluation.model.infer(
        as_input(inputs, device),
        seeds=seeds,
        labels=labels.to(device) if evaluation.model.needs_labels else None,
    )
    if isinstance(inference, MeteredInference):
        details = details | {"meter_standard_error": float(inference.noise.mean())}
    rows = rows_of(evaluation.id, inference, labels, ids, clean, inputs, queries)
    if (bare := unpadded_macs(evaluation.model, as_input(inputs, device), seeds)) is not None:
        rows["macs_unpadded"] = pd.array(bare.cpu().tolist(), dtype="Int64")
    if evaluation.attack is not None and evaluation.attack.replaces:
        rows = without_labels(rows)
    return Chunk(rows, crafted, seconds, details)


def unpadded_macs(model: AdaptiveModel, x: Tensor, seeds: Tensor) -> Tensor | None:
    """(N,) MACs of texts that are run with no padding at all; None of other inputs, and where the net cannot be.

    Args:
        model: the net. x: (N, L) ids, as the model takes them, or other inputs. seeds: (N,).
    """
    if not isinstance(model, DecisionGraph) or not isinstance(model.domain, TokenDomain):
        return None
    if not model.domain.trims or model.needs_labels:
        return None
    from adaptbench.models.text import infer_unpadded  # of texts alone

    return infer_unpadded(model, x, seeds=seeds).macs


def sample_seeds(ids: Tensor, seed: int) -> Tensor:
    """What a policy that draws draws from: one number a sample, made of the run's seed and the sample's id.

    A sample has the same number in every chunk and batch, evaluated or timed. Whatever the seeds, no number comes twice
    as long as ids are below 1 000 003. Published figures rest on these very numbers.

    Args:
        ids: (n,) int64 sample ids. seed: of the run.

    Returns:
        (n,) int64, id + seed · 1 000 003.
    """
    return ids + seed * 1_000_003


def as_input(x: Tensor, device: str) -> Tensor:
    """Stored inputs as the model takes them, on the device: pictures float32 in [0, 1], token ids as they are."""
    return x.to(device).float().div_(255.0) if x.dtype == torch.uint8 else x.to(device)


def rows_of(
    case: str, inference: Inference, labels: Tensor, ids: Tensor, clean: Tensor, inputs: Tensor, queries: Tensor | None
) -> pd.DataFrame:
    """Rows of ``samples.parquet``, one an input.

    Args:
        case: the evaluation. inference: of the inputs. labels, ids: (N,); labels (N, H, W) where every pixel has one.
        clean, inputs: (N, C, H, W) uint8, (N, C, T) float32 series, or (N, L) int64 token ids, whose distances are
            NaN.
        queries: (N,), None where nothing was asked.
    """
    far = torch.full((2, len(ids)), torch.nan, dtype=torch.float64)  # token ids have no distance
    if inputs.dtype != torch.int64:
        change = (inputs.float() - clean.float()).div_(255.0 if inputs.dtype == torch.uint8 else 1.0).flatten(1)
        far = torch.stack([change.abs().amax(1).double(), change.double().norm(dim=1)])
    predictions = inference.predictions.cpu()
    costs: dict[str, Any] = dict.fromkeys(METERED_COLUMNS.values(), np.full(len(ids), np.nan))
    if isinstance(inference, MeteredInference):
        costs |= {"macs": pd.array([None] * len(ids), dtype="Int64")}
        costs |= {METERED_COLUMNS[inference.unit]: inference.cost.cpu().numpy()}
    else:
        costs |= {"macs": inference.macs.cpu().numpy()}
    per_pixel, more = predictions.ndim == 3, dict[str, Any]()
    confidence = (profile(inference.logits).exp() if per_pixel else inference.logits.softmax(1)).amax(1)
    if per_pixel:
        counted = class_counts(predictions, labels, inference.logits.shape[1])
        more = {name: list(counts.numpy()) for name, counts in zip(PIXEL_COLUMNS, counted, strict=True)}
        labels = predictions = torch.full((len(ids),), NO_LABEL, dtype=torch.int64)
    return pd.DataFrame(
        {
            "case": pd.Series([case] * len(ids), dtype="string"),
            "sample_id": ids.numpy(),
            "label": labels.numpy(),
            "prediction": predictions.numpy(),
            "exit": inference.exit.cpu().numpy(),
            "depth": inference.path.sum(1).cpu().numpy(),
            "macs": costs.pop("macs"),
            "correct": ((predictions == labels) & (labels != NO_LABEL)).numpy(),
            "linf": far[0].numpy(),
            "l2": far[1].numpy(),
            "queries": pd.array([None] * len(ids) if queries is None else queries.cpu().tolist(), dtype="Int64"),
            "tie": inference.tie.cpu().numpy(),
            "confidence": confidence.double().cpu().numpy(),
            **costs,
            "macs_unpadded": pd.array([None] * len(ids), dtype="Int64"),
            **more,
        }
    )


def without_labels(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of pictures whose classes are none of the net's: label `NO_LABEL`, no distance to a clean picture."""
    return rows.assign(label=NO_LABEL, correct=False, linf=np.nan, l2=np.nan)


def hash_inputs(x: np.ndarray | Tensor) -> str:
    """SHA-256 of stored inputs in sample order."""
    array = x.numpy() if isinstance(x, torch.Tensor) else x
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
