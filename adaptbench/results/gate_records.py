"""What the gates of studies and of runs of kind serving share: a side that is one record, and the rules in force."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from adaptbench.errors import BaselineError
from adaptbench.results.gate_rows import GateRow, RowVerdict
from adaptbench.results.gate_rules import Metric, Rule, parse_gate
from adaptbench.results.gate_terms import in_force, rules_of
from adaptbench.results.studies import kind_of

LOOSENED = "the {}'s file loosened or dropped this rule of the baseline, for {}: write a new baseline if it is meant"


@dataclass(frozen=True, slots=True)
class RecordSide:
    """One side of a comparison: where it was read, and the record.

    Attributes:
        kind: as `kind_of` says it. word: of what it is a side. metrics: that its gate can watch.
        held_to: rules of what has no ``gate`` section.
    """

    path: Path
    record: Mapping[str, Any]

    kind: ClassVar[str]
    word: ClassVar[str]
    metrics: ClassVar[Mapping[str, Metric]]
    held_to: ClassVar[Mapping[str, Any]]

    @classmethod
    @abstractmethod
    def read(cls, place: Path) -> Mapping[str, Any]:
        """The record of a directory, or of the file that was kept of one."""

    @classmethod
    @abstractmethod
    def another(cls, place: Path) -> BaselineError:
        """The refusal of what is of another kind."""

    @property
    @abstractmethod
    def told(self) -> list[dict[str, Any]]:
        """What patterns of rules are held against, a case each."""

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """From a directory, or the file that was kept of one.

        Raises:
            BaselineError: nothing is there, or it is of another kind.
            RunError: it is damaged, incomplete or of another schema.
        """
        place = Path(path)
        if not place.exists():
            raise BaselineError(
                f"{place}: there is no such {cls.word}.", todo=f"Name a {cls.word}'s directory or kept file."
            )
        if kind_of(place) != cls.kind:
            raise cls.another(place)
        return cls(place, cls.read(place))

    @property
    def manifest(self) -> dict[str, Any]:
        """What the terms of a comparison are read from."""
        suite = {name: self.record.get(name) for name in ("name", "limit", "overrides", "sha256", "text")}
        told = {name: self.record.get(name) for name in ("versions", "gate")}
        return {"suite": suite, "data": self.record.get("data") or {}, **told}

    @property
    def rules(self) -> list[Rule]:
        """What its file asks for, or what every one of its kind is held to.

        Raises:
            BaselineError: its gate section is none.
        """
        return rules_of({"gate": self.record.get("gate") or self.held_to}, self.path, self.metrics)

    def in_force(
        self, baseline: RecordSide | None, gate: Mapping[str, Any] | Sequence[Rule] | None
    ) -> tuple[list[Rule], list[GateRow]]:
        """The rules in force, and a row for each that this side's file loosened or dropped.

        Args:
            baseline: the other side. gate: rules that are asked for, instead of what the files say.
        """
        if gate is not None:
            return (parse_gate(gate, self.metrics) if isinstance(gate, Mapping) else list(gate)), []
        if baseline is None:
            return self.rules, []
        rules, loosened = in_force(baseline.rules, self.rules, [*baseline.told, *self.told])
        return rules, [
            GateRow("*", rule.metric, rule.text, RowVerdict.NOT_COMPARABLE, LOOSENED.format(self.word, case))
            for rule, case in loosened
        ]

    def kept_of(self, baseline: RecordSide, *, same: bool) -> str:
        """Why nothing can differ: one was kept of the other; "" where not. same: both are the one object."""
        identity = self.record.get("id")
        own = not same and identity and identity == baseline.record.get("id")
        return f"the baseline was kept of this very {self.word}: nothing can differ" if own else ""

    def unwatched(self, rule: Rule) -> GateRow:
        """The row of a rule that meets no figure: it is never green."""
        reason = f"no case that the rule watches has {rule.metric}: it compared nothing"
        return GateRow("*", rule.metric, rule.text, RowVerdict.NOT_COMPARABLE, reason)


def ceiling(rule: Rule, case: str, value: float | None, missing: str = "") -> GateRow:
    """A figure under a ``max`` rule. missing: why there is none, which is not green."""
    if value is None:
        return GateRow(case, rule.metric, rule.text, RowVerdict.NOT_COMPARABLE, missing, margin=rule.margin)
    over = value > rule.margin
    verdict = RowVerdict.REGRESSION if over else RowVerdict.PASS
    said = f"{'above' if over else 'below'} the ceiling"
    return GateRow(case, rule.metric, rule.text, verdict, said, value, margin=rule.margin)


def control(rows: Sequence[GateRow], word: str) -> tuple[str, bool, str]:
    """The first line of a self-test: a side against itself gives no alarm, ceilings apart.

    Args:
        rows: of that comparison. word: what was compared.
    """
    alarms = [row for row in rows if row.verdict in ALARMS and not row.rule.startswith("at most")]
    return "none (control)", not alarms, alarms[0].reason if alarms else f"the {word} against itself: no alarm"


ALARMS = (RowVerdict.REGRESSION, RowVerdict.MISSING)
