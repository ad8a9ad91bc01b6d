"""``adaptbench run``: a suite or a study, from the words on the command line to tables, pages and an exit code."""

from __future__ import annotations

import shlex
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptbench.commands.judging import judge, say
from adaptbench.commands.shown import Kind, Outcome, Planned, kind_named
from adaptbench.commands.voice import Voice, print_document
from adaptbench.errors import UsageError
from adaptbench.experiment.engines import engine_of
from adaptbench.experiment.options import Options
from adaptbench.experiment.progress import Progress, Silent
from adaptbench.terminal import console

if TYPE_CHECKING:
    from rich.console import Console

    from adaptbench.bench.suite import LoadedSuite
    from adaptbench.decoding.spec import LoadedDecoding
    from adaptbench.results.baseline import Baseline
    from adaptbench.results.gate_records import RecordSide
    from adaptbench.results.gate_rows import GateReport
    from adaptbench.serving.spec import LoadedServing
    from adaptbench.study.spec import LoadedStudy

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
    voice: Voice = field(default_factory=Voice)

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

    if wishes.no_report and wishes.report is not None:
        raise UsageError("--report and --no-report were both given.", todo="Keep one of them.")
    if wishes.baseline is not None and not wishes.baseline.exists():
        raise UsageError(
            f"there is no baseline {wishes.baseline}.",
            todo="Name a run directory or a baseline file; nothing was run yet.",
        )
    kind = kind_named(wishes.suite)
    check_device(wishes.options.device)
    loaded = kind.load(wishes.suite, wishes.options.overrides)
    given = _baseline(wishes, wishes.options.place(loaded.name))
    kept = None if given is None else kind.baseline(given)  # read before the run can overwrite it
    engine_of(wishes.options)  # a dry run refuses what the run would
    if wishes.dry_run:
        _show_plan(kind.plan(loaded, wishes.options, asked), wishes, loaded.name)
        return 0
    return _carry_out(kind, loaded, wishes, kept)


def _carry_out(
    kind: Kind,
    loaded: LoadedSuite | LoadedStudy | LoadedServing | LoadedDecoding,
    wishes: Wishes,
    kept: Baseline | RecordSide | None,
) -> int:
    from adaptbench.kinds import run
    from adaptbench.results.store import MANIFEST
    from adaptbench.watching import watcher

    began_ns, voice = time.time_ns(), wishes.voice
    watching: AbstractContextManager[Progress] = nullcontext(Silent()) if voice.quiet else watcher(console(stderr=True))
    with watching as progress:
        done = run(loaded, replace(wishes.options, progress=progress))
    shown = console(stderr=voice.json)
    outcome = kind.outcome(done, shown.width)
    anew = (done.path / MANIFEST).stat().st_mtime_ns >= began_ns  # a complete run is not written to
    if not voice.quiet:
        _show(shown, outcome, wishes, anew)
    page = wishes.page(loaded.name)
    if page is not None:
        from adaptbench.report.page import write_report

        write_report([done.path], page)
    if not voice.quiet:
        _show_written(shown, kind, done.path, loaded.name, page)
    verdict = None if kept is None or outcome.nothing else judge(done.path, kept)
    code = (
        NOTHING_RAN if outcome.nothing else (verdict.exit_code if verdict else 0) or (FAILED if outcome.failed else 0)
    )
    if voice.json:
        print_document(kind.word, _document(outcome, done.path, page, verdict, code, computed=anew))
    elif verdict is not None:
        say(verdict, voice)
    elif voice.quiet:
        shown.print(outcome.verdict, soft_wrap=True)
    return code


def _document(
    outcome: Outcome, place: Path, page: Path | None, verdict: GateReport | None, code: int, *, computed: bool
) -> dict[str, Any]:
    """A run for programs; docs/run-directory.md says what stands in it."""
    from adaptbench.results.gate_format import document_of

    return {
        "run": str(place),
        "report": None if page is None else str(page),
        "report_missing": "no page was asked for" if page is None else None,
        "exit_code": code,
        "verdict": outcome.verdict,
        "computed": computed,
        "started": outcome.started,
        "gate": None if verdict is None else document_of(verdict),
        "gate_missing": "there was no baseline to compare with" if verdict is None else None,
        **outcome.figures,
    }


def _baseline(wishes: Wishes, place: Path) -> Path | None:
    """What to compare with: not the directory that is written to."""
    if wishes.baseline is not None and place.exists() and place.samefile(wishes.baseline):
        raise UsageError(
            f"--baseline {wishes.baseline} is the directory that this run writes to.",
            why="The run would be compared with itself.",
            todo=f"Keep its figures first: `adaptbench baseline {shlex.quote(str(place))}`; or name another --out.",
        )
    return wishes.baseline


def _show(shown: Console, outcome: Outcome, wishes: Wishes, anew: bool) -> None:
    from adaptbench.console import show_notes

    if not anew:
        shown.print(ALREADY)
        shown.print()
    shown.print(outcome.heading)
    shown.print()
    for i, table in enumerate(outcome.tables):
        if i:
            shown.print()
        shown.print(table)
    show_notes(shown, outcome.notes, verbose=wishes.voice.verbose, page=not wishes.no_report)
    shown.print()


def _show_written(shown: Console, kind: Kind, place: Path, name: str, page: Path | None) -> None:
    """Where the page and the directory are, and how to compare with what is kept."""
    if page is not None:
        shown.print(f"report   {page}", soft_wrap=True)
    shown.print(f"{kind.word:<8} {place}", soft_wrap=True)
    kept = Path("reports") / kind.kept / f"{name}.json"
    to = shlex.join(["adaptbench", "check", str(place), "--baseline", str(kept) if kept.exists() else "BASELINE"])
    shown.print(f"compare  {to}", soft_wrap=True)


def _show_plan(planned: Planned, wishes: Wishes, name: str) -> None:
    shown, voice = console(stderr=wishes.voice.json), wishes.voice
    if voice.json:
        pieces = [{"name": piece, "kept": s is None, "about_s": s} for piece, s in planned.seconds.items()]
        told = {"into": str(wishes.options.place(name)), "about_s": planned.total_s, "pieces": pieces}
        print_document("plan", {**told, "remarks": planned.remarks})
    if voice.quiet:
        if not voice.json:
            shown.print(f"{planned.total}. Nothing was run.", soft_wrap=True)
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(planned.titles[0], no_wrap=True)
    for title in planned.titles[1:]:
        table.add_column(title, justify="left" if title == planned.prose else "right")
    for row in planned.rows:
        table.add_row(*row)
    shown.print(table)
    for remark in planned.remarks:
        shown.print(remark, soft_wrap=True)
    shown.print(f"\n{planned.total}. Nothing was run.", soft_wrap=True)
    anew = ", everything anew" if wishes.options.fresh else ""
    shown.print(f"into     {wishes.options.place(name)}{anew}", soft_wrap=True)
    for word, place in (("report", wishes.page(name)), ("compare", wishes.baseline)):
        if place is not None:
            shown.print(f"{word:<8} {place}", soft_wrap=True)
