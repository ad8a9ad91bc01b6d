"""Graphs of parts: what is replayed is what the part gives, whatever the order of sizes."""

import pytest
import torch
from graph_recorder import Record
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptbench.adaptive.compilers import compiler_for, why_no_compiler
from adaptbench.adaptive.graphed import Graphed, rows_run


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


def test_a_card_gets_graphs_and_where_there_is_none_it_is_said(monkeypatch):
    assert compiler_for(torch.device("cuda")) is Graphed
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "torch finds none here" in why_no_compiler(torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert why_no_compiler(torch.device("cuda")) is None
    assert "'meta'" in why_no_compiler(torch.device("meta"))
