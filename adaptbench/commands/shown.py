"""What ``adaptbench run`` shows of each kind of experiment: the same parts, which suites and studies fill."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rich.table import Table

    from adaptbench.experiment.options import Options
    from adaptbench.results.baseline import Baseline
    from adaptbench.results.decoding import DecodingRun
    from adaptbench.results.gate_records import RecordSide
    from adaptbench.results.serving import ServingRun
    from adaptbench.results.store import Run
    from adaptbench.results.studies import StudyRun


@dataclass(frozen=True, slots=True)
class Planned:
    """What ``--dry-run`` says.

    Args:
        titles: of the columns. rows: one a piece of work.
        remarks: what else to know. total: how much it is, and how long it takes.
        seconds: the same for programs: (piece, seconds or None where it is kept), then the whole's.
        prose: the title of a column that holds words, not numbers; the first always does.
    """

    titles: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    remarks: list[str]
    total: str
    seconds: Mapping[str, float | None]
    total_s: float
    prose: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is printed of a finished run.

    Args:
        started: when, in ISO. heading: a line above all. tables: one after the other. notes: what else to know.
        verdict: in a line. figures: the same for programs: name → value, as the run directory has them.
        failed: some of it could not be done. nothing: none of it could.
    """

    started: str
    heading: str
    tables: Sequence[Table]
    verdict: str
    figures: Mapping[str, Any]
    notes: Sequence[str] = field(default_factory=list)
    failed: bool = False
    nothing: bool = False


class Kind(Protocol):
    """One kind of experiment, as the command line sees it.

    Attributes:
        word: for its directory. kept: folder of `reports/` in which `adaptbench baseline` keeps one.
    """

    word: str
    kept: str

    def load(self, name: str, overrides: Sequence[str]) -> Any:
        """Read its file."""

    def baseline(self, place: Path) -> Baseline | RecordSide:
        """Read what it is to be compared with."""

    def plan(self, loaded: Any, options: Options, asked: float) -> Planned:
        """What would be done. asked: when the command was given, by `time.perf_counter`."""

    def outcome(self, done: Any, width: int) -> Outcome:
        """What to print of a finished run. width: of the terminal."""


class Suites:
    """Attack and measure."""

    word, kept = "run", "baselines"

    def load(self, name: str, overrides: Sequence[str]) -> Any:
        """Read its file."""
        from adaptbench.bench.suite import load_suite

        return load_suite(name, overrides)

    def baseline(self, place: Path) -> Baseline | RecordSide:
        """Read what it is to be compared with."""
        from adaptbench.results.baseline import Baseline

        return Baseline.load(place)

    def plan(self, loaded: Any, options: Options, asked: float) -> Planned:
        """Evaluations with their seconds."""
        from adaptbench.bench.estimate import estimate
        from adaptbench.bench.plan import make_plan
        from adaptbench.report import words

        plan = make_plan(loaded, options)
        guess = estimate(plan, options, loaded.name, time.perf_counter() - asked)
        rows = [
            (
                evaluation.id,
                evaluation.kind,
                words.count(len(evaluation.split)),
                "kept" if evaluation.id in guess.kept else words.seconds(guess.evaluations[evaluation.id]),
            )
            for evaluation in plan.evaluations
        ]
        remarks = [f"not run: {condition} on {model}: {reason}" for model, condition, reason in plan.skipped]
        remarks += _doubts(guess.doubts)
        total = f"{words.plural(len(plan.evaluations), 'evaluation')}, {len(plan.timed)} of them timed"
        if guess.kept:
            total += f", {len(guess.kept)} kept"
        return Planned(
            ("evaluation", "kind", "inputs", "about"),
            rows,
            remarks,
            f"{total}; {_about(guess.total_s, guess)}",
            {e.id: None if e.id in guess.kept else guess.evaluations[e.id] for e in plan.evaluations},
            guess.total_s,
        )

    def outcome(self, done: Run, width: int) -> Outcome:
        """Models, conditions and what they cost."""
        from adaptbench.console import headline, result_table, transfer_grids

        failed, nothing = any(case.get("failed") for case in done.cases), all(not case["n"] for case in done.cases)
        table, notes = result_table(done.cases, done.manifest, width=width), done.manifest["notes"]
        tables = [table, *transfer_grids(done.cases)]
        verdict = _done(sum(bool(case.get("failed")) for case in done.cases), len(done.cases), "case", done.path)
        figures = {name: done.manifest[name] for name in ("notes", "failures")} | {"cases": done.cases}
        started, heading = done.manifest["started"], headline(done.manifest)
        return Outcome(started, heading, tables, verdict, figures, notes, failed, nothing)


