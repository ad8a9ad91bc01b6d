"""MSDNet: the laws on a tiny plan, shapes and costs of the real ones."""

import itertools

import pytest
import torch

from adaptbench.errors import UsageError
from adaptbench.models.msdnet import PLANS, MsdnetPlan, _Layer, msdnet
from adaptbench.policies import UniformThreshold
from adaptbench.testing import ModelConformance

TINY = MsdnetPlan(blocks=3, base=1, step=1, channels=4, growth=2, head=8)


class TestTiny(ModelConformance):
    n_inputs = 24

    def model(self):
        torch.manual_seed(0)
        return msdnet(TINY, 4, input_shape=(3, 16, 16), policy=UniformThreshold(0.3))


@pytest.mark.parametrize(
    ("plan", "layers", "scales"),
    [("anytime", (4, 2, 2, 2, 2, 2, 2), [3, 3, 2, 2, 2, 1, 1]), ("batch", (1, 2, 3, 4, 5), [3, 3, 2, 2, 1])],
)
def test_the_published_plans(plan, layers, scales):
    assert PLANS[plan].layers == layers
    model = msdnet(plan, 100)
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        for stage, head, count in zip(model.eval().stages, model.heads, scales, strict=True):
            x = stage(x)
            assert len(x) == count
            sides = [h.shape[-1] for h in x]
            assert sides == [8 * 2**i for i in reversed(range(count))]
            widths = [h.shape[1] for h in x]
            assert widths == [widths[-1] // 4 * 2 ** (3 - count + i) for i in range(count)]
            assert head(x).shape == (2, 100)
    assert not model.uncounted


def test_costs_rise_from_exit_to_exit():
    """The released counter, which adds element operations, says 6.86, 14.35, 27.32 … M for these blocks."""
    model = msdnet(MsdnetPlan(blocks=7, base=1, step=1, growing=True), 100)
    reached = list(itertools.accumulate(model.node_macs))
    assert reached == [6_792_704, 14_209_024, 27_041_280, 48_054_272, 75_900_416, 108_191_744, 136_565_248]
    assert model.macs_full < reached[-1], "the static reference has one head"


def test_one_layer_by_closed_form():
    """2 scales, 4 and 8 channels: 1×1 bottlenecks, half of the coarse scale's growth from the finer one."""
    plan = MsdnetPlan(blocks=1, base=1, step=1, factors=(1, 2), bottlenecks=(1, 2), channels=4, growth=2)
    layer = _Layer(4, plan, 2, 2)
    weights = [tuple(p.shape) for p in layer.parameters() if p.ndim == 4]
    assert sorted(weights) == sorted([
        *[(2, 4, 1, 1), (2, 2, 3, 3)],  # fine from fine
        *[(4, 8, 1, 1), (2, 4, 3, 3)],  # coarse from coarse
        *[(2, 4, 1, 1), (2, 2, 3, 3)],  # coarse from fine, strided
    ])  # fmt: skip
    out = layer((torch.rand(1, 4, 8, 8), torch.rand(1, 8, 4, 4)))
    assert [tuple(h.shape) for h in out] == [(1, 6, 8, 8), (1, 12, 4, 4)]


def test_what_a_layer_read_stays_in_what_it_hands_on():
    plan = MsdnetPlan(blocks=1, base=1, step=1, channels=4)
    scales = tuple(torch.rand(1, 4 * f, 8 // f, 8 // f) for f in plan.factors)
    kept = _Layer(4, plan, 3, 3)(scales)
    assert all(torch.equal(h[:, : s.shape[1]], s) for h, s in zip(kept, scales, strict=True))
    dropped = _Layer(4, plan, 3, 2)(scales)
    assert all(torch.equal(h[:, : s.shape[1]], s) for h, s in zip(dropped, scales[1:], strict=True))


def test_the_finest_scale_reaches_the_exits():
    model = msdnet(TINY, 4, input_shape=(3, 16, 16))
    model.dense_logits(torch.rand(4, 3, 16, 16)).sum().backward()
    unused = [name for name, p in model.named_parameters() if p.grad is None]
    assert not unused


@pytest.mark.parametrize("change", [{"blocks": 0}, {"growth": 1, "factors": (1, 1, 1)}, {"bottlenecks": (1, 2)}])
def test_impossible_plans_are_refused(change):
    with pytest.raises(UsageError, match="cannot be built"):
        msdnet(MsdnetPlan(**{"blocks": 2, "base": 1, "step": 1} | change), 4)


def test_unknown_plans_are_refused():
    with pytest.raises(UsageError, match="no MSDNet plan is called 'huge'"):
        msdnet("huge", 4)
