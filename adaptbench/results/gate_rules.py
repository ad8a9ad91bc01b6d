"""What the ``gate`` section of a suite or study may say, and which way each metric is better."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

from adaptbench.errors import SuiteError
from adaptbench.registry import did_you_mean
from adaptbench.results.schema import Record

CRAFTED_ANEW_MARGIN = 0.05
"""Relative change that ``exact`` allows where inputs were crafted anew: optimisation amplifies last bits."""


class Source(StrEnum):
    """Where a metric's noise comes from, hence how it is compared."""

    SAMPLES = "samples"  # a function of per-sample means
    RECORD = "record"  # deterministic, known from the case record only
    SENSOR = "sensor"  # block windows of a meter
    TIMED = "timed"  # derived from windows, known from the case record only
    METERED = "metered"  # read by a black box's meter in the place of MACs, known from the case record only


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric that a gate can watch.

    Args:
        higher_is_better: its direction; there is no default.
        source: how it is compared.
        ratio: True where a relative change means something (costs); False for shares, compared by difference.
        worst: the value that no figure can be worse than; None where there is none.
    """

    higher_is_better: bool
    source: Source
    ratio: bool
    worst: float | None = None


METRICS: dict[str, Metric] = {
    "accuracy": Metric(True, Source.SAMPLES, ratio=False, worst=0.0),
    "accuracy_drop": Metric(False, Source.SAMPLES, ratio=False, worst=1.0),
    "miou": Metric(True, Source.RECORD, ratio=False, worst=0.0),
    "pixel_accuracy": Metric(True, Source.RECORD, ratio=False, worst=0.0),
    "miou_drop": Metric(False, Source.RECORD, ratio=False, worst=1.0),
    "macs_mean": Metric(False, Source.SAMPLES, ratio=True),
    "increase": Metric(False, Source.SAMPLES, ratio=False),
    "recovery": Metric(False, Source.SAMPLES, ratio=False, worst=1.0),
    "efficacy_step": Metric(True, Source.SAMPLES, ratio=False, worst=0.0),
    "macs_p99": Metric(False, Source.RECORD, ratio=True),
    "macs_cvar": Metric(False, Source.RECORD, ratio=True),
    "budget_violation": Metric(False, Source.RECORD, ratio=False, worst=1.0),
    "recovery_seen": Metric(False, Source.RECORD, ratio=False, worst=1.0),
    "macs_min": Metric(False, Source.RECORD, ratio=True),
    "macs_max": Metric(False, Source.RECORD, ratio=True),
    "macs_full": Metric(False, Source.RECORD, ratio=True),
    "depth_mean": Metric(False, Source.RECORD, ratio=True),
    "recovery_per_input_mean": Metric(False, Source.RECORD, ratio=False, worst=1.0),
    "efficacy_trapezoid": Metric(True, Source.RECORD, ratio=False),
    "queries_mean": Metric(True, Source.RECORD, ratio=True),
    "energy_j_per_sample": Metric(False, Source.SENSOR, ratio=True),
    "latency_s_per_sample": Metric(False, Source.SENSOR, ratio=True),
    "realised_saving_time": Metric(True, Source.TIMED, ratio=False),
    "realised_saving_energy": Metric(True, Source.TIMED, ratio=False),
    "cost_s": Metric(False, Source.METERED, ratio=True),
    "cost_j": Metric(False, Source.METERED, ratio=True),
    "cost_increase": Metric(False, Source.METERED, ratio=False),
    "cost_recovery": Metric(False, Source.METERED, ratio=False),
    "cost_recovery_seen": Metric(False, Source.METERED, ratio=False),
}

OF_ANSWERS = frozenset({"accuracy", "accuracy_drop", "miou", "miou_drop", "pixel_accuracy"})
"""Metrics of what is answered, not of what it costs."""
OF_STUDIES = {name: METRICS[name] for name in ("accuracy", "macs_mean", "macs_full")} | {
    "broken": Metric(False, Source.RECORD, ratio=False),
    "differing": Metric(False, Source.RECORD, ratio=False),
    "net_speedup": Metric(True, Source.TIMED, ratio=True),
}
"""Metrics that the gate of a study can watch; points of a count are hundredths of what it is counted among."""
OF_SERVING = {
    "simulated_p99_s": Metric(False, Source.TIMED, ratio=True),
    "simulated_goodput": Metric(True, Source.TIMED, ratio=False, worst=0.0),
    "simulated_benign_p99_s": Metric(False, Source.TIMED, ratio=True),
    "simulated_benign_goodput": Metric(True, Source.TIMED, ratio=False, worst=0.0),
    "simulated_benign_accuracy": Metric(True, Source.TIMED, ratio=False, worst=0.0),
    "simulated_macs": Metric(False, Source.TIMED, ratio=True),
    "replicas": Metric(False, Source.RECORD, ratio=False),
}
"""Metrics that the gate of a suite of kind serving can watch."""
OF_DECODING = {
    "macs_per_token": Metric(False, Source.RECORD, ratio=True),
    "prefill_macs": Metric(False, Source.RECORD, ratio=True),
    "layers_per_token": Metric(False, Source.RECORD, ratio=True),
    "saving_macs": Metric(True, Source.RECORD, ratio=False),
    "acceptance": Metric(True, Source.RECORD, ratio=False, worst=0.0),
    "identical": Metric(True, Source.RECORD, ratio=False, worst=0.0),
    "bits_per_character": Metric(False, Source.RECORD, ratio=True),
    "accuracy": METRICS["accuracy"],
    "latency_s_per_token": Metric(False, Source.SENSOR, ratio=True),
    "energy_j_per_token": Metric(False, Source.SENSOR, ratio=True),
    "increase": METRICS["increase"],
    "saving_taken_back": Metric(False, Source.RECORD, ratio=False),
}
"""Metrics that the gate of a suite of kind decoding can watch."""
EVERY = METRICS | OF_STUDIES | OF_SERVING | OF_DECODING

_MARGIN = {
    **dict.fromkeys(("cost_s", "cost_j"), "{increase: 5 %}"),
    **dict.fromkeys(("cost_increase", "cost_recovery", "cost_recovery_seen"), "{increase: 5 points}"),
    "latency_s_per_sample": "{increase: 3 %}",
    "realised_saving_time": "{drop: 3 points}",
    "realised_saving_energy": "{drop: 3 points}",
    "net_speedup": "{drop: 10 %}",
    **dict.fromkeys(("simulated_p99_s", "simulated_benign_p99_s"), "{increase: 50 %}"),
    **dict.fromkeys(("simulated_goodput", "simulated_benign_goodput"), "{drop: 5 points}"),
    "simulated_benign_accuracy": "{drop: 1 points}",
    "simulated_macs": "{increase: 5 %}",
    **dict.fromkeys(("latency_s_per_token", "energy_j_per_token"), "{increase: 10 %}"),
}
NEVER_EXACT = frozenset(_MARGIN)


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a gate.

    Args:
        metric: which figure.
        kind: "exact", "drop", "increase" or "max".
        margin: 0 for exact; a fraction for percent (0.03), a difference for points (0.005), a value for max.
        relative: True where the margin is a percentage.
        on: patterns; a case is watched where one matches its kind, condition, model, net, policy, evaluation, mode
            or case id; of a study: its kind, graph, model, policy or case id.
        anew: relative change allowed by "exact" where inputs were crafted anew.
    """

    metric: str
    kind: str
    margin: float = 0.0
    relative: bool = False
    on: tuple[str, ...] = ("*",)
    anew: float = CRAFTED_ANEW_MARGIN

    def watches(self, record: Record) -> bool:
        """True where the rule is meant for this case."""
        return any(self.matches(record, pattern) for pattern in self.on)

    @staticmethod
    def matches(record: Record, pattern: str) -> bool:
        """True where a pattern names this case; a name that is written out counts, whatever marks it has."""
        return _among(pattern, [str(record.get(name) or "") for name in _TOLD_BY])

    def idle(self, records: Sequence[Record], names: Iterable[str] = ()) -> list[str]:
        """Patterns that name nothing: misspelt, or of another suite.

        Args:
            records: of the cases there are. names: of kinds, models and conditions that need not have a case.
        """
        known = {*names, *(str(record.get(name) or "") for record in records for name in _TOLD_BY)} - {""}
        return [pattern for pattern in self.on if not _among(pattern, known)]

    def holds(self, other: Rule, record: Record) -> bool:
        """True where this rule lets nothing of a case pass that another one stops."""
        if self.metric != other.metric or (self.kind == "max") != (other.kind == "max"):
            return False
        if other.kind == "exact" and self.kind != "exact":
            return False
        if self.kind == "exact":
            anew = record["kind"] in ("control", "attack")
            return not anew or self.anew <= (other.anew if other.kind == "exact" else other.margin)
        return self.margin <= other.margin

    @property
    def text(self) -> str:
        """The rule in words."""
        if self.kind == "exact":
            return "exact"
        if self.kind == "max":
            return f"at most {self.margin:g}"
        amount = f"{100 * self.margin:g} %" if self.relative else f"{100 * self.margin:g} points"
        return f"{self.kind} of at most {amount}"


