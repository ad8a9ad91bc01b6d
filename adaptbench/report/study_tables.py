"""Tables of a study's page that stand for themselves: budgets, promises, state, training noise, the clock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adaptbench.report import words
from adaptbench.report.tables import Builder, Column, Table, TableCell, figure
from adaptbench.report.view import missing

Graph = Mapping[str, Any]


def graph_title(key: str, graph: Graph) -> str:
    """What a graph calls itself, else its net and data."""
    return str(graph["title"] or f"{key} ({graph['model']} on {graph['data']})")


def resplit_table(key: str, graph: Graph) -> Table:
    """How often each rule broke its ε."""
    table = Builder(
        f"resplit-{key}",
        f"{graph_title(key, graph)}: ε over {max(row['asked'] or row['count'] for row in graph['resplits'])} re-splits",
        (
            Column("rule", numeric=False),
            Column("ε", unit="points"),
            Column("broken"),
            Column("realised drop", unit="points"),
            Column("drop / ε"),
            Column("speed-up", unit="×"),
        ),
    )
    for row in graph["resplits"]:
        spread = f"5–95 %: {words.number(row['drop_points_5'])} to {words.number(row['drop_points_95'])}"
        table.add(
            row["policy"],
            TableCell(words.number(100 * row["epsilon"], 1), value=100 * row["epsilon"]),
            figure(row, "rate", f"{row['broken']} of {row['count']}", under=words.interval(row["rate_ci"], 0)),
            figure(row, "drop_points", words.number(row["drop_points"]), under=spread),
            figure(row, "fidelity", words.number(row["fidelity"])),
            figure(row, "speedup", words.number(row["speedup"])),
        )
    return table.build()


def clock_table(key: str, graph: Graph) -> Table:
    """Measured speed-up beside the MAC speed-up."""
    table = Builder(
        f"clock-{key}",
        f"{graph_title(key, graph)}: speed-up of the net (nodes and policy) and of whole windows, harness included, "
        "beside the MAC speed-up on the same inputs",
        (
            Column("point", numeric=False),
            Column("batch"),
            Column("the net", unit="×"),
            Column("with the harness", unit="×"),
            Column("by MACs", unit="×"),
            Column("per sample, with the harness", unit="µs"),
            Column("static, per sample", unit="µs"),
        ),
    )
    for row in graph["wall_clock"]:
        table.add(
            row["point"],
            TableCell(words.count(row["batch_size"]), value=row["batch_size"]),
            figure(
                row,
                "net_speedup",
                words.number(row["net_speedup"]),
                under=words.interval(row["net_speedup_ci"], 2, scale=1),
            ),
            TableCell(
                words.number(row["speedup"]),
                value=row["speedup"],
                under=words.interval(row["speedup_ci"], 2, scale=1),
            ),
            TableCell(words.number(row["macs_speedup"]), value=row["macs_speedup"]),
            TableCell(words.seconds(row["us_per_sample"] / 1e6), value=row["us_per_sample"]),
            TableCell(words.seconds(row["us_per_sample_static"] / 1e6), value=row["us_per_sample_static"]),
        )
    return table.build()


def budget_error_table(key: str, graph: Graph) -> Table:
    """Realised cost against the budget asked on calibration."""
    budgets = graph["budgets"]
    table = Builder(
        f"error-{key}",
        f"{graph_title(key, graph)}: realised mean cost on test over the budget that calibration met, minus one; the "
        "worst of a policy's own budgets in the last column",
        (Column("policy", numeric=False), *(Column(f"{100 * b:g} %") for b in budgets), Column("own budgets, worst")),
    )
    for name, errors in graph["budget_error"].items():
        cells = [
            TableCell(words.DASH, reason=missing(errors, "mixture"))
            if error is None
            else TableCell(words.percent(error, 1, signed=True), value=100 * error)
            for error in errors["mixture"]
        ]
        own = errors["own"]
        worst = max((error for _, error in own), key=abs) if own else None
        last = (
            TableCell(words.DASH, reason=missing(errors, "own"))
            if worst is None
            else TableCell(words.percent(worst, 1, signed=True), value=100 * worst)
        )
        table.add(name, *cells, last)
    return table.build(drop_empty=(len(budgets) + 1,))


def stateful_table(key: str, graph: Graph) -> Table:
    """Stateful policies over the shuffles."""
    online = graph["online"]
    orders = len(online["orders"])
    table = Builder(
        f"stateful-{key}",
        f"{graph_title(key, graph)}: {words.plural(orders, 'shuffle')} of the test stream, "
        f"windows of {online['window']} samples",
        (Column("policy", numeric=False), Column("what", numeric=False), Column("mean"), Column("least to greatest")),
    )

    def add(policy: str, what: str, spread: Mapping[str, float], scale: float = 100.0, unit: str = " %") -> None:
        low, high = (words.number(scale * spread[end]) for end in ("low", "high"))
        mean = TableCell(f"{words.number(scale * spread['mean'])}{unit}", value=scale * spread["mean"])
        table.add(policy, what, mean, TableCell(f"{low} to {high}"))

    bandit, loop = online["uee-ucb"], online["closed-loop"]
    for name, learner in (("uee-ucb", bandit), ("closed-loop", loop)):
        add(name, "accuracy", learner["accuracy"])
        add(name, "MACs, of full", learner["cost_share"])
        add(name, "of these, looking", learner["looking_share"])
    add("uee-ucb", f"regret at μ = {bandit['mu']:g}", bandit["regret"], 1.0, "")
    add("closed-loop", f"steady error of the budget ({words.percent(loop['budget_share'], 0)})", loop["steady_error"])
    add("closed-loop", f"overshoot, blocks of {loop['block']} samples", loop["overshoot"])
    flood, lost = words.percent(loop["flood_share"], 0), loop["flood_accuracy_lost_points"]
    what = f"points that honest users lose when {flood} are attackers"
    table.add("closed-loop", what, TableCell(words.number(lost), value=lost), "")
    for state, name in (("closed", "flood_cost_of_budget"), ("open", "flood_cost_of_budget_open")):
        what = f"cost under the flood, of the budget, loop {state}"
        table.add("closed-loop", what, TableCell(words.percent(loop[name]), value=100 * loop[name]), "")
    return table.build()


def noise_table(key: str, graph: Graph) -> Table:
    """REINFORCE's gradient beside the exact one."""
    table = Builder(
        f"noise-{key}",
        f"{graph_title(key, graph)}: variance of the selection modules' gradient over minibatches of 128, "
        "in units of the full gradient's squared norm",
        (Column("λ"), Column("exact"), Column("REINFORCE"), Column("ratio"), Column("cosine of the means")),
    )
    for row in graph["gradient_noise"]:
        table.add(
            *(
                TableCell(words.number(row[n], d), value=row[n])
                for n, d in (("price", 3), ("exact", 2), ("reinforce", 2), ("ratio", 1), ("cosine", 3))
            )
        )
    return table.build()
