"""What the gate of a suite watches, held against its cases: a rule that watches nothing would be green for ever."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from adaptbench.bench.suite import LoadedSuite, Suite
from adaptbench.errors import SuiteError
from adaptbench.registry import did_you_mean
from adaptbench.results.gate_rules import Rule, parse_gate
from adaptbench.results.identity import timed_id
from adaptbench.results.schema import KINDS

if TYPE_CHECKING:
    from adaptbench.bench.plan import Evaluation


def check_watched(loaded: LoadedSuite, evaluations: Iterable[Evaluation]) -> None:
    """Refuse patterns of the gate that name nothing, and rules that no case falls under.

    What the file names and an override took away (``-o conditions=[clean]``) is let pass: a check then says that
    nothing was compared.

    Args:
        loaded: the suite. evaluations: as planned.

    Raises:
        SuiteError: with file, line and rule.
    """
    records = [record for evaluation in evaluations for record in _records(evaluation, loaded.suite)]
    names = [*KINDS, *_names(loaded.suite), *_as_written(loaded)]
    for metric, given in loaded.suite.gate.items():
        for rule in parse_gate({metric: given}):
            _check(rule, loaded, records, names)


def _check(rule: Rule, loaded: LoadedSuite, records: list[dict[str, Any]], names: list[str]) -> None:
    place = loaded.located.where(("gate", rule.metric))
    if unknown := rule.idle(records, names):
        raise SuiteError(
            f"{place}: no case, kind, model or condition is called '{unknown[0]}'.",
            why="The rule would watch nothing and stay green for ever.",
            todo=f"{did_you_mean(unknown[0], names)}Names: {', '.join(dict.fromkeys(names))}; or patterns of case ids.",
        )
    if not loaded.overrides and not any(rule.watches(record) for record in records):
        raise SuiteError(
            f"{place}: no case of this suite is {' or '.join(rule.on)}.",
            why="The rule would watch nothing and stay green for ever.",
            todo="Leave the rule out, or name what the suite runs.",
        )


def _records(evaluation: Evaluation, suite: Suite) -> list[dict[str, Any]]:
    """What patterns are held against, a case each."""
    told = {
        "kind": evaluation.kind,
        "condition": evaluation.condition.id,
        "model": evaluation.loaded.name,
        "net": evaluation.entry.net,
        "policy": evaluation.policy,
        "evaluation": evaluation.id,
    }
    sizes = suite.measure.batch_sizes if suite.measure else []
    return [{**told, "case": case} for case in (evaluation.id, *(timed_id(evaluation.id, size) for size in sizes))]


def _names(suite: Suite) -> list[str]:
    told = [name for entry in suite.entries.values() for name in (entry.label, entry.net, entry.policy) if name]
    return [*told, *(condition.id for condition in suite.conditions)]


def _as_written(loaded: LoadedSuite) -> list[str]:
    """Names of the file without the overrides; none where it cannot be read without them."""
    try:
        return _names(Suite.model_validate(loaded.located.located.value)) if loaded.overrides else []
    except ValidationError:
        return []
