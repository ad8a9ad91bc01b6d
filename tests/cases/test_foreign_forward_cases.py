"""Forwards as people write them: the net cut from one is the same function, or it is refused."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from adaptbench.adapters import from_logits_list
from adaptbench.errors import GraphError
from adaptbench.policies import UniformThreshold
from adaptbench.testing import check_model

SHAPE = (3, 8, 8)


@pytest.fixture(autouse=True)
def a_fixed_seed():
    torch.manual_seed(0)


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.c1, self.c2 = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3)
        self.h1, self.h2 = nn.Linear(6, 4), nn.Linear(6, 4)
        self.act = nn.ReLU(inplace=True)
        self.register_buffer("calls", torch.zeros(()))

    def exits(self, a, b):
        return [self.h1(a.mean((2, 3))), self.h2(b.mean((2, 3)))]


class MethodInPlace(Base):
    def forward(self, x):
        a = self.c1(x)
        a.relu_()
        return self.exits(a, self.c2(a))


class ModuleInPlace(Base):
    def forward(self, x):
        a = self.c1(x)
        self.act(a)
        return self.exits(a, self.c2(a))


class FunctionInPlace(Base):
    def forward(self, x):
        a = self.c1(x)
        functional.relu_(a)
        return self.exits(a, self.c2(a))


class AfterTheHead(Base):
    def forward(self, x):
        a = self.c1(x)
        z = self.h1(a.mean((2, 3)))
        a.relu_()
        return [z, self.h2(self.c2(a).mean((2, 3)))]


class BetweenTwoReaders(Base):
    """The first head reads both what was there before the write and what is there after it."""

    def forward(self, x):
        a = self.c1(x)
        before = a.mean((2, 3))
        a.add_(1).relu_()
        return [self.h1(before + a.mean((2, 3))), self.h2(self.c2(a).mean((2, 3)))]


class IntoThePictures(Base):
    def forward(self, x):
        x -= 0.5
        a = self.c1(x)
        x.mul_(2)
        return self.exits(a, self.c2(a) + x.mean((1, 2, 3), keepdim=True))


class SliceAssignment(Base):
    def forward(self, x):
        a = self.c1(x)
        m = torch.zeros_like(a)
        m[:, :4] = a[:, :4]
        return self.exits(a, self.c2(m))


class SizedFactory(Base):
    def forward(self, x):
        a = self.c1(x)
        return self.exits(a, self.c2(a + torch.zeros(x.shape[0], 6, 1, 1)))


IN_PLACE = (
    MethodInPlace,
    ModuleInPlace,
    FunctionInPlace,
    AfterTheHead,
    BetweenTwoReaders,
    IntoThePictures,
    SliceAssignment,
    SizedFactory,
)


@pytest.mark.case("own")
@pytest.mark.parametrize("kind", IN_PLACE, ids=lambda kind: kind.__name__)
def test_in_place_operations_are_kept(kind):
    """Tracing dropped those whose result is not used by name: logits were 0.2 off, and the kit passed."""
    module = kind().eval()
    net = from_logits_list(module, input_shape=SHAPE, policy=UniformThreshold(0.26))
    x = torch.rand(16, *SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(net.dense_logits(x.clone()), torch.stack(module(x.clone()), 1))
    check_model(net, n_inputs=16)


class ThroughAView(Base):
    def forward(self, x):
        a = self.c1(x)
        a[:, :3].relu_()
        return self.exits(a, self.c2(a))


class WithoutAResult(Base):
    def forward(self, x):
        a = self.c1(x)
        torch.add(a, 1, out=a.view(-1).view_as(a))
        return self.exits(a, self.c2(a))


class Counts(Base):
    def forward(self, x):
        self.calls.add_(1)
        return self.exits(self.c1(x), self.c2(self.c1(x)))


class Draws(Base):
    def forward(self, x):
        a = self.c1(x)
        return self.exits(a, self.c2(a + torch.rand_like(a)))


class OverTheBatch(Base):
    def forward(self, x):
        a = self.c1(x)
        return self.exits(a, self.c2(a - a.mean(0, keepdim=True)))


class LogitsAndFeatures(Base):
    def forward(self, x):
        f = self.c2(self.c1(x)).mean((2, 3))
        return self.h2(f), f


class LogitsAndCost(Base):
    def forward(self, x):
        a, b = self.exits(self.c1(x), self.c2(self.c1(x)))
        early = a.softmax(-1).amax(-1) > 0.2
        return torch.where(early[:, None], a, b), torch.where(early, 1e5, 8e5)


class LooksAtValues(Base):
    def forward(self, x):
        a = self.c1(x)
        if a.mean() > 9:
            a = -a
        return self.exits(a, self.c2(a))


class NeedsAMask(Base):
    def forward(self, x, mask):
        return self.exits(x, mask)


@pytest.mark.case("own")
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (ThroughAView, r"works in place at 'relu_'.*line \d+.* on what 'c1' holds"),
        (WithoutAResult, "works in place at 'add'"),
        (Counts, "writes into its own parameters or buffers"),
        (Draws, "draws random numbers"),
        (OverTheBatch, "samples touch each other"),
        (LogitsAndFeatures, r"output 1 of .* has the shape \(n, 6\), output 0 \(n, 4\)"),
        (LogitsAndCost, r"output 1 of .* has the shape \(n,\)"),
        (LooksAtValues, r"line \d+, in forward: `if a.mean\(\) > 9:`"),
        (NeedsAMask, "takes 2 inputs; without a value: mask"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_would_be_another_function_is_refused(kind, message):
    """It was adapted silently, or refused without saying which line or which output."""
    with pytest.raises(GraphError, match=message):
        from_logits_list(kind().eval(), input_shape=SHAPE)


@pytest.mark.case("own")
def test_a_cost_is_offered_the_black_box_way():
    """Logits and a cost were taken for two exits."""
    with pytest.raises(GraphError, match=r"black box: ab.BlackBox\(module"):
        from_logits_list(LogitsAndCost().eval(), input_shape=SHAPE)


class DefaultArguments(Base):
    def forward(self, x, manual=False, threshold=0.5, extras=None):
        a = self.c1(x)
        out = self.exits(a, self.c2(a))
        if manual or extras is not None:
            out = [z * threshold for z in out]
        return out, [z.softmax(-1) for z in out]


@pytest.mark.case("own")
def test_defaults_are_bound_and_the_list_of_logits_is_named():
    """Parameters with defaults counted as inputs, and of two lists neither could be chosen."""
    module = DefaultArguments().eval()
    with pytest.raises(GraphError, match=r"out\[0\] has 2 tensors; out\[1\] has 2 tensors"):
        from_logits_list(module, input_shape=SHAPE)
    with pytest.raises(GraphError, match="returns nothing at 5"):
        from_logits_list(module, input_shape=SHAPE, output=5)
    net = from_logits_list(module, input_shape=SHAPE, output=0)
    x = torch.rand(4, *SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(net.dense_logits(x), torch.stack(module(x)[0], 1))


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.c1, self.c2 = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3)
        self.hs = nn.ModuleList(nn.Sequential(nn.Flatten(2), Mean(), nn.Linear(6, 4)) for _ in range(2))

    def forward(self, x, scale=1.0):
        a = self.c1(x)
        return {"late": self.hs[1](self.c2(a)) * scale, "early": self.hs[0](a)}


class Mean(nn.Module):
    def forward(self, h):
        return h.mean(2)


@pytest.mark.case("own")
def test_containers_can_be_exits():
    """`exits=["hs.0"]` naming a Sequential was "no sub-module that forward calls"."""
    module = Named().eval()
    net = from_logits_list(module, input_shape=SHAPE, exits=["hs.0", "hs.1"], policy=UniformThreshold(0.26))
    x = torch.rand(4, *SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(net.dense_logits(x)[:, 1], module(x)["late"])
    assert net.exit_names == ("hs.0", "hs.1")
    check_model(net, n_inputs=16)


@pytest.mark.case("own")
def test_exits_listed_latest_first_are_warned_of():
    """The second exit cost a head alone and `macs_full` was that of the early one, unsaid."""
    with pytest.warns(UserWarning, match="list exits from the earliest to the deepest"):
        from_logits_list(Named().eval(), input_shape=SHAPE, exits=["hs.1", "hs.0"])
