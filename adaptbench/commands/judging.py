"""``adaptbench check``: the gate's verdict, and the proof that it can fire."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from adaptbench.errors import BaselineError, UsageError
from adaptbench.terminal import console

if TYPE_CHECKING:
    from adaptbench.results.baseline import Baseline
    from adaptbench.results.gate_studies import StudySide


class Format(StrEnum):
    """How the gate speaks."""

    text = "text"
    json = "json"
    junit = "junit"
    github = "github"


def check(
    run: Path, baseline: Path | None, form: Format | None, out: Path | None, selftest: bool, verbose: bool = False
) -> int:
    """Compare with a baseline, or show that the gate goes red.

    Returns:
        The gate's exit code.
    """
    if selftest:
        given = {"--baseline": baseline, "--format": form, "--out": out}
        if extra := [name for name, value in given.items() if value is not None]:
            raise UsageError(
                f"{' and '.join(extra)} {'was' if len(extra) == 1 else 'were'} given beside --selftest.",
                why="The self-test plants its own faults and compares the run with itself.",
                todo="Leave one of them out.",
            )
        return _selftest(run)
    if baseline is None:
        raise UsageError("no baseline was named.", todo="Add --baseline RUN or --baseline reports/baselines/NAME.json.")
    return judge(run, baseline, form or Format.text, out, verbose=verbose)


def judge(
    run: Path,
    baseline: Path | Baseline | StudySide,
    form: Format = Format.text,
    out: Path | None = None,
    *,
    verbose: bool = False,
) -> int:
    """Print the verdict, and write it to a file, too; the file names what passed, the terminal where it is asked to.

    Returns:
        0 pass, 1 regression or missing case, 3 no verdict.
    """
    from adaptbench.results.files import write_text
    from adaptbench.results.gate import compare
    from adaptbench.results.gate_format import render

    verdict = compare(run, baseline)
    if out is not None:
        write_text(out, f"{render(verdict, form.value)}\n")
    typer.echo(render(verdict, form.value, verbose=verbose))
    return verdict.exit_code


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
    from adaptbench.results.studies import kind_of

    if kind_of(run) == "study":
        from adaptbench.results.gate_studies import StudySide, planted_faults

        return [(*planted, False) for planted in planted_faults(StudySide.load(run))]
    from adaptbench.results.gate_selftest import selftest as plant

    return [(planted.fault, planted.caught, planted.reason, planted.bent) for planted in plant(run)]


def keep(run: Path, out: Path | None) -> None:
    """Write a run's figures as a baseline."""
    from adaptbench.results.baseline import write_baseline
    from adaptbench.results.store import Run
    from adaptbench.results.studies import keep_study, kind_of

    if kind_of(run) == "study":
        console().print(f"study    {keep_study(run, out)}", soft_wrap=True)
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
