"""Policies with state across samples: what they see, how a stream is run through them, what is kept.

Such a policy makes a sample's path and cost hang on the samples before it. The order is therefore part of the result:
it is stored in every record, and figures are given over several orders (`over_orders`).
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from adaptbench.adaptive.graph import DecisionGraph
from adaptbench.adaptive.log import LoggedSamples, is_correct
from adaptbench.adaptive.model import AdaptiveModel
from adaptbench.adaptive.outcome import seeds_from_content, tie_margin
from adaptbench.adaptive.policy import Policy, guard_fits
from adaptbench.adaptive.replay import replay
from adaptbench.adaptive.structure import Structure
from adaptbench.adaptive.watching import Watching, cheapest_actions
from adaptbench.errors import CapabilityError, PolicyError, UsageError


@dataclass(frozen=True, slots=True)
class Observation:
    """What a deployment knows after a window of n samples.

    Args:
        exits: (n,) int64, the node each answer was given at.
        answers: (n,) int64, the class returned.
        path: (n, V) bool, nodes run, looking included.
        logits: (n, V, C) of the nodes run, zero elsewhere.
        costs: (n,) float64 paid, looking included.
        looking: (n,) float64, the part of `costs` spent beyond the exit.
        labels: (n,) int64 for policies that declare `needs_labels`, else None.
    """

    exits: Tensor
    answers: Tensor
    path: Tensor
    logits: Tensor
    costs: Tensor
    looking: Tensor
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.exits)

    @property
    def predictions(self) -> Tensor:
        """(n, V) int64, the class each node would return; −1 where it did not run."""
        return torch.where(self.path, self.logits.argmax(-1), -1)


class OnlinePolicy(ABC):
    """Hands out a plain policy before each window and learns from what the window showed.

    All that changes lives in `memory`, JSON types only, so that it can be stored, copied and set back; everything else
    is a setting. `policy()` and `looking()` only read it; `observe()` is the one place that writes it.
    """

    name: ClassVar[str] = "online"
    needs_labels: ClassVar[bool] = False
    knob: ClassVar[str | None] = None
    """The setting that `knob_value` follows over the windows, when there is one."""

    structure: Structure
    node_costs: Tensor
    memory: dict[str, Any]

    def __init_subclass__(cls, **more: Any) -> None:
        """Whatever fits refuses samples that are there to judge."""
        super().__init_subclass__(**more)
        guard_fits(cls)

    def bind(self, structure: Structure, node_costs: Tensor) -> None:
        """Take a graph and its (V,) float64 increments, and start anew.

        Raises:
            PolicyError: not one positive cost a node.
        """
        if node_costs.shape != (len(structure.names),) or not bool((node_costs > 0).all()):
            raise PolicyError(
                f"costs {node_costs.tolist()} came with {len(structure.names)} nodes.",
                why="What is paid is the sum of the increments on a sample's path.",
                todo="Give one increment a node, all above zero: log.node_costs or model.node_macs.",
            )
        self.structure, self.node_costs = structure, node_costs.double().cpu()
        self.reset()

    @abstractmethod
    def initial(self) -> dict[str, Any]:
        """The memory before the first sample."""

    @abstractmethod
    def policy(self) -> Policy:
        """The policy in force for the next window."""

    @abstractmethod
    def observe(self, seen: Observation) -> None:
        """Learn from a window."""

    def looking(self, n: int) -> Tensor | None:
        """(n,) int64: for each sample of the next window the node to run on to after its exit, −1 for none.

        The answer stays that of the exit. A target that was run already, or that no hand-over leads to, costs nothing
        and shows nothing.
        """
        return None

    @property
    def knob_value(self) -> float | None:
        """The setting for the next window."""
        return None

    def describe(self) -> dict[str, Any]:
        """Settings for the record, JSON types only; not the memory."""
        return {}

    def reset(self) -> None:
        """Forget every sample."""
        self.memory = self.initial()

    def state(self) -> dict[str, Any]:
        """The memory, for `restore`."""
        return copy.deepcopy(self.memory)

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state kept earlier."""
        self.memory = copy.deepcopy(state)

    def copy(self) -> Self:
        """One with the same memory that goes its own way from here."""
        return copy.deepcopy(self)


