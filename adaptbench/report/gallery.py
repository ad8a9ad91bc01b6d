"""A few crafted inputs as pictures: clean, attacked and the difference, as small PNG files inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adaptbench.errors import RunError
from adaptbench.report import words
from adaptbench.report.figures.exits import by_depth
from adaptbench.report.view import Record, Subject, View

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

BUDGET_BYTES = 600_000
"""What all pictures together may weigh, as base64; larger images get fewer examples, and then smaller ones."""
EXAMPLES = 3
_SIDE = 96  # longest side in pixels of an embedded picture


@dataclass(frozen=True, slots=True)
class Example:
    """One input, before and after."""

    sample_id: int
    clean: str
    attacked: str
    change: str
    label: str
    way: str
    """Exit clean → attacked."""
    cost: str
    """MACs clean → attacked."""
    prediction: str
    deeper: bool
    """Whether the attack made it dearer."""


@dataclass(frozen=True, slots=True)
class Strip:
    """One attack on one model."""

    attack: str
    factor: str
    examples: tuple[Example, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """The strips of one model."""

    model: str
    strips: tuple[Strip, ...]


@dataclass(frozen=True, slots=True)
class Gallery:
    """All strips, and why others are not there."""

    groups: tuple[Group, ...]
    left_out: tuple[str, ...]
    shrunk: bool
    wide: bool
    """Whether pictures are large enough to be smoothed rather than shown pixel by pixel."""


def gallery(view: View) -> Gallery:
    """The first crafted inputs of each attack and model; they are not picked for effect."""
    jobs: list[tuple[Subject, Record, Mapping[str, np.ndarray]]] = []
    left_out: list[str] = []
    for subject in view.subjects:
        for record in view.attacks(subject):
            name = f"{view.condition_title(record)} on {subject.title}"
            if not record.get("crafted"):
                left_out.append(f"{name}: no crafted inputs were stored")
                continue
            try:
                arrays = view.run.crafted(str(record["crafted"]))
            except RunError as fault:
                left_out.append(f"{name}: the file cannot be read ({fault.seen})")
                continue
            if "gallery_clean" not in arrays or arrays["gallery_clean"].ndim != 4 or not len(arrays["gallery_clean"]):
                left_out.append(f"{name}: the file holds no clean pictures to compare with")
                continue
            jobs.append((subject, record, arrays))
    sizes = [arrays["x_adv"].shape[-2:] for _, _, arrays in jobs]
    per_strip = BUDGET_BYTES / max(len(jobs), 1)
    strips: dict[Subject, list[Strip]] = {}
    for subject, record, stored in jobs:
        strips.setdefault(subject, []).append(_strip(view, subject, record, stored, per_strip))
    groups = tuple(Group(subject.title, tuple(made)) for subject, made in strips.items())
    longest = max((max(size) for size in sizes), default=0)
    shrunk = any(_stride(arrays["x_adv"], per_strip) > 1 for _, _, arrays in jobs)
    return Gallery(groups, tuple(left_out), shrunk, longest > _SIDE)


def _weight(images: np.ndarray, stride: int) -> float:
    """Base64 bytes of one example: three pictures that hardly compress."""
    channels, height, width = (int(size) for size in images.shape[1:])
    return 4 * (3 * channels * -(-height // stride) * -(-width // stride) + 300) / 3


def _stride(images: np.ndarray, budget: float) -> int:
    stride = max(1, -(-int(max(images.shape[-2:])) // _SIDE))
    while _weight(images, stride) > budget and min(images.shape[-2:]) // stride > 16:
        stride += 1
    return stride


def _strip(view: View, subject: Subject, record: Record, arrays: Mapping[str, np.ndarray], budget: float) -> Strip:
    import numpy as np

    stride = _stride(arrays["x_adv"], budget)
    amount = int(max(1, min(EXAMPLES, len(arrays["gallery_clean"]), budget // _weight(arrays["x_adv"], stride))))
    ids = [int(sample) for sample in arrays["sample_id"][:amount]]
    before = arrays["gallery_clean"][:amount].astype(np.int16)
    after = arrays["x_adv"][:amount].astype(np.int16)
    change = after - before
    factor = max(1, 127 // max(int(np.abs(change).max()), 1))
    seen = _rows(view, record, subject, ids)
    examples = [
        _example(
            view,
            subject,
            sample,
            seen.get(sample, {}),
            _png(before[place], stride),
            _png(after[place], stride),
            _png(128 + factor * change[place], stride),
        )
        for place, sample in enumerate(ids)
    ]
    return Strip(view.condition_title(record), f"×{factor}" if np.abs(change).max() else "no change", tuple(examples))


def _rows(view: View, record: Record, subject: Subject, ids: list[int]) -> dict[int, dict[str, dict[str, Any]]]:
    """sample_id → {"clean": row, "attacked": row}, as far as the samples hold them."""
    clean = view.clean(subject)
    wanted = {"attacked": record["evaluation"]} | ({"clean": clean["evaluation"]} if clean else {})
    samples: pd.DataFrame = view.run.samples(list(wanted.values()))
    samples = samples[samples["sample_id"].isin(ids)]
    by_sample: dict[int, dict[str, dict[str, Any]]] = {}
    for name, case in wanted.items():
        for row in samples[samples["case"] == case].to_dict("records"):
            by_sample.setdefault(int(row["sample_id"]), {})[name] = {str(key): value for key, value in row.items()}
    return by_sample


def _example(
    view: View,
    subject: Subject,
    sample: int,
    seen: Mapping[str, Mapping[str, Any]],
    clean: str,
    attacked: str,
    change: str,
) -> Example:
    before, after = seen.get("clean", {}), seen.get("attacked", {})
    names = ((view.manifest.get("data") or {}).get(subject.data) or {}).get("class_names") or []

    def place(row: Mapping[str, Any]) -> str:
        if not row:
            return words.DASH
        model = view.model(subject.model)
        if by_depth(model):
            return f"{int(row['depth'])} nodes"
        exits, number = model.get("exit_names") or [], int(row["exit"])
        return str(exits[number]) if number < len(exits) else f"exit {number}"

    def class_name(number: Any) -> str:
        if not words.exists(number):
            return words.DASH
        return str(names[int(number)]) if int(number) < len(names) else str(int(number))

    first, then = before.get("macs"), after.get("macs")
    return Example(
        sample, clean, attacked, change,
        label=class_name(after.get("label", before.get("label"))),
        way=f"{place(before)} → {place(after)}",
        cost=_cost(first, then),
        prediction=f"{class_name(before.get('prediction'))} → {class_name(after.get('prediction'))}",
        deeper=words.exists(first) and words.exists(then) and then > first,
    )  # fmt: skip


def _cost(first: float | None, then: float | None) -> str:
    unit, factor = words.macs_unit([size for size in (first, then) if words.exists(size)])
    told = [words.number(size / factor, 1) if words.exists(size) else words.DASH for size in (first, then)]
    return f"{told[0]} → {told[1]} {unit}"


def _png(pixels: np.ndarray, stride: int) -> str:
    """A (C, H, W) array in grey levels as a data URI; three channels are colours, any other number its mean."""
    import numpy as np
    from PIL import Image

    levels = np.clip(pixels[:, ::stride, ::stride], 0, 255).astype(np.uint8)
    if levels.shape[0] == 3:
        picture = Image.fromarray(np.ascontiguousarray(levels.transpose(1, 2, 0)))
    else:
        picture = Image.fromarray(levels[0] if levels.shape[0] == 1 else levels.mean(axis=0).astype(np.uint8))
    sink = io.BytesIO()
    picture.save(sink, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(sink.getvalue()).decode("ascii")
