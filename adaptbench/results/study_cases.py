"""What a gate can watch in a study, case by case: which names a rule may call it by, and its figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from adaptbench.results.identity import COMPACTED, timed_id
from adaptbench.results.studies import chosen_points

FIGURES: dict[str, tuple[str, ...]] = {
    "reference": ("accuracy", "macs_full"),
    "point": ("accuracy", "macs_mean"),
    "executed": ("differing", "accuracy", "macs_mean"),
    "re-splits": ("broken",),
    "timed": ("net_speedup",),
}
"""Kind of case → metrics that it has."""
CASE_KINDS = tuple(FIGURES)
"""As `cases:` of a study's gate may name them."""


@dataclass(frozen=True, slots=True)
class Name:
    """What a case is called.

    Args:
        kind: one of `CASE_KINDS`. graph: its key. model: of the graph. of: the rest of the id.
        policy: "" of the reference.
    """

    kind: str
    graph: str
    model: str
    of: str
    policy: str = ""

    @property
    def told(self) -> dict[str, str]:
        """What patterns of a rule are held against."""
        case = f"{self.graph}/{self.of}"
        return {"case": case, "kind": self.kind, "graph": self.graph, "model": self.model, "policy": self.policy}


@dataclass(frozen=True, slots=True)
class StudyCase:
    """A case with its figures.

    Args:
        name: what it is called. row: the part of the record that holds the figures.
        among: samples or re-splits that its counts are counted among.
        ties: share of the samples with a decision at a tie. full: MACs of the reference.
    """

    name: Name
    row: Mapping[str, Any]
    among: int = 1
    ties: float = 0.0
    full: float = 0.0

    @property
    def id(self) -> str:
        """Of the case, as rows of the gate have it."""
        return self.name.told["case"]

    @property
    def figures(self) -> tuple[str, ...]:
        """Metrics that a rule may watch here; none of re-splits that no cut was fitted on."""
        return FIGURES[self.name.kind] if self.among else ()


_REFERENCE = {"accuracy": "reference_accuracy"}


def value_of(case: StudyCase, metric: str) -> float | None:
    """A figure of a case; None where there is none."""
    at = _REFERENCE.get(metric, metric) if case.name.kind == "reference" else metric
    value = case.row.get(at)
    return None if value is None else float(value)


def timed_point(policy: str, drop: float) -> str:
    """A chosen point on the clock, in words."""
    return f"{policy} at {100 * drop:g} points"


def reference_name(graph: str, model: str) -> Name:
    """Of the static reference."""
    return Name("reference", graph, model, "reference")


def point_name(graph: str, model: str, policy: str, label: str) -> Name:
    """Of a chosen point."""
    return Name("point", graph, model, f"{policy}/{label}", policy)


def executed_name(point: Name) -> Name:
    """Of a point that was executed."""
    return Name("executed", point.graph, point.model, f"{point.of}, executed", point.policy)


def resplit_name(graph: str, model: str, policy: str, epsilon: float) -> Name:
    """Of a rule's re-splits at one ε."""
    return Name("re-splits", graph, model, f"{policy}/ε = {epsilon:g}", policy)


def timed_name(graph: str, model: str, point: str, batch_size: int, mode: str = COMPACTED) -> Name:
    """Of a point at a batch size, in a mode."""
    return Name("timed", graph, model, timed_id(point, batch_size, mode), point.partition(" at ")[0])


def cases_of(key: str, graph: Mapping[str, Any]) -> Iterator[StudyCase]:
    """Every case of a graph of a record."""
    model, full = str(graph["model"]), float(graph["macs_full"])
    yield StudyCase(reference_name(key, model), graph, full=full)
    for name, policy in graph["policies"].items():
        for label, point in chosen_points(policy):
            case, ran = point_name(key, model, name, label), point.get("executed")
            ties = 0.0 if ran is None else (ran.get("ties") or 0) / (ran.get("n") or 1)
            yield StudyCase(case, point, ties=ties, full=full)
            if ran is not None:
                yield StudyCase(executed_name(case), ran, int(ran.get("n") or 1), ties, full)
    for row in graph["resplits"]:
        yield StudyCase(resplit_name(key, model, row["policy"], row["epsilon"]), row, row["count"])
    for row in graph["wall_clock"]:
        yield StudyCase(timed_name(key, model, row["point"], row["batch_size"], row.get("mode") or COMPACTED), row)
