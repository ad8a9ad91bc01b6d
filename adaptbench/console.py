"""What the terminal shows: the table after a run, and mistakes without a traceback."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from adaptbench.errors import AdaptBenchError
from adaptbench.report import words
from adaptbench.report.modes import clause
from adaptbench.results.identity import COMPACTED, mode_of
from adaptbench.results.quality import metric_of, word_of
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
        width: of the terminal; where it is too narrow for all, energy is left to the page, never the interval.
    """
    rows = _one_row_each(cases)
    kinds = {words.provenance_kind(c.get("energy_provenance")) for c in rows if c.get("energy_j_per_sample")} - {""}
    joules = words.one_scale([c.get("energy_j_per_sample") for c in rows], "J")
    several = len(manifest.get("seeds") or ()) > 1
    most = max((c["n"] for c in rows), default=0)
    lines: list[list[Text]] = []
    previous = ""
    for case in rows:
        group = "references" if case["kind"] == "reference" else case["model"]
        if group != previous:
            if previous:
                lines.append([Text("")] * 6)
            previous = group
            lines.append(_group(group, case, rows))
        lines.append(_cells(case, manifest, joules, kinds, several))
        if case.get("macs_clean_mean") is not None and case["n"] < most:
            before = words.macs(case["macs_clean_mean"])
            same = [f"    clean, the same {case['n']} inputs", "", before, _of_plain(case, case["macs_clean_mean"])]
            lines.append([Text(text, style="dim") for text in (*same, "", "")])
    energy = _energy_title(rows, kinds)
    titles = ["", word_of(rows), "MACs", "of its\nplain net", "taken back\nwith 95 % interval", energy]
    return _as_wide(titles, lines, width)


def _as_wide(titles: list[str], lines: Sequence[Sequence[Text]], width: int) -> Table:
    """Columns of figures are never cut: the last goes where there is no room, then names fold."""
    widths = [
        max(cell_len(text) for text in [*title.split("\n"), *(line[i].plain for line in lines)])
        for i, title in enumerate(titles)
    ]
    shown = titles if sum(widths) + 2 * (len(titles) - 1) <= width else titles[:-1]
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("", overflow="fold")
    for title, wide in list(zip(shown, widths, strict=False))[1:]:
        table.add_column(title, justify="right", no_wrap=True, min_width=wide)
    for line in lines:
        table.add_row(*line[: len(shown)])
    return table


def _group(title: str, case: Record, rows: Sequence[Record]) -> list[Text]:
    """A line above the rows of one model, with its plain net; references of a suite share one where they can."""
    plain = {c.get("macs_full") for c in rows if c["kind"] == "reference"} if title == "references" else set()
    full = case.get("macs_full") if len(plain) < 2 else None
    of = f"of {words.macs(full)}" if full else ""
    return [Text(words.printable(title), style="bold"), Text(""), Text(""), Text(of, style="dim"), Text(""), Text("")]


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


def _energy_title(rows: Sequence[Record], kinds: Collection[str]) -> str:
    timed = max((case for case in rows if case.get("batch_size")), key=_timed_rank, default=None)
    parts = [*(kinds if len(kinds) == 1 else ()), "energy/sample"]
    if timed is not None:
        parts.append(f"batch {timed['batch_size']}{clause(mode_of(timed))}")
    return "\n".join(parts)


def _one_row_each(cases: Sequence[Record]) -> list[Record]:
    chosen: dict[str, Record] = {}
    for case in cases:
        if case["knob"] is not None or case["kind"] == "transfer":
            continue  # points of a curve, which the page draws; what `transfer_grids` shows
        kept = chosen.get(case["evaluation"])
        if kept is None or _timed_rank(case) > _timed_rank(kept):
            chosen[case["evaluation"]] = case
    return list(chosen.values())


def _timed_rank(case: Record) -> tuple[bool, int]:
    return mode_of(case) == COMPACTED, case.get("batch_size") or 0


def _cells(case: Record, manifest: Mapping[str, Any], joules: Any, kinds: Collection[str], several: bool) -> list[Text]:
    settings = (manifest["conditions"].get(case["condition"]) or {}).get("settings") or {}
    name = case["condition"]
    if case["kind"] == "reference":
        name = f"{case['model']} (plain net)" if case.get("policy") == "static" else case["model"]
    eps = settings.get("eps")
    if isinstance(eps, int | float):
        name += f" {words.size_of(settings, eps)}"
    if case["kind"] == "control":
        name += " (control)"
    if several and case.get("seed") is not None:
        name += f", seed {case['seed']}"
    back = words.DASH
    if case.get("recovery") is not None and case["kind"] in {"control", "attack"}:
        back = f"{words.percent(case['recovery'])} {words.interval(case.get('recovery_ci')):>13}"
    strong = case["kind"] == "attack" and (case.get("recovery") or 0) > 0.5
    energy = words.DASH
    if case.get("energy_j_per_sample") is not None:
        energy = joules(case["energy_j_per_sample"])
        energy += f" {words.provenance_kind(case.get('energy_provenance'))}" if len(kinds) > 1 else ""
    if not case["n"]:
        back = "failed"
    return [
        Text(words.printable(f"  {name}")),
        Text(words.percent(case.get(metric_of(case)))),
        Text(words.macs(case.get("macs_mean"))),
        Text(_of_plain(case, case.get("macs_mean"))),
        Text(back, style="red" if strong else ""),
        Text(energy),
    ]


def _of_plain(case: Record, macs: float | None) -> str:
    full = case.get("macs_full")
    return words.percent(macs / full, 0) if macs is not None and full else words.DASH


