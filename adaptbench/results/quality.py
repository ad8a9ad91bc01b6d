"""What answers are judged by: accuracy where an input has one label, mIoU where every pixel has one. No torch here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from adaptbench.results import statistics
from adaptbench.results.schema import PIXEL_COLUMNS
from adaptbench.results.statistics import Estimate, Floats

if TYPE_CHECKING:
    import pandas as pd

ACCURACY, MIOU = "accuracy", "miou"
WORDS = {ACCURACY: "accuracy", MIOU: "mIoU"}
"""Metric, as records name it → the word for readers."""
OF_PIXELS = "every pixel is answered: miou and pixel_accuracy judge it"
OF_INPUTS = "each input has one label: accuracy judges it"
NO_ONE_LABEL = "every pixel is answered: there is no one label that could be kept"


def metric_of(record: Mapping[str, Any]) -> str:
    """The field of a record that judges its answers."""
    return MIOU if record.get("metric") == MIOU else ACCURACY


def word_of(records: Iterable[Mapping[str, Any]]) -> str:
    """What the answers of some records are judged by, in the reader's words.

    >>> word_of([{"metric": "miou"}]), word_of([{}, {"metric": "miou"}]), word_of([])
    ('mIoU', 'accuracy or mIoU', 'accuracy')
    """
    found = sorted({metric_of(record) for record in records}) or [ACCURACY]
    return " or ".join(WORDS[metric] for metric in found)


def is_per_pixel(samples: pd.DataFrame) -> bool:
    """Whether rows carry counts of pixels."""
    return set(PIXEL_COLUMNS) <= set(samples.columns)


def pixel_counts(samples: pd.DataFrame) -> Floats:
    """(n, 3·C): of each image and class, pixels right, labelled and predicted."""
    return np.concatenate([np.stack(samples[name].to_list()) for name in PIXEL_COLUMNS], 1).astype(np.float64)


def ious(counts: Floats) -> Floats:
    """(B, C) intersection over union of each class: right / (labelled + predicted − right); NaN of one that is nowhere.

    Args:
        counts: (B, 3·C), as of `pixel_counts`: sums or means over a set of images.
    """
    right, labelled, predicted = np.split(counts, 3, axis=1)
    union = labelled + predicted - right
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(union > 0, right / union, np.nan)


def miou(counts: Floats) -> Floats:
    """(B,) mean over the classes of the IoU over all images together; classes that are nowhere are left out.

    >>> miou(np.array([[8.0, 1.0, 10.0, 2.0, 9.0, 3.0]])).round(4).tolist()  # of 8/11 and 1/4
    [0.4886]
    """
    return np.asarray(np.nanmean(ious(counts), axis=1))


def pixel_accuracy(counts: Floats) -> Floats:
    """(B,) share of the labelled pixels that are right."""
    right, labelled, _ = np.split(counts, 3, axis=1)
    return np.asarray(right.sum(1) / labelled.sum(1))


def miou_estimate(samples: pd.DataFrame, *, seed: int = 0) -> Estimate:
    """Of the whole set; the interval is a bootstrap over images of the ratios, whose counts are drawn together."""
    return statistics.of_means(pixel_counts(samples), miou, seed=seed)


def pixel_accuracy_estimate(samples: pd.DataFrame, *, seed: int = 0) -> Estimate:
    """The same of the share of labelled pixels that are right."""
    return statistics.of_means(pixel_counts(samples), pixel_accuracy, seed=seed)


def miou_drop(before: pd.DataFrame, after: pd.DataFrame, *, seed: int = 0) -> Estimate:
    """MIoU before − after, images paired by position."""
    columns = np.concatenate([pixel_counts(before), pixel_counts(after)], 1)
    half = columns.shape[1] // 2
    return statistics.of_means(columns, lambda m: miou(m[:, :half]) - miou(m[:, half:]), seed=seed)
