"""Counting: what is free raises no alarm, what is not counted is named."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from adaptbench.adaptive.counting import counting

X = torch.rand(1, 4, 16, 16)
FREE = {
    "nearest-exact": lambda: F.interpolate(X, scale_factor=2, mode="nearest-exact"),
    "antialias": lambda: F.interpolate(X, size=5, mode="bilinear", antialias=True),
    "bicubic, antialias": lambda: F.interpolate(X, size=5, mode="bicubic", antialias=True),
    "linear": lambda: F.interpolate(X[0], scale_factor=2, mode="linear"),
    "trilinear": lambda: F.interpolate(X[None], scale_factor=2, mode="trilinear"),
    "max_unpool": lambda: F.max_unpool2d(*F.max_pool2d(X, 2, return_indices=True), 2),
    "replication pad": lambda: [F.pad(X, (1, 1, 1, 1), mode="replicate"), F.pad(X[0], (1, 1), mode="replicate")],
    "pads in 3-d": lambda: [F.pad(X[None], (1, 1, 1, 1, 1, 1), mode=m) for m in ("replicate", "reflect", "circular")],
    "cumprod": lambda: X.cumprod(1),
    "logcumsumexp": lambda: X.logcumsumexp(1),
    "count_nonzero": lambda: X.count_nonzero(),
    "softmaxes": lambda: [X.softmax(1), X.log_softmax(1), F.softmin(X, 1), F.gumbel_softmax(X, dim=1)],
    "losses": lambda: [F.cross_entropy(X, X[:, 0].long()), F.mse_loss(X, X), F.huber_loss(X, X)],
    "nan-aware": lambda: [X.nansum(1), X.nanmean(1), X.nanmedian()],
    "adaptive max in 3-d": lambda: F.adaptive_max_pool3d(X[None], 2),
    "grid sample in 3-d": lambda: F.grid_sample(X[None], torch.zeros(1, 2, 2, 2, 3), align_corners=False),
    "trace, rotation": lambda: [X[0, 0].trace(), X.rot90(1, (2, 3)), X.take(torch.tensor([1]))],
    "lists": lambda: torch._foreach_add([X, X], 1.0),
}


@pytest.mark.case("https://github.com/facebookresearch/fvcore/issues/143")
@pytest.mark.parametrize("case", FREE)
def test_what_is_free_raises_no_alarm(case: str) -> None:
    """Interpolations, pads and softmaxes without a formula failed strict suites; they are free by the convention."""
    with counting() as counter:
        FREE[case]()
    assert not counter.uncounted
    assert counter.macs == 0


@pytest.mark.case("https://github.com/facebookresearch/fvcore/issues/143")
def test_a_normalised_weight_counts_as_its_layer() -> None:
    """Weight norm was named as compute without a formula; the convolution counts and the norm is free."""
    layer = nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 1))
    with counting() as counter:
        layer(X)
    assert counter.macs == 256 * 16
    assert not counter.uncounted


@pytest.mark.case("https://github.com/facebookresearch/fvcore/issues/143")
def test_a_product_written_as_multiply_and_sum_is_named() -> None:
    """10 240 multiply-adds ran, 0 were counted and nothing was said; now the count names them."""
    with counting() as counter:
        (X.flatten(1)[:, None] * torch.rand(10, 1024)).sum(-1)
    assert dict(counter.uncounted) == {"aten::mul + aten::sum": 1}


@pytest.mark.case("https://github.com/facebookresearch/fvcore/issues/143")
def test_products_in_place_are_counted() -> None:
    """`addmm_` and its like were named as unknown, though `addmm` has a formula; both count alike."""
    with counting() as counter:
        torch.zeros(3, 5).addmm_(torch.rand(3, 4), torch.rand(4, 5))
    assert counter.macs == 60
    assert not counter.uncounted


@pytest.mark.case("own")
def test_what_held_goes_on_holding() -> None:
    """Masks, grouped queries, shared modules, checkpointed and vmapped code counted rightly, and still do."""
    q, k = torch.rand(1, 4, 3, 8), torch.rand(1, 2, 3, 8)
    layer = nn.Linear(6, 6)
    cases = {
        "grouped queries": (lambda: F.scaled_dot_product_attention(q, k, k, enable_gqa=True), 4 * 3 * 3 * 16),
        "masked": (lambda: F.scaled_dot_product_attention(q, q, q, torch.ones(3, 3).tril().bool()), 4 * 3 * 3 * 16),
        "used twice": (lambda: layer(layer(torch.rand(2, 6))), 2 * 2 * 36),
        "checkpointed": (lambda: checkpoint(layer, torch.rand(2, 6), use_reentrant=False), 2 * 36),
        "vmapped": (lambda: torch.vmap(layer)(torch.rand(2, 6)), 2 * 36),
    }
    for name, (run, want) in cases.items():
        with counting() as counter:
            run()
        assert (name, counter.macs, dict(counter.uncounted)) == (name, want, {})
