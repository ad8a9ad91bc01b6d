"""Pictures that attacks may learn from: calibration's, without what is judged."""

from __future__ import annotations

from dataclasses import replace

import torch

from adaptbench.adaptive import Split
from adaptbench.data.base import DataSet


def crafting_split(data: DataSet) -> Split:
    """The calibration pictures that are not in the test split, to the byte: data sets hold some pictures twice."""
    calibration = data.split("calibration")
    judged = {row.tobytes() for row in data.split("test").x.numpy()}
    apart = torch.tensor([row.tobytes() not in judged for row in calibration.x.numpy()], dtype=torch.bool)
    if bool(apart.all()):
        return calibration
    x, y, ids = calibration.x[apart], calibration.y[apart], calibration.ids[apart]
    return replace(calibration, x=x, y=y, ids=ids, sha256="")
