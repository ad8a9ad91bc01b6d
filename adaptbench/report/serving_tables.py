"""Tables of the page of a run of kind serving; simulated and measured figures never share a column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adaptbench.report import words
from adaptbench.report.policy_names import policy_name
from adaptbench.report.tables import Builder, Column, Table, TableCell, figure, scaled_interval, share_cell
from adaptbench.report.view import missing

Record = Mapping[str, Any]
Row = Mapping[str, Any]
DEFENCES = {"none": "none", "budget": "hard budget"}


def stream_table(record: Record) -> Table:
    """Every simulated stream: latency, goodput, work."""
    rows: Sequence[Row] = record["streams"]
    scale = words.one_scale([row["simulated_p50_s"] for row in rows], "s")
    joules = words.one_scale([row["simulated_energy_j"] for row in rows], "J")
    table = Builder(
        "streams",
        f"Every stream, simulated; the objective is {words.seconds(record['objective_p99_s'])} for 99 of 100 requests",
        (
            Column("stream", numeric=False),
            Column("requests a second"),
            Column("median", unit="s"),
            Column("p99", unit="s"),
            Column("in time", unit="1"),
            Column("in time a second"),
            Column("MACs a request"),
            Column("joules a request", unit="J"),
            Column("busy", unit="1"),
            Column("requests in a step"),
        ),
    )
    previous = ""
    for row in rows:
        group = f"{policy_name(row['model'])}, {row['arrivals']}, {row['mode']}"
        if group != previous:
            table.heading(previous := group)
        late = row["simulated_goodput"] is not None and row["simulated_goodput"] < 0.99
        p99 = _seconds(row, "simulated_p99_s", scale)
        table.add(
            stream_name(row),
            TableCell(words.count(row["rate_rps"]), value=row["rate_rps"]),
            _seconds(row, "simulated_p50_s", scale),
            TableCell(p99.text, p99.value, p99.reason, under=p99.under, kind="bad" if late else ""),
            share_cell(row, "simulated_goodput"),
            figure(row, "simulated_goodput_rps", words.count(row["simulated_goodput_rps"])),
            figure(row, "simulated_macs", words.macs(row["simulated_macs"])),
            figure(row, "simulated_energy_j", joules(row["simulated_energy_j"])),
            TableCell(words.percent(row["simulated_busy"], 0), value=row["simulated_busy"]),
            TableCell(words.number(row["simulated_step_size"], 1), value=row["simulated_step_size"]),
        )
    return table.build()


def harm_table(record: Record) -> Table:
    """What hostile requests, and the budget against them, cost the honest; pairs on the same arrivals."""
    table = Builder(
        "harm",
        "What the honest pay, simulated: against the same requests on the same arrivals with nobody hostile and no "
        "budget",
        (
            Column("stream", numeric=False),
            Column("their p99, times as long", unit="×"),
            Column("goodput lost", unit="points"),
            Column("accuracy lost", unit="points"),
            Column("cut short", unit="1"),
            Column("MACs a hostile request"),
        ),
    )
    previous = ""
    for row in record["streams"]:
        if not row["share"] and row["defence"] == "none":
            continue
        group = f"{policy_name(row['model'])}, {row['arrivals']}, {row['mode']}"
        if group != previous:
            table.heading(previous := group)
        ratio = row["simulated_benign_p99_ratio"]
        table.add(
            stream_name(row),
            figure(
                row,
                "simulated_benign_p99_ratio",
                f"{words.number(ratio)} ×",
                under=words.interval(row["simulated_benign_p99_ratio_ci"], 2, scale=1),
            ),
            _points(row, "simulated_benign_goodput_lost"),
            _points(row, "simulated_benign_accuracy_lost"),
            share_cell(row, "simulated_benign_forced"),
            figure(row, "simulated_hostile_macs", words.macs(row["simulated_hostile_macs"])),
        )
    return table.build()


def provision_table(record: Record) -> Table:
    """The cheapest provision that holds the objective, a row a net and traffic."""
    table = Builder(
        "provisions",
        f"The fewest replicas that hold {words.seconds(record['objective_p99_s'])} for 99 of 100 requests, simulated",
        (
            Column("net", numeric=False),
            Column("requests a second"),
            Column("replicas"),
            Column("largest batch"),
            Column("p99", unit="s"),
            Column("looked at"),
        ),
    )
    scale = words.one_scale([row["simulated_p99_s"] for row in record["provisions"]], "s")
    for row in record["provisions"]:
        table.add(
            f"{policy_name(row['model'])}, {row['mode']}",
            TableCell(words.count(row["rate_rps"]), value=row["rate_rps"]),
            figure(row, "replicas", words.count(row["replicas"])),
            figure(row, "max_batch", words.count(row["max_batch"])),
            _seconds(row, "simulated_p99_s", scale),
            TableCell(words.count(len(row["looked_at"])), value=len(row["looked_at"])),
        )
    return table.build()


def check_table(record: Record) -> Table:
    """Real runs beside their simulations."""
    rows = record["checks"]
    scale = words.one_scale([row["measured_mean_s"] for row in rows], "s")
    table = Builder(
        "checks",
        "A real run of the executor and the simulation of the same requests; apart means simulated over measured",
        (
            Column("run", numeric=False),
            Column("verdict", numeric=False),
            Column("mean, measured", unit="s"),
            Column("mean, simulated", unit="s"),
            Column("apart", unit="%"),
            Column("p99, measured", unit="s"),
            Column("p99, simulated", unit="s"),
            Column("apart", unit="%"),
            Column("apart with its own calls: mean", unit="%"),
            Column("p99", unit="%"),
        ),
    )
    for row in rows:
        cells: list[TableCell] = []
        for name in ("mean_s", "p99_s"):
            real, told = row[f"measured_{name}"], row[f"simulated_{name}"]
            cells += [TableCell(scale(real), value=real), TableCell(scale(told), value=told), apart(row, name)]
        own = [apart(row, name, "simulated_with_its_calls") for name in ("mean_s", "p99_s")]
        verdict = TableCell("within 10 %", kind="good") if row["within"] else TableCell("further apart", kind="unclear")
        table.add(check_name(row), TableCell(verdict.text, reason=row["reason"], kind=verdict.kind), *cells, *own)
    return table.build()


def time_table(record: Record) -> Table:
    """Measured times of steps and whole batches."""
    sizes = sorted({row["size"] for model in record["models"].values() for row in model["times"]})
    table = Builder(
        "times",
        "Seconds of a step of each node, and of a whole batch as a service calls it, measured in windows"
        + (" of CPU time" if record["clock"] == "cpu" else ""),
        (Column("node", numeric=False), *(Column(f"{words.plural(size, 'request')}", unit="s") for size in sizes)),
    )
    scale = words.one_scale([row["measured_s"] for model in record["models"].values() for row in model["times"]], "s")
    for label, model in record["models"].items():
        table.heading(policy_name(label))
        for node in dict.fromkeys(row["node"] for row in model["times"]):
            by_size = {row["size"]: row for row in model["times"] if row["node"] == node}
            cells = [
                TableCell(
                    scale(by_size[size]["measured_s"]),
                    value=by_size[size]["measured_s"],
                    under=scaled_interval(by_size[size]["measured_s_ci"], scale),
                )
                if size in by_size
                else TableCell(words.DASH)
                for size in sizes
            ]
            table.add("a whole batch" if node == "call" else str(node), *cells)
    return table.build()


def stream_name(row: Row) -> str:
    """A stream among its group: who is hostile, and what stands against it."""
    hostile = "nobody hostile" if not row["share"] else f"{words.percent(row['share'], 0)} hostile"
    return hostile if row["defence"] == "none" else f"{hostile}, {DEFENCES[row['defence']]}"


def check_name(row: Row) -> str:
    """A real run."""
    hostile = f", {words.percent(row['share'], 0)} hostile" if row["share"] else ""
    read = "CPU seconds" if row["clock"] == "cpu" else "the wall’s clock"
    return f"{policy_name(row['model'])}, {row['arrivals']}, {row['mode']}{hostile}, {read}"


def apart(row: Row, name: str, told: str = "simulated") -> TableCell:
    """Simulated over measured, in percent more or less."""
    value = row[f"{told}_{name}"] / row[f"measured_{name}"] - 1
    return TableCell(words.percent(value, 0, signed=True), value=100 * value)


def _seconds(row: Row, name: str, scale: words.Writer) -> TableCell:
    return figure(row, name, scale(row[name]), under=scaled_interval(row[f"{name}_ci"], scale))


def _points(row: Row, name: str) -> TableCell:
    value = row[name]
    if value is None:
        return TableCell(words.DASH, reason=missing(row, name))
    under = words.interval(row[f"{name}_ci"], 1)
    return TableCell(words.number(100 * value, 1), value=100 * value, under=under)
