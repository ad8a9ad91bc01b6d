"""Graphs of parts: what is replayed is what the part gives, whatever the order of sizes; the last needs a card."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._pytree import tree_leaves

from adaptbench.adaptive import MultiExit, compiling
from adaptbench.adaptive.compilers import compiler_for, why_no_compiler
from adaptbench.adaptive.compiling import compile_again, compile_parts
from adaptbench.adaptive.graphed import Graphed, rows_run
from adaptbench.policies import UniformThreshold


class Record:
    """As a card does it: what was recorded runs on the same tensors, and writes its outputs into the same ones."""

    def __init__(self):
        self.recorded, self.replayed = [], 0

    def __call__(self, run):
        out = run()
        self.recorded.append(len(tree_leaves(out)[0]))

        def replay():
            self.replayed += 1
            for kept, new in zip(tree_leaves(out), tree_leaves(run()), strict=True):
                kept.copy_(new)

        return replay, out


def part(x):
    """Writes into what it is given, and gives two tensors."""
    x += 1
    return x.relu(), x.sum(1)


def graphed(most, arriving, of=part):
    record = Record()
    call = Graphed(of, record)
    call(torch.zeros(most, 3))
    call.settle(arriving)
    return call, record


@given(st.lists(st.integers(1, 12), min_size=1, max_size=6))
@settings(max_examples=30, deadline=None)
def test_what_is_replayed_is_the_part_whatever_sizes_come_and_stays_as_it_was_given(sizes):
    call, record = graphed(12, sizes)
    once = len(record.recorded)
    made = []
    for i, n in enumerate(sizes):
        x = torch.randn(n, 3, generator=torch.Generator().manual_seed(i))
        made.append((x.clone(), call(x)))
        assert torch.equal(x, made[-1][0]), "the caller's rows are its own"
    for x, out in made:  # after all calls: none has written over what an earlier one gave
        for own, wanted in zip(out, part(x), strict=True):
            assert torch.equal(own, wanted)
    assert len(record.recorded) == once
    assert record.replayed == len(sizes) + 1


def test_sizes_are_powers_of_two_and_the_most_and_nothing_is_recorded_after_them():
    call, record = graphed(12, [1, 3, 7, 9, 12])
    assert sorted(record.recorded) == [1, 4, 8, 12]
    replayed = record.replayed
    for x in (torch.ones(13, 3), torch.ones(0, 3), torch.ones(4, 5), torch.ones(4, 3, dtype=torch.float64)):
        assert torch.equal(call(x.clone())[0], x + 1)
    assert (len(record.recorded), record.replayed) == (4, replayed), "the part as it is"


def test_rows_of_a_call_before_are_seen_by_nobody():
    call, _ = graphed(8, [8])
    call(torch.full((8, 3), torch.nan))
    assert torch.equal(call(torch.ones(5, 3))[1], torch.full((5,), 6.0))


def test_several_tensors_of_rows_go_in_together():
    record = Record()
    call = Graphed(lambda given: given[0] + given[1][:, None] * given[2], record)
    call((torch.zeros(4, 3), torch.zeros(4), 2.0))
    call.settle([4])
    x, y = torch.randn(3, 3), torch.randn(3)
    assert torch.equal(call((x, y, 2.0)), x + y[:, None] * 2.0)
    assert torch.equal(call((x, y, 5.0)), x + y[:, None] * 5.0), "another number is another graph, and none is made"
    assert record.recorded == [4]


@pytest.mark.parametrize(("n", "run"), [(1, 1), (2, 2), (3, 4), (33, 48), (48, 48)])
def test_rows_run(n, run):
    assert rows_run(n, 48) == run


@pytest.fixture
def pictures():
    return torch.rand(44, 1, 4, 4, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def model(pictures):
    torch.manual_seed(0)
    stages = [nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU()), *(nn.Linear(12, 12) for _ in range(2))]
    made = MultiExit(stages, [nn.Linear(12, 4) for _ in stages], input_shape=(1, 4, 4)).eval()
    sure = made.dense_logits(pictures).detach().softmax(-1).amax(-1)[:, 0]
    made.policy = UniformThreshold(float(sure.median()))
    return made


@pytest.fixture
def faster(monkeypatch):
    monkeypatch.setattr(compiling, "_timed", lambda part, call, seen: (1.0, 0.5))
    for whole in ("_whole", "_whole_reference"):
        monkeypatch.setattr(compiling, whole, lambda plan, batches: (1.0, 0.5))


def test_a_plan_of_graphs_answers_as_the_net_and_tells_the_rows_that_run_for_nothing(model, pictures, faster):
    record = Record()
    batches = [(x, None) for x in pictures.split(16)]
    plan = compile_parts(model, batches, compiler=lambda part: Graphed(part, record))
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
    again = compile_again(model, batches, plan.parts, compiler=lambda part: Graphed(part, record))
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


def test_a_card_gets_graphs_and_where_there_is_none_it_is_said(monkeypatch):
    assert compiler_for(torch.device("cuda")) is Graphed
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "torch finds none here" in why_no_compiler(torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert why_no_compiler(torch.device("cuda")) is None
    assert "'meta'" in why_no_compiler(torch.device("meta"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_on_a_card(model, pictures):
    model, pictures = model.cuda(), pictures.cuda()
    plan = compile_parts(model, [(x, None) for x in pictures.split(16)], gain=1e9)
    assert not [part.reason for part in plan.parts if part.reason]
    assert plan.kept == tuple(compiling.parts_of(model))
    with plan.serving(), model.serving():
        for x in pictures.split(11):
            assert torch.allclose(plan.serve(x), model.serve(x), atol=1e-5)
