"""Checks before anything is attacked: can the figures of this net, on these inputs, be trusted at all?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from adaptbench.adaptive import AdaptiveModel, Split
from adaptbench.auditing import pictures, series, texts
from adaptbench.auditing.findings import Check, looked_at
from adaptbench.auditing.grounds import PICTURES, SERIES, TEXT, Ground, ground_of_model
from adaptbench.auditing.slopes import NAME as SLOPES
from adaptbench.auditing.slopes import slopes
from adaptbench.auditing.target import Target
from adaptbench.bench.evaluate import as_input
from adaptbench.experiment.keys import model_hash
from adaptbench.report import words
from adaptbench.testing.laws import laws_of

LOOKED_AT = 16
"""Inputs, for the laws and the gradients."""
_MODAL = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd, nn.RReLU)


def left_in_train_mode(model: nn.Module) -> Check:
    """Layers that work otherwise in training, in the mode that the net was handed over in."""
    name = "train mode"
    left = [where for where, module in model.named_modules() if module.training and isinstance(module, _MODAL)]
    if left:
        shown = ", ".join(left[:3]) + (f" and {len(left) - 3} more" if len(left) > 3 else "")
        kinds = words.listing(sorted({type(model.get_submodule(where)).__name__ for where in left}))
        return Check(
            name,
            "doubt",
            f"{kinds} handed over in train mode ({shown}): every figure here is of eval mode, and as it was handed "
            "over the net answers otherwise",
        )
    return Check(name, "ok", "no layer that works otherwise in training was in train mode")


def checks_of(model: AdaptiveModel, target: Target, split: Split, *, seed: int, device: str) -> list[Check]:
    """All of them but `left_in_train_mode`; the net is in eval mode by now.

    Args:
        model: under its policy. target: as it was named. split: the inputs that are judged.
    """
    ground, x = ground_of_model(model), as_input(split.x[:LOOKED_AT], device)
    found = [looked_at(f"law: {law}", partial(_law, law, seen, ground)) for law, seen in laws_of(model, x).items()]
    rest = {
        "MACs of every operator": lambda: _all_counted(model),
        **_of_inputs(ground, model, split, device),
        "determinism": lambda: _same_twice(model, target, split, device),
        SLOPES: lambda: slopes(model, model.taken(x)),
        **_by_content(ground, model, split, seed, device),
    }
    return [*found, *(looked_at(name, look) for name, look in rest.items())]


def _of_inputs(ground: Ground, model: AdaptiveModel, split: Split, device: str) -> dict[str, Callable[[], Check]]:
    """Whether the net takes inputs as they are stored."""
    if ground is TEXT:
        return {
            "tokenizer": lambda: texts.pieces_known(model, split),
            "length of rows": lambda: texts.not_cut(model, split),
            "padding": lambda: texts.same_when_padded(model, split, device),
        }
    if ground is SERIES:
        return {
            "normaliser inside": lambda: series.normaliser_inside(model, split, device),
            "range of the sensor": lambda: series.range_used(model, split),
        }
    return {
        "normaliser inside": lambda: pictures.normaliser_inside(model, split, device),
        "8-bit range": lambda: pictures.full_range(split),
    }


def _by_content(
    ground: Ground, model: AdaptiveModel, split: Split, seed: int, device: str
) -> dict[str, Callable[[], Check]]:
    """Whether the net knows the test inputs by heart."""
    if ground is TEXT:
        return {"cost after one edit": lambda: texts.cheap_by_content(model, split, seed, device)}
    kind = series if ground is SERIES else pictures
    return {"cost after re-encoding": lambda: kind.cheap_by_content(model, split, seed, device)}


def _law(law: str, against: str | None, ground: Ground = PICTURES) -> Check:
    seen = f"holds on {LOOKED_AT} {ground.many}" if against is None else against
    return Check(f"law: {law}", "ok" if against is None else "cannot be trusted", seen)


def _all_counted(model: AdaptiveModel) -> Check:
    name = "MACs of every operator"
    if model.uncounted:
        return Check(
            name,
            "cannot be trusted",
            f"no formula covers {', '.join(model.uncounted)}: the net costs more than the figures say",
        )
    return Check(name, "ok", "every operator that runs is counted, or costs no MACs")


def _same_twice(model: AdaptiveModel, target: Target, split: Split, device: str) -> Check:
    name = "determinism"
    x, many = as_input(split.x[:200], device), ground_of_model(model).many
    one, two = model.infer(x), model.infer(x)
    if not (torch.equal(one.macs, two.macs) and torch.equal(one.logits, two.logits)):
        moved = int((one.macs != two.macs).sum())
        return Check(
            name,
            "cannot be trusted",
            f"two passes over the same {len(x)} {many} differ, in cost for {moved} of them: something draws or "
            "counts inside the net, and nobody can verify its figures",
        )
    if target.again is not None and target.model is not None and model_hash(target.again()) != model_hash(target.model):
        return Check(
            name,
            "cannot be trusted",
            f"{target.spec} makes another net at each call: nobody can verify the figures of this one",
        )
    return Check(name, "ok", f"two passes over the same {len(x)} {many} are equal to the bit")
