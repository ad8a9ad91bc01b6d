"""Modules of other types, on other devices, scripted or quantised."""

import pytest
import torch
from torch import nn

from adaptbench.adaptive import Cascade, FeedForwardGates, GatedNetwork, ImageDomain, MultiExit, NeverStop
from adaptbench.adaptive.gates import Block
from adaptbench.adaptive.outcome import tie_margin
from adaptbench.attacks import ILFO
from adaptbench.errors import CapabilityError, DomainError, GraphError
from adaptbench.policies import SoftmaxThreshold, UniformThreshold
from adaptbench.policies.references.oracle import Oracle
from adaptbench.testing.planted import planted_graph, planted_split
from adaptbench.testing.serving import served_as_inferred

SHAPE = (1, 8, 8)


@pytest.fixture(autouse=True)
def a_fixed_seed():
    torch.manual_seed(0)


def parts():
    stages = [nn.Conv2d(1, 64, 3, padding=1), nn.Conv2d(64, 64, 3, padding=1)]
    heads = [nn.Sequential(nn.Flatten(), nn.Linear(4096, 10)) for _ in stages]
    return stages, heads


def gated():
    return GatedNetwork(
        stem=nn.Conv2d(1, 64, 3, padding=1),
        blocks=[Block("a", nn.Conv2d(64, 64, 3, padding=1)), Block("b", nn.Conv2d(64, 64, 3, padding=1))],
        head=nn.Sequential(nn.Flatten(), nn.Linear(4096, 10)),
        gates=FeedForwardGates([nn.Sequential(nn.Flatten(), nn.Linear(4096, 1)) for _ in range(2)]),
        domain=ImageDomain(SHAPE),
        n_classes=10,
    )


@pytest.mark.case("https://github.com/ultralytics/ultralytics/issues/24504")
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shape", ["exits", "gates"])
def test_pictures_follow_the_type_of_the_weights(kind, shape):
    """Half, bfloat16 and double nets ended in torch's errors about types, and MACs beyond 65 504 in infinity."""
    if shape == "exits":
        stages, heads = parts()
        net = MultiExit([s.to(kind) for s in stages], [h.to(kind) for h in heads], input_shape=SHAPE)
        net.policy = UniformThreshold(0.13)
    else:
        net = gated().to(kind)
    x, y = torch.rand(4, *SHAPE), torch.arange(4)
    inference = net.infer(x)
    assert net.max_macs > 65_504
    leaf = x.clone().requires_grad_()
    expected = net.relax(leaf).expected_macs / net.max_macs
    assert torch.isfinite(expected).all()
    assert torch.autograd.grad(expected.sum(), leaf)[0].isfinite().all()
    attacked = ILFO(eps=8 / 255, steps=3)(net)(x, y)
    assert attacked.dtype == torch.float32
    assert int(net.infer(attacked).macs.sum()) >= int(inference.macs.sum())
    torch.testing.assert_close(net(x).float(), inference.logits.float())


