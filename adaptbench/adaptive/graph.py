"""Multi-exit nets, cascades, network selection and mixtures of them: nodes, hand-overs, and a policy that decides."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from adaptbench.adaptive.compacted import compacted_pass
from adaptbench.adaptive.cost_tables import CostTables
from adaptbench.adaptive.domain import Domain
from adaptbench.adaptive.log import CalibrationLog
from adaptbench.adaptive.model import AdaptiveModel, frozen
from adaptbench.adaptive.node_counting import NodeCosts, count_nodes
from adaptbench.adaptive.outcome import Inference, Relaxation, Signals, seeds_from_content, tie_margin
from adaptbench.adaptive.parts import Decided, Lap, Mode, no_lap
from adaptbench.adaptive.plans import GraphPlan, one_way, plan_of
from adaptbench.adaptive.policy import NeverStop, Policy, as_policy, edge_margins, require_per_pixel
from adaptbench.adaptive.queues import Stages, queued_pass
from adaptbench.adaptive.reaching import reaches_pictures
from adaptbench.adaptive.relaxed import macs_along, relaxed
from adaptbench.adaptive.rows import recorded
from adaptbench.adaptive.splits import Split
from adaptbench.adaptive.structure import Structure, checked_force
from adaptbench.adaptive.tokens import without_padding
from adaptbench.adaptive.topology import check_topology, edges_of, extreme_costs, reference_nodes, simple_paths
from adaptbench.adaptive.writes import apart
from adaptbench.errors import CapabilityError

INPUT = "input"


@dataclass(frozen=True, slots=True)
class Node:
    """One piece of compute that ends in a prediction.

    Args:
        name: unique in the graph.
        stage: features from what the node reads; a tensor or a tuple of tensors, batch first.
        head: logits (n, C), or (n, C, H, W), from the stage's features; None where the stage returns logits itself.
        reads: "input", or the node whose features the stage continues.
        to: names of the nodes it may hand over to.
    """

    name: str
    stage: nn.Module
    head: nn.Module | None = None
    reads: str = INPUT
    to: tuple[str, ...] = ()


class DecisionGraph(AdaptiveModel):
    """Nodes in topological order and a policy; early exit, cascade and network DAG are all one.

    Args:
        nodes: the first is the entry, each hands over to later ones only.
        domain: what inputs it takes.
        n_classes: C.
        policy: decides at each node with a way on; without one, a chain runs to its end.
        reference: names of the nodes that make the static reference, in order (default: the last and what it reads).
        shape: the word for reports.

    Raises:
        GraphError: names, edges or readers that do not fit together.
    """

    _costs: CostTables[NodeCosts]

    def __init__(
        self,
        nodes: Sequence[Node],
        *,
        domain: Domain,
        n_classes: int,
        policy: Policy | None = None,
        reference: Sequence[str] | None = None,
        shape: str = "mixed",
    ) -> None:
        super().__init__()
        order = check_topology([(n.name, n.reads, n.to) for n in nodes])
        self.domain, self.n_classes, self.shape = domain, n_classes, shape
        self.node_names = self.exit_names = tuple(n.name for n in nodes)
        self.stages = nn.ModuleList(n.stage for n in nodes)
        self.heads = nn.ModuleList(n.head if n.head is not None else nn.Identity() for n in nodes)
        self.reads = order.reads
        self.structure = Structure(self.node_names, order.successors, n_classes)
        self.last_reader = [max([w for w, r in enumerate(self.reads) if r == v], default=-1) for v in range(len(nodes))]
        self.reference = reference_nodes(self.node_names, self.reads, reference)
        self.policy = policy if policy is not None else NeverStop()
        _ = self._table  # nodes that do not fit together are refused here

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "policy":
            self._bound(value)
        super().__setattr__(name, value)

    def under(self, policy: Policy) -> Self:
        """The same net, its weights shared, under a copy of another policy; this one keeps its own.

        Raises:
            PolicyError: the policy was not made for such a graph.

        >>> from torch import nn
        >>> from adaptbench import MultiExit
        >>> from adaptbench.policies import UniformThreshold
        >>> heads = [nn.Linear(4, 3), nn.Linear(8, 3)]
        >>> net = MultiExit(stages=[nn.Flatten(), nn.Linear(4, 8)], heads=heads, input_shape=(1, 2, 2))
        >>> early = net.under(UniformThreshold(0.9))
        >>> early.policy_name, net.policy_name, early.heads[0].weight is net.heads[0].weight
        ('uniform', 'never-stop', True)
        """
        self._bound(policy)
        own = copy.deepcopy(policy).to(self._blank().device).eval()
        twin = self._twin({id(self.policy): own})
        twin.policy = own
        return twin

    def _bound(self, policy: Any) -> None:
        as_policy(policy).bind(self.structure)
        if self.per_pixel:
            require_per_pixel(policy)

    def shown(self, answer: Tensor) -> Tensor:
        """(n, C) what policies see of a node's answer: the answer itself, where it is one of (n, C)."""
        return answer

    # ------------------------------------------------------------------ the hard pass

    def _run(self, x: Tensor, *, seeds: Tensor | None, labels: Tensor | None, force: Tensor | None) -> Inference:
        return self._recorded(x, None, seeds, labels, force)

    @property
    def modes(self) -> tuple[Mode, ...]:
        """With stage queues; what a subclass does instead of the pass has none."""
        return (*super().modes, "queues") if type(self)._run is DecisionGraph._run else super().modes

    def _run_queued(
        self, x: Tensor, full: int, *, seeds: Tensor | None, labels: Tensor | None, force: Tensor | None
    ) -> Inference:
        return self._recorded(x, full, seeds, labels, force)

    def _recorded(
        self, x: Tensor, full: int | None, seeds: Tensor | None, labels: Tensor | None, force: Tensor | None
    ) -> Inference:
        plan = self._planned(x)
        self.policy.check_costs(plan.costs.node)
        force = self._forced(x, labels, force)
        out, decided = self._hard_pass(x, plan, seeds, force, no_lap, full)
        return recorded(decided, out, plan.costs, tie_margin(x.dtype))

    def serve(self, x: Tensor, *, seeds: Tensor | None = None, lap: Lap = no_lap, full: int | None = None) -> Tensor:
        """The hard pass and nothing beside it. full: through stage queues, so many samples at once."""
        if type(self)._run is not DecisionGraph._run:  # what a subclass does instead is what is deployed
            return super().serve(x, seeds=seeds, lap=lap, full=full)
        x = self.taken(x)
        return self._hard_pass(x, self._planned(x), seeds, self._forced(x, None, None), lap, full)[0]

    def _hard_pass(
        self, x: Tensor, plan: GraphPlan, seeds: Tensor | None, force: Tensor | None, lap: Lap, full: int | None
    ) -> tuple[Tensor, Decided]:
        """(n, C) answers, and the way of each row; through stage queues where `full` is said."""
        if seeds is None and plan.policy.draws:
            seeds = seeds_from_content(x)
        if full is None:
            return compacted_pass(plan, x, seeds, force, lap)
        return queued_pass(plan, x, seeds, force, lap, full)

    def _planned(self, x: Tensor) -> GraphPlan:
        """What a pass of such inputs asks of each node; made once inside `serving`."""
        key = ("plan", id(self), x.shape[1:], x.dtype, x.device)  # a twin with compiled parts shares these tables
        return self._costs.kept(key, lambda: plan_of(self, self._counted(x), DecisionGraph.shown))

    def queued(self, x: Tensor, *, full: int, seeds: Tensor | None = None, force: Tensor | None = None) -> Stages:
        """The stage queues of a service whose samples come one by one; for use inside `serving`.

        Args:
            x: inside the domain: everything that will come. full: samples that a node runs on at once, at most.
            seeds, force: as for `infer`.

        Raises:
            CapabilityError: a subclass with a pass of its own has none.
        """
        if "queues" not in self.modes:
            raise CapabilityError("this net has no stage queues: it runs a pass of its own.", todo="Run whole batches.")
        x = self.entered(self.taken(x))
        if self.policy.draws and seeds is None:
            seeds = seeds_from_content(x)
        return Stages(self._planned(x), x, seeds, self._forced(x, None, force), no_lap, full)

    def _node(self, v: int, given: Any, costs: NodeCosts) -> tuple[Any, Tensor]:
        """Features and logits of a node; parts that work in place are given a copy."""
        features = self.stages[v](apart(given) if costs.stage_writes[v] else given)
        return features, self.heads[v](apart(features) if costs.head_writes[v] else features)

    def _decide(self, v: int, signals: Signals, force: Tensor | None) -> tuple[Tensor | bool, Tensor | None]:
        """(n,) action, 0 or False stops, of a lone row itself; (n,) how far from a tie it was, None where forced."""
        policy: Policy = self._modules["policy"]  # type: ignore[assignment]
        if force is not None:
            if not self.needs_labels:
                policy.scores(v, signals)  # its cost is paid, whatever is forced
            ways = torch.tensor(self.structure.successors[v], device=force.device)
            nearest = torch.where(force[:, ways], ways, len(self.node_names))  # nodes run in order: the next one is it
            return torch.where(force[:, ways].any(1), nearest.argmin(1) + 1, 0), None
        if len(signals.ways) == 1:
            best = one_way(policy, v, signals)
            return best.item() > 0 if best.shape[0] == 1 else best > 0, best
        best, edge = edge_margins(policy.scores(v, signals)).max(1)
        return torch.where(best > 0, edge + 1, 0), best

    def _forced(self, x: Tensor, labels: Tensor | None, force: Tensor | None) -> Tensor | None:
        """The caller's paths, or an oracle's; None where the policy decides on the way."""
        if force is None and self.needs_labels:
            if labels is None:
                raise CapabilityError(f"the policy '{self.policy_name}' needs labels.", todo="Call infer(x, labels=y).")
            force = self.policy.choose(  # type: ignore[operator]
                self._dense(x)[1], labels, self.structure, self._cost_table(x).node
            )
        return None if force is None else checked_force(force.to(x.device), len(x), self.structure)

    # ------------------------------------------------------------------ the dense pass

    def _dense(self, x: Tensor, last: bool = True) -> tuple[list[Any], Tensor]:
        features, answers = self._everything(x, last)
        logits = [self.shown(answer) for answer in answers]
        if not last:
            logits.append(torch.zeros_like(logits[0]))
        return features, torch.stack(logits, 1)

    def _everything(self, x: Tensor, last: bool = True) -> tuple[list[Any], list[Tensor]]:
        """Features and answers of every node on every sample. last: False leaves the last node out."""
        features: list[Any] = []
        answers: list[Tensor] = []
        x = self.taken(x)
        costs = self._counted(x)
        x = self.entered(x)
        for v, source in enumerate(self.reads if last else self.reads[:-1]):
            given, answer = self._node(v, x if source < 0 else features[source], costs)
            features.append(given)
            answers.append(answer)
        return features, answers

    def dense_logits(self, x: Tensor) -> Tensor:
        """(N, V, C): every node on every sample, as policies see it."""
        return self._dense(x)[1]

    def _has_gradients(self) -> bool:
        return reaches_pictures(self, self.dense_logits)

    def _relax(self, x: Tensor, *, temperature: float, seeds: Tensor | None) -> Relaxation:
        return self._relaxed(x, self.dense_logits(x), temperature, seeds)

    def _relax_decisions(self, x: Tensor, *, temperature: float, seeds: Tensor | None) -> Relaxation:
        own = (DecisionGraph._relax, DecisionGraph.dense_logits)
        if len(self.reads) < 2 or (type(self)._relax, type(self).dense_logits) != own:  # a subclass's own pass
            return self._relax(x, temperature=temperature, seeds=seeds)
        return self._relaxed(x, self._dense(x, last=False)[1], temperature, seeds)

    def _relaxed(self, x: Tensor, logits: Tensor, temperature: float, seeds: Tensor | None) -> Relaxation:
        costs = self._cost_table(x)
        logits = logits.to(costs.decides_in)
        if self.policy.draws and seeds is None:
            seeds = seeds_from_content(x)
        return relaxed(self.policy, self.structure, logits, costs, temperature=temperature, seeds=seeds)

    # ------------------------------------------------------------------ costs

    def _cost_table(self, x: Tensor) -> NodeCosts:
        """What a pass pays by; the policy in force may refuse it."""
        costs = self._counted(x)
        self.policy.check_costs(costs.node)
        return costs

    def _counted(self, x: Tensor) -> NodeCosts:
        key = (id(self.policy), *x.shape[1:], x.dtype, x.device)
        return self._costs.of(key, self, lambda: count_nodes(self, x[:1].detach()))

    @property
    def _table(self) -> NodeCosts:
        return self._costs.noted(self, lambda: self._counted(self._blank()))

    @property
    def node_macs(self) -> tuple[int, ...]:
        """Stage and head of each node; with the first, what stands in front of the net."""
        return self._table.node

    @property
    def policy_macs(self) -> tuple[int, ...]:
        """The decision at each node."""
        return self._table.policy

    @property
    def predict_macs(self) -> tuple[int, ...]:
        """Aggregating the prediction when leaving at each node."""
        return self._table.predict

    def macs_of(self, on: Tensor) -> Tensor:
        """As the hard pass counts them."""
        return macs_along(self.structure.successors, on, self._table)

    def _extremes(self) -> tuple[int, int]:
        table = self._table
        visit = [a + b for a, b in zip(table.node, table.policy, strict=True)]
        return self._costs.kept("extremes", lambda: extreme_costs(self.structure.successors, visit, table.predict))

    @property
    def min_macs(self) -> int:
        """The cheapest way from the entry to any exit."""
        return self._extremes()[0]

    @property
    def max_macs(self) -> int:
        """The dearest way."""
        return self._extremes()[1]

    @property
    def macs_full(self) -> int:
        """Stages of the reference and its last head; no other head, no policy, no defence."""
        table = self._table
        return sum(table.stage[v] for v in self.reference) + table.head[self.reference[-1]]

    @property
    def uncounted(self) -> tuple[str, ...]:
        """Operators without a MAC formula."""
        return self._table.uncounted

    @property
    def policy_name(self) -> str:
        """The policy's registry name."""
        return self.policy.name if len(self.node_names) > 1 else "none"

    @property
    def needs_labels(self) -> bool:
        """True under an oracle."""
        return self.policy.needs_labels

    # ------------------------------------------------------------------ around it

    def run_reference(self, x: Tensor) -> Tensor:
        """(N, C) of the static reference: its stages one after another and the last head."""
        with frozen(self), torch.no_grad():
            return self._reference(self.taken(x))

    def serve_reference(self, x: Tensor) -> Tensor:
        """The reference and nothing beside it."""
        if type(self).run_reference is not DecisionGraph.run_reference:
            return super().serve_reference(x)
        return self._reference(self.taken(x))

    def _reference(self, x: Tensor) -> Tensor:
        features: Any = x
        writes = self._counted(x).stage_writes
        for v in self.reference:
            features = self.stages[v](apart(features) if writes[v] else features)
        return self.heads[self.reference[-1]](features)  # type: ignore[no-any-return]

    def paths(self) -> list[Tensor]:
        """Every way from the entry to an exit (at most 64, the cheapest and dearest always among them)."""
        table = self._table
        visit = [a + b for a, b in zip(table.node, table.policy, strict=True)]
        return [
            torch.tensor([v in way for v in range(len(visit))])
            for way in simple_paths(self.structure.successors, visit, table.predict, limit=64)
        ]

    @property
    def dearest_decisions(self) -> Tensor:
        """(D,) bool over the edges: those of the dearest way."""

        def pushed() -> Tensor:
            return torch.tensor(edges_of(self.paths()[:2][-1].tolist(), self.structure.edges), dtype=torch.bool)

        return self._costs.kept("dearest", pushed)

    def log(self, split: Split, *, chunk: int = 1000) -> CalibrationLog:
        """Logits of every node on every sample of a calibration split."""
        split.require("calibration", purpose="fitting a policy")
        device = self._blank().device
        with frozen(self), torch.no_grad():
            parts = [without_padding(self.domain, x.to(device), self.dense_logits) for x, _, _ in split.chunks(chunk)]
            logits = torch.cat([part.float().cpu() for part in parts])
        return self.logged(logits, split)

    def logged(self, logits: Tensor, split: Split, *, top: int = 1) -> CalibrationLog:
        """The log of logits (N, V, C) that this graph gave on a split, wherever they were computed."""
        return CalibrationLog(
            logits,
            split.y.clone(),
            self.structure,
            torch.tensor(self.node_macs),
            split.name,
            split.role,
            split.sha256,
            top=top,
        )