MOST_NOTES = 4
"""More than a reader takes in after a table; the others are counted."""


def show_notes(console: Console, notes: Sequence[str], *, verbose: bool = True, page: bool = True) -> None:
    """What a careful colleague would add, the gravest first.

    Args:
        console: where to. notes: in order of weight. verbose: all of them, else `MOST_NOTES` and how many are left.
        page: there is one, on which all stand.
    """
    if not notes:
        return
    shown = notes if verbose else notes[:MOST_NOTES]
    console.print(f"\n{words.plural(len(notes), 'thing')} to know", style="bold", highlight=False)
    for note in shown:
        show_item(console, words.printable(f"· {note}"))
    if left := len(notes) - len(shown):
        console.print(f"    {left} more: {'on the page, or ' if page else ''}with -v", style="dim", highlight=False)


def show_item(console: Console, text: str) -> None:
    """A sentence on as many lines as it takes, each set in; a figure keeps its unit."""
    kept = re.sub(r"(?<=\d) (?=%|MACs|s\b|ms\b|of \d)", "\xa0", " ".join(text.split(" ")))
    wrap = textwrap.TextWrapper(max(console.width - 4, 20), break_on_hyphens=False, break_long_words=False)
    lines = [wrapped for line in kept.split("\n") for wrapped in wrap.wrap(line)]
    for i, line in enumerate(lines):
        console.print(Text(f"  {'' if i == 0 else '  '}{line}".replace("\xa0", " ")), soft_wrap=True, highlight=False)


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
    if device["kind"] != "cpu":
        return str(device["name"])
    threads = device.get("threads")
    return f"cpu, {words.plural(threads, 'thread') if threads else '? threads'}"


def serving_headline(record: Mapping[str, Any]) -> str:
    """Suite, samples, device and size, in a line."""
    ((data, details),) = record["data"].items()
    models, streams = words.plural(len(record["models"]), "model"), words.plural(len(record["streams"]), "stream")
    samples = f"{data}, {words.count(details['n'])} test samples"
    return " · ".join([record["name"], samples, _where(record["device"]), f"{models}, {streams} simulated"])


def serving_tables(record: Mapping[str, Any]) -> list[Table]:
    """Simulated streams, then real runs beside their simulations."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("simulated", "p99", "in time", "the honest's p99", "accuracy lost"):
        table.add_column(title, justify="right" if table.columns else "left", no_wrap=bool(table.columns))
    scale = words.one_scale([row["simulated_p50_s"] for row in record["streams"]], "s")
    for row in record["streams"]:
        alone = not row["share"] and row["defence"] == "none"
        ratio, lost = row["simulated_benign_p99_ratio"], row["simulated_benign_accuracy_lost"]
        late = (row["simulated_goodput"] or 0) < 0.99
        table.add_row(
            Text(words.printable(row["case"])),
            Text(scale(row["simulated_p99_s"]), style="red" if late else ""),
            words.percent(row["simulated_goodput"]),
            "" if alone else f"{words.number(ratio)} ×",
            "" if alone else f"{words.number(100 * lost, 1)} points",
        )
    if not record["checks"]:
        return [table]
    real = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("served for real", "mean", "simulated", "p99", "simulated", ""):
        real.add_column(title, justify="right" if real.columns else "left", no_wrap=bool(real.columns))
    scale = words.one_scale([row["measured_mean_s"] for row in record["checks"]], "s")
    for row in record["checks"]:
        figures = [scale(row[f"{how}_{name}"]) for name in ("mean_s", "p99_s") for how in ("measured", "simulated")]
        real.add_row(Text(words.printable(row["case"])), *figures, "within 10 %" if row["within"] else "apart")
    return [table, real]


def decoding_headline(record: Mapping[str, Any]) -> str:
    """Suite, prompts, device and size, in a line."""
    ((data, details),) = record["data"].items()
    prompts, decoders = words.plural(details["n"], "prompt"), words.plural(len(record["decoders"]), "decoder")
    return " · ".join([record["name"], f"{data}, {prompts}", _where(record["device"]), decoders])


def decoding_tables(record: Mapping[str, Any]) -> list[Table]:
    """Decoders; then a table for each objective that was attacked: what they cost is never added up."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("decoder", "MACs a character", "saved", "layers", "bits", "as greedy", "a character"):
        table.add_column(title, justify="right" if table.columns else "left", no_wrap=bool(table.columns))
    scale = words.one_scale([row["latency_s_per_token"] for row in record["decoders"]], "s")
    for row in record["decoders"]:
        table.add_row(
            Text(words.printable(row["case"])),
            words.macs(row["macs_per_token"]),
            words.percent(row["saving_macs"]),
            words.number(row["layers_per_token"]),
            words.number(row["bits_per_character"]),
            words.percent(row["identical"], 0),
            scale(row["latency_s_per_token"]),
        )
    found = [table]
    for row in record["attacks"]:
        attacked = Table(box=None, pad_edge=False, header_style="dim")
        unit = "MACs a character" if row["objective"] == "depth" else "characters"
        titles = (f"{row['objective']} attacked", f"{unit}, clean", "attacked", "more", "by chance", "best of chance")
        for title in titles:
            attacked.add_column(title, justify="right" if attacked.columns else "left", no_wrap=bool(attacked.columns))
        shown = words.macs if row["objective"] == "depth" else words.number
        attacked.add_row(
            Text(words.printable(row["case"])),
            shown(row["clean"]),
            shown(row["attacked"]),
            *(words.percent(row[f"increase{kind}"]) for kind in ("", "_random", "_random_best")),
        )
        found.append(attacked)
    return found
