"""Nets as people publish them: adapted in one call, the same function, later parts not run, the laws kept."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from foreign_kinds import CLASSES, KINDS, SHAPE, Flagged, Kind, Library, Shared, Tokens
from torch import nn

import adaptbench as ab
from adaptbench.adaptive import MacCounter
from adaptbench.errors import DomainError, GraphError
from adaptbench.testing import check_model

EXAMPLE = torch.zeros(2, *SHAPE)


@pytest.fixture(autouse=True)
def a_fixed_seed():
    torch.manual_seed(0)


def adapted(kind: Any) -> tuple[nn.Module, Any]:
    module = kind()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.2, 0.2)
    return module, ab.wrap(module, example=EXAMPLE, **kind.how)


def own_logits(module: nn.Module, x: torch.Tensor, how: dict[str, Any]) -> torch.Tensor:
    """(n, K, C), taken from the module by hand, without anything of ours."""
    pick, calls = how.get("logits", lambda out: out), []
    names = [f"ramps.{i}" for i in range(2)] if how.get("exits") == ["ramps"] else how.get("exits", ())
    hooks = [module.get_submodule(n).register_forward_hook(lambda _m, _x, out: calls.append(out)) for n in names]
    with torch.no_grad():
        out = module.eval()(x.clone(), **how.get("kwargs", {}))
    for hook in hooks:
        hook.remove()
    if calls:
        return torch.stack([pick(c) for c in calls], 1)
    out = pick(out)
    if isinstance(out, dict):
        out = [out["aux"], out["main"]]
    elif hasattr(out, "exit_logits"):
        out = [*out.exit_logits, out.logits]
    elif isinstance(out, tuple) and isinstance(out[1], list):
        out = [*out[1], out[0]]
    return torch.stack(list(out), 1)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_is_the_same_function_at_every_size(kind):
    module, net = adapted(kind)
    assert module.training, "wrapping leaves the module's mode alone"
    for n in (1, 2, 7, 16):
        x = torch.rand(n, *SHAPE)
        want = own_logits(module, x, kind.how)
        with torch.no_grad():
            torch.testing.assert_close(net.eval().dense_logits(x), want, rtol=1e-5, atol=1e-5)
        leaves = torch.arange(n) % want.shape[1]
        got = net.infer(x, force=torch.arange(want.shape[1]) <= leaves[:, None])
        torch.testing.assert_close(got.logits, want[torch.arange(n), leaves], rtol=1e-5, atol=1e-5)
    assert max(e.difference for e in net.explain().exits) < 1e-4


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_of_every_kind_the_later_part_is_not_run(kind):
    module, net = adapted(kind)
    x, exits = torch.rand(4, *SHAPE), net.explain().exits
    ran: list[str] = []
    if kind.late is not None:
        module.get_submodule(kind.late).register_forward_hook(lambda *_: ran.append(kind.late))
    first = torch.arange(len(exits)) < 1
    net.infer(x, force=first)  # counted anew because of the hook
    ran.clear()
    with MacCounter() as counter:
        net.infer(x, force=first)
    assert not ran
    assert counter.macs == len(x) * exits[0].macs < len(x) * exits[-1].macs
    if kind.late is not None:
        net.infer(x)
        assert ran


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_of_every_kind_the_laws_hold(kind):
    _, net = adapted(kind)
    net.policy = ab.policies.UniformThreshold(0.9 / CLASSES + 0.1)
    check_model(net, n_inputs=24)


def test_compiled_modules_are_taken_as_they_were_written():
    plain = Tokens().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's compiler uses what torch deprecates
        compiled = torch.compile(plain)
        net = ab.wrap(compiled, example=EXAMPLE)
        assert net.explain().name == "Tokens"
        plain.layers[1] = torch.compile(plain.layers[1])
        plain.patch.compile()
    net = ab.wrap(nn.DataParallel(plain), example=EXAMPLE)
    x = torch.rand(3, *SHAPE)
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        torch.testing.assert_close(net.eval().dense_logits(x), torch.stack(plain(x), 1))
    assert plain.patch._compiled_call_impl is not None
    assert all(m._compiled_call_impl is None for m in net.modules())


def test_nothing_of_the_trace_stays_in_the_module():
    from foreign_kinds import Remembers

    module, _ = adapted(Remembers)
    assert {type(v) for v in (module.last, *module.outputs)} == {torch.Tensor}, "as any call leaves it"
    assert "len" not in vars(__import__("foreign_kinds"))
    assert torch.zeros.__module__ is None or "adaptbench" not in torch.zeros.__module__


class Deferred(Kind):
    """The author computes the deep part before the early head."""

    def forward(self, x):
        a = self.stem(x)
        last = self.final(a)
        return [self.early(a), last]


def test_explain_says_what_is_deferred_and_lazy_switches_it_off():
    module = Deferred()
    lazy = ab.wrap(module, example=EXAMPLE)
    stem, deep, head1, head2 = 64 * 6 * 27, 16 * 12 * 54, 6 * CLASSES, 12 * CLASSES
    early, late = lazy.explain().exits
    assert (early.macs, late.macs) == (stem + head1, stem + deep + head1 + head2)
    assert (early.macs_as_written, late.macs_as_written) == (stem + deep + head2 + head1,) * 2
    assert early.macs_deferred == deep + head2
    assert "deferred" in str(lazy.explain())
    assert "lazy=False" in str(lazy.explain())
    eager = ab.wrap(module, example=EXAMPLE, lazy=False)
    early, late = eager.explain().exits
    assert [early.macs, late.macs] == [early.macs_as_written, late.macs_as_written]
    assert "deferred" not in str(eager.explain())
    x = torch.rand(3, *SHAPE)
    got = eager.infer(x, force=torch.tensor([True, False]))
    torch.testing.assert_close(got.logits, lazy.infer(x, force=torch.tensor([True, False])).logits)
    assert got.macs.tolist() == [stem + deep + head2 + head1] * 3


def test_explain_says_where_no_gradient_reaches():
    class Cut(Kind):
        def forward(self, x):
            a = self.stem(x)
            return [self.early(a.detach()), self.final(a)]

    exits = ab.wrap(Cut(), example=EXAMPLE).explain().exits
    assert [e.has_gradient for e in exits] == [False, True]


def test_explain_says_what_no_exit_needs():
    class Busy(Kind):
        def forward(self, x):
            a = self.stem(x)
            return {
                "logits": self.final(a),
                "early": self.early(a),
                "unused": a.flatten(1)[:, :6] @ self.head1.weight.T,
            }

    net = ab.wrap(Busy(), example=EXAMPLE, logits=lambda out: [out["early"], out["logits"]])
    assert net.explain().macs_unused == 6 * CLASSES
    assert "needed by no exit" in str(net.explain())


def test_the_type_of_the_weights_is_followed():
    net = ab.wrap(Tokens().double(), example=EXAMPLE.double())
    assert net.infer(torch.rand(2, *SHAPE)).logits.dtype == torch.float64


class AtEight(Kind):
    """Another function for large batches."""

    def forward(self, x):
        a = self.stem(x)
        a = a if len(x) < 8 else a * 2
        return [self.early(a), self.final(a)]


class Counting(Kind):
    """Another function at every call."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        a = self.stem(x) * self.calls
        return [self.early(a), self.final(a)]


