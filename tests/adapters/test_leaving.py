"""Forwards that no graph holds, left at their exits by an exception: what comes after does not run."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from foreign_kinds import CLASSES, SHAPE, Kind, Listed, Rows, Shared, Tokens
from torch import nn

import adaptbench as ab
from adaptbench.adapters.feeding import Feed
from adaptbench.adapters.whole import Whole
from adaptbench.adapters.wrapping import left, traced
from adaptbench.adaptive import ImageDomain, MacCounter
from adaptbench.adaptive.domain import pictures_like
from adaptbench.errors import GraphError
from adaptbench.testing import check_model

EXAMPLE = torch.zeros(2, *SHAPE)


@pytest.fixture(autouse=True)
def a_fixed_seed():
    torch.manual_seed(0)


class Exits(Kind):
    how: ClassVar[dict[str, Any]] = {"exits": ["head1", "head2"]}


class Guarded(Exits):
    """Looks at values before it goes on."""

    def forward(self, x):
        a = self.stem(x).relu()
        if not torch.isfinite(a).all() or float(a.detach().max()) > 1e6:
            raise OverflowError("activations")
        early = self.early(a)
        with torch.autograd.set_grad_enabled(torch.is_grad_enabled()):
            return self.final(a), early


class Printed(Exits):
    """Keeps statistics in plain Python."""

    def forward(self, x):
        a = self.stem(x).relu()
        self.seen = [round(float(v), 2) for v in a.detach().flatten(1).mean(1)]
        self.head1(a.mean((2, 3)))
        for _ in range(len(self.seen) and 1):
            a = torch.tanh(a)
        return self.final(a)


class ReducedPrecision(Exits):
    """In half precision, which a trace loses."""

    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            a = self.stem(x)
            return [self.early(a), self.final(a)]


class ThroughAView(Exits):
    """Writes into what sub-modules answered, through a view and in place."""

    def forward(self, x):
        a = self.stem(x)
        half = a[:, :3]
        half[:, :, 0] = 0.5
        a.relu_().add_(0.25)
        early = self.early(a)
        a.mul_(0.5)
        return [early, self.final(a)]


class ReadsTheExit(Exits):
    """The early answer goes on into the late one."""

    def forward(self, x):
        a = self.stem(x)
        early = self.early(a)
        return [early, self.final(a * (1.0 if float(a.detach().sum()) < 1e9 else 0.0)) + early.softmax(1)]


class InsideABlock(nn.Module):
    """The early exit sits in a sub-module that goes on after it; a product stands between sub-modules."""

    how: ClassVar[dict[str, Any]] = {"exits": ["block.ramp", "head"]}

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.ramp, self.second = nn.Linear(192, 24), nn.Linear(24, CLASSES), nn.Linear(24, 24)

        def forward(self, h):
            h = self.first(h).tanh()
            self.last = self.ramp(h).tolist()
            return self.second(h @ self.second.weight).tanh()

    def __init__(self) -> None:
        super().__init__()
        self.block, self.head = InsideABlock.Block(), nn.Linear(24, CLASSES)

    def forward(self, x):
        return self.head(self.block(x.flatten(1) @ torch.eye(192)))


KINDS = (Guarded, Printed, ReducedPrecision, ThroughAView, ReadsTheExit, InsideABlock)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_forward_that_cannot_be_traced_is_left_at_its_exits(kind):
    module = kind()
    net = ab.wrap(module, example=EXAMPLE, **kind.how)
    assert net.explain().way == "left at its exits"
    x = torch.rand(7, *SHAPE)
    own: dict[str, torch.Tensor] = {}
    for name in kind.how["exits"]:
        module.get_submodule(name).register_forward_hook(lambda _m, _x, out, name=name: own.update({name: out}))
    with torch.no_grad():
        module.eval()(x.clone())
    want = torch.stack([own[name] for name in kind.how["exits"]], 1)
    with torch.no_grad():
        got = net.eval().dense_logits(x)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_what_comes_after_an_exit_really_does_not_run(kind):
    module = kind()
    net = ab.wrap(module, example=EXAMPLE, **kind.how)
    last = "block.second" if kind is InsideABlock else "deep"
    ran: list[int] = []
    module.get_submodule(last).register_forward_hook(lambda _m, given, _out: ran.append(len(given[0])))
    exits, x = net.explain().exits, torch.rand(5, *SHAPE)
    stay = torch.tensor([True, False])
    net.infer(x, force=stay)  # counted anew because of the hook
    ran.clear()
    with MacCounter() as counter:
        net.infer(x, force=stay)
    assert not ran
    assert counter.macs == 5 * exits[0].macs
    net.infer(x, force=torch.tensor([[True, i > 2] for i in range(5)]))
    assert ran == [2], "only those who go on"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_net_that_is_left_keeps_the_laws(kind):
    module = kind()
    module = module.to(torch.float32)
    net = ab.wrap(module, example=EXAMPLE, **kind.how)
    net.policy = ab.policies.UniformThreshold(0.9 / CLASSES + 0.1)
    check_model(net, n_inputs=24)


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        (Tokens, {"exits": ["heads"]}),
        (Listed, Listed.how),
        (Rows, {"exits": ["heads.a", "heads.b"]}),
        (Shared, Shared.how),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_left_and_traced_are_the_same_net(kind, how):
    module, domain = kind(), ImageDomain(SHAPE)
    whole = Whole(module, Feed(), exits=how["exits"], logits=how.get("logits"), name=kind.__name__)
    probes = pictures_like(next(module.parameters()), domain, 5)
    whole.look([probes[:2], probes[:3]])
    one, two = traced(whole, probes, domain), left(whole, probes, domain)
    assert one.node_macs == two.node_macs
    assert one.macs_full == two.macs_full
    assert one.exit_names == two.exit_names
    x, exits = torch.rand(9, *SHAPE), len(one.exit_names)
    with torch.no_grad():
        torch.testing.assert_close(one.eval().dense_logits(x), two.eval().dense_logits(x))
    force = torch.arange(exits) <= (torch.arange(9) % exits)[:, None]
    a, b = one.infer(x, force=force), two.infer(x, force=force)
    torch.testing.assert_close(a.logits, b.logits)
    assert torch.equal(a.macs, b.macs)
    one.policy, two.policy = (ab.policies.UniformThreshold(0.26) for _ in range(2))
    assert torch.equal(one.infer(x).path, two.infer(x).path)
    slopes = [net.relax(x.requires_grad_()).expected_macs.sum() for net in (one, two)]
    torch.testing.assert_close(*(torch.autograd.grad(s, x)[0] for s in slopes))


def test_what_runs_again_is_counted_and_said():
    net = ab.wrap(InsideABlock(), example=EXAMPLE, **InsideABlock.how)
    early, late = net.explain().exits
    again = 192 * 192
    assert early.macs == early.macs_as_written
    assert late.macs == late.macs_as_written + again
    assert f"{again:,} MACs of plain functions between the sub-modules run again" in str(net.explain())


class LeavesByItself(Exits):
    def forward(self, x):
        a = self.stem(x)
        early = self.early(a)
        if float(early.detach().softmax(1).amax()) > 0.24:
            return early
        return self.final(a)


class BackToFront(Exits):
    how: ClassVar[dict[str, Any]] = {"exits": ["head2", "head1"]}

    def forward(self, x):
        a = self.stem(x)
        a = a if float(a.detach().sum()) < 1e9 else -a
        return self.early(a), self.final(a)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (LeavesByItself, "'head2' is no sub-module that LeavesByItself.forward calls"),
        (BackToFront, r"could not be traced at .*\n.*\n(.*\n)*.*calls its exits in the order head1, head2.*"),
    ],
)
def test_what_cannot_be_left_either_is_refused_with_both_reasons(kind, message):
    module = kind()
    with torch.no_grad():
        module.head1.weight.mul_(20)
    with pytest.raises(GraphError, match=message):
        ab.wrap(module, example=EXAMPLE, **kind.how)
