"""A study as one HTML page: published figures beside ours, curves, chosen points, budgets, promises, the clock."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adaptbench.report import html, words
from adaptbench.report.figures.study_curves import CAPTION, LEGEND, panels
from adaptbench.report.study_tables import (
    budget_error_table,
    clock_table,
    graph_title,
    noise_table,
    resplit_table,
    stateful_table,
)
from adaptbench.report.tables import Builder, Column, Table, TableCell
from adaptbench.report.view import missing
from adaptbench.results.studies import (
    NOT_RECOVERED,
    chosen_points,
    decimals,
    executed_points,
    incomplete,
    judged,
    loss_of,
    read_study,
    stated,
)
from adaptbench.results.study_schema import filled

Graph = Mapping[str, Any]

SECTIONS = {
    "published": "Published and ours",
    "curves": "Accuracy against cost",
    "chosen": "Points chosen on calibration",
    "budgets": "At equal realised cost",
    "promises": "Promises kept and broken",
    "stateful": "State, and noise in training",
    "clock": "On the clock",
    "reproduce": "How to reproduce",
}
_UNIT = {
    "speedup": "×", "cost_share": "of full", "drop_points": "points", "accuracy": "%", "oracle_share": "of oracle",
    "gain_points": "points", "broken": "of 100", "budgets_ahead": "budgets", "budgets_held": "budgets",
    "budget_error": "%",
}  # fmt: skip


def write_study_report(run: Path, out: Path) -> Path:
    """Write the page of a study's run directory or file.

    Raises:
        RunError: it holds no study. OutputError: ``out`` cannot be written.
    """
    return html.write(study_page(read_study(run)), out)


def study_page(record: Mapping[str, Any]) -> str:
    """The page as text; the same study gives the same bytes."""
    record = filled(record)
    graphs: Mapping[str, Graph] = record["graphs"]
    device = record.get("device") or {}
    return html.render(
        "study.html.j2",
        title=record["title"] or record["name"],
        kicker=[f"study {record['name']}", str(device.get("kind", "")), str(record.get("started", ""))[:10]],
        contents=list(SECTIONS.items()),
        names=SECTIONS,
        sources=f"the study “{record['name']}”",
        verdict=_sentences(record),
        notes=[*(record["notes"] or []), *_notes(record)],
        published=_published(record),
        panels=panels(record),
        legend=LEGEND,
        caption=CAPTION,
        curve_tables=[_curve_table(record, key, graph) for key, graph in graphs.items()],
        chosen_tables=[_chosen_table(key, graph) for key, graph in graphs.items()],
        budget_tables=[
            table
            for key, graph in graphs.items()
            for table in (_budget_table(record, key, graph), budget_error_table(key, graph))
        ],
        resplit_tables=[resplit_table(key, graph) for key, graph in graphs.items() if graph["resplits"]],
        stateful_tables=[stateful_table(key, graph) for key, graph in graphs.items() if graph.get("online")],
        noise_tables=[noise_table(key, graph) for key, graph in graphs.items() if graph.get("gradient_noise")],
        clock_tables=[clock_table(key, graph) for key, graph in graphs.items() if graph["wall_clock"]],
        command=str(record.get("command") or ""),
        facts=_facts(record),
        text=str(record.get("text") or ""),
        versions=html.facts(record.get("versions") or {}),
    )


def _sentences(record: Mapping[str, Any]) -> list[str]:
    """Who is replicated, then two sentences a graph: the published rule and ours."""
    sentences = [f"Replicates {record['cite']}."]
    for key, graph in record["graphs"].items():
        for kind, name in (("The published rule", record["paper"]), ("Ours", record["ours"])):
            if name in graph["policies"]:
                sentences.append(f"{kind} ({name}) on {key}: {_headline(graph, graph['policies'][name])}")
    return sentences


def _headline(graph: Graph, policy: Mapping[str, Any]) -> str:
    """The non-inferior point, and whether test bears it out."""
    margin = f"{100 * graph['margin']:g} point{'' if graph['margin'] == 0.01 else 's'}"
    point = policy["non_inferior"]
    if point is None:
        return f"no point is shown to lose less than {margin}: {policy['non_inferior_missing']}."
    low, high = (words.number(end) for end in point["drop_points_ci"])
    borne_out = "as on test" if point["held"] else "which test does not bear out"
    return (
        f"{point['speedup']:.2f} × fewer MACs for {words.number(point['drop_points'])} points [{low}, {high}] of "
        f"accuracy; the cheapest point that calibration shows to lose less than {margin}, {borne_out}."
    )


def _notes(record: Mapping[str, Any]) -> list[str]:
    notes = incomplete(record)
    for key, graph in record["graphs"].items():
        executed = executed_points(graph)
        if executed:
            differing = sum(e["differing"] for e in executed)
            notes.append(
                f"{key}: {len(executed)} points were executed on {graph['n_test']} samples each; "
                f"{words.plural(differing, 'sample')} differed from the log, ties aside "
                f"({sum(e['ties'] for e in executed)} ties)."
            )
        notes += [f"{key}: {what} was not done: {why}." for what, why in graph["not_run"].items()]
        if graph["dominance_violations"]:
            notes.append(
                f"{key}: on {words.percent(graph['dominance_violations'])} of the samples an earlier exit is right "
                "where the last one is wrong."
            )
    return notes


def _published(record: Mapping[str, Any]) -> Table | None:
    if not record["published"]:
        return None
    table = Builder(
        "published-table",
        "Published figures and targets, ours beside them",
        (
            Column("claim", numeric=False),
            Column("published"),
            Column("read from", numeric=False),
            Column("ours"),
            Column("verdict", numeric=False),
            Column("why", numeric=False),
        ),
    )
    for figure in record["published"]:
        ours = figure["ours"]
        value, interval, said = judged(record, figure)
        unit = _UNIT[ours["figure"]] if ours else ""
        read, digits = stated(figure), decimals(figure)
        theirs = (
            TableCell(words.DASH, reason=figure["why"] or NOT_RECOVERED)
            if read is None
            else TableCell(f"{words.number(read, digits)} {unit}".strip(), value=read)
        )
        if read is not None and figure.get("points_lost") is not None:
            theirs = TableCell(theirs.text, value=read, under=f"for {words.number(figure['points_lost'])} points")
        lost, about = loss_of(record, figure)
        under = words.interval(interval, 2, scale=1)
        if lost is not None:
            under = f"for {words.number(lost)} points {words.interval(about, 2, scale=1)}"
        mine = (
            TableCell(words.DASH, reason=figure["why"] or "there is no counterpart in this study")
            if value is None
            else TableCell(f"{words.number(value, digits)} {unit}", value=value, under=under)
        )
        source = "our target" if figure["target"] else figure["provenance"]
        table.add(figure["claim"], theirs, source, mine, said, figure.get("unlike") or figure["why"])
    return table.build(drop_empty=(5,))


def _curve_table(record: Mapping[str, Any], key: str, graph: Graph) -> Table:
    drops = list(next(iter(graph["policies"].values()))["cost_at_drop"])
    table = Builder(
        f"curve-{key}",
        f"{graph_title(key, graph)}: the whole curve of each policy. Area: mean accuracy over costs up to the full "
        "net; cost at a drop is read off the test curve (a description, not a choice)",
        (
            Column("policy", numeric=False),
            Column("area", unit="%"),
            *(Column(f"cost at −{100 * float(d):g} points", unit="%") for d in drops),
            Column("members"),
            Column("fitted in", unit="s"),
        ),
    )
    ranked = sorted(graph["policies"].items(), key=lambda item: -(item[1]["area"] or 0))
    for name, policy in ranked:
        kind = "clean" if name == record["ours"] else "attack" if name == record["paper"] else ""
        area = policy["area"]
        cells = [
            TableCell(words.DASH, reason=missing(policy, "cost_at_drop"))
            if (cost := policy["cost_at_drop"].get(d)) is None
            else TableCell(words.percent(cost), value=100 * cost)
            for d in drops
        ]
        table.add(
            name,
            TableCell(words.DASH, reason=missing(policy, "area"))
            if area is None
            else TableCell(words.percent(area, 2), value=100 * area),
            *cells,
            TableCell(words.count(policy["members"]), value=policy["members"]),
            TableCell(words.seconds(policy["fit_s"]), value=policy["fit_s"]),
            kind=kind,
        )
    return table.build()


def _chosen_table(key: str, graph: Graph) -> Table:
    oracle = words.percent(graph["oracle"]["macs"] / graph["macs_full"])
    table = Builder(
        f"chosen-{key}",
        f"{graph_title(key, graph)}: reference {words.percent(graph['reference_accuracy'], 2)} at "
        f"{words.macs(graph['macs_full'])} MACs; the oracle costs {oracle}",
        (
            Column("policy", numeric=False),
            Column("chosen for", numeric=False),
            Column("lost", unit="points"),
            Column("MACs", unit="% of full"),
            Column("speed-up", unit="×"),
            Column("oracle's saving", unit="%"),
            Column("executed", numeric=False),
        ),
    )
    for name, policy in graph["policies"].items():
        for aim, point in chosen_points(policy):
            ran = point.get("executed")
            share = point["oracle_share"]
            table.add(
                name,
                aim,
                TableCell(
                    words.number(point["drop_points"]),
                    value=point["drop_points"],
                    under=words.interval(point["drop_points_ci"], 2, scale=1),
                ),
                TableCell(words.percent(point["cost_share"]), value=100 * point["cost_share"]),
                TableCell(words.number(point["speedup"]), value=point["speedup"]),
                TableCell(words.DASH, reason=missing(point, "oracle_share"))
                if share is None
                else TableCell(words.percent(share, 0), value=100 * share),
                "" if ran is None else "as logged" if not ran["differing"] else f"{ran['differing']} differ",
            )
    return table.build(drop_empty=(6,))


def _budget_table(record: Mapping[str, Any], key: str, graph: Graph) -> Table:
    budgets = graph["budgets"]
    table = Builder(
        f"budget-{key}",
        f"{graph_title(key, graph)}: accuracy at a mean cost of so many per cent of the full net; under it, how far "
        f"{record['ours']} is ahead, in points",
        (Column("policy", numeric=False), *(Column(f"{100 * b:g} %") for b in budgets)),
    )
    rows: dict[str, dict[float, Mapping[str, Any]]] = {}
    for row in graph["at_budget"]:
        rows.setdefault(row["policy"], {})[row["budget"]] = row
    for name, by_budget in rows.items():
        kind = "clean" if name == record["ours"] else "attack" if name == record["paper"] else ""
        cells = []
        for budget in budgets:
            row = by_budget[budget]
            if row["accuracy"] is None:
                cells.append(TableCell(words.DASH, reason=missing(row, "accuracy")))
                continue
            ahead, interval = row["ours_ahead_points"], row["ours_ahead_points_ci"]
            under = why = ""
            if name != record["ours"] and ahead is None:
                under, why = (
                    words.DASH,
                    f"not told how far {record['ours']} is ahead: {missing(row, 'ours_ahead_points')}",
                )
            elif name != record["ours"]:
                under = f"{words.number(ahead, signed=True)} {words.interval(interval, 2, scale=1)}"
            cells.append(
                TableCell(words.percent(row["accuracy"], 2), value=100 * row["accuracy"], under=under, reason=why)
            )
        table.add(name, *cells, kind=kind)
    return table.build()


def _facts(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    device, git = record.get("device") or {}, record.get("git") or {}
    graphs = {
        f"graph: {key}": f"{g['model']} on {g['data']}, {words.count(g['n_fitting'])} samples to fit on, "
        f"{words.count(g['n_choosing'])} to choose on, {words.count(g['n_test'])} test samples; "
        f"choices sealed under {g['choices_sha256'][:16]}…"
        for key, g in record["graphs"].items()
    }
    return html.facts(
        {
            "study": record["name"],
            "study sha256": record["sha256"],
            "device": f"{device.get('name', 'unknown')}, {device.get('threads', '?')} threads" if device else "",
            "git revision": git.get("revision"),
            **graphs,
            "started": record.get("started"),
            "ended": record.get("ended"),
        }
    )
