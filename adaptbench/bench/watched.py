"""What the gate of a suite watches, held against its cases."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from adaptbench.bench.suite import LoadedSuite, Suite
from adaptbench.experiment.watched import as_written, check_rules
from adaptbench.results.identity import timed_id
from adaptbench.results.schema import KINDS

if TYPE_CHECKING:
    from adaptbench.bench.plan import Evaluation


def check_watched(loaded: LoadedSuite, evaluations: Iterable[Evaluation]) -> None:
    """Refuse patterns of the gate that name nothing, and rules that no case falls under.

    Args:
        loaded: the suite. evaluations: as planned.

    Raises:
        SuiteError: with file, line and rule.
    """
    records = [record for evaluation in evaluations for record in _records(evaluation, loaded.suite)]
    check_rules(loaded, loaded.suite.gate, records, [*KINDS, *_names(loaded.suite), *as_written(loaded, Suite, _names)])


def _records(evaluation: Evaluation, suite: Suite) -> list[dict[str, Any]]:
    """What patterns are held against, a case each."""
    told = {
        "kind": evaluation.kind,
        "condition": evaluation.condition.id,
        "model": evaluation.loaded.name,
        "net": evaluation.entry.net,
        "policy": evaluation.policy,
        "defence": evaluation.entry.defence,
        "evaluation": evaluation.id,
    }
    spec = suite.measure
    timed = [
        {**told, "case": timed_id(evaluation.id, size, mode), "mode": mode}
        for size in (spec.batch_sizes if spec else ())
        for mode in (spec.modes if spec else ())
    ]
    return [{**told, "case": evaluation.id}, *timed]


def _names(suite: Suite) -> list[str]:
    entries = suite.entries.values()
    told = [name for entry in entries for name in (entry.label, entry.net, entry.policy, entry.defence) if name]
    modes = suite.measure.modes if suite.measure else []
    return [*told, *(condition.id for condition in suite.conditions), *modes]
