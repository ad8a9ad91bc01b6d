"""``adaptbench budget``: a run's crafted inputs under a budget that honest inputs share, in a table and in JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adaptbench.errors import UsageError
from adaptbench.experiment.options import Options
from adaptbench.terminal import console


def budget(
    run: Path, *, headroom: float, burst: float, shares: str | None, orders: int, out: Path | None, options: Options
) -> None:
    """Work it out and show it.

    Args:
        run: directory. shares: numbers parted by commas. out: JSON file. options: where data and checkpoints are.
    """
    from adaptbench.bench.shared_budget import SHARES, Bucket, shared_budgets
    from adaptbench.results.files import write_json
    from adaptbench.results.store import Run

    bucket = Bucket(headroom, burst, SHARES if shares is None else _numbers(shares), orders)
    rows = shared_budgets(Run.open(run), bucket, options)
    _show(rows)
    if out is not None:
        write_json(out, {"kind": "shared-budget", "run": Run.open(run).manifest["id"], "rows": rows})
        console().print(f"figures  {out}", soft_wrap=True)


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise UsageError(f"--shares {text} are no numbers.", todo="Write --shares 0,0.1,0.5.") from None


_TITLES = ("attacker's share", "honest: lost", "forced", "attacker: MACs", "takes back", "all: MACs", "no budget")


def _show(rows: list[dict[str, Any]]) -> None:
    from itertools import groupby

    from rich.table import Table

    first = rows[0]
    console().print(
        f"a bucket of {first['burst']:g} refills, each {first['headroom']:g} × the mean clean input; means over "
        f"{first['orders']} orders of the stream [95 %]",
        soft_wrap=True,
    )
    for name, group in groupby(rows, lambda row: f"{row['model']} · {row['condition']} · seed {row['seed']}"):
        console().print(f"\n{name}", soft_wrap=True)
        table = Table(box=None, pad_edge=False, header_style="dim")
        for title in _TITLES:
            table.add_column(title, justify="right", no_wrap=True)
        for row in group:
            table.add_row(*_cells(row))
        console().print(table)


def _cells(row: dict[str, Any]) -> list[str]:
    from adaptbench.report import words

    def told(name: str, interval: bool = False) -> str:
        found = row[name]
        if found is None:
            return words.DASH
        value: float = found["value"]
        shown = words.macs(value) if "macs" in name else words.percent(value)
        return f"{shown} {words.interval([found['low'], found['high']])}" if interval else shown

    return [
        words.percent(row["share"], 0),
        told("benign_accuracy_lost", True),
        told("benign_forced"),
        told("attacker_macs_mean"),
        told("attacker_recovery", True),
        told("stream_macs_mean"),
        told("stream_macs_free_mean"),
    ]
