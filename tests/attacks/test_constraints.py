import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptbench.attacks import load_attack
from adaptbench.attacks.constraints import L2, Linf, Unbounded
from adaptbench.attacks.l1 import L1, l1_projection
from adaptbench.attacks.patch import Patch
from adaptbench.attacks.randomness import sample_keys, uniform_pixels

balls = st.one_of(
    st.floats(1e-4, 0.6).map(Linf),
    st.integers(1, 80).map(lambda k: Linf(k / 255)),
    st.floats(0.01, 4.0).map(L2),
    st.floats(0.01, 20.0).map(L1),
    st.sampled_from(["corner", "centre", "random"]).map(lambda place: Patch(side=2, place=place)),
    st.just(Patch(area=0.2, place="fixed", row=1, column=2)),
    st.just(Unbounded()),
)


def pictures(seed, n=4, edge=False):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 256, (n, 2, 3, 3), generator=draw)
    if edge:
        x = torch.where(x < 128, 0, 255)
    return x.float() / 255


def beyond(ball, x, clean, slack=2e-5):
    return ball.outside(x.double() - clean.double(), slack).any()


@settings(max_examples=150, deadline=None)
@given(ball=balls, seed=st.integers(0, 10_000), size=st.floats(0, 3), edge=st.booleans())
def test_after_rounding_nothing_is_outside(ball, seed, size, edge):
    clean = pictures(seed, edge=edge)
    wild = clean + size * (torch.rand(clean.shape, generator=torch.Generator().manual_seed(seed + 1)) * 2 - 1)
    kept = ball.quantise(wild, clean)
    assert kept.dtype == torch.uint8
    assert not ball.outside(kept.double() / 255 - (clean * 255).round().double() / 255).any()


@settings(max_examples=100, deadline=None)
@given(ball=balls, seed=st.integers(0, 10_000), spread=st.floats(0.1, 30), edge=st.booleans())
def test_no_variable_leaves_box_or_ball(ball, seed, spread, edge):
    clean = pictures(seed, edge=edge)
    w = spread * torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))
    x = ball.squash(w, clean)
    assert float(x.min()) >= -1e-6
    assert float(x.max()) <= 1 + 1e-6
    assert not beyond(ball, x, clean)


@settings(max_examples=60, deadline=None)
@given(ball=balls, seed=st.integers(0, 1000))
def test_projection_keeps_what_is_allowed_and_is_idempotent(ball, seed):
    clean = pictures(seed)
    once = ball.project(clean + 0.3 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed)), clean)
    assert 0 <= float(once.min()) <= float(once.max()) <= 1
    assert not beyond(ball, once, clean)
    torch.testing.assert_close(ball.project(once, clean), once, atol=1e-6, rtol=0)
    assert torch.equal(ball.quantise(clean, clean), (clean * 255).round().to(torch.uint8))


def test_an_eps_between_grey_levels_is_not_rounded_up():
    clean = torch.full((1, 1, 2, 2), 100 / 255)
    assert Linf(0.03125).quantise(clean + 1, clean).unique().tolist() == [107]
    assert Linf(8 / 255).quantise(clean + 1, clean).unique().tolist() == [108]


def test_the_gradient_of_squash_is_finite_at_the_clean_picture():
    for ball in (Linf(8 / 255), L2(0.5), L1(8.0), Patch(side=2), Unbounded()):
        clean = torch.tensor([0.0, 1.0, 0.5, 100 / 255]).view(1, 1, 2, 2)
        w = ball.unsquash(clean, clean).requires_grad_()
        ball.squash(w, clean).sum().backward()
        assert torch.isfinite(w.grad).all()
        assert (w.grad != 0).all()


