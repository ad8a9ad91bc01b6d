"""Logged signals of a calibration split: all that a policy may be fitted on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from adaptbench.adaptive.policy import Structure
from adaptbench.errors import CalibrationError, LeakageError


@dataclass(frozen=True, slots=True)
class CalibrationLog:
    """Logits of every node on samples that no net was trained on.

    Args:
        logits: (N, V, C) float32.
        labels: (N,) int64.
        structure: the graph's shape.
        node_macs: (V,) int64, stage and head of each node, an increment.
        split: "name/role" of the samples; sha256: their hash, kept in every fitted policy's card.
        top: an answer counts as right when the label is among the `top` largest logits.
        costs: (V,) what policies weigh, an increment a node like `node_macs` (default: the MACs); cost_unit: its unit.

    Raises:
        LeakageError: the samples are test samples.
        CalibrationError: no samples, or logits that are not finite.
    """

    logits: Tensor
    labels: Tensor
    structure: Structure
    node_macs: Tensor
    split: str
    sha256: str
    top: int = 1
    costs: Tensor | None = None
    cost_unit: str = "macs"

    def __post_init__(self) -> None:
        if self.split.rpartition("/")[2] == "test":
            raise LeakageError(
                f"test samples ({self.split}) were about to be logged for fitting a policy.",
                why="Thresholds chosen on the test set make every figure after them worthless.",
                todo="Use the calibration split.",
            )
        if len(self.labels) == 0:
            raise CalibrationError(
                "the calibration log is empty.",
                why="A policy without calibration data would be a guess.",
                todo="Give the calibration split (a few hundred samples at least).",
            )
        rows, nodes, classes = self.logits.shape
        names = self.structure.names
        if (rows, nodes, classes) != (len(self.labels), len(names), self.structure.n_classes):
            raise CalibrationError(
                f"{rows} rows of logits for {nodes} nodes and {classes} classes came with {len(self.labels)} labels, "
                f"{len(names)} nodes and {self.structure.n_classes} classes.",
                todo="Give logits (N, V, C), labels (N,) and the structure of the graph that was logged.",
            )
        if not torch.isfinite(self.logits).all():
            raise CalibrationError(
                "logged logits hold NaN or infinity.", todo="Check the weights: the backbone is broken or untrained."
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def correct(self) -> Tensor:
        """(N, V) bool: the label is among the `top` largest logits."""
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
    def confidence(self) -> Tensor:
        """(N, V) top softmax probability."""
        return self.logits.softmax(-1).amax(-1)

    def part(self, rows: Tensor) -> CalibrationLog:
        """The same log on a subset of its samples (a hold-out for choosing between fits)."""
        return replace(self, logits=self.logits[rows], labels=self.labels[rows])

    def joined(self, other: CalibrationLog) -> CalibrationLog:
        """This log's samples and another part's."""
        return replace(
            self, logits=torch.cat([self.logits, other.logits]), labels=torch.cat([self.labels, other.labels])
        )

    def judged(self, top: int) -> CalibrationLog:
        """The same log where an answer among the `top` largest counts as right."""
        return replace(self, top=top)

    def priced(self, costs: Tensor, unit: str) -> CalibrationLog:
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

    def halves(self, fraction: float = 0.5, seed: int = 0) -> tuple[CalibrationLog, CalibrationLog]:
        """Two disjoint parts: one to fit on, one to choose on."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        cut = round(fraction * len(self))
        return self.part(order[:cut].sort().values), self.part(order[cut:].sort().values)


def is_correct(logits: Tensor, labels: Tensor, top: int = 1) -> Tensor:
    """bool: the label is among the `top` largest logits. logits: (…, C); labels broadcast to (…,)."""
    if top == 1:
        return logits.argmax(-1) == labels
    return (logits.topk(min(top, logits.shape[-1]), dim=-1).indices == labels[..., None]).any(-1)
