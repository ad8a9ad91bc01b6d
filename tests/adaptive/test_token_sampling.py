"""Tokens that stay by a draw among them: the draw against its definition, the laws, and what a wrong block does."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import adaptbench as ab
from adaptbench.adaptive import ImageDomain, InverseTransformSampling, TokenNetwork
from adaptbench.errors import GraphError, UsageError
from adaptbench.models.vit import BlankTokens, Read, SignificantBlock, TokenBlock
from adaptbench.testing import check_model

WIDTH, CLASSES, TOKENS = 8, 3, 16
few = settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


class Spread(SignificantBlock):
    """Attention of a trained net's unevenness."""

    def __init__(self, width: int, heads: int, ratio: int = 2) -> None:
        super().__init__(width, heads, ratio)
        self.qkv.weight.data.mul_(4)


def sampled_net(seed: int = 0, samples: int = TOKENS, blocks: int = 3, block: type[nn.Module] = Spread) -> TokenNetwork:
    torch.manual_seed(seed)
    return TokenNetwork(
        stem=nn.Sequential(nn.Conv2d(1, 4, 2, 2), BlankTokens(4, WIDTH, TOKENS)),
        blocks=[block(WIDTH, 2, 2) for _ in range(blocks)],
        head=Read(nn.Linear(WIDTH, CLASSES)),
        rule=InverseTransformSampling(samples),
        domain=ImageDomain((1, 8, 8)),
        n_classes=CLASSES,
    ).eval()


def stays(significance: list[float], samples: int) -> list[bool]:
    """By the rule, of one row."""
    tokens = torch.tensor(significance).view(1, -1, 1)
    return (InverseTransformSampling(samples).margin(0, tokens, None)[0] > 0)[0].tolist()


@few
@given(st.integers(0, 99), st.sampled_from([3, 16, 40]), st.integers(2, 4))
def test_the_laws_hold(seed, samples, blocks):
    check_model(sampled_net(seed, samples, blocks), n_inputs=9)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=30).filter(any), st.integers(1, 60))
def test_those_stay_that_a_point_falls_to(weights, samples):
    """Each of n points, (i − ½)/n of the whole, falls to the token in whose half-open stretch it lies: by integers."""
    ends = 2 * samples * np.cumsum(weights)  # points are odd numbers of the whole sum, in units of 1/2n
    points = (2 * np.arange(samples) + 1) * sum(weights)
    hit = np.unique(np.searchsorted(ends, points, side="right"))
    kept = np.flatnonzero(stays(weights, samples))
    beside = [
        i for i in range(len(weights)) if 0 in (ends[i] - points) or 0 in (ends[i] - 2 * samples * weights[i] - points)
    ]
    assert set(kept) - set(beside) == set(hit.tolist()) - set(beside)
    assert 1 <= len(kept) <= samples


def test_even_significance_keeps_all_and_one_alone_keeps_itself():
    assert all(stays([0.25] * 8, 8))
    assert stays([0.0, 0.0, 3.0, 0.0], 4) == [False, False, True, False]
    assert sum(stays([1.0] * 8, 3)) == 3


def test_a_point_between_two_tokens_falls_to_one_of_them():
    """¼ and ¾ of [½, ¼, ¼]: the second point lies on the border of the last two."""
    assert stays([0.5, 0.25, 0.25], 2) == [True, False, True]


def test_who_left_has_no_significance_and_the_others_hold_the_points_they_held():
    """The relaxed pass carries everybody; the draw must be the same as among those that are there."""
    net, x = sampled_net(seed=2), torch.rand(24, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    inference, margins = net.infer(x), net.masked_forward(x)[1]
    there = inference.path[:, 1:-1].view(24, 3, TOKENS)
    assert torch.equal((margins > 0).cummin(1).values, there[:, 1:])
    assert (margins[:, 1:][~there[:, 1:-1]] <= 0).all()
    assert len(there[:, 1].sum(1).unique()) > 2


def test_the_last_feature_is_the_attention_of_the_class_token_times_the_norm_of_a_value():
    torch.manual_seed(0)
    block = SignificantBlock(WIDTH, 2, 2)
    h = torch.randn(2, 5, WIDTH + 1)
    q, k, v = block.qkv(block.norm1(h[..., :-1])).view(2, 5, 3, 2, 4).unbind(2)
    wanted = torch.zeros(2, 5)
    for head in range(2):
        weights = torch.softmax((q[:, :1, head] * k[:, :, head]).sum(-1) / 2, -1)
        wanted += weights * v[:, :, head].square().sum(-1).sqrt() / 2
    out = block(h)
    assert torch.allclose(out[..., -1], wanted, atol=1e-6)
    plain = TokenBlock(WIDTH, 2, 2)
    plain.load_state_dict(block.state_dict())
    assert torch.equal(out[..., :-1], plain(h[..., :-1]))


def test_the_gradient_of_a_margin_is_that_of_the_tokens_share():
    """n times its share of the significance, whatever its margin says of where the borders lie."""
    torch.manual_seed(0)
    significance = torch.rand(1, 6, dtype=torch.float64).requires_grad_()
    weights = torch.rand(1, 6)
    margin, _ = InverseTransformSampling(5).margin(0, significance[..., None], None)
    (ours,) = torch.autograd.grad((margin * weights).sum(), significance)
    (wanted,) = torch.autograd.grad((5 * significance / significance.sum() * weights).sum(), significance)
    assert torch.allclose(ours, wanted)


def test_following_the_gradient_keeps_more_tokens():
    """The least shares grow: from uneven significance on to even, where all stay."""
    logits = torch.randn(8, 12, generator=torch.Generator().manual_seed(3)).mul_(3).requires_grad_()
    rule = InverseTransformSampling(12)

    def margins() -> torch.Tensor:
        return rule.margin(0, logits.softmax(-1)[..., None], None)[0]

    before = (margins() > 0).sum(1)
    step = torch.optim.Adam([logits], 0.1)
    for _ in range(150):
        step.zero_grad()
        (-torch.sigmoid(margins()).sum()).backward()
        step.step()
    after = (margins() > 0).sum(1)
    assert (after > before).all()
    assert after.float().mean() > 11


class Undivided(SignificantBlock):
    """Attention is not shared anew among those that are seen."""

    def forward(self, h, seen=None):
        out = super().forward(h, seen)
        weights, v, _ = self.attention(h[..., :-1], seen)
        return torch.cat([out[..., :-1], (weights[:, :, 0] * v.norm(dim=-1)).mean(1)[..., None]], -1)


def test_a_block_whose_significance_counts_the_hidden_is_refused():
    with pytest.raises(GraphError, match="hidden from it than where they are gone"):
        sampled_net(block=Undivided)


@pytest.mark.parametrize("samples", [0, -3])
def test_no_samples_are_refused(samples):
    with pytest.raises(UsageError, match="keep no token"):
        InverseTransformSampling(samples)


def test_the_shipped_net_shares_the_weights_of_the_halting_one():
    halting, sampled = ab.load_model("a-vit", "digits"), ab.load_model("ats", "digits")
    x = ab.load_data("digits").split("test").images(0, 200)
    assert torch.equal(halting.plain_forward(x), sampled.plain_forward(x))
    assert halting.macs_full == sampled.macs_full == sampled.max_macs
    assert 0.1 < 1 - sampled.infer(x).macs.double().mean() / sampled.macs_full < 0.3
