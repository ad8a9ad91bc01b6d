"""The pass that is timed, beside the pass that is recorded."""

from __future__ import annotations

import torch
from torch import Tensor

from adaptbench.adaptive.counting import counting
from adaptbench.adaptive.model import AdaptiveModel
from adaptbench.adaptive.parts import PARTS


def served_as_inferred(model: AdaptiveModel, x: Tensor) -> None:
    """`serve` gives the answers of `infer` at its MACs, `serve_reference` those of `run_reference`.

    Raises:
        AssertionError: another pass would be timed than is recorded.
    """
    seeds = torch.arange(len(x), device=x.device)
    inference = model.infer(x, seeds=seeds)
    parts: list[str] = []
    with model.serving():
        with counting() as counter:
            logits = model.serve(x, seeds=seeds, lap=parts.append)
        reference = model.serve_reference(x)
    assert torch.equal(logits, inference.logits), "serve answers otherwise than infer"
    assert counter.macs == int(inference.macs.sum()), (
        f"serve ran {counter.macs} MACs, infer records {int(inference.macs.sum())}: another pass would be timed"
    )
    if "queues" in model.modes:
        _queued_as_inferred(model, x, seeds)
    assert torch.equal(reference, model.run_reference(x)), "serve_reference answers otherwise than run_reference"
    assert set(parts) <= set(PARTS), f"a stretch of the pass is called {sorted(set(parts) - set(PARTS))}"


def _queued_as_inferred(model: AdaptiveModel, x: Tensor, seeds: Tensor) -> None:
    """The same, through queues."""
    inference = model.infer(x, seeds=seeds, mode="queues", full=3)
    with model.serving(), counting() as counter:
        logits = model.serve(x, seeds=seeds, full=3)
    assert torch.equal(logits, inference.logits), "serve(full=…) answers otherwise than infer(mode='queues')"
    assert counter.macs == int(inference.macs.sum()), (
        f"serve(full=…) ran {counter.macs} MACs, infer(mode='queues') records {int(inference.macs.sum())}"
    )
