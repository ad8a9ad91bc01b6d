"""Crafted pictures on the disk: PNG or safetensors, and ``crafted.json``, which says of what they are."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from adaptbench.adaptive import AdaptiveModel, Split
from adaptbench.bench.one_attack import Job, Outcome
from adaptbench.errors import OutputError, UsageError
from adaptbench.experiment.environment import describe_device, versions
from adaptbench.experiment.heading import now
from adaptbench.experiment.keys import model_hash
from adaptbench.results.files import digest, sealed, sweep, writable, write_bytes, write_json
from adaptbench.results.schema import METERED_COLUMNS, SCHEMA_VERSION

Form = Literal["png", "safetensors"]
DOCUMENT, PICTURES, TENSORS = "crafted.json", "pictures", "crafted.safetensors"
_OURS = {DOCUMENT, PICTURES, TENSORS}


def require_room(place: Path, fresh: bool) -> None:
    """Refuse a place where something would be overwritten.

    Raises:
        OutputError: pictures lie there and `fresh` is not set, or other files do.
    """
    if place.exists() and not place.is_dir():
        raise OutputError(f"{place}: it is a file, no directory.", todo="Name another place with --out.")
    present = {entry.name for entry in place.iterdir() if not entry.name.startswith(".")} if place.is_dir() else set()
    if others := sorted(present - _OURS):
        raise OutputError(
            f"{place}: the directory holds other files ({', '.join(others[:3])}{' …' if others[3:] else ''}).",
            why="Crafted pictures would mix with them.",
            todo="Name a new or empty directory with --out.",
        )
    if present and not fresh:
        raise OutputError(
            f"{place}: crafted pictures lie there.",
            why="They may be what a figure rests on.",
            todo="Name another directory with --out, or add --fresh to replace them.",
        )


def require_form(form: Form, split: Split) -> None:
    """Refuse PNG where pictures are neither grey nor coloured.

    Raises:
        UsageError: another number of channels.
    """
    if form == "png" and len(split.shape) != 3:
        raise UsageError(f"{split.name} holds texts, no pictures.", todo="Add --format safetensors.")
    if form == "png" and split.shape[0] not in (1, 3):
        raise UsageError(
            f"pictures of {split.name} have {split.shape[0]} channels, and PNG files hold 1 or 3.",
            todo="Add --format safetensors.",
        )


def write(place: Path, job: Job, outcome: Outcome, form: Form, command: str) -> Path:
    """Write pictures, then the document; without a document the directory is incomplete.

    Returns:
        The document.

    Raises:
        OutputError: the place cannot be written to.
    """
    with writable(place):
        place.mkdir(parents=True, exist_ok=True)
        _remove(place)
        if form == "png":
            (place / PICTURES).mkdir()
    ids = outcome.attacked["sample_id"].to_numpy()
    if form == "png":
        files = [f"{PICTURES}/{sample}.png" for sample in ids.tolist()]
        with writable(place):
            for file, picture in zip(files, outcome.x_adv, strict=True):
                (place / file).write_bytes(_png(picture))
    else:
        labels = outcome.attacked["label"].to_numpy()
        write_bytes(place / TENSORS, _packed({"x_adv": outcome.x_adv, "ids": ids, "labels": labels}))
        files = [TENSORS]
    document = describe(job, outcome, form, command) | {"files": {file: sealed(place / file) for file in files}}
    write_json(place / DOCUMENT, {**document, "digest": digest(document)})
    return place / DOCUMENT


def describe(job: Job, outcome: Outcome, form: Form, command: str) -> dict[str, Any]:
    """What ``crafted.json`` says beside its files: who, on what, how, and what it did to each sample."""
    attack, model, split = job.attack, job.loaded.model, job.split
    before, after = outcome.clean, outcome.attacked
    queries = after["queries"]
    cost = "macs" if model.meter is None else METERED_COLUMNS[model.meter.unit]
    return {
        "schema": SCHEMA_VERSION,
        "kind": "crafted",
        "command": command,
        "written": now(),
        "versions": versions(),
        "device": describe_device(job.device),
        "model": {
            "name": job.loaded.name,
            "policy": model.policy_name,
            "policy_settings": job.wish.entry.settings,
            "defence": job.wish.entry.defence,
            "defence_settings": job.wish.entry.defence_settings,
            "sha256": model_hash(model),
            **_costs(model),
            "uncounted": list(model.uncounted),
        },
        "data": {"name": split.name, "split": split.role, "n": len(split), "sha256": split.sha256},
        "attack": {
            "recipe": job.wish.recipe,
            "title": attack.title,
            "cite": attack.cite,
            "kind": attack.kind,
            "access": attack.access,
            "settings": attack.settings,
            "deviates": list(attack.deviates),
            "versions": attack.versions,
            "sha256": job.attack_sha256,
        },
        "seed": job.wish.seed,
        "format": form,
        "inputs_sha256": hashlib.sha256(np.ascontiguousarray(outcome.x_adv).tobytes()).hexdigest(),
        "seconds": outcome.seconds,
        "figures": {"before": outcome.before, "after": outcome.figures},
        "details": outcome.details,
        "samples": {
            "id": after["sample_id"].tolist(),
            "label": after["label"].tolist(),
            f"{cost}_before": before[cost].tolist(),
            f"{cost}_after": after[cost].tolist(),
            "answer_before": before["prediction"].tolist(),
            "answer_after": after["prediction"].tolist(),
            "linf": after["linf"].tolist(),
            "l2": after["l2"].tolist(),
            "queries": None if queries.isna().any() else queries.astype("int64").tolist(),
        },
    }


def _costs(model: AdaptiveModel) -> dict[str, Any]:
    """What the model can cost: MACs, or the unit that a meter reads in their place."""
    if model.meter is not None:
        return {"cost_unit": model.meter.unit}
    return {"macs_min": model.min_macs, "macs_max": model.max_macs, "macs_full": model.macs_full}


def _remove(place: Path) -> None:
    """What an earlier craft left: its document first, so that nothing half-removed reads as complete."""
    sweep(place)
    (place / DOCUMENT).unlink(missing_ok=True)
    (place / TENSORS).unlink(missing_ok=True)
    if (place / PICTURES).is_dir():
        for file in (place / PICTURES).glob("*.png"):
            file.unlink()
        (place / PICTURES).rmdir()  # fails where somebody else's files lie in it


def _png(picture: NDArray[np.uint8]) -> bytes:
    """(C, H, W) in grey levels; lossless."""
    from PIL import Image

    levels = picture[0] if len(picture) == 1 else np.ascontiguousarray(picture.transpose(1, 2, 0))
    sink = io.BytesIO()
    Image.fromarray(levels).save(sink, format="PNG")
    return sink.getvalue()


def _packed(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    from safetensors.numpy import save

    content: bytes = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    return content
