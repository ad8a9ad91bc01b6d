"""``adaptbench leaderboard``: nets under attacks, from runs and kept summaries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adaptbench.commands.options import Json, Quiet, Verbose
from adaptbench.commands.voice import Voice, print_document
from adaptbench.errors import RunError
from adaptbench.terminal import console

if TYPE_CHECKING:
    from adaptbench.report.leaderboard import Leaderboard

PUBLISHED = Path("reports") / "published"
PAGE = Path("reports") / "leaderboard.html"
_SHOWN = 5
"""Nets of a standing that the terminal shows without -v."""


def leaderboard(
    places: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RUN]...", help="Runs, kept summaries, or folders of them (default reports/published)."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="HTML file (default reports/leaderboard.html).")] = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """One page of nets, attacks and data sets, each row with the run that it comes from and how to do it again."""
    _write(places or [PUBLISHED], out or PAGE, Voice(verbose=verbose, quiet=quiet, json=as_json))


def _write(places: Sequence[Path], out: Path, voice: Voice) -> None:
    from adaptbench.report.leaderboard import leaderboard as collect
    from adaptbench.report.leaderboard import verdict
    from adaptbench.report.leaderboard_page import write_leaderboard
    from adaptbench.report.trends import left_out

    board = collect(places)
    if not board.runs:
        more = f" (and {len(board.unreadable) - 1} more)" if len(board.unreadable) > 1 else ""
        raise RunError(
            f"{left_out(board.unreadable[0])}{more}.",
            why="There is no run to put on the page.",
            todo="Name run directories, files that `adaptbench baseline` kept, or a folder with these in it.",
        )
    page = write_leaderboard(board, out)
    if voice.json:
        print_document("leaderboard", _document(board) | {"page": str(page)})
        return
    say = console()
    say.print(verdict(board), soft_wrap=True)
    if not voice.quiet:
        _show(board, verbose=voice.verbose)
        for one in board.unreadable:
            console(stderr=True).print(f"left out: {left_out(one)}", soft_wrap=True)
    say.print(f"page     {page}", soft_wrap=True)


def _show(board: Leaderboard, *, verbose: bool) -> None:
    from rich.table import Table

    from adaptbench.report import words
    from adaptbench.report.leaderboard import STANDARD, saved

    say = console()
    for size, nets in board.standings:
        say.print(f"\n{size}: least taken back by {STANDARD} first", soft_wrap=True)
        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column("", overflow="fold")
        for title in ("MACs saved", "taken back", "then, of plain net"):
            table.add_column(title, justify="right", no_wrap=True)
        shown = nets if verbose else nets[:_SHOWN]
        for one in shown:
            taken, bounds = one.worst.record["recovery"], words.interval(one.worst.record.get("recovery_ci"))
            cells = (saved(one.clean.record), one.attacked_share)
            table.add_row(
                words.printable(one.worst.model),
                words.percent(cells[0]),
                f"{words.percent(taken)} {bounds}".strip(),
                words.percent(cells[1]),
            )
        say.print(table)
        if len(nets) > len(shown):
            say.print(f"and {len(nets) - len(shown)} more (-v shows them)", style="dim")


def _document(board: Leaderboard) -> dict[str, object]:
    from adaptbench.report.leaderboard import verdict

    return {
        "verdict": verdict(board),
        "runs": [
            {
                "path": str(run.path),
                "kind": run.kind,
                "name": run.name,
                "started": run.started.isoformat(),
                "git_revision": run.revision,
                "command": str(run.manifest.get("command") or ""),
            }
            for run in board.runs
        ],
        "rows": [
            {
                "run": line.run,
                "net": line.model,
                "data": line.data,
                "attack": line.attack,
                "knows": line.knows,
                "change": line.eps,
                "kind": line.kind,
                "record": dict(line.record),
            }
            for line in board.lines
        ],
        "unreadable": [{"path": str(path), "reason": reason} for path, reason in board.unreadable],
    }