@pytest.mark.parametrize(("ball", "radius"), [(Linf(0.05), 0.05), (L2(0.7), 0.7), (L1(0.9), 0.9)])
def test_random_changes_lie_on_the_ball(ball, radius):
    noise = uniform_pixels(torch.arange(5), (1, 4, 4), seed=0)
    change = ball.draw(noise, None).flatten(1)
    size = change.norm(dim=1, p={"linf": torch.inf, "l2": 2, "l1": 1}[ball.name])
    torch.testing.assert_close(size, torch.full((5,), radius))


@pytest.mark.parametrize("seed", range(12))
def test_the_l1_projection_is_the_nearest_point_of_ball_and_box(seed):
    """Against a solver that knows nothing of kinks."""
    from scipy.optimize import LinearConstraint, minimize

    draw = torch.Generator().manual_seed(seed)
    clean = pictures(seed, n=1, edge=seed % 3 == 0).double()[:, :, :2]
    d = clean.numel()
    change = torch.randn(clean.shape, generator=draw).double() * 0.6
    eps = float(torch.rand(1, generator=draw)) * 2 + 0.05
    ours = l1_projection(change, clean, eps).flatten().numpy()
    wanted, base = change.flatten().numpy(), clean.flatten().numpy()
    # the change as a difference of two positive parts makes the ball linear
    found = minimize(
        lambda p: ((p[:d] - p[d:] - wanted) ** 2).sum(),
        [0.01] * (2 * d),
        jac=lambda p: 2 * torch.cat([torch.tensor(p[:d] - p[d:] - wanted)] * 2).numpy() * ([1] * d + [-1] * d),
        bounds=[*((0, 1 - b) for b in base), *((0, b) for b in base)],
        constraints=[LinearConstraint([[1] * (2 * d)], -1, eps)],
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert abs(ours).sum() <= eps + 1e-9
    assert ((ours - wanted) ** 2).sum() <= found.fun + 1e-7
    torch.testing.assert_close(torch.tensor(ours), torch.tensor(found.x[:d] - found.x[d:]), atol=2e-4, rtol=0)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10_000), eps=st.floats(0.01, 12), size=st.floats(0.01, 3), edge=st.booleans())
def test_no_allowed_change_is_nearer_than_the_l1_projection(seed, eps, size, edge):
    """The angle at the nearest point of a convex set is never acute."""
    draw = torch.Generator().manual_seed(seed)
    clean = pictures(seed, n=3, edge=edge).double()
    change = size * torch.randn(clean.shape, generator=draw).double()
    near = l1_projection(change, clean, eps)
    assert (near.abs().flatten(1).sum(1) <= eps + 1e-9).all()
    assert float((clean + near).min()) >= -1e-12
    assert float((clean + near).max()) <= 1 + 1e-12
    for _ in range(20):
        other = (torch.rand(clean.shape, generator=draw).double() - clean) * (
            torch.rand(clean.shape, generator=draw) < 0.3
        )
        total = other.abs().flatten(1).sum(1).view(-1, 1, 1, 1).clamp_min(1e-9)
        other = other * (eps / total).clamp_max(1.0)
        assert (((change - near) * (other - near)).flatten(1).sum(1) <= 1e-9).all()


def test_an_l1_step_goes_into_the_steepest_values_in_equal_parts():
    gradient = torch.arange(-100.0, 100.0).view(1, 2, 10, 10)
    step = L1(share=0.02).steepest(gradient)
    assert step.abs().sum() == 1
    assert sorted(step[step != 0].tolist()) == [-0.25, -0.25, -0.25, 0.25]
    assert (step.flatten()[:3] == -0.25).all()
    assert L1().steepest(torch.zeros(1, 1, 3, 3)).abs().sum() == 0


def test_l1_rounding_spends_what_it_has():
    """Cut towards the clean picture, a change in many values would lose half a level in each."""
    clean = torch.full((1, 1, 16, 16), 100 / 255)
    kept = L1(1.0).quantise(clean + 0.9 / 255, clean)
    assert int((kept.int() - 100).sum()) == 255
    assert int((L1(1.0).quantise(clean + 0.5, clean).int() - 100).sum()) == 255


