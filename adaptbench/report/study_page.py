"""A study as one HTML page: the verdict, claims one by one, curves, chosen points, the clock, budgets, promises."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adaptbench.report import html, study_tables, study_verdict, words
from adaptbench.report.figures.study_curves import CAPTION, LEGEND, panels
from adaptbench.report.policy_names import data_name, policy_name, spelled
from adaptbench.report.reproduce import made_by
from adaptbench.report.study_clock import clock_table, pace_table
from adaptbench.report.study_tables import Graph, graph_title
from adaptbench.report.tables import Builder, Column, Table, TableCell
from adaptbench.results.studies import NOT_RECOVERED, StudyRun, decimals, loss_of, stated
from adaptbench.results.study_claims import Claim, Outcome, claims
from adaptbench.results.study_schema import filled

SECTIONS = {
    "published": "Claims, one by one",
    "curves": "Accuracy against cost",
    "chosen": "What is saved at which loss",
    "clock": "On the clock",
    "budgets": "At the same cost",
    "promises": "Promises kept and broken",
    "stateful": "Policies that keep state",
    "noise": "Noise of the training gradient",
    "reproduce": "Method, and how to do it again",
}
_UNIT = {
    "speedup": "×", "cost_share": "of the plain net", "drop_points": "points", "accuracy": "%",
    "oracle_share": "of the oracle's", "gain_points": "points", "broken": "of 100", "budgets_ahead": "budgets",
    "budgets_held": "budgets", "budget_error": "%",
}  # fmt: skip
_READ_FROM = {
    "[abs]": "abstract or venue page",
    "[xls]": "authors' spreadsheet",
    "[code]": "authors' code",
    "[2nd]": "a secondary source",
    "[calc]": "worked out from their figures",
}
_KINDS = {Outcome.NOT_MET: "bad", Outcome.MET: "good", Outcome.DIFFERS: "unclear", Outcome.NOT_COMPARABLE: "unclear"}


def write_study_report(run: Path, out: Path) -> Path:
    """Write the page of a study's run directory or file.

    Raises:
        RunError: it holds no study. OutputError: ``out`` cannot be written.
    """
    return html.write(study_page(StudyRun.read(run)), out)


def study_page(record: Mapping[str, Any]) -> str:
    """The page as text; the same study gives the same bytes."""
    record = filled(record)
    graphs: Mapping[str, Graph] = record["graphs"]
    device, found = record.get("device") or {}, claims(record)
    limits, further = study_verdict.limits(record)
    tables = _tables(record)
    published = _published(record, found)
    filled_in = {"published": published, "curves": graphs, "chosen": graphs, **tables, "reproduce": True}
    names = {key: name for key, name in SECTIONS.items() if filled_in[key]}
    return html.render(
        "study.html.j2",
        title=record["title"] or record["name"],
        kicker=[f"study {record['name']}", str(device.get("name") or ""), str(record.get("started", ""))[:10]],
        contents=list(names.items()),
        names=names,
        sources=f"the study “{record['name']}”",
        cite=record["cite"],
        limit=study_verdict.limit(record),
        verdict=study_verdict.sentences(record, found),
        chips=study_verdict.chips(record),
        ledger=study_verdict.ledger(record) if graphs else None,
        limits=limits,
        further=further,
        published=published,
        panels=panels(record),
        legend=LEGEND,
        caption=CAPTION,
        curve_tables=[study_tables.curve_table(record, key, graph) for key, graph in graphs.items()],
        chosen_tables=[study_tables.chosen_table(record, key, graph) for key, graph in graphs.items()],
        tables=tables,
        clock_tables=[clock_table(key, graph) for key, graph in graphs.items() if graph["wall_clock"]],
        budget_tables=[
            table
            for key, graph in graphs.items()
            for table in (study_tables.budget_table(record, key, graph), study_tables.budget_error_table(key, graph))
        ],
        ours=policy_name(record["ours"]),
        command=str(record.get("command") or ""),
        facts=_facts(record),
        text=str(record.get("text") or ""),
        versions=html.facts(record.get("versions") or {}),
    )


def _tables(record: Mapping[str, Any]) -> dict[str, list[Table]]:
    """The tables of each section that a study may leave empty."""
    graphs: Mapping[str, Graph] = record["graphs"]

    def of(made: Any, name: str) -> list[Table]:
        return [made(key, graph) for key, graph in graphs.items() if graph.get(name)]

    ahead = [study_tables.ahead_table(record, key, graph) for key, graph in graphs.items() if graph["at_budget"]]
    return {
        "clock": of(pace_table, "wall_clock"),
        "budgets": [table for table in ahead if table is not None],
        "promises": of(study_tables.resplit_table, "resplits"),
        "stateful": of(study_tables.stateful_table, "online"),
        "noise": of(study_tables.noise_table, "gradient_noise"),
    }


def _published(record: Mapping[str, Any], found: list[Claim]) -> Table | None:
    """Claims, those not met first."""
    if not found:
        return None
    table = Builder(
        "published-table",
        "Published figures and targets, ours beside them",
        (
            Column("claim", numeric=False),
            Column("verdict", numeric=False),
            Column("claimed"),
            Column("ours"),
            Column("read from", numeric=False),
            Column("to know", numeric=False),
        ),
    )
    order, codes = list(Outcome), study_verdict.codes_of(record)
    for claim in sorted(found, key=lambda claim: order.index(claim.outcome)):
        figure = claim.published
        said = claim.said
        if claim.outcome.value not in said and claim.outcome is not Outcome.DIFFERS:
            said = f"{claim.outcome}: {said}"
        table.add(
            spelled(claim.text, codes),
            TableCell(said, kind=_KINDS[claim.outcome]),
            _theirs(figure),
            _ours(record, claim),
            "our target" if figure["target"] else _read_from(figure["provenance"]),
            spelled(claim.why, codes),
        )
    return table.build(drop_empty=(5,), cards=True)


def _read_from(tags: str) -> str:
    for tag, said in _READ_FROM.items():
        tags = tags.replace(tag, said)
    return tags or "the study does not say"


def _theirs(figure: Mapping[str, Any]) -> TableCell:
    read, unit = stated(figure), _UNIT[figure["ours"]["figure"]] if figure["ours"] else ""
    if read is None:
        return TableCell(words.DASH, reason=figure["why"] or NOT_RECOVERED)
    lost = figure.get("points_lost")
    under = "" if lost is None else f"for {words.number(lost)} points lost"
    return TableCell(f"{words.number(read, decimals(figure))} {unit}".strip(), value=read, under=under)


def _ours(record: Mapping[str, Any], claim: Claim) -> TableCell:
    figure = claim.published
    if claim.value is None:
        return TableCell(words.DASH, reason=claim.why or "there is no counterpart in this study")
    lost, about = loss_of(record, figure)
    under = words.interval(claim.interval, 2, scale=1)
    if lost is not None:
        under = f"for {words.number(lost)} points lost {words.interval(about, 2, scale=1)}"
    text = f"{words.number(claim.value, decimals(figure))} {_UNIT[figure['ours']['figure']]}"
    return TableCell(text, value=claim.value, under=under)


def _facts(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    device, git = record.get("device") or {}, record.get("git") or {}
    graphs = {graph_title(key, graph): _about(graph) for key, graph in record["graphs"].items()}
    return html.facts(
        {
            "study": record["name"],
            "study sha256": record["sha256"],
            "device": f"{device.get('name', 'unknown')}, {device.get('threads', '?')} threads" if device else "",
            "computed by": made_by(record.get("engines") or {}),
            "git revision": git.get("revision"),
            **graphs,
            "started": record.get("started"),
            "ended": record.get("ended"),
        }
    )


def _about(graph: Graph) -> str:
    sealed = (
        f"{policy_name(graph['model'])} on {data_name(graph['data'])}. {words.count(graph['n_fitting'])} samples to "
        f"fit on, {words.count(graph['n_choosing'])} to choose on, {words.count(graph['n_test'])} to test on; choices "
        f"sealed under {graph['choices_sha256'][:16]}…."
    )
    return " ".join([sealed, *study_verdict.about_graph(graph)])
