"""From a study to graphs: nets and splits, loaded and checked before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from adaptbench.adaptive import DecisionGraph, Split, TokenNetwork
from adaptbench.adaptive.pixels import refuse_pixels
from adaptbench.data import load_data
from adaptbench.errors import SuiteError
from adaptbench.experiment.options import Options
from adaptbench.experiment.timed import check_modes
from adaptbench.results.identity import COMPACTED
from adaptbench.study.schema import Graph, Study
from adaptbench.study.spec import LoadedStudy
from adaptbench.study.watched import check_watched
from adaptbench.zoo.factories import load_net


@dataclass(frozen=True, slots=True)
class PlannedGraph:
    """One net of a study on its data.

    Args:
        key, graph: of the study. model: the net. card: of its weights.
        calibration, test, training: splits; training only where a policy is fitted there.
    """

    key: str
    graph: Graph
    model: DecisionGraph
    card: dict[str, Any]
    calibration: Split
    test: Split
    training: Split | None

    @property
    def splits(self) -> dict[str, Split]:
        """By role."""
        by_role = {"calibration": self.calibration, "test": self.test, "training": self.training}
        return {role: split for role, split in by_role.items() if split is not None}

    def stages(self, spec: Study) -> list[tuple[str, str]]:
        """What will be done, in order: a stage, and how much of it."""
        points = len(spec.drops) + 1
        chain = self.model.structure.is_chain
        asked: list[tuple[str, str, bool]] = [
            *((f"log {role}", f"{len(split)} samples", True) for role, split in self.splits.items()),
            ("fit and choose", f"{len(spec.policies)} policies: {', '.join(spec.policies)}", True),
            ("replay on test", "every member of every family", True),
            ("execute", f"{points} points at most of each of {', '.join(spec.executed)}", bool(spec.executed)),
        ]
        if spec.resplits is not None:
            of = spec.resplits
            much = f"{of.count} times, {len(of.policies)} rules × {len(of.epsilons)} ε"
            asked.append(("re-split", much, chain))
        if spec.online is not None:
            asked.append(("stream", f"{len(spec.online.orders)} orders", chain))
        if spec.gradient_noise:
            asked.append(("gradient noise", f"{len(spec.gradient_noise)} prices", chain))
        if spec.measure is not None:
            sizes = ", ".join(map(str, spec.measure.batch_sizes))
            modes = "" if spec.measure.modes == [COMPACTED] else f", {', '.join(spec.measure.modes)}"
            asked.append(("time", f"batch {sizes}{modes}, {spec.measure.blocks} blocks", True))
        return [(stage, much if applies else "not run: this graph is no chain") for stage, much, applies in asked]


@dataclass(frozen=True, slots=True)
class StudyPlan:
    """Everything that a study will do.

    Args:
        loaded: the study. graphs: in its order. notes: what data sets say of their files.
        limit: test samples at most.
    """

    loaded: LoadedStudy
    graphs: tuple[PlannedGraph, ...]
    notes: tuple[str, ...]
    limit: int | None

    @property
    def spec(self) -> Study:
        """The study's contents."""
        return self.loaded.study


def make_plan(loaded: LoadedStudy, options: Options) -> StudyPlan:
    """Load data and nets.

    Raises:
        SuiteError: a net without exits, or a rule of the gate that watches nothing, with file and line.
        DataMissingError, CheckpointError: what the study needs is not there.
    """
    spec, limit = loaded.study, options.at_most(loaded.study.limit)
    graphs, notes = [], {}
    for key, graph in spec.graphs.items():
        data = load_data(graph.data, root=options.data_root, download=options.download)
        net = load_net(graph.model, data.name, options, loaded.located.folder)
        if not isinstance(net.model, DecisionGraph):
            kind = "tokens that leave" if isinstance(net.model, TokenNetwork) else "gates"
            raise SuiteError(
                f"{loaded.located.where(('graphs', key, 'model'))}: '{graph.model}' has {kind}, not exits.",
                why="A study compares policies on logged exits.",
                todo="Run it in an ordinary suite.",
            )
        with loaded.located.placed(("graphs", key, "model")):
            refuse_pixels(net.model, "a study")
        if spec.measure is not None:
            with loaded.located.placed(("graphs", key, "model")):
                check_modes(net.model, spec.measure.modes, graph.model)
        notes.update(dict.fromkeys(data.notes))
        training = data.split("train").first(spec.training_samples) if spec.looks_at_training else None
        graphs.append(
            PlannedGraph(
                key,
                graph,
                net.model,
                net.card,
                data.split("calibration"),
                data.split("test").first(limit),
                training,
            )
        )
    check_watched(loaded, graphs)
    return StudyPlan(loaded, tuple(graphs), tuple(notes), limit)
