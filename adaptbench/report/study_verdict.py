"""The first thing on a study's page: claims met and not met, what is saved, what the clock sees, and its limits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from adaptbench.report import words
from adaptbench.report.policy_names import policy_name, spelled
from adaptbench.report.study_tables import Graph, graph_title
from adaptbench.report.tables import Builder, Column, Table, TableCell
from adaptbench.results.studies import StudyRun, executed_points
from adaptbench.results.study_claims import Claim, Outcome, side_of

FASTER, SLOWER, CANNOT_TELL = "faster", "slower", "cannot tell"
PACE = {1: FASTER, -1: SLOWER, 0: CANNOT_TELL}
"""What an interval of a speed-up says: above 1, below 1, on both sides of it."""
PLAIN_NET = "the plain net (the whole network, or the dearest of several, run to its end for every sample)"
_NAMED = 4
"""Claims not met that the first sentence spells out; limits that the page opens with."""


def sentences(record: Mapping[str, Any], claims: list[Claim]) -> list[tuple[str, str]]:
    """Three at most, each as (the point, the rest): claims, what our rule and the published one save, the clock."""
    return [(lead, rest) for lead, rest in (_claimed(claims, record), _saved(record), _timed(record)) if lead or rest]


def chips(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(kind, text): how the figures of the page came about."""
    timed = any(graph["wall_clock"] for graph in record["graphs"].values())
    return [("counted", "MACs counted"), ("measured", "time measured") if timed else ("absent", "no time measured")]


def limit(record: Mapping[str, Any]) -> str:
    """What a run with ``--limit`` has to say of itself before anything else; "" of a whole one."""
    if record.get("limit") is None:
        return ""
    n = words.count(record["limit"])
    return (
        f"A trial run: --limit {record['limit']} let at most {n} test samples in. It shows that the study works here; "
        "its figures are not the study's."
    )


def _claimed(claims: list[Claim], record: Mapping[str, Any]) -> tuple[str, str]:
    if not claims:
        return "This study states no claim.", ""
    judged = [claim for claim in claims if claim.outcome is not Outcome.NOT_COMPARABLE]
    if not judged:
        return f"None of {words.plural(len(claims), 'claim')} can be compared.", ""
    missed = [claim for claim in judged if claim.outcome is Outcome.NOT_MET]
    other = [claim for claim in judged if claim.outcome is Outcome.DIFFERS]
    of, met = words.plural(len(judged), "claim"), len(judged) - len(missed) - len(other)
    rest = []
    if missed:
        lead = f"{words.count(len(missed))} of {of} not met:"
        named = [spelled(claim.text, codes_of(record)) for claim in missed[:_NAMED]]
        named += [f"{len(missed) - _NAMED} more"] if len(missed) > _NAMED else []
        rest.append(f"{'; '.join(named)}.")
    else:
        lead = f"All {of} met." if met == len(judged) else f"{words.count(met)} of {of} met, none missed."
    trades = Counter(claim.said for claim in other)
    rest += [f"{words.cardinal(n)} {_trade(trade, n)}." for trade, n in trades.items()]
    if apart := len(claims) - len(judged):
        rest.append(f"{words.cardinal(apart)} more cannot be compared.")
    return lead, " ".join(rest)


def _trade(said: str, n: int) -> str:
    """Another point on the curve, with its verb."""
    verbs = ("saves", "loses") if n == 1 else ("save", "lose")
    much = "more" if "more" in said else "less"
    return f"{verbs[0]} {much} than published and {verbs[1]} {much} accuracy"


def _saved(record: Mapping[str, Any]) -> tuple[str, str]:
    """The saving of the cheapest points that calibration shows to be safe, over all nets."""
    parts = []
    for whose, name in _rules(record):
        found = [g["policies"][name]["non_inferior"] for g in record["graphs"].values() if name in g["policies"]]
        held = [point for point in found if point is not None and point["held"]]
        if found:
            shares = sorted(1 - point["cost_share"] for point in held)
            ends = " to ".join(dict.fromkeys(words.percent(share, 0) for share in (*shares[:1], *shares[-1:])))
            nets = words.plural(len(found), "net")
            where = f"all {nets}" if len(held) == len(found) > 1 else f"{len(held)} of {nets}"
            saves = f"saves {ends} of the MACs on {where}" if held else f"is not shown to save anything on {nets}"
            parts.append(f"{whose} ({policy_name(name)}) {saves}")
    if not parts:
        return "", ""
    margins = dict.fromkeys(_margin(graph) for graph in record["graphs"].values())
    return "", f"Against {PLAIN_NET}, losing less than {words.listing(margins, 'or')}: {'; '.join(parts)}."


