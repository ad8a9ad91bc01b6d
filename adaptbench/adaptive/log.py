"""Logged signals: of samples that a policy may be fitted on, and, as a type of their own, of samples that judge it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from adaptbench.adaptive.structure import Structure
from adaptbench.errors import AdaptBenchError, CalibrationError, DomainError, LeakageError

FITTING_ROLES = ("calibration", "train", "redrawn")
"""Roles of samples that may be fitted on; "redrawn": a study's own cut of calibration and test, nothing of it kept."""


@dataclass(frozen=True, slots=True)
class LoggedSamples:
    """Logits of every node on some samples; what its two kinds share.

    Args:
        logits: (N, V, C) float32; of a net that answers every pixel, profiles (see `pixels`).
        labels: (N,) int64; −1 where `quality` is given: an image of pixels has no one class.
        structure: the graph's shape.
        node_macs: (V,) int64, stage and head of each node, an increment.
        data, role: of the samples: the data set's name, and what they are for.
        sha256: of the split that they come from, kept in every fitted policy's card.
        top: an answer counts as right when the label is among the `top` largest logits.
        costs: (V,) what policies weigh, an increment a node like `node_macs` (default: the MACs); cost_unit: its unit.
        quality: (N, V) float32, of each node's answer the share of the labelled pixels that is right; None where a
            sample has one label.

    Raises:
        CalibrationError: no samples, labels that are no classes, or logits that are not finite.
    """

    logits: Tensor
    labels: Tensor
    structure: Structure
    node_macs: Tensor
    data: str
    role: str
    sha256: str
    top: int = 1
    costs: Tensor | None = None
    cost_unit: str = "macs"
    quality: Tensor | None = None

    def __post_init__(self) -> None:
        if len(self.labels) == 0:
            raise CalibrationError(
                f"the log of {self.split} is empty.",
                why="A policy without calibration data would be a guess.",
                todo="Give a few hundred samples at least.",
            )
        rows, nodes, classes = self.logits.shape
        names = self.structure.names
        if (rows, nodes, classes) != (len(self.labels), len(names), self.structure.n_classes):
            raise CalibrationError(
                f"{rows} rows of logits for {nodes} nodes and {classes} classes came with {len(self.labels)} labels, "
                f"{len(names)} nodes and {self.structure.n_classes} classes.",
                todo="Give logits (N, V, C), labels (N,) and the structure of the graph that was logged.",
            )
        if self.quality is None:
            check_labels(self.labels, classes, CalibrationError)
        elif self.quality.shape != (rows, nodes):
            raise CalibrationError(
                f"shares of right pixels {tuple(self.quality.shape)} came with {rows} images and {nodes} nodes.",
                todo="Give (N, V): one an image and node.",
            )
        if not torch.isfinite(self.logits).all():
            raise CalibrationError(
                "logged logits hold NaN or infinity.", todo="Check the weights: the backbone is broken or untrained."
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def split(self) -> str:
        """``data/role``, for messages and keys."""
        return f"{self.data}/{self.role}"

    @property
    def correct(self) -> Tensor:
        """(N, V) bool: the label is among the `top` largest logits; of pixels the share that is right, `quality`."""
        if self.quality is not None:
            return self.quality
        return is_correct(self.logits, self.labels[:, None], self.top)

    @property
    def node_costs(self) -> Tensor:
        """(V,) float64 increments in `cost_unit`."""
        return (self.node_macs if self.costs is None else self.costs).double()

    @property
    def exit_costs(self) -> Tensor:
        """(V,) float64, of a chain: everything paid when leaving at each node, c_k."""
        return self.node_costs.cumsum(0)

    @property
    def best_accuracy(self) -> float:
        """Of the most accurate node, a fraction."""
        return float(self.correct.float().mean(0).max())

    def require(self, samples: int, purpose: str) -> None:
        """Refuse to do something with too few samples.

        Raises:
            CalibrationError: fewer than `samples`.
        """
        if len(self) < samples:
            raise CalibrationError(
                f"{len(self)} calibration samples are too few to {purpose}.", todo=f"Give {samples} or more."
            )

    def budget(self, asked: float | None) -> float:
        """A mean cost in the log's unit; None: halfway between the entry alone and every node."""
        if asked is None:
            return float(self.exit_costs[0] + self.exit_costs[-1]) / 2
        return float(asked)

    @property
    def confidence(self) -> Tensor:
        """(N, V) top softmax probability."""
        return self.logits.softmax(-1).amax(-1)

    def part(self, rows: Tensor) -> Self:
        """The same log on a subset of its samples (a hold-out for choosing between fits)."""
        quality = None if self.quality is None else self.quality[rows]
        return replace(self, logits=self.logits[rows], labels=self.labels[rows], quality=quality)

    def judged(self, top: int) -> Self:
        """The same log where an answer among the `top` largest counts as right."""
        return replace(self, top=top)

    def priced(self, costs: Tensor, unit: str) -> Self:
        """The same log with each node's increment in another unit: seconds, joules.

        Raises:
            CalibrationError: not one positive cost a node.
        """
        if costs.shape != (len(self.structure.names),) or not bool((costs > 0).all()):
            raise CalibrationError(
                f"costs {costs.tolist()} were given to {len(self.structure.names)} nodes.",
                why="A policy weighs what each node adds; a node that is free or missing makes it senseless.",
                todo="Give one increment a node, all above zero, measured on the path that is deployed.",
            )
        return replace(self, costs=costs.double(), cost_unit=unit)


@dataclass(frozen=True, slots=True)
class CalibrationLog(LoggedSamples):
    """Logits of every node on samples that no net was trained on: all that a policy may be fitted on.

    Args: as of `LoggedSamples`.

    Raises:
        LeakageError: the samples have another role than calibration or training.
        CalibrationError: no samples, labels that are no classes, or logits that are not finite.
    """

    def __post_init__(self) -> None:
        if self.role not in FITTING_ROLES:
            raise LeakageError(
                f"{self.role or 'nameless'} samples ({self.split}) were about to be logged for fitting a policy.",
                why="Thresholds chosen on the test set make every figure after them worthless.",
                todo="Use the calibration split.",
            )
        LoggedSamples.__post_init__(self)

    def joined(self, other: CalibrationLog) -> CalibrationLog:
        """This log's samples and another part's of the same split.

        Raises:
            CalibrationError: the other comes from another split, and its samples would go under this one's name.
        """
        if (self.data, self.role, self.sha256) != (other.data, other.role, other.sha256):
            raise CalibrationError(
                f"samples of {other.split} were about to be kept under the name of {self.split}.",
                todo="Join parts of one log.",
            )
        both = None if self.quality is None or other.quality is None else torch.cat([self.quality, other.quality])
        return replace(
            self,
            logits=torch.cat([self.logits, other.logits]),
            labels=torch.cat([self.labels, other.labels]),
            quality=both,
        )

    def halves(self, fraction: float = 0.5, seed: int = 0) -> tuple[CalibrationLog, CalibrationLog]:
        """Two disjoint parts: one to fit on, one to choose on."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        cut = round(fraction * len(self))
        return self.part(order[:cut].sort().values), self.part(order[cut:].sort().values)


@dataclass(frozen=True, slots=True)
class EvaluationLog(LoggedSamples):
    """Logits of every node on samples that judge a policy. Whatever fits refuses it, before it reads a label.

    Args: as of `LoggedSamples`; any role.
    """


def require_calibration(log: Any, who: str) -> None:
    """Refuse to fit on samples that judge.

    Args:
        log: what was given to fit on; what is no log at all is left to the fit. who: for the message.

    Raises:
        LeakageError: it is an `EvaluationLog`.
    """
    if isinstance(log, EvaluationLog):
        raise LeakageError(
            f"{who} was about to be fitted on {log.split}, samples that are there to judge it.",
            why="Thresholds chosen on the test set make every figure after them worthless.",
            todo="Give a CalibrationLog: model.log(calibration split).",
        )


def check_labels(labels: Tensor, n_classes: int, error: type[AdaptBenchError] = DomainError) -> None:
    """Refuse labels that are not one whole number below C a sample.

    Raises:
        DomainError: one-hot rows, fractions, or a number outside (or `error`).
    """
    if labels.ndim != 1 or labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise error(
            f"labels of shape {tuple(labels.shape)} and type {labels.dtype} were given.",
            why="A label is the number of its class.",
            todo="Give int64 of shape (N,); one-hot rows: y.argmax(1).",
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= n_classes:
        raise error(
            f"labels run from {low} to {high}; the model knows {n_classes} classes, 0 to {n_classes - 1}.",
            why="An answer could never be right.",
            todo="Number the classes from 0, and leave samples of other classes out.",
        )


def is_correct(logits: Tensor, labels: Tensor, top: int = 1) -> Tensor:
    """bool: the label is among the `top` largest logits. logits: (…, C); labels broadcast to (…,)."""
    if top == 1:
        return logits.argmax(-1) == labels
    return (logits.topk(min(top, logits.shape[-1]), dim=-1).indices == labels[..., None]).any(-1)
