"""Comparing results and states for the kits: what differs is named by sample."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from adaptbench.adaptive.model import AdaptiveModel
from adaptbench.adaptive.outcome import Inference
from adaptbench.errors import AdaptBenchError
from adaptbench.testing import views


def rows_of(inference: Inference, order: Tensor) -> Inference:
    """The results of some samples, in another order."""
    return Inference(
        inference.logits[order],
        inference.macs[order],
        inference.exit[order],
        inference.path[order],
        inference.tie[order],
    )


def same(a: Tensor, b: Tensor, sure: Tensor, what: str, one: str, other: str) -> None:
    """Integers and paths must be equal, ties aside."""
    differ = (a != b).flatten(1).any(1) if a.ndim > 1 else a != b
    if (differ & sure).any():
        i = int((differ & sure).nonzero()[0])
        raise AssertionError(f"sample {i}: {what} of {one} is {a[i].tolist()}, of {other} {b[i].tolist()}")


def close(a: Tensor, b: Tensor, sure: Tensor, one: str, other: str) -> None:
    """Logits must agree to rounding, ties aside."""
    scale = max(1.0, float(a.abs().max()))
    gap = torch.where(sure, (a - b).abs().flatten(1).amax(1), 0.0)
    i = int(gap.argmax())
    assert float(gap[i]) <= 1e-4 * scale, f"sample {i}: logits of {one} and of {other} differ by {float(gap[i]):.3g}"


def agree(a: Inference, b: Inference, one: str, other: str) -> None:
    """Two hard passes over the same samples must agree, ties aside."""
    sure = ~(a.tie | b.tie)
    for what in ("path", "exit", "macs"):
        same(getattr(a, what), getattr(b, what), sure, what, one, other)
    close(a.logits, b.logits, sure, one, other)


@contextmanager
def rows_seen(modules: list[Any]) -> Iterator[dict[int, int]]:
    """Samples that each node's module is called with; modules that several nodes share are left out."""
    seen: dict[int, int] = {}
    handles = []
    for v, module in enumerate(modules):
        if module is None or sum(module is other for other in modules) > 1:
            continue
        seen[v] = 0

        def note(_module: Any, args: Any, _out: Any, v: int = v) -> None:
            seen[v] += views.batch_of(args)

        handles.append(module.register_forward_hook(note))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def state_of(model: AdaptiveModel) -> dict[str, Any]:
    """Everything that a pass must leave as it was, by name."""
    weights, buffers = hashlib.sha256(), hashlib.sha256()
    for digest, tensors in ((weights, model.parameters()), (buffers, model.buffers())):
        for tensor in tensors:
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return {
        "training flags": [m.training for m in model.modules()],
        "weights": weights.hexdigest(),
        "buffers": buffers.hexdigest(),
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "parameter gradients": [p.grad is None for p in model.parameters()],
        "torch's random state": torch.get_rng_state().numpy().tobytes(),
    }


def refuses(call: Callable[[], object], error: type[AdaptBenchError], what: str) -> None:
    """A call must raise one error class and no other."""
    try:
        call()
    except error:
        return
    except Exception as other:
        raise AssertionError(
            f"{what}: {type(other).__name__} was raised where {error.__name__} is expected: {other}"
        ) from other
    raise AssertionError(f"{what} was accepted; raise {error.__name__}")