_TOLD_BY = ("kind", "condition", "graph", "model", "net", "policy", "defence", "evaluation", "case", "mode")


def _among(pattern: str, names: Collection[str]) -> bool:
    return pattern in names or any(fnmatchcase(name, pattern) for name in names)


_AMOUNT = re.compile(r"\s*(?P<number>\d+(?:\.\d+)?|\.\d+)\s*(?P<unit>%|percent|points?|pp)\s*")
_KINDS = ("exact", "drop", "increase", "max")
_HOW = "Rules are: exact · {drop: 0.5 points} · {increase: 3 %} · {max: 0.2}; with cases: [clean] for some cases only."


def parse_gate(gate: Mapping[str, Any] | None, metrics: Mapping[str, Metric] = METRICS) -> list[Rule]:
    """The rules of a gate section.

    Args:
        gate: metric → rule, as YAML gives it; None is an empty gate.
        metrics: that it can watch, a suite's or a study's.

    Raises:
        SuiteError: a metric or a rule that does not exist, or one that the metric's direction rules out.
    """
    if gate is None:
        return []
    if not isinstance(gate, Mapping):
        raise SuiteError(f"gate: {gate!r} is not a table of metric: rule.", todo=_HOW)
    return [
        parse_rule(str(metric), rule, metrics)
        for metric, given in gate.items()
        for rule in (given if isinstance(given, list) else [given])
    ]


