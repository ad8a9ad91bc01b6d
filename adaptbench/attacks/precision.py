"""Attack steps in half precision: bf16 autocast and channels-last, where the processor computes in bf16.

A gradient need not be exact to lead somewhere; what a picture costs is no matter of opinion. So only the relaxed pass
and its gradient are taken here. Whatever is kept was executed by `infer` outside, in the net's own type.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from adaptbench.adaptive import AdaptiveModel
from adaptbench.attacks.objectives import Context, Goal, GradientObjective
from adaptbench.attacks.recipe import Precision

_NATIVE = ("amx_bf16", "avx512_bf16")


def why_no_bf16(device: torch.device) -> str | None:
    """None, or the reason why a device is not asked for bf16: without instructions of its own it only loses digits."""
    if device.type == "cuda":
        return None if torch.cuda.is_bf16_supported() else f"{torch.cuda.get_device_name(device)} computes in no bf16"
    if device.type != "cpu":
        return f"bf16 steps are tried on processors and CUDA, and the model is on '{device.type}'"
    tell = getattr(torch.cpu, "get_capabilities", None)  # from torch 2.10 on
    if tell is not None:
        native = any(tell().get(name) for name in _NATIVE)
    else:
        native = torch.cpu._is_amx_tile_supported() or getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()
    return None if native else "this processor has no instructions for bf16 (AMX or AVX-512 BF16)"


def applies_to(precision: Precision, model: AdaptiveModel) -> str | None:
    """None, or the reason why steps in a precision cannot be taken on a model, as an attack's `applies_to` says it."""
    if precision == "fp32":
        return None
    weights = next(model.parameters(), None)
    reason = why_no_bf16(torch.device("cpu") if weights is None else weights.device)
    if reason is None and weights is not None and weights.dtype != torch.float32:
        reason = f"its weights are {str(weights.dtype).removeprefix('torch.')} already"
    return None if reason is None else f"steps in bf16 were asked for (precision), and {reason}"


def measured(
    objective: GradientObjective,
    model: AdaptiveModel,
    x: Tensor,
    clean: Tensor,
    context: Context,
    y: Tensor,
    precision: Precision,
) -> Goal:
    """`objective.measure` in a precision; what comes out is float32 either way.

    Args:
        x, clean: (n, C, H, W) float32. context, y: of the same samples, as in `GradientObjective.measure`.
        precision: "bf16" runs the relaxed pass under autocast on channels-last pictures.
    """
    if precision == "fp32":
        return objective.measure(model, x, clean, context, y)
    with torch.autocast(x.device.type, torch.bfloat16):
        last = x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
        goal = objective.measure(model, last, clean, context, y)
    margins = None if goal.margins is None else goal.margins.float()
    guard = None if goal.guard is None else goal.guard.float()
    return replace(goal, loss=goal.loss.float(), margins=margins, guard=guard)
