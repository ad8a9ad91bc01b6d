"""Pools of fixed windows are torch's adaptive ones, to the bit, and so are their gradients."""

import pytest
import torch
import torch.nn.functional as F

from adaptbench.adaptive.pooling import MaxPool, MeanPool

LAYOUTS = (torch.contiguous_format, torch.channels_last)


def both(pool, adaptive, x, side):
    """(ours, torch's) values and gradients of x under the same cotangents."""
    told = []
    for f in (pool, lambda h: adaptive(h, side)):
        h = x.clone(memory_format=torch.preserve_format).requires_grad_()
        out = f(h)
        weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
        told.append((out.detach(), torch.autograd.grad(out, h, weights)[0]))
    return zip(*told, strict=True)


@pytest.mark.parametrize(
    ("pixels", "side"), [(8, 2), (4, 2), (32, 4), (8, 4), (4, 4), (14, 2), (12, 4), (7, 2), (8, 1)]
)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_values_and_gradients_are_torchs_to_the_bit(pixels, side, layout, dtype):
    for n, channels in ((1, 16), (33, 5)):
        drawn = torch.randn(n, channels, pixels, pixels, generator=torch.Generator().manual_seed(n))
        x = drawn.relu().to(dtype).contiguous(memory_format=layout)  # zeros tie: whose maximum it is shows in gradients
        for pool, adaptive in ((MeanPool(side), F.adaptive_avg_pool2d), (MaxPool(side), F.adaptive_max_pool2d)):
            for ours, theirs in both(pool, adaptive, x, side):
                assert torch.equal(ours, theirs), pool


def test_the_fixed_window_is_taken_where_it_is_the_same_and_only_there(monkeypatch):
    taken = []
    monkeypatch.setattr(F, "avg_pool2d", lambda h, window: taken.append(window))
    for pixels, side in ((8, 2), (32, 4), (14, 2), (7, 2), (8, 1)):
        MeanPool(side)(torch.zeros(1, 3, pixels, pixels))
    MeanPool(2)(torch.zeros(1, 3, 8, 4))
    MeanPool(2)(torch.zeros(3, 8, 8))
    assert taken == [4, 8]


def test_they_hold_nothing_so_that_checkpoints_stay_what_they_were():
    assert not MeanPool(2).state_dict()
    assert not MaxPool(2).state_dict()
