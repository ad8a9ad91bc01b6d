"""Tables of a study's page: curves, chosen points, the clock, budgets, promises, state, training noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adaptbench.report import words
from adaptbench.report.policy_names import data_name, policy_name
from adaptbench.report.tables import Builder, Column, Table, TableCell, figure
from adaptbench.report.view import missing
from adaptbench.results.studies import chosen_points
from adaptbench.results.study_claims import side_of

Graph = Mapping[str, Any]


def graph_title(key: str, graph: Graph) -> str:
    """What a graph calls itself, else its net and data."""
    return str(graph["title"] or f"{policy_name(graph['model'])} on {data_name(graph['data'])}, “{key}”")


def _rank(record: Mapping[str, Any], name: str) -> str:
    """The sign of a policy's row: ours, the published one, or another."""
    return "clean" if name == record["ours"] else "attack" if name == record["paper"] else ""


def curve_table(record: Mapping[str, Any], key: str, graph: Graph) -> Table:
    """The whole curve of each policy in a few figures."""
    drops = list(next(iter(graph["policies"].values()))["cost_at_drop"])
    table = Builder(
        f"curve-{key}",
        f"{graph_title(key, graph)}: mean accuracy over all costs up to the plain net's; the cost at a loss is read "
        "off the test curve (a description, not a choice)",
        (
            Column("policy", numeric=False),
            Column("mean accuracy", unit="%"),
            *(Column(f"cost at −{words.plural_of(100 * float(d), 'point')}", unit="% of plain net") for d in drops),
            Column("settings tried"),
            Column("fitted in", unit="s"),
        ),
    )
    fitted = words.one_scale([policy["fit_s"] for policy in graph["policies"].values()], "s")
    for name, policy in sorted(graph["policies"].items(), key=lambda item: -(item[1]["area"] or 0)):
        cells = [
            TableCell(words.DASH, reason=missing(policy, "cost_at_drop"))
            if (cost := policy["cost_at_drop"].get(d)) is None
            else TableCell(words.percent(cost), value=100 * cost)
            for d in drops
        ]
        area = policy["area"]
        table.add(
            policy_name(name),
            TableCell(words.DASH, reason=missing(policy, "area"))
            if area is None
            else TableCell(words.percent(area, 2), value=100 * area),
            *cells,
            TableCell(words.count(policy["members"]), value=policy["members"]),
            TableCell(fitted(policy["fit_s"]), value=policy["fit_s"]),
            kind=_rank(record, name),
        )
    return table.build()


def aim_in_words(aim: str) -> str:
    """What a point was chosen for: ``−1 points`` and ``non-inferior within 1`` as a person says them."""
    if aim.startswith("non-inferior"):
        return f"shown to lose less than {words.plural_of(float(aim.rsplit(' ', 1)[1]), 'point')}"
    return {"−0 points": "0 points", "−1 points": "−1 point"}.get(aim, aim)


def chosen_table(record: Mapping[str, Any], key: str, graph: Graph) -> Table:
    """Each point chosen on calibration, with what it lost and saved on test."""
    oracle = words.percent(graph["oracle"]["macs"] / graph["macs_full"])
    table = Builder(
        f"chosen-{key}",
        f"{graph_title(key, graph)}: plain net {words.percent(graph['reference_accuracy'], 2)} at "
        f"{words.macs(graph['macs_full'])} MACs; the oracle costs {oracle} of it",
        (
            Column("policy", numeric=False),
            Column("chosen for", numeric=False),
            Column("lost", unit="points"),
            Column("MACs saved", unit="%"),
            Column("fewer MACs", unit="×"),
            Column("of the oracle's saving", unit="%"),
            Column("executed", numeric=False),
        ),
    )
    for name, policy in graph["policies"].items():
        for aim, point in chosen_points(policy):
            ran = point.get("executed")
            share = point["oracle_share"]
            saved = 1 - point["cost_share"]
            table.add(
                policy_name(name),
                aim_in_words(aim),
                TableCell(
                    words.number(point["drop_points"]),
                    value=point["drop_points"],
                    under=words.interval(point["drop_points_ci"], 2, scale=1),
                ),
                TableCell(words.percent(saved), value=100 * saved),
                TableCell(f"{words.number(point['speedup'])} ×", value=point["speedup"]),
                TableCell(words.DASH, reason=missing(point, "oracle_share"))
                if share is None
                else TableCell(words.percent(share, 0), value=100 * share),
                "" if ran is None else "as logged" if not ran["differing"] else f"{ran['differing']} differ",
                kind=_rank(record, name),
            )
    return table.build(drop_empty=(6,))


