"""One chunk of one evaluation: what a sample's draws are made of."""

from __future__ import annotations

import torch

from adaptbench.bench.evaluate import sample_seeds


def test_the_seed_of_a_sample_is_the_published_one() -> None:
    ids = torch.tensor([0, 7, 1796, 69_999])
    assert sample_seeds(ids, 0).tolist() == [0, 7, 1796, 69_999]
    assert sample_seeds(ids, 1).tolist() == [1_000_003, 1_000_010, 1_001_799, 1_070_002]
    assert sample_seeds(ids, 42).tolist() == [42_000_126, 42_000_133, 42_001_922, 42_070_125]
    assert sample_seeds(ids, 1).dtype == torch.int64


def test_it_is_one_in_every_chunk_and_no_other_samples_or_seeds() -> None:
    ids = torch.arange(1000)
    whole = torch.cat([sample_seeds(ids, seed) for seed in range(5)])
    assert len(whole.unique()) == len(whole)
    assert torch.equal(torch.cat([sample_seeds(part, 3) for part in ids.split(64)]), sample_seeds(ids, 3))
