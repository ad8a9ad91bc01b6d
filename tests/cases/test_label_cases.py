"""Labels that are no numbers of classes."""

import dataclasses

import pytest
import torch

from adaptbench.errors import CalibrationError, DomainError
from adaptbench.testing.planted import CLASSES, planted_graph, planted_split

BAD = {
    "one-hot": torch.eye(CLASSES, dtype=torch.int64)[torch.arange(8) % CLASSES],
    "too large": torch.arange(8) % CLASSES + 1,
    "negative": torch.arange(8) % CLASSES - 1,
    "fractions": torch.full((8,), 0.5),
}


@pytest.mark.case("own")
@pytest.mark.parametrize("kind", BAD)
def test_labels_that_are_no_classes_are_refused(kind):
    """One-hot or out-of-range labels gave an accuracy of 0, or torch's error about shapes and indices."""
    net, split = planted_graph(), planted_split(n=8)
    with pytest.raises(DomainError, match="labels"):
        net.infer(split.images(), labels=BAD[kind])
    log = net.log(split)
    with pytest.raises(CalibrationError, match="labels"):
        dataclasses.replace(log, labels=BAD[kind])