class AliasedWrite(Kind):
    """Writes through a view that tracing does not follow."""

    def forward(self, x):
        a = self.stem(x) * 1.0
        half = a[:, :3]
        half[:, :, 0] = 7.0
        return [self.early(a), self.final(a)]


class Probabilities(Kind):
    def forward(self, x):
        a = self.stem(x)
        return [self.early(a).softmax(1), self.final(a).softmax(1)]


class Both(Kind):
    def forward(self, x):
        a = self.stem(x)
        return self.final(a), self.final(a).softmax(1)


class Alone(Kind):
    def forward(self, x):
        return self.final(self.stem(x))


class Autocast(Kind):
    """Runs in half precision, which no trace sees."""

    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            a = self.stem(x)
            out = [self.early(a), self.final(a)]
        return [z.float() for z in out]


@pytest.mark.parametrize(
    ("kind", "how", "message"),
    [
        (AtEight, {}, r"is another function: logits differ by .* in a batch of 8"),
        (Counting, {}, "remembers the last call"),
        (AliasedWrite, {}, "is another function"),
        (Autocast, {}, "is another function"),
        (Probabilities, {}, r"holds probabilities.*\n.*\n.*logits=lambda out: \[p.clamp_min"),
        (Both, {}, "output 1 .* holds probabilities"),
        (Alone, {}, r"one tensor \(n, 5\)"),
        (Library, {"logits": lambda out: [out["late"]]}, "logits= could not be taken .*KeyError: 'late'"),
        (Library, {"logits": None}, r"out\['hidden_states'\]\[0\] \(n, 6, 8, 8\)"),
        (Flagged, {"kwargs": {"retrun_all": True}}, "takes no input 'retrun_all'.*\nDid you mean 'return_all'"),
        (Tokens, {"exits": ["layers.0"]}, r"exit 'layers.0' has the shape \(n, 5, 16\)"),
        (Tokens, {"exits": ["head"]}, r"'head' is no sub-module that Tokens.forward calls.*\nDid you mean 'heads.1'"),
        (Tokens, {"exits": []}, "names no sub-module"),
        (Shared, {"exits": ["head", "head"]}, "names a sub-module twice"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_cannot_be_taken_is_refused_with_the_way_out(kind, how, message):
    with pytest.raises(GraphError, match=message):
        ab.wrap(kind(), example=EXAMPLE, **{**kind.how, **how})


@pytest.mark.parametrize("example", [None, torch.zeros(3, 8, 8), torch.zeros(2, 3, 8, 8, dtype=torch.uint8)])
def test_an_example_is_a_batch_of_pictures(example):
    with pytest.raises(DomainError, match="the example is"):
        ab.wrap(Tokens(), example=example)


def test_what_is_no_module_is_refused():
    with pytest.raises(GraphError, match="a function was given"):
        ab.wrap(lambda x: x, example=EXAMPLE)
