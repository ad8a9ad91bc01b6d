"""Products spelled out as multiplication and sum are named; weighting elements is not."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from adaptbench.adaptive.counting import MacCounter, counting

r = torch.rand
ONE, TWO, WEIGHT = r(1, 16), r(2, 16), r(10, 16)

PRODUCTS = {
    "linear, one sample": lambda: (ONE[:, None] * WEIGHT).sum(-1),
    "linear, two samples": lambda: (TWO[:, None] * WEIGHT).sum(-1),
    "linear, the other way round": lambda: (ONE.unsqueeze(-1) * WEIGHT.t()).sum(1),
    "mean": lambda: (TWO[:, None] * WEIGHT).mean(-1),
    "divided": lambda: (TWO[:, None] / WEIGHT).sum(-1),
    "turned first": lambda: (TWO[:, None] * WEIGHT).permute(0, 2, 1).sum(1),
    "flattened first": lambda: (TWO[:, None] * WEIGHT).reshape(20, 16).sum(1),
    "copied first": lambda: (TWO[:, None] * WEIGHT).transpose(1, 2).contiguous().sum(1),
    "rectified first": lambda: (TWO[:, None] * WEIGHT).relu_().sum(-1),
    "masked first": lambda: (TWO[:, None] * WEIGHT * r(16)).sum(-1),
    "expanded factors": lambda: (TWO[:, None].expand(2, 10, 16) * WEIGHT.expand(2, 10, 16)).sum(-1),
    "expanded and copied": lambda: (TWO[:, None].expand(2, 10, 16).contiguous() * WEIGHT.expand(2, 10, 16)).sum(-1),
    "attention": lambda: (r(1, 5, 8).unsqueeze(2) * r(1, 6, 8).unsqueeze(1)).sum(-1),
    "1×1 convolution": lambda: (r(1, 4, 6, 6)[:, None] * r(7, 4, 1, 1)).sum(2),
    "addcmul": lambda: torch.addcmul(torch.zeros(2, 10, 16), TWO[:, None], WEIGHT).sum(-1),
    "vmapped": lambda: torch.vmap(lambda row: (row * WEIGHT).sum(-1))(TWO),
    "cosine of all pairs": lambda: F.cosine_similarity(TWO[:, None], WEIGHT, dim=-1),
    "distances, L2": lambda: (TWO[:, None] - WEIGHT).pow(2).sum(-1),
    "distances, norm": lambda: (TWO[:, None] - WEIGHT).norm(dim=-1),
    "distances, L1 in place": lambda: (ONE[:, None] - WEIGHT).abs_().sum(-1),
}

WEIGHTING = {
    "attention pooling": lambda: (r(2, 5, 1).softmax(1) * r(2, 5, 8)).sum(1),
    "attention pooling, one sample": lambda: (r(1, 5, 1).softmax(1) * r(1, 5, 8)).sum(1),
    "mixture of experts": lambda: (r(2, 6)[..., None] * torch.stack([r(2, 8)] * 6, 1)).sum(1),
    "ensemble": lambda: (r(5, 2, 10) * r(5, 1, 1)).mean(0),
    "SE gate and pooling": lambda: (r(2, 4, 6, 6) * r(2, 4, 1, 1)).mean((2, 3)),
    "CBAM": lambda: (r(2, 4, 6, 6) * r(2, 4, 1, 1) * r(2, 1, 6, 6)).mean((2, 3)),
    "channels scaled": lambda: (r(1, 4, 6, 6) * r(4, 1, 1)).sum((2, 3)),
    "normaliser": lambda: ((r(1, 3, 6, 6) - r(3, 1, 1)) / r(3, 1, 1)).mean((2, 3)),
    "variance": lambda: (TWO - TWO.mean(0, keepdim=True)).square().mean(0),
    "layer norm": lambda: (nn.LayerNorm(16)(TWO) * r(16)).sum(-1),
    "generalised mean": lambda: r(2, 4, 6, 6).pow(3).mean((2, 3)),
    "entropy": lambda: -(TWO * TWO.log()).sum(1),
    "expectation": lambda: (TWO * torch.arange(16.0)).sum(1),
    "cosine of pairs": lambda: F.cosine_similarity(TWO, TWO + 1),
    "normalised": lambda: F.normalize(TWO),
    "outer product": lambda: torch.outer(r(3), r(4)).sum(0),
    "total": lambda: (TWO[:, None] * WEIGHT).sum(),
    "positions": lambda: (torch.arange(6).view(1, 3, 2) - torch.arange(6).view(3, 1, 2)).sum(-1),
    "differences, linear": lambda: (TWO[:, None] - WEIGHT).sum(-1),
    "one-axis distances": lambda: (r(2, 5, 1) - r(2, 1, 5)).abs().sum(-1),
}


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad], ids=lambda m: m.__name__)
@pytest.mark.parametrize("case", PRODUCTS)
def test_a_product_spelled_out_is_named(case, mode):
    with mode(), MacCounter() as counter:
        PRODUCTS[case]()
    (name,) = counter.uncounted
    first, second = name.split(" + ")
    assert first.removeprefix("aten::") in ("mul", "div", "addcmul", "sub")
    assert second.removeprefix("aten::") in ("sum", "mean", "norm", "linalg_vector_norm")


@pytest.mark.parametrize("case", WEIGHTING)
def test_weighting_is_free(case):
    with counting() as counter:
        WEIGHTING[case]()
    assert not counter.uncounted
    assert counter.macs == 0


def test_a_product_is_forgotten_with_its_memory():
    """Another tensor at the same address is not taken for it."""
    with counting() as counter:
        for _ in range(50):
            outer = TWO[:, None] * WEIGHT
            del outer
            (torch.rand(2, 10, 16) * 2).sum(-1)
    assert not counter.uncounted


def test_nothing_is_kept_alive():
    import weakref

    with counting():
        outer = TWO[:, None] * WEIGHT
        gone = weakref.ref(outer)
        del outer
        assert gone() is None
