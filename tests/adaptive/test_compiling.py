"""Compiled parts: which are kept, that another net is refused, that nothing of the net itself changes."""

import pytest
import torch
from graph_recorder import Record
from torch import nn

from adaptbench.adaptive import (
    Block,
    FeedForwardGates,
    GatedNetwork,
    ImageDomain,
    MultiExit,
    compilable,
    compilers,
    compiling,
)
from adaptbench.adaptive.compiling import compile_again, compile_parts, why_no_compiler
from adaptbench.adaptive.counting import counting
from adaptbench.adaptive.graphed import Graphed, rows_run
from adaptbench.errors import CapabilityError
from adaptbench.policies import UniformThreshold

NONE_HERE = why_no_compiler(torch.device("cpu"))


@pytest.fixture
def pictures():
    return torch.rand(48, 1, 4, 4, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def model(pictures):
    torch.manual_seed(0)
    stages = [nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU()), *(nn.Linear(12, 12) for _ in range(2))]
    made = MultiExit(stages, [nn.Linear(12, 4) for _ in stages], input_shape=(1, 4, 4)).eval()
    sure = made.dense_logits(pictures).detach().softmax(-1).amax(-1)[:, 0]
    made.policy = UniformThreshold(float(sure.median()))
    return made


@pytest.fixture
def clock(monkeypatch):
    """Seconds that are told instead of read: of the parts named the compiled one takes half; of the net, `whole`."""

    class Told:
        quick: tuple[str, ...] = ()
        whole = reference = (1.0, 0.5)

    def timed(part, call, seen):
        quick = getattr(call, "named", None) in Told.quick
        return 1.0 * sum(seen.calls.values()), (0.5 if quick else 1.0) * sum(seen.calls.values())

    monkeypatch.setattr(compiling, "_timed", timed)
    monkeypatch.setattr(compiling, "_whole", lambda plan, batches: Told.whole)
    monkeypatch.setattr(compiling, "_whole_reference", lambda plan, batches: Told.reference)
    return Told


class Spy:
    """A compiler that changes nothing, and notes whom it was given and what was called."""

    def __init__(self, model, spoil=None):
        self.names = {id(part): name for name, part in compiling.parts_of(model).items()}
        self.called, self.spoil = [], spoil

    def __call__(self, part):
        name = self.names[id(part)]

        def call(given):
            self.called.append(name)
            made = part(given)
            return made + torch.linspace(0, 1, made.shape[1]) if name == self.spoil else made

        call.named = name
        return call


def batches(x, size=16):
    return [(part, None) for part in x.split(size)]


def test_what_is_faster_is_kept_and_what_is_not_runs_as_it_is(model, pictures, clock):
    clock.quick = ("stages.1", "heads.2")
    spy = Spy(model)
    plan = compile_parts(model, batches(pictures), compiler=spy)
    assert plan.kept == ("stages.1", "heads.2")
    told = {part.name: part for part in plan.parts}
    assert told["stages.0"].calls == {16: 3}
    assert sum(rows * count for rows, count in told["stages.1"].calls.items()) == int(
        model.infer(pictures).path[:, 1].sum()
    )
    assert told["stages.0"].compiled_s == told["stages.0"].plain_s
    spy.called.clear()
    with plan.serving():
        served = plan.serve(pictures)
    assert set(spy.called) == {"stages.1", "heads.2"}
    assert served.equal(model.infer(pictures).logits)
    assert plan.agreement == {"rows": 48, "other_ways": 0, "other_answers": 0}


def test_the_net_itself_stays_as_it_was_and_is_what_is_counted(model, pictures, clock):
    clock.quick = ("stages.0", "stages.1", "stages.2")
    before = (model.min_macs, model.max_macs, model.macs_full, model.infer(pictures))
    spy = Spy(model)
    plan = compile_parts(model, batches(pictures), compiler=spy)
    spy.called.clear()
    after = (model.min_macs, model.max_macs, model.macs_full, model.infer(pictures))
    assert before[:3] == after[:3]
    assert before[3].macs.equal(after[3].macs)
    assert not spy.called
    assert isinstance(model.stages, nn.ModuleList)
    with plan.serving(), counting() as counter:
        plan.serve(pictures)
    assert counter.macs == int(before[3].macs.sum())
    model.stages[1].weight.data.zero_()  # weights are shared
    with plan.serving():
        assert plan.serve(pictures).equal(model.infer(pictures).logits)


def test_the_reference_is_compiled_by_its_own_calls(model, pictures, clock):
    clock.quick = ("stages.2", "heads.0")
    spy = Spy(model)
    plan = compile_parts(model, batches(pictures), compiler=spy)
    assert {part.name for part in plan.parts if part.in_reference} == {"stages.2"}
    spy.called.clear()
    with plan.serving():
        assert plan.serve_reference(pictures).equal(model.run_reference(pictures))
    assert spy.called == ["stages.2"]


