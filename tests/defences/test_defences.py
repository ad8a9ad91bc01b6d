"""Each defence keeps the laws over graphs and gates, is really run, and is another net; planted faults are found."""

import pytest
import torch

import adaptbench as ab
from adaptbench.defences import Defence, Harden, Hardened, InFront, Quantise, Smooth
from adaptbench.errors import CalibrationError, CapabilityError, GraphError, LeakageError, UnknownNameError, UsageError
from adaptbench.policies import NeverStop, UniformThreshold
from adaptbench.registry import DEFENCES
from adaptbench.testing import DefenceConformance, PolicyConformance, planted_graph, planted_split
from adaptbench.testing.defences import planted_gates


class TestQuantise(DefenceConformance):
    def defence(self):
        return Quantise()


class TestTwoLevels(DefenceConformance):
    def defence(self):
        return Quantise(levels=2)


class TestGaussian(DefenceConformance):
    def defence(self):
        return Smooth()


class TestMean(DefenceConformance):
    def defence(self):
        return Smooth(kind="mean")


class TestMedian(DefenceConformance):
    def defence(self):
        return Smooth(kind="median")


class TestHarden(DefenceConformance):
    def defence(self):
        return Harden(allowance=0.05)


class TestHardened(PolicyConformance):
    another_setting = 0.3

    def fit(self, log):
        return Hardened(UniformThreshold(0.9), 0.05)


def test_every_registered_defence_can_be_made() -> None:
    for entry in DEFENCES.shipped:
        kind = DEFENCES.load(entry.name)
        assert issubclass(kind, Defence)
        assert kind.name == entry.name
        assert kind.made(entry.name, {}).describe() == kind.settings()


# ---------------------------------------------------------------------- what each does


def test_levels_are_those_of_the_domain() -> None:
    """Closed form: 4 levels of [-1, 3]; halves go to the even level, as torch rounds."""
    front = Quantise(levels=5)
    front.low, front.high = -1.0, 3.0
    x = torch.tensor([-1.0, -0.4, -0.6, 0.9, 3.0]).view(1, 1, 1, 5)
    assert front(x).flatten().tolist() == [-1.0, 0.0, -1.0, 1.0, 3.0]


def test_256_levels_leave_8_bit_pictures_alone() -> None:
    x = (torch.arange(256).float() / 255).view(1, 1, 16, 16)
    assert torch.allclose(Quantise(levels=256)(x), x, atol=1e-6)


def test_filters_are_what_their_names_say() -> None:
    """Against the definitions, a pixel at a time."""
    x = torch.rand(2, 3, 6, 7, generator=torch.Generator().manual_seed(0))
    wide = torch.nn.functional.pad(x, (1, 1, 1, 1), mode="replicate")
    around = torch.stack([wide[:, :, i : i + 6, j : j + 7] for i in range(3) for j in range(3)], -1)
    bell = torch.exp(-0.5 * (torch.tensor([-1.0, 0.0, 1.0]) / 0.8) ** 2)
    weights = torch.outer(bell, bell).flatten() / bell.sum() ** 2
    assert torch.allclose(Smooth(kind="mean")(x), around.mean(-1), atol=1e-6)
    assert torch.equal(Smooth(kind="median")(x), around.median(-1).values)
    assert torch.allclose(Smooth(sigma=0.8)(x), around @ weights, atol=1e-6)


def test_a_filter_is_paid_once_whatever_the_path() -> None:
    """2 · size · C · H · W with the entry node, for every sample and path, of graphs and of gates."""
    for net in (planted_graph("dag"), planted_gates()):
        defended = net.defended("smooth", size=3)
        paid = 2 * 3 * 16
        assert (defended.min_macs - net.min_macs, defended.max_macs - net.max_macs) == (paid, paid)
        assert defended.node_macs == (net.node_macs[0] + paid, *net.node_macs[1:])
        assert defended.macs_full == net.macs_full


def test_defences_stand_before_those_that_are_there() -> None:
    net = planted_graph().defended("smooth").defended("quantise", levels=4)
    x = planted_split("test", 5).images()
    assert torch.equal(net.entered(x), Smooth()(Quantise(levels=4)(x)))
    assert net.under(UniformThreshold(0.5)).front is not None


def test_the_gradient_passes_straight_through_the_rounding() -> None:
    """BPDA: that of the undefended net at the rounded picture."""
    net = planted_graph().under(UniformThreshold(0.8))
    defended = net.defended("quantise", levels=4)
    x = planted_split("test", 20).images().requires_grad_()
    seen = Quantise(levels=4)(x).detach().requires_grad_()
    (own,) = torch.autograd.grad(defended.relax(x).expected_macs.sum(), x)
    (want,) = torch.autograd.grad(net.relax(seen).expected_macs.sum(), seen)
    assert torch.equal(own, want)


