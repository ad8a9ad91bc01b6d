"""``adaptbench run``: a suite or a study, from the words on the command line to tables, pages and an exit code."""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from adaptbench.errors import UsageError
from adaptbench.experiment.options import Options
from adaptbench.terminal import console

if TYPE_CHECKING:
    from adaptbench.bench.suite import LoadedSuite
    from adaptbench.results.baseline import Baseline
    from adaptbench.results.gate_studies import StudySide
    from adaptbench.results.store import Run

FAILED, NOTHING_RAN = 3, 2
ALREADY = "already complete: nothing was changed; --fresh computes it anew"


@dataclass(frozen=True, slots=True)
class Wishes:
    """What was asked for, as `adaptbench run --help` names it."""

    suite: str
    options: Options
    dry_run: bool
    report: Path | None
    no_report: bool
    baseline: Path | None

    def page(self, name: str) -> Path | None:
        """The HTML file: beside the others where the directory is the usual one, else with its run; None for none."""
        if self.no_report:
            return None
        usual = self.options.place(name).resolve() == (Path("runs") / name).resolve()
        return self.report or (Path("reports") / f"{name}.html" if usual else self.options.place(name) / "report.html")


def run(wishes: Wishes) -> int:
    """Do it.

    Returns:
        The exit code; the gate's, where there is a baseline.
    """
    asked = time.perf_counter()
    from adaptbench.experiment.environment import check_device
    from adaptbench.study.spec import is_study

    if wishes.no_report and wishes.report is not None:
        raise UsageError("--report and --no-report were both given.", todo="Keep one of them.")
    if wishes.baseline is not None and not wishes.baseline.exists():
        raise UsageError(
            f"there is no baseline {wishes.baseline}.",
            todo="Name a run directory or a baseline file; nothing was run yet.",
        )
    study = is_study(wishes.suite)
    check_device(wishes.options.device)
    return _study(wishes) if study else _suite(wishes, asked)


def _suite(wishes: Wishes, asked: float) -> int:
    from adaptbench.bench.runner import run_suite
    from adaptbench.bench.suite import load_suite
    from adaptbench.console import headline, result_table, show_notes
    from adaptbench.results.baseline import Baseline
    from adaptbench.watching import watcher

    loaded = load_suite(wishes.suite, wishes.options.overrides)
    given = _baseline(wishes, wishes.options.place(loaded.name))
    kept = None if given is None else Baseline.load(given)  # read before the run can overwrite it
    if wishes.dry_run:
        _show_plan(wishes, loaded, asked)
        return 0
    began = datetime.now(UTC).replace(microsecond=0)
    with watcher(console(stderr=True)) as progress:
        done = run_suite(loaded, replace(wishes.options, progress=progress))
    shown = console()
    if datetime.fromisoformat(done.manifest["started"]) < began:
        shown.print(ALREADY)
        shown.print()
    shown.print(headline(done.manifest))
    shown.print()
    shown.print(result_table(done.cases, done.manifest, width=shown.width))
    show_notes(shown, done.manifest["notes"])
    shown.print()
    _after(done, loaded.name, wishes.page(loaded.name))
    if all(not case["n"] for case in done.cases):
        return NOTHING_RAN
    return _verdict(done.path, kept, any(case.get("failed") for case in done.cases))


def _baseline(wishes: Wishes, place: Path) -> Path | None:
    """What to compare with: not the directory that is written to."""
    if wishes.baseline is not None and place.exists() and place.samefile(wishes.baseline):
        raise UsageError(
            f"--baseline {wishes.baseline} is the directory that this run writes to.",
            why="The run would be compared with itself.",
            todo=f"Keep its figures first: `adaptbench baseline {shlex.quote(str(place))}`; or name another --out.",
        )
    return wishes.baseline


def _verdict(place: Path, kept: Baseline | StudySide | None, failed: bool) -> int:
    """The exit code: the gate's, where there is a baseline and it is not green."""
    from adaptbench.commands.judging import judge

    return (judge(place, kept) if kept is not None else 0) or (FAILED if failed else 0)