@pytest.mark.parametrize("spoil", ["stages.0", "heads.0"])
def test_a_compiled_net_that_is_another_net_is_refused(model, pictures, clock, spoil):
    """A planted fault: sums that are off by far more than rounding."""
    clock.quick = (spoil,)
    with pytest.raises(CapabilityError, match="none of them is a tie"):
        compile_parts(model, batches(pictures), compiler=Spy(model, spoil))


def test_what_cannot_be_compiled_says_why_and_runs_as_it_is(model, pictures, clock):
    clock.quick = ("stages.0", "stages.1")
    spy = Spy(model)

    def failing(part):
        if spy.names[id(part)] == "stages.1":
            raise RuntimeError("a break in\nthe graph\n\nand more of it")
        return spy(part)

    plan = compile_parts(model, batches(pictures), compiler=failing)
    assert plan.kept == ("stages.0",)
    (told,) = [part for part in plan.parts if part.name == "stages.1"]
    assert (told.reason, told.plain_s) == ("RuntimeError: a break in the graph", None)


def test_parts_that_gain_alone_and_not_together_are_dropped(model, pictures, clock):
    clock.quick, clock.whole = ("stages.1",), (1.0, 1.02)
    plan = compile_parts(model, batches(pictures), compiler=Spy(model))
    assert plan.kept == ()
    assert plan.whole == (1.0, 1.02)
    assert {part.name for part in plan.parts if part.reason} == {"stages.1"}
    with plan.serving():
        assert plan.serve(pictures).equal(model.infer(pictures).logits)


def test_the_reference_is_held_to_being_faster_as_a_whole_too(model, pictures, clock):
    clock.quick, clock.reference = ("stages.1", "stages.2"), (1.0, 1.02)
    plan = compile_parts(model, batches(pictures), compiler=Spy(model))
    assert plan.kept == ("stages.1", "stages.2")
    assert not [part.name for part in plan.parts if part.in_reference]
    assert plan.reference == (1.0, 1.02)


def test_a_reference_that_answers_otherwise_is_refused(model, pictures, clock):
    """A planted fault in a part that only the static reference runs compiled."""
    clock.quick = ("heads.2",)
    model.policy = UniformThreshold(0.0)  # everybody leaves at the first exit
    with pytest.raises(CapabilityError, match="none of them is a tie"):
        compile_parts(model, batches(pictures), compiler=Spy(model, "heads.2"))


def test_a_plan_is_made_again_of_the_same_parts_and_nothing_is_timed(model, pictures, clock, monkeypatch):
    clock.quick = ("stages.1", "heads.2")
    first = compile_parts(model, batches(pictures), compiler=Spy(model))
    monkeypatch.setattr(compiling, "_timed", None)
    monkeypatch.setattr(compiling, "_whole", None)
    spy = Spy(model)
    again = compile_again(model, batches(pictures), first.parts, compiler=spy)
    assert again.kept == first.kept
    assert set(spy.called) == {"stages.1", "heads.2"}
    with again.serving():
        assert again.serve(pictures).equal(model.infer(pictures).logits)
    with pytest.raises(CapabilityError, match="none of them is a tie"):
        compile_again(model, batches(pictures), first.parts, compiler=Spy(model, "stages.1"))

    def broken(part):
        raise RuntimeError("no more")

    with pytest.raises(CapabilityError, match="was compiled before and cannot be"):
        compile_again(model, batches(pictures), first.parts, compiler=broken)


def gated(whole):
    torch.manual_seed(2)

    def block(i):
        body = nn.Sequential(nn.Linear(12, 12), nn.ReLU(inplace=True), nn.Linear(12, 12))
        return Block(f"b{i}", run=body, skip=nn.Linear(12, 12)) if whole else Block(f"b{i}", body, after=nn.ReLU())

    gates = FeedForwardGates([nn.Sequential(nn.Linear(12, 1), nn.Tanh()) for _ in range(4)])
    return GatedNetwork(
        stem=nn.Sequential(nn.Flatten(), nn.Linear(16, 12)),
        blocks=[block(i) for i in range(4)],
        head=nn.Linear(12, 4),
        gates=gates,
        domain=ImageDomain((1, 4, 4)),
        n_classes=4,
    ).eval()


@pytest.mark.parametrize("whole", [False, True])
def test_gated_nets_have_parts_too(whole, clock):
    net = gated(whole)
    x = torch.rand(24, *net.domain.shape, generator=torch.Generator().manual_seed(2))
    clock.quick = ("stem", "bodies.1", "head")
    spy = Spy(net)
    plan = compile_parts(net, batches(x, 8), compiler=spy)
    ran = {part.name for part in plan.parts}
    assert plan.kept == tuple(name for name in compiling.parts_of(net) if name in clock.quick)
    spy.called.clear()
    with plan.serving():
        assert plan.serve(x).equal(net.infer(x).logits)
        assert plan.serve(x, full=8).equal(net.infer(x, mode="queues", full=8).logits)
        assert plan.serve_reference(x).equal(net.run_reference(x))
    assert {"stem", "head"} <= set(spy.called) <= ran