class Studies:
    """Compare policies on sealed logs."""

    word, kept = "study", "published"

    def load(self, name: str, overrides: Sequence[str]) -> Any:
        """Read its file."""
        from adaptbench.study import load_study

        return load_study(name, overrides)

    def baseline(self, place: Path) -> Baseline | RecordSide:
        """Read what it is to be compared with."""
        from adaptbench.results.gate_studies import StudySide

        return StudySide.load(place)

    def plan(self, loaded: Any, options: Options, asked: float) -> Planned:
        """Stages of each graph with their seconds."""
        from adaptbench.report import words
        from adaptbench.study.estimate import estimate
        from adaptbench.study.plan import make_plan

        plan = make_plan(loaded, options)
        guess = estimate(plan, options, time.perf_counter() - asked)
        rows: list[tuple[str, ...]] = []
        doubts: dict[str, str] = {}
        seconds: dict[str, float | None] = {}
        for graph in plan.graphs:
            found = guess.graphs[graph.key]
            rows.append((f"{graph.key}: {graph.graph.model} on {graph.graph.data}", "", "kept" if found.kept else ""))
            for stage, much in graph.stages(loaded.study):
                nothing = "kept" if stage.startswith("log ") else words.DASH
                seconds[f"{graph.key}: {stage}"] = None if found.kept else found.stages[stage]
                about = words.seconds(found.stages[stage]) if found.stages[stage] else nothing
                rows.append((f"  {stage}", much, "" if found.kept else about))
            doubts |= {f"{graph.key}: {what}": doubt for what, doubt in found.doubts.items()}
        total = f"{words.plural(len(plan.graphs), 'graph')}; {_about(guess.total_s, guess)}"
        return Planned(("stage", "how much", "about"), rows, _doubts(doubts), total, seconds, guess.total_s, "how much")

    def outcome(self, done: StudyRun, width: int) -> Outcome:
        """Policies and what they lost and saved, graph by graph."""
        from adaptbench.console import study_headline, study_table

        record, missing = done.record, done.incomplete(done.record)
        lost, graphs = len(record.get("failed_graphs") or {}), len(record["graphs"])
        figures = {
            "notes": record["notes"] or [],
            "missing": missing,
            **{name: record.get(name) for name in ("paper", "ours", "published", "graphs", "failed_graphs")},
        }
        verdict = _done(lost, lost + graphs, "graph", done.path, len(missing))
        tables = study_table(record)
        return Outcome(record["started"], study_headline(record), tables, verdict, figures, missing, bool(missing))


class Servings:
    """Simulate streams of requests from measured times."""

    word, kept = "serving", "published"

    def load(self, name: str, overrides: Sequence[str]) -> Any:
        """Read its file."""
        from adaptbench.serving.spec import load_serving

        return load_serving(name, overrides)

    def baseline(self, place: Path) -> Baseline | RecordSide:
        """Read what it is to be compared with."""
        from adaptbench.results.gate_serving import ServingSide

        return ServingSide.load(place)

    def plan(self, loaded: Any, options: Options, asked: float) -> Planned:
        """What is crafted, timed, simulated and served, with its seconds."""
        from adaptbench.report import words
        from adaptbench.serving.estimate import estimate

        guess = estimate(loaded, options)
        seconds = {piece.name: None if piece.kept else piece.about_s for piece in guess.pieces}
        rows = [(p.name, p.much, "kept" if p.kept else words.seconds(p.about_s)) for p in guess.pieces]
        remarks = [f"no good guess: {what}: {why}" for what, why in guess.doubts.items()]
        total_s = sum(value for value in seconds.values() if value is not None) + time.perf_counter() - asked
        total = f"{words.plural(len(guess.pieces), 'stage')}; about {words.seconds(total_s)} here"
        return Planned(("stage", "how much", "about"), rows, remarks, total, seconds, total_s, "how much")

    def outcome(self, done: ServingRun, width: int) -> Outcome:
        """Streams and what they cost the honest, provisions, and the real run."""
        from adaptbench.console import serving_headline, serving_tables

        record, missing = done.record, done.incomplete(done.record)
        figures = {name: record[name] for name in ("objective_p99_s", "models", "streams", "provisions", "checks")}
        rows = len(record["streams"])
        verdict = _done(len(missing), len(missing) + rows, "stream", done.path)
        notes = [*missing, *(record["notes"] or [])]
        return Outcome(
            record["started"],
            serving_headline(record),
            serving_tables(record),
            verdict,
            figures | {"notes": notes, "failed": record["failed"]},
            notes,
            bool(missing),
            not rows,
        )


