"""The audited net once more, and the crafted inputs through it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from adaptbench.adaptive import AdaptiveModel, DecisionGraph, Inference, Split
from adaptbench.attacks.textual import beyond_budget
from adaptbench.attacks.word_edits import WordEdits
from adaptbench.auditing import bundle
from adaptbench.auditing.grounds import PICTURES, TEXT, ground_told, size
from adaptbench.auditing.kept import Held, read
from adaptbench.auditing.target import Pictures, own_data, target_of
from adaptbench.bench.entries import Entry, Fitting, put_under
from adaptbench.bench.evaluate import as_input, hash_inputs, rows_of, sample_seeds
from adaptbench.data import load_data
from adaptbench.data.base import DataSet
from adaptbench.errors import AdaptBenchError, RunError, UsageError
from adaptbench.report import words
from adaptbench.results.store import Run
from adaptbench.zoo.loading import load_system

if TYPE_CHECKING:
    import pandas as pd

    from adaptbench.auditing.audit import Audit
    from adaptbench.results.audits import Tried

NET = "the net"
COMPARED = ("macs", "prediction", "exit", "depth")
"""Of each picture, as columns of ``samples.parquet``; the rest of a row follows from them, or is rounded."""
COUNTED = (*COMPARED, "correct", "tie", "linf", "l2")
"""What figures are made of."""


@dataclass(frozen=True, slots=True)
class Again:
    """What a bundle is compared with.

    Args:
        model: under its policy; None where it was not named. split: its clean pictures; None where they are not there.
        why: one of them is missing. policy: what was seen of the bundle's own, where it is used.
    """

    model: AdaptiveModel | None
    split: Split | None
    why: str = ""
    policy: Held | None = None


def again_of(
    audit: Audit,
    model: str | AdaptiveModel | None,
    data: str | Split | Pictures | None,
    *,
    allow_imports: bool,
    data_root: Path | None,
    download: bool,
    zoo: Path | None,
    refit: bool = False,
) -> Again:
    """The net and the clean pictures, as far as they can be had.

    Raises:
        AdaptBenchError: a model was named and cannot be had. UsageError: a policy that nobody fitted is to be refitted.
    """
    told, about = audit.summary["model"], audit.summary["data"]
    if refit and told["asked_policy"] is None:
        raise UsageError(
            f"the policy of {audit.path} was not fitted by the audit.",
            why="It came with the net, so there is nothing to fit again.",
            todo="Leave --refit out.",
        )
    if model is None and told["source"] != "registry":
        return Again(None, None, f"it was {told['spec']}: name it with --model, or only files and figures are compared")
    split, source, why = _pictures(audit, data, data_root=data_root, download=download)
    target = target_of(told["net"] if model is None else model, about["spec"], allow_imports=allow_imports)
    loaded = target.given.get(target.name) or load_system(target.name, about["spec"].partition(":")[0], zoo=zoo)
    if (kept := told.get("kept_policy")) is not None and not refit:
        front = _behind(loaded.model, told.get("asked_defence"), audit.summary["seed"])
        return _under_the_kept(front, split, why, read(audit.path, kept))
    asked = put_under(told["asked_policy"], told.get("asked_defence"))
    if asked is not None:
        if source is None:
            return Again(None, None, f"its policy or defence is fitted on {about['spec']}, and {why}")
        entry = Entry.of({target.name: asked})
        loaded = Fitting(lambda: source.split("calibration"), audit.summary["seed"], {}).apply(entry, loaded)
    return Again(loaded.model, split, why)


def _behind(model: AdaptiveModel, defence: Mapping[str, Any] | None, seed: int) -> AdaptiveModel:
    """Behind what stood in front of the net; what is fitted to a policy is part of no policy that is kept."""
    made = None if defence is None else Entry.of({"net": put_under(None, defence)}).made_defence()
    return model if made is None else made.applied(model, seed=seed)


def _under_the_kept(model: AdaptiveModel, split: Split | None, why: str, held: Held) -> Again:
    if held.policy is None:
        return Again(None, None, "the bundle's policy cannot be read", held)
    if not isinstance(model, DecisionGraph):
        return Again(None, None, "the net that was named takes no policy", held)
    try:
        return Again(model.under(held.policy.to(next(model.parameters()).device)), split, why, held)
    except AdaptBenchError as error:
        return Again(None, None, f"the bundle's policy does not go with the net: {error.seen}", held)


def _pictures(
    audit: Audit, data: str | Split | Pictures | None, *, data_root: Path | None, download: bool
) -> tuple[Split | None, DataSet | None, str]:
    about = audit.summary["data"]
    try:
        if data is None and about["stored"]:
            split = _stored(audit)
            return split, own_data(split, len(split.class_names)), ""
        source: DataSet = (
            load_data(data or about["spec"], root=data_root, download=download)
            if data is None or isinstance(data, str)
            else own_data(data, len(about["classes"]))
        )
        return source.split("test").first(about["n"]), source, ""
    except AdaptBenchError as error:
        return None, None, f"the clean pictures are not there: {error.seen}"


def _stored(audit: Audit) -> Split:
    from safetensors import SafetensorError
    from safetensors.torch import load

    place, about = audit.path / bundle.INPUTS, audit.summary["data"]
    try:
        arrays = load(place.read_bytes())
        return Split(about["name"], "test", arrays["x"], arrays["y"], arrays["ids"], tuple(about["classes"]))
    except (OSError, SafetensorError, KeyError) as error:
        raise RunError(f"{place}: no pictures in it ({error}).", todo="Name the data with --data.") from error


def replay(audit: Audit, run: Run, again: Again, condition: Tried) -> tuple[pd.DataFrame | None, bool | None, str]:
    """One condition's pictures through the net.

    Returns:
        Rows as they are now (None where there are none), whether they are those of the bundle, and what was seen.
    """
    many = ground_told(audit.summary).many
    case = next(c for c in run.cases if c["evaluation"] == condition.evaluation)
    stored = run.samples([condition.evaluation])
    try:
        inputs = _inputs(run, again, case)
        if inputs is None:
            return None, None, again.why
        if len(inputs) != len(stored) or hash_inputs(inputs) != case["inputs_sha256"]:
            return None, False, f"the {many} are not those of the record: their hash is another"
        frame = _rows(audit, again, condition, inputs, stored)
    except AdaptBenchError as error:
        return None, False, error.seen
    off = [
        f"{int(wrong.sum())} have another {name}"
        for name in COMPARED
        if (wrong := (frame[name].to_numpy() != stored[name].to_numpy()) & ~_ties(frame, stored)).any()
    ]
    if again.split is not None and (beyond := _outside(audit, again, condition, inputs, frame, stored)):
        off.append(beyond)
    ties = int(_ties(frame, stored).sum())
    apart = f", {words.plural(ties, 'tie')} apart" if ties else ""
    if off:
        return frame, False, f"of {len(frame)} {many}, {', '.join(off)}{apart}"
    return frame, True, f"{len(frame)} {many} cost, leave and are answered as the bundle says{apart}"


def _inputs(run: Run, again: Again, case: dict[str, Any]) -> torch.Tensor | None:
    if case["crafted"] is not None:
        return torch.from_numpy(run.crafted(case["crafted"])["x_adv"])
    return None if again.split is None else again.split.x


def _rows(audit: Audit, again: Again, condition: Tried, inputs: torch.Tensor, stored: pd.DataFrame) -> pd.DataFrame:
    model, seed, size = again.model, audit.summary["seed"], audit.summary["chunk"]
    assert model is not None
    device = str(next((p.device for p in model.parameters()), torch.device("cpu")))
    ids, labels = (torch.from_numpy(stored[name].to_numpy().copy()) for name in ("sample_id", "label"))
    parts = [
        model.infer(as_input(inputs[i : i + size], device), seeds=sample_seeds(ids[i : i + size], seed).to(device))
        for i in range(0, len(inputs), size)
    ]
    clean = inputs if again.split is None else again.split.x
    frame = rows_of(condition.evaluation, Inference.join(parts), labels, ids, clean, inputs, None)
    if again.split is None:
        frame[["linf", "l2"]] = stored[["linf", "l2"]].to_numpy()
    return frame


def _outside(
    audit: Audit, again: Again, condition: Tried, inputs: torch.Tensor, frame: pd.DataFrame, stored: pd.DataFrame
) -> str:
    """What the distances to the clean pictures say against the bundle; nothing where they are as they should be."""
    ground, told = ground_told(audit.summary), audit.summary["conditions"][condition.condition]
    eps, settings = told["eps"], told["settings"]
    if ground is TEXT and ground.bounds(settings) and again.model is not None and again.split is not None:
        edits = WordEdits(share=settings["share"], least=settings["least"], moves=())
        if n := int(beyond_budget(again.model, edits, again.split.x, inputs).sum()):
            return f"{n} differ from the clean ones in more words than may be edited"
    if eps is not None and ground.bounds(settings):
        low, high = audit.summary.get("range") or (0.0, 1.0)
        slack = 0.5 / 255 if ground is PICTURES else 1e-5 * (high - low)
        if float(frame["linf"].max()) > eps + slack:
            moved = size(audit.summary, float(frame["linf"].max()))
            return f"a value is moved by {moved}, more than {size(audit.summary, eps)}"
    far = abs(frame["linf"].to_numpy() - stored["linf"].to_numpy()) > 1e-9
    return f"{int(far.sum())} are at another distance from the clean ones" if far.any() else ""


def _ties(frame: pd.DataFrame, stored: pd.DataFrame) -> Any:
    return frame["tie"].to_numpy() | stored["tie"].to_numpy()


def mended(frame: pd.DataFrame, stored: pd.DataFrame) -> pd.DataFrame:
    """Rows as they are now, ties as they fell then."""
    then = stored[stored["case"] == frame["case"].iloc[0]].reset_index(drop=True)
    ties = _ties(frame, then)
    out = frame.copy()
    for name in COUNTED:
        out[name] = np.where(ties, then[name].to_numpy(), frame[name].to_numpy())
    return out