def budget_table(record: Mapping[str, Any], key: str, graph: Graph) -> Table:
    """Accuracy of each policy at each mean cost."""
    table = Builder(
        f"budget-{key}",
        f"{graph_title(key, graph)}: accuracy at a mean cost of so many per cent of the plain net",
        (Column("policy", numeric=False), *(Column(f"{100 * b:g} %", unit="accuracy, %") for b in graph["budgets"])),
    )
    for name, by_budget in _at_budgets(graph).items():
        cells = [
            TableCell(words.DASH, reason=missing(row, "accuracy"))
            if row["accuracy"] is None
            else TableCell(words.percent(row["accuracy"], 2), value=100 * row["accuracy"])
            for row in (by_budget[budget] for budget in graph["budgets"])
        ]
        table.add(policy_name(name), *cells, kind=_rank(record, name))
    return table.build()


def ahead_table(record: Mapping[str, Any], key: str, graph: Graph) -> Table | None:
    """How far ours is ahead of each policy at each mean cost; an interval that holds zero cannot tell."""
    ours = record["ours"]
    if ours not in graph["policies"]:
        return None
    table = Builder(
        f"ahead-{key}",
        f"{graph_title(key, graph)}: points by which {policy_name(ours)} (ours) is ahead of each policy at the same "
        "mean cost, % of the plain net",
        (
            Column(f"{policy_name(ours)} against", numeric=False),
            *(Column(f"{100 * b:g} %", unit="points") for b in graph["budgets"]),
        ),
    )
    for name, by_budget in _at_budgets(graph).items():
        if name != ours:
            rows = [by_budget[budget] for budget in graph["budgets"]]
            table.add(policy_name(name), *map(_ahead, rows), kind="attack" if name == record["paper"] else "")
    return table.build() if table.rows else None


def _ahead(row: Mapping[str, Any]) -> TableCell:
    ahead, interval = row["ours_ahead_points"], row["ours_ahead_points_ci"]
    if ahead is None:
        return TableCell(
            words.DASH, reason=missing(row, "ours_ahead_points" if row["accuracy"] is not None else "accuracy")
        )
    told = f"{words.number(ahead, signed=True)} {words.interval(interval, 2, scale=1)}"
    side = side_of(interval, 0.0)
    if not side:
        return TableCell("cannot tell", value=ahead, under=told, kind="unclear")
    text = words.number(ahead, signed=True)
    return TableCell(text, value=ahead, under=told.removeprefix(text).strip(), kind="good" if side > 0 else "bad")


def _at_budgets(graph: Graph) -> dict[str, dict[float, Mapping[str, Any]]]:
    rows: dict[str, dict[float, Mapping[str, Any]]] = {}
    for row in graph["at_budget"]:
        rows.setdefault(row["policy"], {})[row["budget"]] = row
    return rows


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
            Column("fewer MACs", unit="×"),
        ),
    )
    for row in graph["resplits"]:
        spread = f"5–95 %: {words.number(row['drop_points_5'])} to {words.number(row['drop_points_95'])}"
        table.add(
            policy_name(row["policy"]),
            TableCell(words.number(100 * row["epsilon"], 1), value=100 * row["epsilon"]),
            figure(row, "rate", f"{row['broken']} of {row['count']}", under=words.interval(row["rate_ci"], 0)),
            figure(row, "drop_points", words.number(row["drop_points"]), under=spread),
            figure(row, "fidelity", words.number(row["fidelity"])),
            figure(row, "speedup", f"{words.number(row['speedup'])} ×"),
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
        table.add(policy_name(name), *cells, last)
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
        table.add(policy_name(policy), what, mean, TableCell(f"{low} to {high}"))

    bandit, loop = online["uee-ucb"], online["closed-loop"]
    for name, learner in (("uee-ucb", bandit), ("closed-loop", loop)):
        add(name, "accuracy", learner["accuracy"])
        add(name, "MACs, of the plain net", learner["cost_share"])
        add(name, "of these, looking", learner["looking_share"])
    add("uee-ucb", f"regret at μ = {bandit['mu']:g}", bandit["regret"], 1.0, "")
    add("closed-loop", f"steady error of the budget ({words.percent(loop['budget_share'], 0)})", loop["steady_error"])
    add("closed-loop", f"overshoot, blocks of {loop['block']} samples", loop["overshoot"])
    flood, lost = words.percent(loop["flood_share"], 0), loop["flood_accuracy_lost_points"]
    what = f"points that honest users lose when {flood} are attackers"
    table.add("closed-loop", what, TableCell(words.number(lost), value=lost), "")
    for state, name in (("closed", "flood_cost_of_budget"), ("open", "flood_cost_of_budget_open")):
        what = f"cost under the flood, of the budget, loop {state}"
        table.add(policy_name("closed-loop"), what, TableCell(words.percent(loop[name]), value=100 * loop[name]), "")
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