@dataclass(frozen=True, slots=True)
class OnlineRecord:
    """A stream run through an online policy; tensors stand in the order of the stream.

    Args:
        name, settings: of the policy.
        order: (T,) int64, index of the sample that came at each moment.
        window: samples between two changes of the policy.
        exit: (T,) int64. path: (T, V) bool, looking included. tie: (T,) bool.
        cost: (T,) float64, everything paid; looking: (T,) float64, the part of it beyond the exit.
        logits: (T, C) returned.
        knob: the setting of each window, None where there is none.
        state: the memory at the end.
        macs: (T,) int64 as `infer` counted them, policies included; None for a replay.
    """

    name: str
    settings: dict[str, Any]
    order: Tensor
    window: int
    exit: Tensor
    path: Tensor
    tie: Tensor
    cost: Tensor
    looking: Tensor
    logits: Tensor
    knob: tuple[float | None, ...]
    state: dict[str, Any] = field(repr=False)
    macs: Tensor | None = None

    def __len__(self) -> int:
        return len(self.order)

    @property
    def prediction(self) -> Tensor:
        """(T,) int64, the class returned."""
        return self.logits.argmax(1)

    @property
    def looked(self) -> Tensor:
        """(T,) bool: some node ran beyond the exit."""
        return self.looking > 0

    def correct(self, labels: Tensor, top: int = 1) -> Tensor:
        """(T,) bool. labels: (N,) of the samples, in their own order."""
        return is_correct(self.logits, labels[self.order], top)