@pytest.mark.case("own")
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("given", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", ["exits", "gates"])
def test_every_door_takes_pictures_of_any_type(kind, given, shape):
    """`infer` cast pictures to the type of the weights; `serve` and `serve_reference` ended in torch's error."""
    net = gated() if shape == "gates" else MultiExit(*parts(), input_shape=SHAPE, policy=UniformThreshold(0.13))
    served_as_inferred(net.to(kind), torch.rand(3, *SHAPE).to(given))


@pytest.mark.case("own")
@pytest.mark.parametrize(
    ("kind", "near"), [(torch.float16, 2**-8), (torch.bfloat16, 2**-5), (torch.float32, 1e-5), (torch.float64, 1e-5)]
)
@pytest.mark.parametrize("factor", [0.5, 2])
def test_ties_are_as_wide_as_the_type_rounds(kind, near, factor):
    """A half net's decision 1e-3 from its threshold was no tie, though its confidence is known to a hundredth only."""
    net = MultiExit(*parts(), input_shape=SHAPE).to(kind)
    x = torch.rand(1, *SHAPE)
    with torch.no_grad():
        confidence = float(net.dense_logits(x)[0, 0].double().softmax(0).max())
    threshold = confidence + factor * near
    net.policy = UniformThreshold(threshold)
    assert tie_margin(kind) == near
    assert bool(net.infer(x).tie) == (factor < 1)


@pytest.mark.case("https://github.com/ultralytics/ultralytics/issues/24504")
def test_a_policy_sees_logits_of_its_own_type():
    """A policy fitted in float32 met logits in half precision, and its own layers refused them."""
    net, split = planted_graph(), planted_split()
    policy = net.policy = SoftmaxThreshold.fit(net.log(split), epsilon=0.05)
    before = net.infer(split.images(0, 64))
    net.policy = NeverStop()
    net.half().policy = policy
    after = net.infer(split.images(0, 64))
    assert policy.thresholds.dtype == torch.float32
    assert 1 < before.path.sum(1).float().mean() < 3
    assert (before.path == after.path).all(1).float().mean() > 0.9


@pytest.mark.case("https://github.com/ultralytics/ultralytics/issues/24504")
def test_another_device_is_refused_in_our_words():
    """Pictures on another device than the weights ended in torch's error."""
    net = MultiExit(*parts(), input_shape=SHAPE)
    for call in (net.infer, net.relax, net, net.run_reference, net.dense_logits):
        with pytest.raises(DomainError, match="pictures on meta were given to a model on cpu"):
            call(torch.rand(2, *SHAPE, device="meta"))


@pytest.mark.case("https://github.com/ultralytics/ultralytics/issues/24504")
def test_nets_of_two_types_are_refused_by_name():
    """A cascade of a half and a float32 net failed at the first picture that went on."""
    nets = {n: nn.Sequential(nn.Flatten(), nn.Linear(64, 3)) for n in ("small", "large")}
    nets["small"].half()
    with pytest.raises(GraphError, match="node 'large' could not be run"):
        Cascade(nets, input_shape=SHAPE)


@pytest.mark.case("https://github.com/pytorch/pytorch/issues/86325")
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_frozen_torchscript_is_taken():
    """A frozen scripted module has no training flag, and reading it was an AttributeError."""
    stages, heads = parts()
    frozen = [torch.jit.freeze(torch.jit.script(s.eval())) for s in stages]
    net = MultiExit(frozen, heads, input_shape=SHAPE, policy=UniformThreshold(0.13))
    x = torch.rand(4, *SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(net.dense_logits(x)[:, 1], heads[1](stages[1](stages[0](x))))
    ILFO(eps=8 / 255, steps=2)(net)(x, torch.arange(4))


@pytest.mark.case("own")
@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_dynamic_int8_offers_no_gradients():
    """ILFO on a quantised net ended in autograd's "appears to not have been used in the graph"."""
    stages = [nn.Flatten(), nn.Linear(64, 8)]
    heads = [nn.Linear(64, 3), nn.Linear(8, 3)]
    quantised = [torch.ao.quantization.quantize_dynamic(nn.Sequential(m), {nn.Linear}) for m in (*stages, *heads)]
    net = MultiExit(quantised[:2], quantised[2:], input_shape=SHAPE, policy=UniformThreshold(0.4))
    net.infer(torch.rand(2, *SHAPE))
    assert net.capabilities == {"exit_logits", "queries"}
    with pytest.raises(CapabilityError, match="offers no gradients"):
        ILFO(eps=8 / 255)(net)(torch.rand(2, *SHAPE), torch.arange(2))
    with pytest.raises(CapabilityError, match="none reach the pictures"):
        net.relax(torch.rand(2, *SHAPE))


class Detached(nn.Module):
    def forward(self, h):
        return h.detach()


@pytest.mark.case("own")
def test_capabilities_are_declared_once_and_kept():
    """What was declared was reset by the next policy."""
    net = MultiExit(*parts(), input_shape=SHAPE)
    assert "gradients" in net.capabilities
    net.policy = Oracle()
    assert "gradients" not in net.capabilities
    net.policy = UniformThreshold(0.2)
    assert "gradients" in net.capabilities
    net.stages[1] = nn.Sequential(net.stages[1], Detached())
    assert "gradients" not in net.capabilities
    net.stages[1] = net.stages[1][0]
    net.capabilities = frozenset({"queries"})
    net.policy = UniformThreshold(0.3)
    assert net.capabilities == {"queries"}
