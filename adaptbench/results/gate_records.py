"""What the gates over studies and over runs of kinds serving and decoding share: a side that is one record."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from adaptbench.errors import BaselineError
from adaptbench.results import devices
from adaptbench.results.gate_rows import GateReport, GateRow, RowVerdict, corrected, in_modes
from adaptbench.results.gate_rules import Metric, Rule, parse_gate
from adaptbench.results.gate_terms import idle_patterns, in_force, note_surroundings, rules_of, suite_obstacle
from adaptbench.results.record_runs import RecordRun
from adaptbench.results.store import called
from adaptbench.results.studies import kind_of

LOOSENED = "the {}'s file loosened or dropped this rule of the baseline, for {}: write a new baseline if it is meant"


@dataclass(frozen=True, slots=True)
class RecordSide:
    """One side of a comparison: where it was read, and the record.

    Attributes:
        run: whose records they are. word: of what it is a side. metrics: that its gate can watch. kinds: of cases.
        held_to: rules of what has no ``gate`` section. another: what is to be named in the place of another kind's.
        faults: of the self-test: what is planted → the metric that shows it.
    """

    path: Path
    record: Mapping[str, Any]

    run: ClassVar[type[RecordRun]]
    word: ClassVar[str] = "run"
    metrics: ClassVar[Mapping[str, Metric]]
    kinds: ClassVar[Sequence[str]]
    held_to: ClassVar[Mapping[str, Any]]
    another: ClassVar[str] = "Name a run of the same suite, or its kept file."
    faults: ClassVar[Mapping[str, str]]

    @property
    @abstractmethod
    def told(self) -> list[dict[str, Any]]:
        """What patterns of rules are held against, a case each."""

    @abstractmethod
    def absent(self, baseline: Self) -> Iterator[GateRow]:
        """What the baseline has and this side has not, whatever the rules watch."""

    @abstractmethod
    def under(self, rule: Rule, baseline: Self | None) -> list[GateRow]:
        """Every case under one rule, where there is a figure; without a baseline ``max`` rules alone give rows."""

    @abstractmethod
    def plant(self, metric: str) -> str:
        """Make one figure worse than a rule allows, in place; the case that has it, or ""."""

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
        if kind_of(place) != cls.run.kind:
            raise cls.refusal(place)
        return cls(place, cls.run.read(place))

    @classmethod
    def of(cls, given: str | Path | RecordSide | RecordRun) -> Self:
        """Read, where it is not read yet.

        Raises:
            BaselineError: it is of another kind. RunError: as `load`.
        """
        if isinstance(given, str | Path):
            return cls.load(given)
        if isinstance(given, cls.run):
            return cls(given.path, given.record)
        if not isinstance(given, cls):
            raise cls.refusal(given.path)
        return given

    @classmethod
    def refusal(cls, place: Path | str) -> BaselineError:
        """Of what is of another kind."""
        return BaselineError(f"{place}: it holds no {called(cls.run.kind)}, and the other side does.", todo=cls.another)

    @classmethod
    def compare(
        cls,
        run: str | Path | RecordSide | RecordRun,
        baseline: str | Path | RecordSide | RecordRun | None,
        gate: Mapping[str, Any] | Sequence[Rule] | None = None,
    ) -> GateReport:
        """Compare a run with a baseline.

        Args:
            run, baseline: a directory, a kept file, or either, read; without a baseline ``max`` rules are left.
            gate: rules, parsed or as a file has them. None takes the baseline's, and the run's where they ask for more.

        Returns:
            A report; ``exit_code`` 0, 1 or 3.

        Raises:
            BaselineError: one of them is of another kind. RunError: it is damaged or incomplete.
            SuiteError: a rule that does not exist.
        """
        here = cls.of(run)
        there = None if baseline is None else cls.of(baseline)
        sides = [side for side in (here, there) if side is not None]
        notes: list[str] = []
        rules, rows = here.in_force(there, gate)
        obstacle = ""
        if there is not None:
            obstacle = here.obstacle(there, notes)
            kept = "" if run is baseline else here.kept_of(there)
            obstacle = kept or obstacle
        if obstacle:
            rows.append(here.unknown("*", obstacle))
        else:
            rows += idle_patterns(rules, [case for side in sides for case in side.told], [], notes, cls.kinds)
            rows += here.absent(there) if there is not None else []
            stated = gate is not None or any(side.states_rules for side in sides)
            rows += [row for rule in rules for row in here.under(rule, there) or here.unwatched(rule, stated=stated)]
        rows += [here.unknown("*", said) for said in here.gaps(there)]
        where = "" if there is None else str(there.path)
        modes = {case: mode for side in sides for case, mode in side.modes.items()}
        return GateReport(str(here.path), where, tuple(in_modes(corrected(rows), modes)), tuple(dict.fromkeys(notes)))

    def planted_faults(self) -> Iterator[tuple[str, bool | None, str]]:
        """Proof that the gate can fire: what was planted in a copy, whether the gate said so, and its reason.

        The control comes first: a side against itself gives no alarm, ceilings apart. None where nothing is watched
        that could be planted in.
        """
        rows = [row for row in self.compare(self, self).rows if row.verdict in ALARMS]
        alarms = [row for row in rows if not row.rule.startswith("at most")]
        yield "none (control)", not alarms, alarms[0].reason if alarms else f"the {self.word} against itself: no alarm"
        for fault, metric in self.faults.items():
            worse = type(self)(self.path, copy.deepcopy(dict(self.record)) | {"id": None})
            where = worse.plant(metric)
            if not where:
                yield fault, None, "no rule watches such a figure, or there is none: nothing to plant in"
                continue
            flagged = [row for row in self.compare(worse, self).rows if (row.case, row.metric) == (where, metric)]
            alarms = [row for row in flagged if row.verdict in ALARMS]
            reason = (alarms or flagged)[0].reason if flagged else "it is green"
            yield fault, bool(alarms), reason

    @property
    def manifest(self) -> dict[str, Any]:
        """What the terms of a comparison are read from."""
        suite = {name: self.record.get(name) for name in ("name", "limit", "overrides", "sha256", "text")}
        told = {name: self.record.get(name) for name in ("versions", "gate")}
        return {"suite": suite, "data": self.record.get("data") or {}, **told}

    @property
    def states_rules(self) -> bool:
        """Whether its file has a gate section."""
        return bool(self.record.get("gate"))

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

    def obstacle(self, baseline: Self, notes: list[str]) -> str:
        """Why nothing of both can be compared; "" where it can. notes: are added to."""
        obstacle = suite_obstacle(self.manifest, baseline.manifest, notes)
        note_surroundings(self.manifest, baseline.manifest, notes)
        return obstacle or ""

    def elsewhere(self, baseline: RecordSide) -> str:
        """Why a machine's figures of both cannot be compared; "" where they can."""
        machines = [side.record.get("device") or {} for side in (self, baseline)]
        return devices.obstacle(machines[0], machines[1], ("here", "baseline")) or ""

    def kept_of(self, baseline: RecordSide) -> str:
        """Why nothing can differ: one was kept of the other; "" where not."""
        identity = self.record.get("id")
        own = identity and identity == baseline.record.get("id")
        return f"the baseline was kept of this very {self.word}: nothing can differ" if own else ""

    def gaps(self, baseline: Self | None) -> list[str]:
        """What this side was asked for and could not do. baseline: for kinds that forgive what both lack."""
        return self.run.incomplete(self.record)

    @property
    def modes(self) -> dict[str, str | None]:
        """How the cases were executed whose ids do not say it."""
        return {}

    def unknown(self, case: str, why: str) -> GateRow:
        """The row of what cannot be compared."""
        return GateRow(case, self.run.kind, "comparable", RowVerdict.NOT_COMPARABLE, why)

    def unwatched(self, rule: Rule, *, stated: bool) -> list[GateRow]:
        """The row of a rule that meets no figure: where somebody stated it, it is never green."""
        reason = f"no case that the rule watches has {rule.metric}: it compared nothing"
        return [GateRow("*", rule.metric, rule.text, RowVerdict.NOT_COMPARABLE, reason)] if stated else []


