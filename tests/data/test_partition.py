import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptbench.data.partition import stratified_cut
from adaptbench.errors import UsageError


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(1, 60), min_size=1, max_size=6),
    shares=st.lists(st.integers(0, 5), min_size=1, max_size=4).filter(any),
    seed=st.integers(0, 1000),
)
def test_a_cut_is_a_partition_that_keeps_the_proportions(counts, shares, seed):
    y = np.random.RandomState(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    n = len(y)
    edges = [round(n * sum(shares[: i + 1]) / sum(shares)) for i in range(len(shares))]
    sizes = np.diff([0, *edges]).tolist()
    parts = stratified_cut(y, sizes, seed=seed)
    assert [len(part) for part in parts] == sizes
    assert sorted(np.concatenate(parts).tolist()) == list(range(n))
    for part, size in zip(parts, sizes, strict=True):
        exact = np.asarray(counts) * size / n
        assert np.all(np.abs(np.bincount(y[part], minlength=len(counts)) - exact) <= 4)


def test_equal_classes_give_equal_parts():
    y = np.repeat(np.arange(10), 600)
    train, held_out = stratified_cut(y, [5500, 500])
    assert set(np.bincount(y[train])) <= {549, 550, 551}
    assert set(np.bincount(y[held_out])) <= {49, 50, 51}


def test_the_cut_is_frozen():
    """A change here changes every figure ever published with these splits."""
    first, second = stratified_cut(np.arange(24) % 3, [16, 8])
    assert second.tolist() == [7, 4, 21, 18, 11, 22, 2, 23]
    assert not set(first) & set(second)


def test_the_first_rows_of_a_part_are_a_fair_sample():
    y = np.repeat(np.arange(10), 1000)
    part = stratified_cut(y, [9000, 1000])[0]
    assert np.bincount(y[part[:2000]], minlength=10).min() > 140


def test_sizes_that_do_not_add_up_are_refused():
    with pytest.raises(UsageError, match="parts of"):
        stratified_cut(np.zeros(5, dtype=int), [3, 3])