def test_a_larger_allowance_costs_less_and_the_accuracy_stays_within_it() -> None:
    """On the calibration log itself the promise is exact; every input costs at most what it did."""
    net = planted_graph().under(UniformThreshold(0.95))
    split = planted_split()
    log, x = net.log(split), split.images()
    plain = net.infer(x)
    right = (plain.predictions == split.y).double().mean()
    spent = []
    for allowance in (0.0, 0.02, 0.1, 0.9):
        hard = net.defended("harden", log=log, allowance=allowance).infer(x)
        assert (hard.macs <= plain.macs).all()
        assert float(right - (hard.predictions == split.y).double().mean()) <= allowance + 1e-9
        spent.append(float(hard.macs.double().mean()))
    assert spent == sorted(spent, reverse=True)
    assert spent[-1] == net.min_macs < spent[0], "at an allowance of .9 everybody leaves at once"


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda net: net.defended("quantize"), UnknownNameError, "quantise"),
        (lambda net: net.defended("quantise", level=4), UsageError, "Did you mean 'levels'"),
        (lambda net: net.defended("quantise", levels=1), UsageError, "2 … 256"),
        (lambda net: net.defended("quantise", levels=2.5), UsageError, "2 … 256"),
        (lambda net: net.defended("smooth", size=4), UsageError, "odd"),
        (lambda net: net.defended("smooth", size=5), UsageError, "smaller size"),
        (lambda net: net.defended("smooth", kind="box"), UsageError, "median"),
        (lambda net: net.defended("smooth", kind="mean", sigma=1.0), UsageError, "Gaussian"),
        (lambda net: net.defended("harden", allowance=2), UsageError, "point"),
        (lambda net: net.defended("harden"), CalibrationError, "log=net.log"),
        (lambda net: net.defended("harden", log=planted_graph("dag").log(planted_split())), CalibrationError, "other"),
        (lambda net: net.under(NeverStop()).defended("harden"), CapabilityError, "policy first"),
        (lambda net: planted_gates().defended("harden"), CapabilityError, "Gates are weights"),
    ],
)
def test_mistakes_are_told(call, error, says) -> None:
    with pytest.raises(error) as told:
        call(planted_graph().under(UniformThreshold(0.8)))
    assert says in f"{told.value.seen} {told.value.why} {told.value.todo}"


def test_harden_refuses_samples_that_judge() -> None:
    net = planted_graph().under(UniformThreshold(0.8))
    log = net.log(planted_split())
    judging = ab.adaptive.EvaluationLog(
        log.logits, log.labels, log.structure, log.node_macs, log.data, "test", log.sha256
    )
    with pytest.raises(LeakageError):
        net.defended("harden", log=judging)


# ---------------------------------------------------------------------- faults planted


class Lying(Quantise):
    """Rounds only where gradients are asked for: what is attacked is not what is deployed."""

    def forward(self, x):
        return super().forward(x) if torch.is_grad_enabled() else x


class Masking(Quantise):
    """Rounds without a stand-in for the derivative: an attack on it fails for want of a gradient."""

    def forward(self, x):
        return (x * 15).round() / 15


class Nothing(InFront):
    name = "nothing"

    def __init__(self):
        torch.nn.Module.__init__(self)

    def forward(self, x):
        return x * 1.0


class Mixing(Nothing):
    """Looks at the other pictures of the batch."""

    def forward(self, x):
        return x - x.mean(0, keepdim=True) / 8 + 0.0625


class Unseen(Quantise):
    """Hangs on something that no hash shows, and gives the net itself back."""

    def applied(self, model, *, log=None, seed=0):
        return model


class Copying(Quantise):
    """Makes a net of copied weights."""

    def applied(self, model, *, log=None, seed=0):
        import copy

        return copy.deepcopy(super().applied(model))


@pytest.mark.parametrize(
    ("fault", "check", "says"),
    [
        (Lying, "test_what_stands_in_front_is_really_run", "no picture is changed"),
        (Lying, "test_forward_is_one_function", "where gradients are asked for"),
        (Masking, "test_forward_is_one_function", "no gradient passes"),
        (Nothing, "test_what_stands_in_front_is_really_run", "no defence"),
        (Mixing, "test_forward_is_one_function", "in a batch"),
        (Unseen, "test_it_is_another_net", "hash of the undefended"),
        (Copying, "test_the_net_given_stays_as_it_is", "copies"),
    ],
)
def test_a_planted_fault_is_found(fault, check, says) -> None:
    kit = type("Check", (DefenceConformance,), {"defence": lambda self: fault()})()
    with pytest.raises(AssertionError, match=says):
        getattr(kit, check)()


class Writing(Nothing):
    def forward(self, x):
        return x.mul_(0.5)


class Cropping(Nothing):
    def forward(self, x):
        return x[..., 1:]


@pytest.mark.parametrize(("front", "says"), [(Writing, "in place"), (Cropping, "gave torch.float32")])
def test_fronts_that_do_not_fit_are_refused(front, says) -> None:
    for net in (planted_graph(), planted_gates()):
        with pytest.raises(GraphError, match=says):
            net.behind(front())
