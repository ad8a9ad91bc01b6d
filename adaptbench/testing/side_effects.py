"""What a pass must leave alone: the caller's pictures, what other parts read, flags, weights and random state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from adaptbench.adaptive.graph import DecisionGraph
from adaptbench.adaptive.model import AdaptiveModel, frozen
from adaptbench.adaptive.outcome import Inference
from adaptbench.adaptive.tokens import followed
from adaptbench.testing import views
from adaptbench.testing.compare import close, same, state_of


def nobody_writes(model: AdaptiveModel, x: Tensor, infer: Callable[..., Inference], *, relaxes: bool) -> None:
    """No part writes into the caller's pictures, into signals, or into features that others read.

    Raises:
        AssertionError: something does; the message names it.
    """
    kept = x.clone()
    calls: dict[str, Any] = {
        "infer": infer,
        "a forced path": lambda: infer(force=views.mixed_paths(model, len(x))),
        "per_sample": lambda: infer(mode="per-sample"),
        "dense_logits": lambda: model.dense_logits(x),
        "run_reference": lambda: model.run_reference(x),
    }
    if relaxes:
        calls["relax"] = lambda: model.relax(x)
    if not model.needs_labels:
        calls["calling the model"] = lambda: model(x)
    with frozen(model), torch.no_grad():
        for what, call in calls.items():
            call()
            assert torch.equal(x, kept), f"{what} wrote into the caller's pictures"
    if (node := views.deciding_writes(model, x)) is not None:
        raise AssertionError(f"at node '{model.node_names[node]}' the policy writes into the signals it is shown")
    if (own := views.everything_run_apart(model, x)) is None:
        return
    with frozen(model), torch.no_grad():
        dense = model.dense_logits(x)
    scale = max(1.0, float(own.abs().max()))
    gap = (dense - own).abs().amax((0, 2))
    for k, name in enumerate(model.exit_names):
        assert float(gap[k]) <= 1e-4 * scale, (
            f"'{name}' answers otherwise, by {float(gap[k]):.3g}, when every part works on copies: "
            "something writes into features that others read"
        )
    if not model.needs_labels and (chosen := views.chosen_afterwards(model, x)) is not None:
        path, logits, tie = chosen
        inference = infer()
        sure = ~(inference.tie | tie)
        same(inference.path, path, sure, "the path", "the hard pass", "its parts on copies")
        close(inference.logits, logits, sure, "the hard pass", "its parts on copies")
    if isinstance(model, DecisionGraph):
        every = torch.ones(len(x), dtype=torch.bool, device=x.device)
        if model.front is not None:
            with frozen(model), torch.no_grad():
                own = views.logits_apart(model, x, defended=False)
        reference = model.shown(model.run_reference(x))
        close(reference, own[:, model.reference[-1]], every, "the reference", "its parts on copies")


def nothing_left_changed(model: AdaptiveModel, x: Tensor, infer: Callable[..., Inference], *, relaxes: bool) -> None:
    """Inference, costs and relaxation leave the model and the input as they were.

    Raises:
        AssertionError: something changed; the message names it.
    """
    was = [module.training for module in model.modules()]
    try:
        for i, module in enumerate(model.modules()):
            module.training = i % 2 == 0
        kept = x.clone()
        before = state_of(model)
        infer()
        infer(mode="per-sample")
        model.run_reference(x)
        _ = model.min_macs, model.max_macs, model.macs_full, model.paths()
        if relaxes:
            with followed(x) as (given, leaf):
                expected = model.relax(given).expected_macs
            if expected.requires_grad:
                torch.autograd.grad(expected.sum(), leaf(), allow_unused=True)
        after = state_of(model)
    finally:
        for module, flag in zip(model.modules(), was, strict=True):
            module.training = flag
    for what, value in before.items():
        assert after[what] == value, f"{what} changed during inference or relaxation"
    assert torch.equal(x, kept), "the input was changed in place"