def test_the_sizes_that_are_timed_are_the_least_the_most_and_one_between():
    seen = compilable.Seen()
    for n in (32, 3, 17, 18, 3, 9):
        seen.add(torch.zeros(n, 2))
    assert min(seen.given) == 3
    assert max(seen.given) == 32
    assert len(seen.given) == 3
    assert sum(seen.weight(n) for n in seen.given) == 6


def test_where_there_is_nothing_to_compile_with_it_is_said(model, pictures, monkeypatch):
    monkeypatch.setattr(compilers.shutil, "which", lambda name: None)
    with pytest.raises(CapabilityError, match=r"C\+\+ compiler"):
        compile_parts(model, batches(pictures))


def test_a_pass_of_its_own_has_no_parts(model, pictures):
    class Own(MultiExit):
        def _run(self, x, *, seeds, labels, force):
            return super()._run(x, seeds=seeds, labels=labels, force=force)

    own = Own(model.stages, model.heads, input_shape=(1, 4, 4)).eval()
    with pytest.raises(CapabilityError, match="no parts that can be compiled"):
        compile_parts(own, batches(pictures))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # torch's own, of its compiler
@pytest.mark.skipif(NONE_HERE is not None, reason=str(NONE_HERE))
def test_torch_compiles_for_any_number_of_rows_and_never_while_it_serves(model, pictures):
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    plan = compile_parts(model, batches(pictures, 24), gain=1e9)
    assert not [part.reason for part in plan.parts if part.reason]
    assert plan.kept == tuple(compiling.parts_of(model))
    assert plan.agreement["other_answers"] <= int(model.infer(pictures).tie.sum())
    compiled = counters["stats"]["unique_graphs"]
    with plan.serving():
        for size in (48, 31, 7, 2):
            x = pictures[:size]
            torch.testing.assert_close(plan.serve(x), model.infer(x).logits, atol=1e-4, rtol=1e-4)
        stranger = pictures[:5].expand(5, 1, 4, 4).contiguous().to(memory_format=torch.channels_last)
        plan.serve(stranger)
    assert counters["stats"]["unique_graphs"] == compiled


# ---------------------------------------------------------------------- parts as graphs


@pytest.fixture
def faster(clock, monkeypatch):
    monkeypatch.setattr(compiling, "_timed", lambda part, call, seen: (1.0, 0.5))


def test_a_plan_of_graphs_answers_as_the_net_and_tells_the_rows_that_run_for_nothing(model, pictures, faster):
    record = Record()
    pictures = pictures[:44]
    given = batches(pictures)
    plan = compile_parts(model, given, compiler=lambda part: Graphed(part, record))
    assert len(plan.kept) == 6
    assert plan.agreement == {"rows": 44, "other_ways": 0, "other_answers": 0}
    first, second = (next(p for p in plan.parts if p.name == name) for name in ("stages.0", "stages.1"))
    assert first.calls == {12: 1, 16: 2}
    assert first.padding == pytest.approx(48 / 44 - 1), "12 rows run in 16"
    arriving = sum(n * count for n, count in second.calls.items())
    assert second.padding == pytest.approx(sum(rows_run(n, 16) * k for n, k in second.calls.items()) / arriving - 1)
    recorded = len(record.recorded)
    with plan.serving(), model.serving():
        for x in pictures.split(11):
            assert torch.allclose(plan.serve(x), model.serve(x), atol=1e-6)
            assert torch.allclose(plan.serve_reference(x), model.serve_reference(x), atol=1e-6)
    assert len(record.recorded) == recorded
    again = compile_again(model, given, plan.parts, compiler=lambda part: Graphed(part, record))
    assert again.kept == plan.kept


def test_a_part_that_cannot_be_recorded_runs_as_it_is_with_the_reason(model, pictures, faster):
    def waits(run):
        raise RuntimeError("operation not permitted when stream is capturing")

    def record(run):
        return (waits if made_by(run) else Record())(run)

    def made_by(run):
        return tuple(run().shape[1:]) == (4,)  # a head

    plan = compile_parts(model, [(pictures, None)], compiler=lambda part: Graphed(part, record))
    assert plan.kept == ("stages.0", "stages.1", "stages.2")
    reasons = {part.reason for part in plan.parts if part.name.startswith("heads")}
    assert reasons == {"RuntimeError: operation not permitted when stream is capturing"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_on_a_card(model, pictures):
    model, pictures = model.cuda(), pictures.cuda()
    plan = compile_parts(model, [(x, None) for x in pictures.split(16)], gain=1e9)
    assert not [part.reason for part in plan.parts if part.reason]
    assert plan.kept == tuple(compiling.parts_of(model))
    with plan.serving(), model.serving():
        for x in pictures.split(11):
            assert torch.allclose(plan.serve(x), model.serve(x), atol=1e-5)
