"""What every data set must hold to.

Subclass in a test file and give `make`::

    class TestMyData(DataConformance):
        def make(self) -> DataSet:
            return MyData("argument", root=None, download=False)
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from adaptbench.adaptive.splits import IGNORED, Split, hash_samples
from adaptbench.data.base import ROLES, DataSet
from adaptbench.data.checked import CheckedData
from adaptbench.errors import UsageError


class DataConformance:
    """Checks that pytest collects from a subclass; each failure says which rule is broken."""

    @abstractmethod
    def make(self) -> DataSet:
        """A new object for the data set under test."""

    def _splits(self) -> list[Split]:
        data = self.make()
        return [data.split(role) for role in ROLES]

    def test_it_describes_itself(self) -> None:
        """Name, classes and shape are known and fit together."""
        data = self.make()
        assert isinstance(data, DataSet), "name, class_names, n_classes, shape and split(role) are the protocol"
        assert data.name == data.name.strip() != "", "the name stands in reports and case ids"
        assert data.n_classes == len(data.class_names) == len(set(data.class_names)), "one distinct name a class"
        assert len(data.shape) in (1, 2, 3), "shape is (C, H, W), (L,) for texts, or (C, T) for series"
        assert min(data.shape) > 0, "shape is (C, H, W), (L,) for texts, or (C, T) for series"

    def test_splits_are_what_they_say(self) -> None:
        """Each split carries its data set's name, role, classes and shape, and is not empty."""
        data = self.make()
        for role in ROLES:
            split = data.split(role)
            assert (split.name, split.role, split.shape) == (data.name, role, data.shape)
            assert split.class_names == data.class_names
            assert len(split) > 0, f"the {role} split is empty"

    def test_it_is_accepted_when_loaded(self) -> None:
        """What `load_data` refuses: empty splits, one-hot labels, labels outside the classes, ids used twice."""
        data = CheckedData(self.make(), "under test")
        for role in ROLES:
            data.split(role)

    def test_pictures_are_uint8_and_not_blank(self) -> None:
        """(N, C, H, W) uint8 over the range of bytes; of texts, ids that differ; of series, finite floats."""
        for split in self._splits():
            if split.x.ndim == 2:
                assert split.x.dtype == torch.int64
                assert len(split.x.unique()) > 2, "the texts hold one token"  # type: ignore[no-untyped-call]
                continue
            if split.x.ndim == 3:
                assert split.x.dtype == torch.float32
                assert bool(torch.isfinite(split.x).all()), "a series holds NaN or infinity"
                assert float(split.x.std()) > 0, "the series are flat"
                continue
            assert split.x.dtype == torch.uint8
            assert split.x.ndim == 4
            assert int(split.x.max()) > 1, "the pictures are black: were they scaled to [0, 1] before the cast?"

    def test_labels_are_classes(self) -> None:
        """Labels are int64 in 0 … n_classes − 1, or uint8 for each pixel, and every class can be learned."""
        data = self.make()
        for role in ROLES:
            split = data.split(role)
            assert split.per_pixel or split.y.dtype == torch.int64
            assert _classes_of(split) <= set(range(data.n_classes)), f"{role}: labels outside the classes"
        assert len(_classes_of(data.split("train"))) == data.n_classes, "a class has no training sample"

    def test_ids_are_unique_over_all_roles(self) -> None:
        """Samples are paired by id across runs and splits."""
        ids = torch.cat([split.ids for split in self._splits()])
        assert ids.dtype == torch.int64
        assert len(set(ids.tolist())) == len(ids), "an id is used twice"

    def test_nothing_of_the_test_split_was_seen_before(self) -> None:
        """Most test pictures are not training pictures too: a split cut wrongly overlaps in bulk."""
        train, calibration, test = ({picture.numpy().tobytes() for picture in split.x} for split in self._splits())
        for seen in (train, calibration):
            shared = len(test & seen) / len(test)
            # Published sets hold a few duplicates of their own.
            assert shared < 0.02, f"{shared:.0%} of the test pictures are in another split"

    def test_the_same_samples_every_time(self) -> None:
        """Two loads give the same pictures, labels, ids and hash, in the same order."""
        for one, two in zip(self._splits(), self._splits(), strict=True):
            assert one.sha256 == two.sha256 == hash_samples(two.x, two.y), "the hash is not of these samples"
            assert torch.equal(one.ids, two.ids), "the order changed between two loads"

    def test_loading_leaves_the_random_state_alone(self) -> None:
        """A data set that draws from torch's global generator would change what a seed means."""
        before = torch.get_rng_state()
        self._splits()
        assert torch.equal(before, torch.get_rng_state())

    def test_an_unknown_role_is_refused(self) -> None:
        """A wrong role is a usage error, not an empty split."""
        try:
            self.make().split("validation")  # type: ignore[arg-type]
        except UsageError:
            return
        raise AssertionError("split('validation') was accepted; raise UsageError")


def _classes_of(split: Split) -> set[int]:
    found: Tensor = split.y.unique()  # type: ignore[no-untyped-call]
    return set(found.tolist()) - ({IGNORED} if split.per_pixel else set())