class Decodings:
    """Carry prompts on, read given text, attack prompts."""

    word, kept = "decoding", "published"

    def load(self, name: str, overrides: Sequence[str]) -> Any:
        """Read its file."""
        from adaptbench.decoding.spec import load_decoding

        return load_decoding(name, overrides)

    def baseline(self, place: Path) -> Baseline | RecordSide:
        """Read what it is to be compared with."""
        from adaptbench.results.gate_decoding import DecodingSide

        return DecodingSide.load(place)

    def plan(self, loaded: Any, options: Options, asked: float) -> Planned:
        """What is decoded, read, timed and attacked, with its seconds."""
        from adaptbench.decoding.estimate import estimate
        from adaptbench.report import words

        pieces = estimate(loaded, options)
        seconds: dict[str, float | None] = {name: about_s for name, _, about_s in pieces}
        rows = [(name, much, words.seconds(about_s)) for name, much, about_s in pieces]
        total_s = sum(about_s for _, _, about_s in pieces) + time.perf_counter() - asked
        total = f"{words.plural(len(pieces), 'stage')}; about {words.seconds(total_s)} here"
        return Planned(("stage", "how much", "about"), rows, [], total, seconds, total_s, "how much")

    def outcome(self, done: DecodingRun, width: int) -> Outcome:
        """Decoders, then attacks, each objective by itself."""
        from adaptbench.console import decoding_headline, decoding_tables

        record, missing = done.record, done.incomplete(done.record)
        names = ("model", "prompts", "prefill_s_per_token", "decoders", "exits", "attacks")
        rows = len(record["decoders"])
        verdict = _done(len(missing), len(missing) + rows, "decoder", done.path)
        notes = [*missing, *(record["notes"] or [])]
        return Outcome(
            record["started"],
            decoding_headline(record),
            decoding_tables(record),
            verdict,
            {name: record[name] for name in names} | {"notes": notes, "failed": record["failed"]},
            notes,
            bool(missing),
            not rows,
        )


def kind_named(name: str) -> Kind:
    """The kind of a file.

    Raises:
        SuiteError: there is no such file.
    """
    from adaptbench.experiment import finding

    kinds: dict[str, type[Kind]] = {"study": Studies, "serving": Servings, "decoding": Decodings}
    return kinds.get(finding.kind_named(name), Suites)()


def _done(failed: int, of: int, what: str, place: Path, gaps: int = 0) -> str:
    """A run in a line: a study's parts may be missing where no graph is."""
    from adaptbench.report import words

    if failed:
        return f"{failed} of {words.plural(of, what)} failed: {place}"
    missing = f", {words.plural(gaps, 'part')} of them missing" if gaps else ""
    return f"done: {words.plural(of, what)}{missing or ', none failed'}: {place}"


def _doubts(doubts: dict[str, str]) -> list[str]:
    return [f"no good guess: {what}: {doubt}" for what, doubt in doubts.items()]


def _about(total_s: float, guess: Any) -> str:
    from adaptbench.report import words

    return f"about {words.seconds(total_s)} here, measuring {words.seconds(guess.measuring_s)} of it"
