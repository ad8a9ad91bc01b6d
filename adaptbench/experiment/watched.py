"""What a gate watches, held against the cases there are: a rule that watches nothing would be green for ever."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from adaptbench.errors import SuiteError
from adaptbench.experiment.source import Loaded
from adaptbench.registry import did_you_mean
from adaptbench.results.gate_rules import METRICS, Metric, Rule, parse_gate

Kind = TypeVar("Kind", bound=BaseModel)


def check_rules(
    loaded: Loaded,
    gate: Mapping[str, Any],
    cases: Sequence[dict[str, Any]],
    names: Iterable[str],
    metrics: Mapping[str, Metric] = METRICS,
    having: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Refuse patterns of a gate that name nothing, and rules that no case falls under.

    What the file names and an override took away (``-o conditions=[clean]``) is let pass: a check then says that
    nothing was compared.

    Args:
        loaded: the file. gate: its section, which is one. cases: what patterns are held against, a case each.
        names: that need no case. metrics: that a file of this kind can watch.
        having: case id → metrics that it has; None where each may have any.

    Raises:
        SuiteError: with file, line and rule.
    """
    known = list(names)
    for metric, given in gate.items():
        for rule in parse_gate({metric: given}, metrics):
            _check(rule, loaded, cases, known, having)


def as_written(loaded: Loaded, kind: type[Kind], names: Callable[[Kind], list[str]]) -> list[str]:
    """Names of the file without the overrides; none where it cannot be read without them.

    Args:
        kind: what the file is parsed to. names: that patterns may use, of one.
    """
    try:
        return names(kind.model_validate(loaded.located.located.value)) if loaded.overrides else []
    except ValidationError:
        return []


def _check(
    rule: Rule,
    loaded: Loaded,
    cases: Sequence[dict[str, Any]],
    names: list[str],
    having: Mapping[str, Sequence[str]] | None,
) -> None:
    place = loaded.located.where(("gate", rule.metric))
    if unknown := rule.idle(cases, names):
        kinds = "graph, kind, model or policy" if having is not None else "kind, model or condition"
        raise SuiteError(
            f"{place}: no case, {kinds} is called '{unknown[0]}'.",
            why="The rule would watch nothing and stay green for ever.",
            todo=f"{did_you_mean(unknown[0], names)}Names: {', '.join(dict.fromkeys(names))}; or patterns of case ids.",
        )
    watched = [case for case in cases if rule.watches(case)]
    if loaded.overrides or any(having is None or rule.metric in having[case["case"]] for case in watched):
        return
    kind = "suite" if having is None else "study"
    beyond = f" and has {rule.metric}" if watched else ""
    raise SuiteError(
        f"{place}: no case of this {kind} is {' or '.join(rule.on)}{beyond}.",
        why="The rule would watch nothing and stay green for ever.",
        todo=f"Leave the rule out, or name what the {kind} runs.",
    )
