"""The clock on a study's page: is a point faster than the plain net, batch by batch, and every figure behind that."""

from __future__ import annotations

from typing import Any

from adaptbench.report import words
from adaptbench.report.policy_names import policy_name
from adaptbench.report.study_tables import Graph, graph_title
from adaptbench.report.study_verdict import pace_of
from adaptbench.report.tables import Builder, Column, Table, TableCell, figure
from adaptbench.report.view import missing

_KINDS = {"faster": "good", "slower": "bad", "cannot tell": "unclear", "": ""}


def pace_table(key: str, graph: Graph) -> Table:
    """Point × batch size: faster, slower or cannot tell, with the measured speed-up."""
    sizes = sorted({(row["batch_size"], row["mode"]) for row in graph["wall_clock"]})
    several = len({mode for _, mode in sizes}) > 1
    table = Builder(
        f"pace-{key}",
        f"{graph_title(key, graph)}: time of the plain net over that of the adaptive one, by batch size",
        (
            Column("point", numeric=False),
            Column("fewer MACs", unit="×"),
            *(Column(f"batch {size}{f', {mode}' if several else ''}", unit="×") for size, mode in sizes),
        ),
    )
    rows: dict[str, dict[tuple[int, str], Any]] = {}
    for row in graph["wall_clock"]:
        rows.setdefault(row["point"], {})[row["batch_size"], row["mode"]] = row
    for point, by_size in rows.items():
        promised = [row["macs_speedup"] for row in by_size.values()]
        cells = [_pace(by_size[size]) if size in by_size else TableCell(words.DASH) for size in sizes]
        table.add(point_in_words(point), TableCell(f"{words.number(promised[-1])} ×", value=promised[-1]), *cells)
    return table.build()


def _pace(row: Any) -> TableCell:
    speedup = row["net_speedup"]
    if speedup is None:
        return TableCell(words.DASH, reason=missing(row, "net_speedup"))
    word = pace_of(row["net_speedup_ci"])
    under = f"{words.number(speedup)} × {words.interval(row['net_speedup_ci'], 2, scale=1)}".rstrip()
    return TableCell(word or f"{words.number(speedup)} ×", value=speedup, under=under, kind=_KINDS[word])


def clock_table(key: str, graph: Graph) -> Table:
    """Measured speed-up beside the MAC speed-up, with the times behind both."""
    rows = graph["wall_clock"]
    several = len({row["mode"] for row in rows}) > 1
    took = words.one_scale([row[f"us_per_sample{which}"] / 1e6 for row in rows for which in ("", "_static")], "s")
    table = Builder(
        f"clock-{key}",
        f"{graph_title(key, graph)}: speed-up of the net (nodes and policy) and of whole windows, harness included, "
        "beside what the MACs promise on the same inputs",
        (
            Column("point", numeric=False),
            Column("batch"),
            *([Column("mode", numeric=False)] if several else []),
            Column("the net", unit="×"),
            Column("with the harness", unit="×"),
            Column("by MACs", unit="×"),
            Column("a sample, with the harness", unit="µs"),
            Column("a sample, plain net", unit="µs"),
        ),
    )
    for row in rows:
        table.add(
            point_in_words(row["point"]),
            TableCell(words.count(row["batch_size"]), value=row["batch_size"]),
            *([TableCell(row["mode"], value=row["mode"])] if several else []),
            figure(
                row,
                "net_speedup",
                words.number(row["net_speedup"]),
                under=words.interval(row["net_speedup_ci"], 2, scale=1),
            ),
            TableCell(
                words.number(row["speedup"]), value=row["speedup"], under=words.interval(row["speedup_ci"], 2, scale=1)
            ),
            TableCell(words.number(row["macs_speedup"]), value=row["macs_speedup"]),
            TableCell(took(row["us_per_sample"] / 1e6), value=row["us_per_sample"]),
            TableCell(took(row["us_per_sample_static"] / 1e6), value=row["us_per_sample_static"]),
        )
    return table.build()


def point_in_words(point: str) -> str:
    """``joint-threshold at 1 points``, the loss that the point was chosen for, as a person says it."""
    name, _, drop = point.rpartition(" at ")
    return f"{policy_name(name)}, {words.plural_of(float(drop.split()[0]), 'point')} allowed"
