"""One replica at work: whole batches through `infer`, or steps of its stage queues; timed and replayed alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from adaptbench.adaptive import DecisionGraph
from adaptbench.errors import CapabilityError
from adaptbench.serving.lines import Batching, Line
from adaptbench.serving.ways import Servable

Now = Callable[[], float]


class Server(Protocol):
    """Runs what is due; used inside `serving`.

    Attributes:
        lines: who waits where; `lines.next_work` looks at them.
    """

    lines: list[Line]

    def work(self, v: int, here: list[int], now: Now) -> list[tuple[int, int]]:
        """Run a line's requests; (request, exit) of those that are answered. now: read where somebody joins a line."""

    def warm(self, most: int) -> None:
        """Run each shape that comes often once."""


class BatchServer:
    """Whole batches through `infer`. x: (n, …) inputs of all requests on the device. seeds: (n,)."""

    def __init__(self, model: Servable, x: Tensor, seeds: Tensor) -> None:
        self.model, self.x, self.seeds = model, x, seeds
        self.lines = [Line()]

    def warm(self, most: int) -> None:
        """A batch of one, of two, and the largest."""
        for size in sorted({1, 2, most}):
            self.model.infer(self.x[:size], seeds=self.seeds[:size])

    def work(self, v: int, here: list[int], now: Now) -> list[tuple[int, int]]:
        """Run a batch: all of it is answered."""
        rows = torch.tensor(here, device=self.x.device)
        inference = self.model.infer(self.x[rows], seeds=self.seeds[rows])
        last = len(self.model.node_names) - 1
        exits = inference.exit.tolist() if isinstance(self.model, DecisionGraph) else [last] * len(here)
        return list(zip(here, exits, strict=True))


class QueueServer:
    """Steps of stage queues, one at a time. x, seeds: as of `BatchServer`. force: paths to take, (n, V), or None."""

    def __init__(self, model: DecisionGraph, x: Tensor, seeds: Tensor, full: int, force: Tensor | None = None) -> None:
        self.x = x
        self.stages = model.queued(x, full=full, seeds=seeds, force=force)
        self.lines = [Line() for _ in model.node_names]

    def warm(self, most: int) -> None:
        """Every node that the first requests reach."""
        self.stages.arrive(torch.arange(min(most, len(self.x)), device=self.x.device))
        for v in range(len(self.lines)):
            while self.stages.length(v):
                self.stages.work(v)
        self.stages.forget()

    def work(self, v: int, here: list[int], now: Now) -> list[tuple[int, int]]:
        """Run a node on the first that wait there; whoever goes on waits in the line of the next node."""
        if v == 0:
            self.stages.arrive(torch.tensor(here, device=self.x.device))
        moved = self.stages.work(v)
        for w, rows in moved.onward:
            self.lines[w].put(rows.tolist(), now())
        return [(request, v) for request in moved.left.tolist()]


def server_for(model: Servable, x: Tensor, seeds: Tensor, batching: Batching) -> Server:
    """A replica that works as the batching says.

    Raises:
        CapabilityError: queues, of a gated net.
    """
    if batching.mode == "batches":
        return BatchServer(model, x, seeds)
    if not isinstance(model, DecisionGraph):
        raise CapabilityError("a gated net is served in batches only.", todo="Say batching: {modes: [batches]}.")
    return QueueServer(model, x, seeds, batching.max_batch)