@pytest.mark.parametrize("eps", [0.1, 0.35, 1.0])
def test_l2_rounding_spends_what_it_has(eps):
    """Cut towards the clean picture, 0.35 over a CIFAR picture came back as 0.27, 0.1 as 0.04."""
    clean = torch.rand(20, 3, 32, 32, generator=torch.Generator().manual_seed(0)).mul(255).round() / 255
    ball, noise = L2(eps), torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    kept = ball.quantise(ball.scatter(clean, noise), clean).double() / 255 - clean.double()
    length = kept.flatten(1).norm(dim=1)
    assert float(length.max()) <= eps + 1e-6
    assert float(length.min()) > 0.98 * min(
        eps, float(ball.scatter(clean, noise).sub(clean).flatten(1).norm(dim=1).min())
    )


def test_a_patch_changes_its_square_and_nothing_else():
    clean = pictures(3, n=6)
    patch = Patch(side=2, place="fixed", row=1, column=0)
    kept = patch.quantise(1 - clean, clean)
    changed = (kept.double() / 255 - clean.double()).abs() > 1e-6
    assert changed[:, :, 1:, :2].any()
    assert not changed[:, :, 0].any()
    assert not changed[:, :, :, 2].any()
    assert Patch(area=0.25).size((3, 32, 32)) == 16
    assert Patch(area=0.25, side=4).size((3, 32, 32)) == 4


def test_a_random_patch_is_placed_once_a_run_and_stays_inside():
    patch, seen = Patch(side=5, place="random"), set()
    for seed in range(60):
        placed = patch.placed(seed, (3, 8, 9))
        assert placed == patch.placed(seed, (3, 8, 9))
        assert placed.applies_to((3, 8, 9)) is None
        seen.add((placed.row, placed.column))
    assert {row for row, _ in seen} == set(range(4))
    assert {column for _, column in seen} == set(range(5))
    assert "does not fit" in Patch(side=9).applies_to((3, 8, 9))
    assert "at row 4" in Patch(side=5, place="fixed", row=4).applies_to((3, 8, 9))


@pytest.mark.parametrize(
    ("ball", "leak"),
    [
        (L1(0.5), lambda x: x + 0.2),
        (Patch(side=2), lambda x: torch.cat([x[:, :, :2] * 0, x[:, :, 2:] + 0.02], 2)),
        (Patch(side=2, place="random"), lambda x: 1 - x),
    ],
)
def test_a_projection_that_leaves_its_set_is_found(ball, leak, saver, pictures, monkeypatch):
    """A planted fault: rounding and projection do as they like, and the audit counts it."""
    x, y = pictures[0][:5], pictures[1][:5]
    recipe = {"constraint": {ball.name: {k: getattr(ball, k) for k in ("eps", "side", "place") if hasattr(ball, k)}}}
    attack = load_attack("noise", recipe)
    assert "outside_constraint" not in attack.craft(saver, x, y).details
    monkeypatch.setattr(type(ball), "quantise", lambda self, moved, clean: (leak(clean).clamp(0, 1) * 255).byte())
    assert attack.craft(saver, x, y).details["outside_constraint"] == 5


def test_details_tell_the_norm_that_the_constraint_is_told_by(saver, pictures):
    x, y = pictures[0][:5], pictures[1][:5]
    spread = load_attack("noise", {"constraint": {"l1": {"eps": 2}}}).craft(saver, x, y)
    change = (spread.images() - x).flatten(1).abs()
    assert spread.details["l1_mean"] == pytest.approx(float(change.sum(1).mean()), abs=1e-4)
    assert spread.details["values_changed_mean"] == float((change > 1e-6).sum(1).double().mean())
    patch = load_attack("noise", {"constraint": {"patch": {"side": 3}}}).craft(saver, x, y)
    assert 7 <= patch.details["pixels_changed_mean"] <= 9


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
