import numpy as np
import torch
from sklearn.datasets import load_digits

from adaptbench.data import load_data
from adaptbench.data.base import ROLES
from adaptbench.testing.data import DataConformance


class TestDigits(DataConformance):
    def make(self):
        return load_data("digits")


def test_sizes_and_hashes_are_frozen():
    """Committed baselines and checkpoints name these hashes."""
    data = load_data("digits")
    assert [(len(data.split(r)), data.split(r).sha256[:12]) for r in ROLES] == [
        (1077, "b2b7223a8aa0"),
        (360, "713dc5633939"),
        (360, "64b3469f5ea4"),
    ]


def test_every_digit_is_used_once_with_its_own_label():
    data, whole = load_data("digits"), load_digits()
    ids = torch.cat([data.split(r).ids for r in ROLES])
    assert sorted(ids.tolist()) == list(range(1797))
    test = data.split("test")
    assert np.array_equal(test.y.numpy(), whole.target[test.ids.numpy()])
    assert np.array_equal(test.x[:, 0].numpy(), np.round(whole.images[test.ids.numpy()] * 255 / 16))


def test_classes_are_spread_evenly():
    data = load_data("digits")
    for role in ROLES:
        share = torch.bincount(data.split(role).y).float() / len(data.split(role))
        assert share.min() > 0.095
        assert share.max() < 0.105


def test_a_split_is_read_once():
    data = load_data("digits")
    assert data.split("train") is data.split("train")
