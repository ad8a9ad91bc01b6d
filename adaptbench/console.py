"""What the terminal shows: the table after a run, and mistakes without a traceback."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from adaptbench.errors import AdaptBenchError
from adaptbench.report import words
from adaptbench.results.study_schema import filled
from adaptbench.results.transfers import matrices

Record = Mapping[str, Any]


def show_error(console: Console, error: AdaptBenchError, opening: str = "error: ") -> None:
    """One message: what, why, what next; plain text, so that brackets in names survive."""
    lines = [words.printable(line) for part in (error.seen, error.why, error.todo) for line in part.splitlines()]
    text = Text(opening, style="bold red")
    text.append(lines[0] if lines else type(error).__name__, style="default not bold")
    for line in lines[1:]:
        text.append(f"\n       {line}", style="default not bold")
    console.print(text, soft_wrap=True, highlight=False)


def result_table(cases: Sequence[Record], manifest: Mapping[str, Any], *, width: int = 120) -> Table:
    """Models and conditions with what they cost; one row an evaluation, timed at the page's batch size, the largest.

    Args:
        cases: of a summary. manifest: of its run.
        width: of the terminal; below 100 columns the intervals are left to the page.
    """
    rows = _one_row_each(cases)
    joules = words.one_scale([c.get("energy_j_per_sample") for c in rows], "J")
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("", no_wrap=True, overflow="ellipsis")
    for title in ("accuracy", "MACs/sample", "of its\nstatic net", "attacker\ntakes back", "95 %", _energy_title(rows)):
        if title != "95 %" or width >= 100:
            table.add_column(title, justify="right", no_wrap=True)
    most = max((c["n"] for c in rows), default=0)
    blank = [""] * (len(table.columns) - 1)
    previous = ""
    for case in rows:
        if case["model"] != previous:
            if previous:
                table.add_row("", *blank)
            previous = case["model"]
            full = f"of {words.macs(case['macs_full'])}" if case.get("macs_full") else ""
            table.add_row(
                Text(words.printable(previous), style="bold"), *blank[:2], Text(full, style="dim"), *blank[3:]
            )
        cells = _cells(case, manifest, joules)
        table.add_row(*(cells if width >= 100 else cells[:5] + cells[6:]))
        if case.get("macs_clean_mean") is not None and case["n"] < most:
            before = words.macs(case["macs_clean_mean"])
            same = [f"    clean, the same {case['n']} inputs", "", before, _of_static(case, case["macs_clean_mean"])]
            table.add_row(*(Text(text, style="dim") for text in same), *blank[3:])
    return table


def transfer_grids(cases: Sequence[Record]) -> list[Table]:
    """What an attacker takes back with pictures of another model: rows crafted on, columns judged on."""
    grids = []
    for matrix in matrices([dict(case) for case in cases]):
        seed = f", seed {matrix.seed}" if matrix.seed else ""
        title = f"{matrix.condition}{seed}: taken back; crafted on the row's model, judged on the column's"
        table = Table(box=None, pad_edge=False, header_style="dim", title=title, title_justify="left")
        for name in ("", *matrix.models):
            table.add_column(Text(words.printable(name)), justify="left" if not name else "right", overflow="fold")
        for source in matrix.models:
            pairs = [matrix.cells.get((source, judged)) or {} for judged in matrix.models]
            table.add_row(Text(words.printable(source)), *(words.percent(pair.get("recovery")) for pair in pairs))
        grids.append(table)
    return grids


def study_table(record: Mapping[str, Any]) -> list[Table]:
    """One table a graph of a study: what each policy lost and saved at the points chosen on calibration.

    Args:
        record: ``study.json`` as read.
    """
    tables = []
    for key, graph in filled(record)["graphs"].items():
        title = (
            f"{key}: {graph['model']} on {graph['data']}, reference {words.percent(graph['reference_accuracy'], 2)} "
            f"at {words.macs(graph['macs_full'])} MACs"
        )
        table = Table(box=None, pad_edge=False, header_style="dim", title=title, title_justify="left")
        table.add_column("", no_wrap=True)
        for point in next(iter(graph["policies"].values()))["chosen"]:
            table.add_column(f"for −{100 * point['drop']:g} points", justify="right", no_wrap=True)
        table.add_column(f"non-inferior within {100 * graph['margin']:g}", justify="right", no_wrap=True)
        for name, policy in graph["policies"].items():
            role = "bold" if name in (record["ours"], record["paper"]) else ""
            points = [*policy["chosen"], *([policy["non_inferior"]] if policy["non_inferior"] else [])]
            cells = [f"{words.number(p['drop_points'])} at {p['speedup']:.2f} ×" for p in points]
            cells += [] if policy["non_inferior"] else [words.DASH]
            table.add_row(Text(name, style=role), *cells)
        tables.append(table)
    return tables


def _energy_title(rows: Sequence[Record]) -> str:
    size = max((case["batch_size"] for case in rows if case.get("batch_size")), default=None)
    return "energy/sample" if size is None else f"energy/sample\nbatch {size}"


def _one_row_each(cases: Sequence[Record]) -> list[Record]:
    chosen: dict[str, Record] = {}
    for case in cases:
        if case["knob"] is not None or case["kind"] == "transfer":
            continue  # points of a curve, which the page draws; what `transfer_grids` shows
        kept = chosen.get(case["evaluation"])
        if kept is None or (case.get("batch_size") or 0) > (kept.get("batch_size") or 0):
            chosen[case["evaluation"]] = case
    return list(chosen.values())


def _cells(case: Record, manifest: Mapping[str, Any], joules: Any) -> list[Text]:
    settings = (manifest["conditions"].get(case["condition"]) or {}).get("settings") or {}
    name = case["condition"] if case["kind"] != "reference" else "clean (reference)"
    eps = settings.get("eps")
    if isinstance(eps, int | float):
        name += f" {words.eps(eps)}"
    if case["kind"] == "control":
        name += " (control)"
    back, interval = words.DASH, ""
    if case.get("recovery") is not None and case["kind"] in {"control", "attack"}:
        back, interval = words.percent(case["recovery"]), words.interval(case.get("recovery_ci"))
    strong = case["kind"] == "attack" and (case.get("recovery") or 0) > 0.5
    energy = words.DASH
    if case.get("energy_j_per_sample") is not None:
        energy = f"{joules(case['energy_j_per_sample'])} {words.provenance_kind(case.get('energy_provenance'))}"
    if not case["n"]:
        interval = "failed"
    return [
        Text(words.printable(f"  {name}")),
        Text(words.percent(case.get("accuracy"))),
        Text(words.macs(case.get("macs_mean"))),
        Text(_of_static(case, case.get("macs_mean"))),
        Text(back, style="red" if strong else ""),
        Text(interval, style="dim"),
        Text(energy),
    ]


def _of_static(case: Record, macs: float | None) -> str:
    full = case.get("macs_full")
    return words.percent(macs / full, 0) if macs is not None and full else words.DASH


def show_notes(console: Console, notes: Sequence[str]) -> None:
    """What a careful colleague would add."""
    if not notes:
        return
    console.print(f"\n{words.plural(len(notes), 'thing')} to know", style="bold", highlight=False)
    for note in notes:
        console.print(Text(words.printable(f"  · {note}")), soft_wrap=False, highlight=False)


def headline(manifest: Mapping[str, Any]) -> str:
    """Suite, data, device and size of the matrix, in a line."""
    ((data, details),) = manifest["data"].items()
    models = words.plural(len(manifest["models"]), "model")
    conditions = words.plural(len(manifest["conditions"]), "condition")
    images = f"{data}, {words.count(details['n'])} test images"
    return " · ".join([manifest["suite"]["name"], images, _where(manifest["device"]), f"{models} × {conditions}"])


def study_headline(record: Mapping[str, Any]) -> str:
    """Study, whose claims, device and size, in a line."""
    graphs = words.plural(len(record["graphs"]), "graph")
    policies = words.plural(max(len(graph["policies"]) for graph in record["graphs"].values()), "policy", "policies")
    return " · ".join([record["name"], record["cite"], _where(record["device"]), f"{graphs} × {policies}"])


def _where(device: Mapping[str, Any]) -> str:
    return f"{device['kind']}, {device.get('threads', '?')} threads" if device["kind"] == "cpu" else str(device["name"])