class RowsSide(RecordSide):
    """One whose cases are rows of the record, each with its id."""

    __slots__ = ()

    @property
    @abstractmethod
    def cases(self) -> dict[str, dict[str, Any]]:
        """Rows by case id, with the names that rules call them by."""

    @abstractmethod
    def watched(self, rule: Rule, row: Mapping[str, Any]) -> bool:
        """Whether a rule is about a row that has its figure."""

    @abstractmethod
    def meet(self, rule: Rule, seen: Mapping[str, Any], kept: Mapping[str, Any], baseline: Self) -> GateRow:
        """A case of both sides under a rule. seen, kept: its row here and in the baseline."""

    @property
    def told(self) -> list[dict[str, Any]]:
        """What patterns of rules are held against, a case each."""
        return [dict(case) for case in self.cases.values()]

    def absent(self, baseline: Self) -> Iterator[GateRow]:
        """What the baseline has and this side has not, whatever the rules watch."""
        here = self.cases
        for case, row in baseline.cases.items():
            if case not in here:
                reason = f"the baseline has this {row['kind']}, the run has not"
                yield GateRow(case, "case", "present", RowVerdict.MISSING, reason)

    def under(self, rule: Rule, baseline: Self | None) -> list[GateRow]:
        """Every case under one rule."""
        here = self.cases
        if rule.kind == "max":
            return [
                ceiling(rule, case, row.get(rule.metric), str(row.get(f"{rule.metric}_missing")))
                for case, row in here.items()
                if self.watched(rule, row)
            ]
        if baseline is None:
            return []
        return [
            self.meet(rule, here[case], kept, baseline)
            for case, kept in baseline.cases.items()
            if case in here and self.watched(rule, kept)
        ]

    def unwatched(self, rule: Rule, *, stated: bool) -> list[GateRow]:
        """The row of a rule that meets no figure, stated or not: every run of this kind has what it is held to."""
        return super().unwatched(rule, stated=True)


def ceiling(rule: Rule, case: str, value: float | None, missing: str = "") -> GateRow:
    """A figure under a ``max`` rule. missing: why there is none, which is not green."""
    if value is None:
        return GateRow(case, rule.metric, rule.text, RowVerdict.NOT_COMPARABLE, missing, margin=rule.margin)
    over = value > rule.margin
    verdict = RowVerdict.REGRESSION if over else RowVerdict.PASS
    said = f"{'above' if over else 'below'} the ceiling"
    return GateRow(case, rule.metric, rule.text, verdict, said, value, margin=rule.margin)


ALARMS = (RowVerdict.REGRESSION, RowVerdict.MISSING)