def parse_rule(metric: str, given: Any, metrics: Mapping[str, Metric] = METRICS) -> Rule:
    """One rule of a gate section.

    Raises:
        SuiteError: as `parse_gate`.
    """
    if metric not in metrics:
        raise SuiteError(
            f"gate: no metric is called '{metric}'.",
            why="A gate on a name that nothing has would stay green for ever.",
            todo=f"{did_you_mean(metric, metrics)}Metrics are: {', '.join(metrics)}.",
        )
    options = {given: True} if isinstance(given, str) else dict(given) if isinstance(given, Mapping) else {}
    on = options.pop("cases", "*")
    anew = options.pop("anew", None)
    if len(options) != 1 or next(iter(options)) not in _KINDS:
        raise SuiteError(f"gate.{metric}: {given!r} is not a rule.", todo=_HOW)
    kind, amount = next(iter(options.items()))
    patterns = tuple(str(pattern) for pattern in (on if isinstance(on, list) else [on]))
    if anew is not None and kind != "exact":
        raise SuiteError(f"gate.{metric}: 'anew' goes with 'exact' only.", todo=_HOW)
    if anew is not None and metrics is OF_SERVING:
        raise SuiteError(f"gate.{metric}: what is simulated is not compared exactly.", todo="Leave 'anew' out.")
    if anew is not None and metrics is OF_STUDIES:
        raise SuiteError(f"gate.{metric}: a study crafts no inputs, and none anew.", todo="Leave 'anew' out.")
    allowed = CRAFTED_ANEW_MARGIN if anew is None else _amount(metric, "anew", anew, relative_only=True)[0]
    if kind == "exact":
        if amount is not True:
            raise SuiteError(f"gate.{metric}: 'exact' takes no amount, here {amount!r}.", todo=_HOW)
        if metric in NEVER_EXACT:
            raise SuiteError(
                f"gate.{metric}: a clock never shows the same twice.",
                why="The gate would be red for ever.",
                todo=f"Write a margin, e.g. {_MARGIN[metric]}.",
            )
        return Rule(metric, kind, on=patterns, anew=allowed)
    if kind == "max":
        return Rule(metric, kind, _ceiling(metric, amount), on=patterns)
    _check_direction(metric, kind)
    margin, relative = _amount(metric, kind, amount)
    return Rule(metric, kind, margin, relative, patterns)


def _amount(metric: str, kind: str, amount: Any, *, relative_only: bool = False) -> tuple[float, bool]:
    match = _AMOUNT.fullmatch(amount) if isinstance(amount, str) else None
    if match is None:
        raise SuiteError(
            f"gate.{metric}.{kind}: {amount!r} has no unit that is known here.",
            why="3 may mean three percent or three points.",
            todo="Write '3 %' (of the baseline's value) or '0.5 points' (hundredths).",
        )
    relative = match["unit"] in ("%", "percent")
    margin = float(match["number"]) / 100
    if margin <= 0:
        raise SuiteError(
            f"gate.{metric}.{kind}: a margin of {amount} can never be shown to hold.",
            why="Every interval is wider than nothing.",
            todo="Write 'exact', or a margin above zero.",
        )
    if relative and not EVERY[metric].ratio and not relative_only:
        raise SuiteError(
            f"gate.{metric}.{kind}: percent of a share is ambiguous.",
            why=f"{metric} is a share already: 3 % of 2 % is not what one means.",
            todo=f"Write points, e.g. {{{kind}: {match['number']} points}}.",
        )
    if not relative and (EVERY[metric].ratio or relative_only):
        raise SuiteError(
            f"gate.{metric}.{kind}: {metric} has no points.",
            why="Points are hundredths of a share; this is a cost.",
            todo=f"Write percent, e.g. {{{kind}: {match['number']} %}}.",
        )
    return margin, relative


def _ceiling(metric: str, amount: Any) -> float:
    if isinstance(amount, bool) or not isinstance(amount, (int, float)):
        raise SuiteError(f"gate.{metric}.max: {amount!r} is not a number.", todo="Write e.g. {max: 0.2}.")
    if EVERY[metric].higher_is_better:
        raise SuiteError(
            f"gate.{metric}.max: more {metric} is better.",
            why="A ceiling would fail good results.",
            todo="Write {drop: …}.",
        )
    return float(amount)


def _check_direction(metric: str, kind: str) -> None:
    higher_is_better = EVERY[metric].higher_is_better
    if (kind == "drop") != higher_is_better:
        better, other = ("more", "drop") if higher_is_better else ("less", "increase")
        raise SuiteError(
            f"gate.{metric}.{kind}: {better} {metric} is better.",
            why="The rule would fail good results and pass bad ones.",
            todo=f"Write {{{other}: …}}.",
        )