def _after(done: Run, name: str, page: Path | None) -> None:
    shown = console()
    if page is not None:
        from adaptbench.report.page import write_report

        write_report([done.path], page)
        shown.print(f"report   {page}", soft_wrap=True)
    shown.print(f"run      {done.path}", soft_wrap=True)
    kept = Path("reports") / "baselines" / f"{name}.json"
    to = shlex.join(["adaptbench", "check", str(done.path), "--baseline", str(kept) if kept.exists() else "BASELINE"])
    shown.print(f"compare  {to}", soft_wrap=True)


def _show_plan(wishes: Wishes, loaded: LoadedSuite, asked: float) -> None:
    from rich.table import Table

    from adaptbench.bench.estimate import estimate
    from adaptbench.bench.plan import make_plan
    from adaptbench.report import words

    plan = make_plan(loaded, wishes.options)
    guess = estimate(plan, wishes.options, loaded.name, time.perf_counter() - asked)
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("evaluation", no_wrap=True)
    for title in ("kind", "inputs", "about"):
        table.add_column(title, justify="right")
    for evaluation in plan.evaluations:
        told = "kept" if evaluation.id in guess.kept else words.seconds(guess.evaluations[evaluation.id])
        table.add_row(evaluation.id, evaluation.kind, words.count(len(evaluation.split)), told)
    shown = console()
    shown.print(table)
    for model, condition, reason in plan.skipped:
        shown.print(f"not run: {condition} on {model}: {reason}", soft_wrap=True)
    for case, doubt in guess.doubts.items():
        shown.print(f"no good guess: {case}: {doubt}", soft_wrap=True)
    total = f"{words.plural(len(plan.evaluations), 'evaluation')}, {len(plan.timed)} of them timed"
    if guess.kept:
        total += f", {len(guess.kept)} kept"
    time_ = f"about {words.seconds(guess.total_s)} here, measuring {words.seconds(guess.measuring_s)} of it"
    shown.print(f"\n{total}; {time_}. Nothing was run.", soft_wrap=True)
    _show_places(wishes, loaded.name)


def _show_places(wishes: Wishes, name: str) -> None:
    """What the same words without --dry-run would write and read."""
    shown = console()
    shown.print(
        f"into     {wishes.options.place(name)}{', everything anew' if wishes.options.fresh else ''}", soft_wrap=True
    )
    for word, place in (("report", wishes.page(name)), ("compare", wishes.baseline)):
        if place is not None:
            shown.print(f"{word:<8} {place}", soft_wrap=True)


def _study(wishes: Wishes) -> int:
    from adaptbench.console import show_notes, study_table
    from adaptbench.results.gate_studies import StudySide
    from adaptbench.results.studies import incomplete
    from adaptbench.study import load_study, run_study
    from adaptbench.study.plan import make_plan
    from adaptbench.watching import watcher

    loaded = load_study(wishes.suite, wishes.options.overrides)
    given = _baseline(wishes, wishes.options.place(loaded.name))
    kept = None if given is None else StudySide.load(given)
    shown = console()
    if wishes.dry_run:
        for graph in make_plan(loaded, wishes.options).graphs:
            shown.print(f"{graph.key}: {graph.graph.model} on {graph.graph.data}", soft_wrap=True)
            for stage, much in graph.stages(loaded.study):
                shown.print(f"  {stage:<16} {much}", soft_wrap=True)
        shown.print("Nothing was run.")
        _show_places(wishes, loaded.name)
        return 0
    began = datetime.now(UTC).replace(microsecond=0)
    with watcher(console(stderr=True)) as progress:
        done = run_study(loaded, replace(wishes.options, progress=progress))
    record = done.record
    if datetime.fromisoformat(record["started"]) < began:
        shown.print(ALREADY)
        shown.print()
    for table in study_table(record):
        shown.print(table)
        shown.print()
    missing = incomplete(record)
    show_notes(shown, missing)
    page = wishes.page(loaded.name)
    if page is not None:
        from adaptbench.report.study_page import write_study_report

        shown.print(f"report   {write_study_report(done.path, page)}", soft_wrap=True)
    shown.print(f"study    {done.path}", soft_wrap=True)
    return _verdict(done.path, kept, bool(missing))
