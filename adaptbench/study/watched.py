"""What the gate of a study watches, held against its cases."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import TYPE_CHECKING

from adaptbench.experiment.watched import as_written, check_rules
from adaptbench.results.gate_rules import OF_STUDIES
from adaptbench.results.studies import at_setting, for_drop, for_margin
from adaptbench.results.study_cases import (
    CASE_KINDS,
    FIGURES,
    Name,
    executed_name,
    point_name,
    reference_name,
    resplit_name,
    timed_name,
    timed_point,
)
from adaptbench.study.schema import Study
from adaptbench.study.spec import LoadedStudy

if TYPE_CHECKING:
    from adaptbench.study.plan import PlannedGraph


def check_watched(loaded: LoadedStudy, graphs: list[PlannedGraph]) -> None:
    """Refuse patterns of the gate that name nothing, and rules that no figure falls under.

    Args:
        loaded: the study. graphs: as planned.

    Raises:
        SuiteError: with file, line and rule.
    """
    names = [name for graph in graphs for name in _cases(loaded.study, graph)]
    having = {name.told["case"]: FIGURES[name.kind] for name in names}
    known = [*CASE_KINDS, *_names(loaded.study), *as_written(loaded, Study, _names)]
    check_rules(loaded, loaded.study.gate, [name.told for name in names], known, OF_STUDIES, having)


def _cases(spec: Study, graph: PlannedGraph) -> Iterator[Name]:
    """Of one graph, where nothing fails."""
    key, model = graph.key, graph.graph.model
    yield reference_name(key, model)
    chosen = [*map(for_drop, spec.drops), for_margin(spec.margin)]
    for policy in spec.policies:
        for label in [*chosen, *map(at_setting, spec.settings.get(policy, []))]:
            yield point_name(key, model, policy, label)
    for policy in spec.executed:
        for label in chosen:
            yield executed_name(point_name(key, model, policy, label))
    if spec.resplits is not None and graph.model.structure.is_chain:
        for policy in spec.resplits.policies:
            for epsilon in spec.resplits.epsilons:
                yield resplit_name(key, model, policy, epsilon)
    timed = product(spec.measure.batch_sizes, spec.measure.modes) if spec.measure is not None else ()
    for size, mode in timed:
        for policy in dict.fromkeys([spec.paper, spec.ours]):
            for drop in dict.fromkeys([spec.drops[0], spec.drops[-1]]):
                yield timed_name(key, model, timed_point(policy, drop), size, mode)


def _names(spec: Study) -> list[str]:
    models = [graph.model for graph in spec.graphs.values()]
    return [*spec.graphs, *models, *spec.policies, *(spec.resplits.policies if spec.resplits is not None else [])]