def _timed(record: Mapping[str, Any]) -> tuple[str, str]:
    rows = [row for graph in record["graphs"].values() for row in graph["wall_clock"]]
    if not rows:
        return "", ""
    paces = Counter(pace_of(row["net_speedup_ci"]) for row in rows)
    told = [f"{paces[FASTER]} of {words.plural(len(rows), 'timed case')} are faster than the plain net"]
    told += [f"{paces[SLOWER]} slower"] if paces[SLOWER] else []
    told += [f"for {paces[CANNOT_TELL]} the clock cannot tell"] if paces[CANNOT_TELL] else []
    told += [f"{paces['']} have no interval"] if paces[""] else []
    return "", f"On the clock, {', '.join(told)}."


def pace_of(interval: list[float] | None) -> str:
    """``faster``, ``slower`` or ``cannot tell``; "" without an interval."""
    side = side_of(interval, 1.0)
    return "" if side is None else PACE[side]


def _rules(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    pairs = [("the published rule", record["paper"]), ("ours", record["ours"])]
    return [(whose, name) for whose, name in pairs if name]


def _margin(graph: Graph) -> str:
    return words.plural_of(100 * graph["margin"], "point")


def ledger(record: Mapping[str, Any]) -> Table:
    """One row a net: the plain net, and what the published rule and ours save for which loss."""
    table = Builder(
        "study-verdict",
        "One row a net: what is saved at a loss that calibration shows to stay below the margin",
        (
            Column("net", numeric=False),
            Column("plain net: accuracy", unit="%"),
            Column("its MACs"),
            *(Column(f"MACs saved, {whose}", unit="%") for whose, _ in _rules(record)),
            Column("verdict", numeric=False),
        ),
    )
    for key, graph in record["graphs"].items():
        cells, said = [], []
        for whose, name in _rules(record):
            cell, word = _saving_cell(graph, name)
            cells.append(cell)
            said.append(f"{whose}: {word}")
        alike = {text.split(": ", 1)[1] for text in said}
        verdict = alike.pop() if len(said) == 2 and len(alike) == 1 else "; ".join(said)
        table.add(
            graph_title(key, graph),
            TableCell(words.percent(graph["reference_accuracy"], 2), value=100 * graph["reference_accuracy"]),
            TableCell(words.macs(graph["macs_full"]), value=graph["macs_full"]),
            *cells,
            verdict,
        )
    return table.build(cards=True)


def _saving_cell(graph: Graph, name: str) -> tuple[TableCell, str]:
    """The saving with the loss under it, and what test says of it."""
    policy = graph["policies"].get(name)
    if policy is None:
        reason = graph["failed"].get(name) or "it is not one of the policies of this net"
        return TableCell(words.DASH, reason=reason), "was not fitted"
    point = policy["non_inferior"]
    if point is None:
        return TableCell(
            words.DASH, reason=policy["non_inferior_missing"]
        ), f"no point loses less than {_margin(graph)}"
    share = 1 - point["cost_share"]
    lost = f"{words.number(point['drop_points'])} points lost {words.interval(point['drop_points_ci'], 2, scale=1)}"
    kind = "good" if point["held"] and share > 0 else "bad"
    cell = TableCell(words.percent(share), value=100 * share, under=lost, kind=kind)
    return cell, "holds on test" if point["held"] else "does not hold on test"


def codes_of(record: Mapping[str, Any]) -> list[str]:
    """The code names of a study's policies."""
    names = dict.fromkeys(
        name for graph in record["graphs"].values() for name in (*graph["policies"], *graph["failed"])
    )
    return list(names)


def limits(record: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """What limits this study: the first four, and the rest."""
    codes = codes_of(record)
    notes = [
        spelled(note, codes) for note in (*StudyRun.incomplete(record), *(str(note) for note in record["notes"] or []))
    ]
    return notes[:_NAMED], notes[_NAMED:]


def about_graph(graph: Graph) -> list[str]:
    """How the points of a net were borne out, what was not done, and what its exits are like; sentences."""
    said = []
    executed = executed_points(graph)
    if executed:
        differing, ties = sum(e["differing"] for e in executed), sum(e["ties"] for e in executed)
        said.append(
            f"{words.plural(len(executed), 'point')} ran through the deployed path on {words.count(graph['n_test'])} "
            f"samples each: {words.count(differing)} differed from the log, {words.plural(ties, 'tie')} aside."
        )
    said += [f"{what} was not done: {why}." for what, why in graph["not_run"].items()]
    if graph["dominance_violations"]:
        share = words.percent(graph["dominance_violations"])
        said.append(f"On {share} of the samples an earlier exit is right where the last one is wrong.")
    return said
