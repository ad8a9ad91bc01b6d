"""The stages of a study with a guess of their seconds, for words about a whole run; see `adaptbench.bench.ahead`."""

from __future__ import annotations

from adaptbench.experiment.ahead import Ahead, Stage
from adaptbench.study.plan import PlannedGraph, StudyPlan
from adaptbench.study.schema import Study

_MAC_S, _PASS_S = 2e-10, 5e-5  # of an input, on a core of our days
_FIT_S, _SWEEP_S, _RESPLIT_S, _STREAM_S = 1.0, 0.05, 0.05, 2.0  # of a policy; of an order
_POINTS = 4  # both policies at the two ends of the drops


def stages_of(plan: StudyPlan) -> list[Stage]:
    """Of each graph in order, named as their work announces itself; most of them may be kept, and pass unsaid."""
    return [stage for graph in plan.graphs for stage in _stages(graph, plan.spec)]


class StudyAhead(Ahead):
    """Enters a stage by the words that its work begins with: the next stage whose name they start with.

    Graphs have stages of the same names, so nothing before the present one is looked at; a point that is executed
    after another of its policy stays in its stage.
    """

    def begin(self, stage: str, total: int) -> None:
        """A stage starts."""
        at = max(self._at, 0)
        found = next((i for i, one in enumerate(self.stages[at:], at) if stage.startswith(one.name)), None)
        if found is not None:
            self._at, self._from, self._share = found, 0.0, 0.0
        super().begin(stage, total)

    def end(self) -> None:
        """The stage is over; said twice, it is over once."""
        super().end()
        self.leave()


def _stages(graph: PlannedGraph, spec: Study) -> list[Stage]:
    input_s = _PASS_S + _MAC_S * sum(graph.model.node_macs)
    policies, test = len(spec.policies), len(graph.test)

    def log(role: str) -> Stage:
        split = graph.splits[role]
        return Stage(f"logging  {split.role}", 1, len(split) * input_s, ("log",))

    found = [log("calibration"), *([log("training")] if graph.training is not None else [])]
    found.append(Stage(f"fitting  {graph.key}", policies, policies * _FIT_S, ("fit",)))
    found.append(log("test"))
    found.append(Stage(f"sweeping  {graph.key}", 1, policies * _SWEEP_S, ("sweep",)))
    # a point's seconds: each that follows is told as this stage again
    found += [Stage(f"executing  {name}", 1, test * input_s, ("execute",)) for name in spec.executed]
    if graph.model.structure.is_chain:
        if spec.resplits is not None:
            runs = spec.resplits.count * len(spec.resplits.policies)
            found.append(Stage("re-splitting", 1, runs * _RESPLIT_S, ("resplit",)))
        if spec.online is not None:
            found.append(Stage(f"streaming  {graph.key}", 1, len(spec.online.orders) * _STREAM_S, ("stream",)))
    if spec.measure is not None:
        of = spec.measure
        block_s = (1 + _POINTS * len(of.modes)) * max(of.window_s, of.samples * input_s)
        found += [
            Stage(f"measuring  batch {size},", of.blocks, (of.blocks + 1) * block_s, ("session",))
            for size in of.batch_sizes
        ]
    return found
