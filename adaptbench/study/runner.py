"""Carries a study out, graph by graph, and puts the directory together; what was finished before is not done again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Unpack

from adaptbench.errors import LeakageError, SuiteError
from adaptbench.experiment.engines import engine_of, makers
from adaptbench.experiment.environment import check_device, describe_device
from adaptbench.experiment.keys import digest_of
from adaptbench.experiment.options import Asked, Options, options_of
from adaptbench.experiment.recording import RecordRunner, carry_out
from adaptbench.results.studies import SCHEMA, StudyRun
from adaptbench.results.study_reasons import with_reasons
from adaptbench.results.writer import RunWriter
from adaptbench.study.ahead import StudyAhead, stages_of
from adaptbench.study.graph_study import GraphStudy
from adaptbench.study.members import blame
from adaptbench.study.plan import StudyPlan, make_plan
from adaptbench.study.spec import LoadedStudy, load_study


def run_study(study: str | LoadedStudy, options: Options | None = None, /, **asked: Unpack[Asked]) -> StudyRun:
    """Execute a study and leave a directory.

    Args:
        study: a name, a path, or a loaded study. options: how; or its fields as keywords.

    Returns:
        The finished study. Logits, fits and finished graphs stay beside it under ``cells/``: another run with the same
        nets starts from them, and a finished study that is run again changes nothing.

    Raises:
        AdaptBenchError: what stands in the way of the whole study; whatever was computed is kept. A policy, stage or
            graph that fails on its own is null with its reason: see `StudyRun.incomplete`.
        LockedError: another process writes to the directory.
        Stopped: Ctrl-C; says what is kept.
    """
    options = options_of(options, asked)
    check_device(options.device)
    loaded = load_study(study, options.overrides) if isinstance(study, str) else study
    options.must_be_laid(loaded.overrides)
    plan = make_plan(loaded, options)
    return carry_out(loaded, options, lambda writer: Runner(plan, writer, options))


@dataclass(slots=True)
class _Done:
    """Graphs by key: their figures, cells with their windows, and why there are none."""

    figures: dict[str, Any]
    windows: list[str]
    failed: dict[str, str]


class Runner(RecordRunner[StudyRun]):
    """One execution of a plan into one directory."""

    opens = StudyRun

    def __init__(self, plan: StudyPlan, writer: RunWriter, options: Options) -> None:
        options = replace(options, progress=StudyAhead(options.progress, stages_of(plan)))
        super().__init__(plan.loaded, plan.spec.title, plan.limit, "", writer, options)
        self.plan = plan
        self.engine, folder = engine_of(options), plan.loaded.located.folder
        self.graphs = [
            GraphStudy(plan.spec, graph, writer, options, self.failures, self.engine, folder) for graph in plan.graphs
        ]

    def _content(self) -> str:
        """Hash of all that the figures hang on."""
        keys = [graph.clock_key for graph in self.graphs]
        return digest_of([self.plan.loaded.sha256, self.plan.limit, describe_device(self.options.device), *keys])

    def _so_far(self) -> str:
        done = sum(self.writer.has(graph.content_key) for graph in self.graphs)
        return f"{done} of {len(self.graphs)} graphs"

    def _close(self) -> None:
        self.engine.close()

    def _run(self) -> StudyRun:
        self._begin()
        done = self._graphs()
        spec = self.plan.spec
        figures = {
            "schema": SCHEMA,
            "kind": "study",
            "cite": spec.cite,
            "paper": spec.paper,
            "ours": spec.ours,
            "published": [figure.model_dump() for figure in spec.published],
            "graphs": done.figures,
            "failed_graphs": done.failed,
        }
        kept = [key for graph in self.graphs for key in graph.cells if self.writer.has(key)]
        engines = makers(made for graph in self.graphs for made in graph.logging.by.items())
        return self._finish([*kept, *done.windows], done.windows, with_reasons(figures), engines=engines)

    def _graphs(self) -> _Done:
        """Each graph's figures, or why there are none.

        Raises:
            SuiteError: there are none of any graph.
        """
        done = _Done({}, [], {})
        last: Exception | None = None
        for graph in self.graphs:
            try:
                figures, windows = graph.run()
            except LeakageError:
                raise
            except Exception as error:  # the other graphs stand
                done.failed[graph.key], last = blame(error), error
                self.failures.add(graph.key, error)
            else:
                done.figures[graph.key] = figures
                done.windows += windows
            self.options.progress.end()
        if not done.figures and last is not None:
            raise SuiteError(
                "; ".join(f"graph '{key}': {why}" for key, why in done.failed.items()),
                todo="Mend what is named; whatever was computed is kept.",
            ) from last
        return done

    def _manifest(self) -> dict[str, Any]:
        return {
            "seeds": [self.plan.spec.seed],
            "data": {
                f"{graph.key}/{role}": {"n": len(split), "split": split.role, "sha256": split.sha256}
                for graph in self.plan.graphs
                for role, split in graph.splits.items()
            },
            "gate": self.plan.spec.gate,
            "notes": [*self.plan.spec.notes, *self.plan.notes],
        }
