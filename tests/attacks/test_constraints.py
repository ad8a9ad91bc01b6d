import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptbench.attacks.constraints import L2, Linf, Unbounded
from adaptbench.attacks.randomness import sample_keys, uniform_pixels

balls = st.one_of(
    st.floats(1e-4, 0.6).map(Linf),
    st.integers(1, 80).map(lambda k: Linf(k / 255)),
    st.floats(0.01, 4.0).map(L2),
    st.just(Unbounded()),
)


def pictures(seed, n=4, edge=False):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 256, (n, 2, 3, 3), generator=draw)
    if edge:
        x = torch.where(x < 128, 0, 255)
    return x.float() / 255


def norms(a, b):
    change = (a.double() - b.double()).flatten(1)
    return change.abs().amax(1), change.norm(dim=1)


@settings(max_examples=150, deadline=None)
@given(ball=balls, seed=st.integers(0, 10_000), size=st.floats(0, 3), edge=st.booleans())
def test_after_rounding_nothing_is_outside(ball, seed, size, edge):
    clean = pictures(seed, edge=edge)
    wild = clean + size * (torch.rand(clean.shape, generator=torch.Generator().manual_seed(seed + 1)) * 2 - 1)
    kept = ball.quantise(wild, clean)
    assert kept.dtype == torch.uint8
    assert not ball.outside(*norms(kept.double() / 255, (clean * 255).round().double() / 255)).any()


@settings(max_examples=100, deadline=None)
@given(ball=balls, seed=st.integers(0, 10_000), spread=st.floats(0.1, 30), edge=st.booleans())
def test_no_variable_leaves_box_or_ball(ball, seed, spread, edge):
    clean = pictures(seed, edge=edge)
    w = spread * torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))
    x = ball.squash(w, clean)
    assert float(x.min()) >= -1e-6
    assert float(x.max()) <= 1 + 1e-6
    linf, l2 = norms(x, clean)
    assert not ball.outside(linf - 1e-6, l2 - 1e-5).any()


@settings(max_examples=60, deadline=None)
@given(ball=balls, seed=st.integers(0, 1000))
def test_projection_keeps_what_is_allowed_and_is_idempotent(ball, seed):
    clean = pictures(seed)
    once = ball.project(clean + 0.3 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed)), clean)
    assert 0 <= float(once.min()) <= float(once.max()) <= 1
    linf, l2 = norms(once, clean)
    assert not ball.outside(linf - 1e-6, l2 - 1e-5).any()
    torch.testing.assert_close(ball.project(once, clean), once, atol=1e-6, rtol=0)
    assert torch.equal(ball.quantise(clean, clean), (clean * 255).round().to(torch.uint8))


def test_an_eps_between_grey_levels_is_not_rounded_up():
    clean = torch.full((1, 1, 2, 2), 100 / 255)
    assert Linf(0.03125).quantise(clean + 1, clean).unique().tolist() == [107]
    assert Linf(8 / 255).quantise(clean + 1, clean).unique().tolist() == [108]


def test_the_gradient_of_squash_is_finite_at_the_clean_picture():
    for ball in (Linf(8 / 255), L2(0.5), Unbounded()):
        clean = torch.tensor([0.0, 1.0, 0.5, 100 / 255]).view(1, 1, 2, 2)
        w = ball.unsquash(clean, clean).requires_grad_()
        ball.squash(w, clean).sum().backward()
        assert torch.isfinite(w.grad).all()
        assert (w.grad != 0).all()


@pytest.mark.parametrize(("ball", "radius"), [(Linf(0.05), 0.05), (L2(0.7), 0.7)])
def test_random_changes_lie_on_the_ball(ball, radius):
    noise = uniform_pixels(torch.arange(5), (1, 4, 4), seed=0)
    change = ball.draw(noise, None).flatten(1)
    size = change.abs().amax(1) if isinstance(ball, Linf) else change.norm(dim=1)
    torch.testing.assert_close(size, torch.full((5,), radius))


def test_random_numbers_belong_to_the_sample():
    ids = torch.tensor([5, 900_000_000_000, 0, 7])
    whole = uniform_pixels(ids, (2, 3, 3), seed=4)
    for row, sample in enumerate(ids):
        assert torch.equal(uniform_pixels(sample[None], (2, 3, 3), seed=4)[0], whole[row])
    assert not torch.equal(whole, uniform_pixels(ids, (2, 3, 3), seed=5))
    assert not torch.equal(whole, uniform_pixels(ids, (2, 3, 3), seed=4, draw=1))
    assert len(sample_keys(torch.arange(5000), 0).unique()) == 5000


def test_random_numbers_are_uniform():
    from scipy.stats import kstest

    sample = uniform_pixels(torch.arange(400), (25,), seed=1)
    assert kstest(sample.flatten().numpy(), "uniform", args=(-1, 2)).pvalue > 1e-3
    assert abs(float(torch.corrcoef(sample[:, :2].T)[0, 1])) < 0.2
    assert abs(float(torch.corrcoef(sample[:2])[0, 1])) < 0.6
