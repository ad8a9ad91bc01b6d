"""``adaptbench check``: the gate's verdict, and the proof that it can fire."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from adaptbench.commands.voice import Voice
from adaptbench.errors import BaselineError, UsageError
from adaptbench.terminal import console

if TYPE_CHECKING:
    from adaptbench.results.baseline import Baseline
    from adaptbench.results.gate_records import RecordSide
    from adaptbench.results.gate_rows import GateReport


class Format(StrEnum):
    """How the gate speaks."""

    text = "text"
    json = "json"
    junit = "junit"
    github = "github"


def check(run: Path, baseline: Path | None, form: Format | None, out: Path | None, selftest: bool, voice: Voice) -> int:
    """Compare with a baseline, or show that the gate goes red.

    Returns:
        The gate's exit code.
    """
    if selftest:
        given = [name for name, value in {"--baseline": baseline, "--format": form, "--out": out}.items() if value]
        if extra := [*given, *voice.given]:
            raise UsageError(
                f"{' and '.join(extra)} {'was' if len(extra) == 1 else 'were'} given beside --selftest.",
                why="The self-test plants its own faults and compares the run with itself.",
                todo="Leave one of them out." if len(extra) == 1 else "Leave them out.",
            )
        return _selftest(run)
    if baseline is None:
        raise UsageError("no baseline was named.", todo="Add --baseline RUN or --baseline reports/baselines/NAME.json.")
    if voice.json and form not in (None, Format.json):
        raise UsageError(f"--json and --format {form.value} were both given.", todo="Leave one of them out.")
    verdict = judge(run, baseline)
    form = Format.json if voice.json else form or Format.text
    if out is not None:
        from adaptbench.results.files import write_text
        from adaptbench.results.gate_format import render

        write_text(out, f"{render(verdict, form.value)}\n")
    say(verdict, voice, form)
    return verdict.exit_code


def judge(run: Path, baseline: Path | Baseline | RecordSide) -> GateReport:
    """What the gate says; `say` prints it."""
    from adaptbench.results.gate import compare

    return compare(run, baseline)


def say(verdict: GateReport, voice: Voice, form: Format = Format.text) -> None:
    """Print a verdict: in one line where that is asked for, else with what failed, and with what passed if verbose."""
    from adaptbench.results.gate_format import headline, render

    short = voice.quiet and not voice.json
    typer.echo(headline(verdict) if short else render(verdict, form.value, verbose=voice.verbose))


def _selftest(run: Path) -> int:
    planted = _planted(run)
    said = {True: "held  ", False: "FAILED", None: "none  "}
    for fault, caught, reason, _ in planted:
        typer.echo(f"{said[caught]}  {fault}: {reason}")
    failed = any(caught is False for _, caught, _, _ in planted)
    proven = any(caught for _, caught, _, bent in planted[1:] if not bent)
    return 1 if failed else 0 if proven else 3


def _planted(run: Path) -> list[tuple[str, bool | None, str, bool]]:
    """(fault, whether it was caught, the gate's reason, whether the gate was to be fooled)."""
    from adaptbench.results.gate import SIDES
    from adaptbench.results.studies import kind_of

    if (side := SIDES.get(kind_of(run))) is not None:
        return [(*planted, False) for planted in side.load(run).planted_faults()]
    from adaptbench.results.gate_selftest import selftest as plant

    return [(planted.fault, planted.caught, planted.reason, planted.bent) for planted in plant(run)]


def keep(run: Path, out: Path | None) -> None:
    """Write a run's figures as a baseline."""
    from adaptbench.results.baseline import write_baseline
    from adaptbench.results.gate import SIDES
    from adaptbench.results.store import Run
    from adaptbench.results.studies import kind_of

    if (side := SIDES.get(kind := kind_of(run))) is not None:
        word = "study" if kind == "study" else "run"
        console().print(f"{word:<8} {side.run.keep(run, out)}", soft_wrap=True)
        return
    opened = Run.open(run)
    opened.verify()
    if failed := [case["case"] for case in opened.cases if case.get("failed")]:
        raise BaselineError(
            f"{run}: {len(failed)} of its cases failed, {failed[0]} among them.",
            why="A baseline without their figures lets everything pass there.",
            todo="Run the same command again, or leave them out of the suite.",
        )
    place = out or Path("reports") / "baselines" / f"{Path(opened.manifest['suite']['name']).name}.json"
    console().print(f"baseline {write_baseline(opened, place)}", soft_wrap=True)