def shuffled(n: int, seed: int) -> Tensor:
    """(n,) int64, an order of n samples that only the seed decides."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


def run_online(
    online: OnlinePolicy,
    source: LoggedSamples | Tensor,
    structure: Structure | None = None,
    node_costs: Tensor | None = None,
    *,
    order: Tensor | None = None,
    window: int = 1,
    labels: Tensor | None = None,
    seeds: Tensor | None = None,
    resume: bool = False,
) -> OnlineRecord:
    """Replay a stream on logged logits; `run_online_on_model` must agree.

    Args:
        online: bound to the graph and reset here, unless `resume`.
        source: a log, or (N, V, C) logits with `structure` and `node_costs`.
        order: (T,) indices into the samples, repeats allowed (default: as they stand).
        window: W ≥ 1; the last window may be shorter.
        labels: (N,) for policies that declare `needs_labels`; a log brings its own.
        seeds: (N,) int64 for policies in force that draw (default: the sample's index).
        resume: go on from the memory as it is.

    Raises:
        UsageError: structure or costs missing, a window below 1, an index out of range.
        PolicyError: the policy does not fit the graph, or the one in force needs labels.
        CapabilityError: labels are needed and missing.
    """
    if isinstance(source, LoggedSamples):
        logits, labels = source.logits, source.labels if labels is None else labels
        structure, node_costs = structure or source.structure, source.node_costs if node_costs is None else node_costs
    else:
        logits = source
    if structure is None or node_costs is None:
        raise UsageError(
            "bare logits came without the graph's structure or its costs.",
            todo="Give structure and node_costs, or a log that holds both.",
        )
    seeds = torch.arange(len(logits)) if seeds is None else seeds
    if not resume:
        online.bind(structure, node_costs)

    def execute(watch: Watching, rows: Tensor) -> Tensor | None:
        watch.bind(structure)
        with watch.writing():
            replay(watch, structure, logits[rows], seeds=torch.arange(len(rows)))
        return None

    return _stream(online, len(logits), execute, order=order, window=window, labels=labels, seeds=seeds)


def run_online_on_model(
    online: OnlinePolicy,
    model: AdaptiveModel,
    x: Tensor,
    *,
    order: Tensor | None = None,
    window: int = 1,
    labels: Tensor | None = None,
    node_costs: Tensor | None = None,
    seeds: Tensor | None = None,
    resume: bool = False,
) -> OnlineRecord:
    """Run a stream for real: each window is a batch through `infer`, looking goes on in the same pass.

    The model's own policy is back in force afterwards.

    Args:
        x: (N, C, H, W) inside the domain; order, window, labels, resume: as for `run_online`.
        node_costs: (V,) increments in any unit (default: the model's node MACs).
        seeds: (N,) int64 (default: a function of each sample's content, as in `infer`).

    Raises:
        CapabilityError: the model is no decision graph, or labels are needed and missing.
        UsageError, PolicyError: as for `run_online`.
    """
    if not isinstance(model, DecisionGraph):
        raise CapabilityError(
            f"{type(model).__name__} has no policy to exchange.",
            why="A policy with state is put into the graph's place for one, window by window.",
            todo="Use a DecisionGraph: MultiExit, Cascade, NetworkDag.",
        )
    now = (torch.tensor(model.node_macs) if node_costs is None else node_costs).double().cpu()
    if not resume:
        online.bind(model.structure, now)
    elif hasattr(online, "memory") and not torch.equal(online.node_costs, now):
        raise UsageError(
            f"'{online.name}' began at costs {online.node_costs.tolist()} and was to go on at {now.tolist()}.",
            why="What it has learned is about the costs that it began with.",
            todo="Begin anew, or give the node_costs that it began with.",
        )
    seeds = seeds_from_content(x) if seeds is None else seeds

    def execute(watch: Watching, rows: Tensor) -> Tensor:
        watch.near = tie_margin(model.taken(x).dtype)
        model.policy = watch.to(x.device)
        prices = torch.tensor(model.predict_macs)  # the nodes are counted here, before anything is written down
        rows = rows.to(x.device)
        with watch.writing():
            inference = model.infer(x[rows], seeds=torch.arange(len(rows), device=x.device))
        # infer prices the answer where the pass ended; it was made at the exit
        return inference.macs.cpu() + prices[watch.exit.cpu()] - prices[inference.exit.cpu()]

    own = model.policy
    try:
        return _stream(online, len(x), execute, order=order, window=window, labels=labels, seeds=seeds)
    finally:
        model.policy = own


def over_orders(
    make_online: Callable[[], OnlinePolicy],
    source: LoggedSamples | Tensor,
    structure: Structure | None = None,
    node_costs: Tensor | None = None,
    *,
    orders: Sequence[int],
    window: int = 1,
    labels: Tensor | None = None,
    seeds: Tensor | None = None,
) -> list[OnlineRecord]:
    """One record a shuffle. orders: seeds of `shuffled`; the rest as for `run_online`."""
    n = len(source)
    return [
        run_online(
            make_online(),
            source,
            structure,
            node_costs,
            order=shuffled(n, seed),
            window=window,
            labels=labels,
            seeds=seeds,
        )
        for seed in orders
    ]


def _stream(
    online: OnlinePolicy,
    n: int,
    execute: Callable[[Watching, Tensor], Tensor | None],
    *,
    order: Tensor | None,
    window: int,
    labels: Tensor | None,
    seeds: Tensor,
) -> OnlineRecord:
    order = torch.arange(n) if order is None else order.to(torch.int64).cpu()
    if window < 1 or order.ndim != 1 or not len(order) or int(order.min()) < 0 or int(order.max()) >= n:
        raise UsageError(
            f"windows of {window} were asked for, over an order of shape {tuple(order.shape)} on {n} samples.",
            todo="Give window ≥ 1 and a one-dimensional order of indices below the number of samples.",
        )
    if not hasattr(online, "memory"):
        raise UsageError(f"'{online.name}' was to go on and never began.", todo="bind() it first, or leave resume out.")
    if online.needs_labels and labels is None:
        raise CapabilityError(f"the policy '{online.name}' learns from labels.", todo="Give labels=y.")
    onward = cheapest_actions(online.structure, online.node_costs)
    parts: list[tuple[Tensor, ...]] = []
    macs: list[Tensor] = []
    knob: list[float | None] = []
    for rows in torch.split(order, window):
        policy = online.policy()
        if policy.needs_labels:
            raise PolicyError(
                f"'{online.name}' put '{policy.name}' in force, which looks at labels.",
                todo="Hand out a policy that can be deployed.",
            )
        knob.append(online.knob_value)
        watch = Watching(policy, online.structure, onward, len(rows), online.looking(len(rows)), seeds[rows])
        counted = execute(watch, rows)
        if counted is not None:
            macs.append(counted)
        known = labels[rows].cpu() if online.needs_labels and labels is not None else None
        seen = _observation(watch, online.node_costs, known)
        online.observe(seen)
        parts.append((seen.exits, seen.path, watch.tie.cpu(), seen.costs, seen.looking, watch.answers.cpu()))
    leaves, path, tie, cost, looking, logits = (torch.cat(column) for column in zip(*parts, strict=True))
    return OnlineRecord(
        online.name, online.describe(), order, window, leaves, path, tie, cost, looking, logits,
        tuple(knob), online.state(), torch.cat(macs) if macs else None,
    )  # fmt: skip


def _observation(watch: Watching, node_costs: Tensor, labels: Tensor | None) -> Observation:
    leaves, path, logits = watch.exit.cpu(), watch.path.cpu(), watch.logits.cpu()
    beyond = path & (torch.arange(path.shape[1]) > leaves[:, None])
    return Observation(
        leaves,
        watch.answers.cpu().argmax(1),
        path,
        logits,
        path.double() @ node_costs,
        beyond.double() @ node_costs,
        labels,
    )
