"""What ``study.json`` holds: the fields of its parts, their units, and what a valid one is. No heavy imports here."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from adaptbench.results.forms import has_form
from adaptbench.results.record_runs import TOLD, Part, first_fault, must
from adaptbench.results.schema import Field

Parts = Iterator[Part]


def _estimate(unit: str, meaning: str) -> Field:
    return Field("number", unit, meaning, estimated=True)


def _figure(form: str, unit: str, meaning: str, *, required: bool = False, estimated: bool = False) -> Field:
    """One that, where it is null or holds a null, has its reason in ``<name>_missing``."""
    return Field(form, unit, meaning, figure=True, required=required, estimated=estimated)


STUDY: dict[str, Field] = {
    "schema": must("count", "raised with every change that an older reader would misread"),
    "kind": Field("text", meaning="study"),
    "cite": must("text", "whose claims are replicated"),
    "paper": must("text", "the policy as published"),
    "ours": must("text", "the one meant to beat it"),
    "published": must("list", "figures that somebody else stated, and where ours stand"),
    "graphs": must("map", "by key: what was found"),
    "failed_graphs": Field("map", meaning="graphs of which there is nothing, and why", of="text"),
}
PUBLISHED: dict[str, Field] = {
    "claim": must("text", "in a few words"),
    "value": must("number", "theirs; accuracy and points in percent"),
    "provenance": must("text", "[abs], [xls], [code], [2nd], [calc]"),
    "tolerance": must("number", "differences up to this count as the same"),
    "better": must("text", "higher | lower"),
    "ours": Field("map", meaning="graph, policy, figure and point of our counterpart"),
    "why": must("text", "why there is none, or what else to know"),
    "points_lost": Field("number", "points", "accuracy that theirs lost at that very point"),
    "unlike": Field("text", meaning="what the two figures measure differently"),
    "target": must("flag", "a goal of ours, no published figure"),
}
GRAPH: dict[str, Field] = {
    "title": Field("text", meaning="for the page"),
    "data": must("text", "data set"),
    "model": must("text", "registry name"),
    "top": Field("count", meaning="an answer among so many largest logits counts as right"),
    "n_test": must("count", "that judge", "samples"),
    "n_fitting": must("count", "that policies are fitted on", "samples"),
    "n_training": _figure("count", "samples", "that NAME@train is fitted on"),
    "n_choosing": must("count", "that points are chosen on", "samples"),
    "macs_full": must("number", "of the static reference", "MACs"),
    "reference_accuracy": must("number", "of the static reference, on test", "1"),
    "margin": Field("number", "1", "of non-inferiority"),
    "nodes": must("list", "name, MACs alone and in the graph, accuracy of each", of="map"),
    "successors": Field("list", meaning="where each node may hand over"),
    "oracle": must("map", "mean MACs and accuracy of looking at the label"),
    "dominance_violations": Field("number", "1", "share that an earlier node gets right and the last one wrong"),
    "choices_sha256": Field("text", meaning="of everything fitted and chosen, before test labels were opened"),
    "policies": must("map", "by name: family, curve, chosen points"),
    "failed": must("map", "policies of which there is nothing, and why", of="text"),
    "missing": Field("map", meaning="stages and timings of which there is nothing, and why", of="text"),
    "not_run": Field("map", meaning="stages that do not apply to this graph, and why", of="text"),
    "budgets": must("list", "shares of the reference's MACs at which policies are compared", of="number"),
    "at_budget": must("list", "accuracy of each policy at each budget", of="map"),
    "budget_error": must("map", "realised against asked cost, by a mixture of corners and by the policy itself"),
    "resplits": must("list", "how often an ε was broken"),
    "online": _figure("map", "", "policies with state over shuffles of the test stream"),
    "gradient_noise": Field("list", meaning="variance of two estimators of the learned cascade's gradient", of="map"),
    "wall_clock": must("list", "chosen points on the clock; windows.parquet holds the windows"),
    "made": Field("map", meaning="when, where and with what the figures were made"),
    "card": Field("map", meaning="of the weights"),
}
POLICY: dict[str, Field] = {
    "fit_s": must("number", "fitting the whole family", "s"),
    "members": must("count", "operating points"),
    "curve": must("list", "cost and accuracy of each member, on test and where it was chosen", of="map"),
    "area": _figure("number", "1", "mean accuracy over mean costs"),
    "area_from": Field("number", "1", "share of the reference's MACs from which on"),
    "cost_at_drop": _figure("map", "1", "share of MACs at which the curve reaches an accuracy", required=True),
    "chosen": must("list", "the point chosen on calibration for each drop"),
    "non_inferior": _figure("map", "", "the cheapest point that calibration shows to be non-inferior"),
    "settings": must("list", "points of knob values that were asked for one by one"),
}
POINT: dict[str, Field] = {
    "drop": Field("number", "1", "accuracy that may be lost"),
    "setting": Field("number", meaning="its knob, where there is one"),
    "policy": Field("map", meaning="its settings"),
    "macs_mean": must("number", "executed MACs a sample, mean, the policy's included", "MACs"),
    "cost_share": must("number", "of the reference's MACs", "1"),
    "speedup": must("number", "the reference's MACs over these", "1"),
    "accuracy": must("number", "on test", "1"),
    "drop_points": must("number", "accuracy lost against the reference, paired, with drop_points_ci", "points"),
    "oracle_share": _figure("number", "1", "of the oracle's saving"),
    "exits": Field("list", "samples", "samples that left at each node", of="count"),
    "executed": Field("map", meaning="n, ties, differing, accuracy and macs_mean of running it for real"),
    "choosing_loss_bound": Field("number", "1", "upper 95 % bound of the loss where it was chosen"),
    "margin": Field("number", "1", "of non-inferiority"),
    "held": Field("flag", meaning="whether test bears the margin out"),
}
CHOSEN = POINT | {"drop": must("number", "accuracy that may be lost", "1")}
AT_A_SETTING = POINT | {"setting": must("number", "its knob")}
WITHIN_MARGIN = POINT | {"margin": must("number", "of non-inferiority", "1")}
EXECUTED: dict[str, Field] = {
    "n": must("count", "run", "samples"),
    "ties": must("count", "with a decision within the margin of a tie", "samples"),
    "differing": must("count", "whose way, answer or MACs were not the log's", "samples"),
    "accuracy": must("number", "on test", "1"),
    "macs_mean": must("number", "executed MACs a sample, mean", "MACs"),
}
NODE: dict[str, Field] = {
    "name": must("text", "of the node"),
    "alone_macs": must("number", "its own stages and what they read, its own head", "MACs"),
    "accuracy_test": must("number", "of always leaving there", "1"),
    "macs": Field("number", "MACs", "in the graph"),
    "accuracy_calibration": Field("number", "1", "of always leaving there"),
}
CURVE: dict[str, Field] = {
    "cost_share": must("number", "of the reference's MACs, on test", "1"),
    "accuracy": must("number", "on test", "1"),
    "corner": must("flag", "of the hull on the choosing part"),
    "setting": Field("number", meaning="its knob, where there is one"),
    "choosing_cost_share": Field("number", "1", "the same where it was chosen"),
    "choosing_accuracy": Field("number", "1", "the same where it was chosen"),
}
ORACLE: dict[str, Field] = {
    "macs": must("number", "mean", "MACs"),
    "accuracy": must("number", "on test", "1"),
    "agreement_macs": Field("number", "MACs", "of the cheapest node that answers as the last one does"),
}
SPREAD: dict[str, Field] = {name: must("number", "over the shuffles") for name in ("mean", "low", "high")}
ONLINE: dict[str, Field] = {
    "orders": must("list", "seeds of the shuffles"),
    "window": must("count", "of the loop", "samples"),
    "uee-ucb": must("map", "the bandit"),
    "closed-loop": must("map", "the loop on the budget"),
}
BANDIT: dict[str, Field] = {
    "mu": must("number", "price of the dearest exit"),
    "regret": must("map", "spread"),
    "dominance_violation": Field("number", "1", "share that an earlier exit gets right and the last one wrong"),
}
LOOP: dict[str, Field] = {
    "budget_share": must("number", "asked for", "1"),
    "block": must("count", "of one mean", "samples"),
    "steady_error": must("map", "spread"),
    "overshoot": must("map", "spread"),
    "base": Field("text", meaning="policy whose knob is turned"),
    "settling_samples": _figure("list", "samples", "a shuffle: until the mean stays near the budget"),
    "flood_share": must("number", "of the stream", "1"),
    "flood_accuracy_lost_points": must("number", "by honest users", "points"),
    "flood_cost_of_budget": must("number", "under the loop", "1"),
    "flood_cost_of_budget_open": must("number", "without it", "1"),
}
_SHARES = ("accuracy", "cost_share", "looking_share")
FIGURES = (
    "speedup", "cost_share", "drop_points", "accuracy", "oracle_share", "gain_points", "broken", "budgets_ahead",
    "budgets_held", "budget_error",
)  # fmt: skip
OURS: dict[str, Field] = {
    "graph": must("text", "key of the graph"),
    "policy": must("text", "of the study"),
    "figure": must("text", "what is read"),
    "drop": Field("number", "1", "of the chosen point"),
    "setting": Field("number", meaning="of the knob"),
    "non_inferior": Field("flag", meaning="the non-inferior point"),
    "against": Field("list", meaning="policies that it is counted against", of="text"),
}
OVER_BUDGETS = ("budgets_ahead", "budgets_held", "budget_error")
NOISE: dict[str, Field] = {name: must("number", "") for name in ("price", "exact", "reinforce", "ratio", "cosine")}
CLOCK: dict[str, Field] = {
    "point": must("text", "policy and drop"),
    "batch_size": must("count", "inputs handed over at once", "samples"),
    "mode": Field("text", meaning="how its batches were executed: compacted | per-sample | queues"),
    "macs_speedup": must("number", "by MACs, of the timed inputs", "1"),
    "speedup": _estimate("1", "of whole windows, harness included"),
    "net_speedup": _figure("number", "1", "of the net: nodes and policy", estimated=True),
    "us_per_sample": must("number", "of a whole window", "µs"),
    "us_per_sample_net": _figure("number", "µs", "in nodes and policy"),
    "us_per_sample_executor": _figure("number", "µs", "grouping rows: the harness"),
    "us_per_sample_static": must("number", "of the static reference", "µs"),
    "blocks": must("count", "pairs of windows behind the interval"),
}
RESPLIT: dict[str, Field] = {
    "policy": must("text", "the rule"),
    "epsilon": must("number", "promised", "1"),
    "count": must("count", "cuts that it was fitted on"),
    "broken": _figure("count", "", "of them, those that lost more"),
    "rate": _figure("number", "1", "broken / count", estimated=True),
    "drop_points": _figure("number", "points", "realised, mean"),
    "drop_points_5": _figure("number", "points", "its 5 % quantile"),
    "drop_points_95": _figure("number", "points", "its 95 % quantile"),
    "fidelity": _figure("number", "1", "mean drop / ε"),
    "speedup": _figure("number", "1", "mean"),
    "asked": Field("count", meaning="cuts, where it could not be fitted on all"),
    "missing": Field("text", meaning="why not"),
}
AT_BUDGET: dict[str, Field] = {
    "policy": must("text", "registry name"),
    "budget": must("number", "mean cost on test, share of the reference's", "1"),
    "accuracy": _figure("number", "1", "of the curve, at that very cost"),
    "ours_ahead_points": _figure("number", "points", "of ours, paired", estimated=True),
    "over_paper_points": _figure("number", "points", "of this policy over the paper's, paired", estimated=True),
}
BUDGET_ERROR: dict[str, Field] = {
    "mixture": _figure("list", "1", "a budget: realised mean cost over the one asked, minus one", required=True),
    "own": _figure("list", "1", "[budget, the same] of each that the policy was asked for itself"),
    "own_by_chance": Field("list", "1", "one standard error of each of these, from the samples on both sides"),
}
PARTS = {
    "the study": STUDY,
    "a published figure": PUBLISHED,
    "a graph": GRAPH,
    "a policy of a graph": POLICY,
    "a node": NODE,
    "a point of a curve": CURVE,
    "a chosen point": POINT,
    "its execution": EXECUTED,
    "a row of wall_clock": CLOCK,
    "a row of resplits": RESPLIT,
    "a row of at_budget": AT_BUDGET,
    "a policy's budget_error": BUDGET_ERROR,
    "a row of gradient_noise": NOISE,
}


_WITHOUT_REASONS = (1, 2, 3)
"""Schemas in which a figure could be null without its reason."""


def fault(record: Mapping[str, Any]) -> str:
    """The first thing that makes a record no study; "" where it is one."""
    return first_fault(parts(record), _of_a_study, reasoned=record.get("schema") not in _WITHOUT_REASONS)


def _of_a_study(part: Mapping[str, Any], fields: Mapping[str, Field]) -> str:
    """What is wrong with a part of a study whose fields have their forms."""
    if fields in (CHOSEN, AT_A_SETTING, WITHIN_MARGIN) and part.get("drop_points_ci") is None:
        return "has no 'drop_points_ci'"
    if fields is POLICY and not part["chosen"]:
        return "has no chosen point"
    if fields is OURS:
        return _of_a_counterpart(part)
    return _of_a_graph(part) if fields is GRAPH else ""


def _of_a_counterpart(ours: Mapping[str, Any]) -> str:
    figure, at = ours["figure"], [ours.get(name) is not None for name in ("drop", "setting")]
    if figure not in FIGURES:
        return f"reads '{figure}', which is no figure"
    if figure in OVER_BUDGETS:
        return "" if figure == "budget_error" or ours.get("against") else "names no policy that it is counted against"
    if figure == "broken" and not at[1]:
        return "names no ε"
    return "" if any(at) or ours.get("non_inferior") else "names no point"


def filled(record: Mapping[str, Any]) -> dict[str, Any]:
    """A copy in which what the record leaves out is null, so that pages find every field."""
    whole = copy.deepcopy(dict(record))
    for part, fields, _ in parts(whole):
        for name in fields:
            part.setdefault(name, None)
            if fields[name].estimated:
                part.setdefault(f"{name}_ci", None)
    return whole


def _of_a_graph(graph: Mapping[str, Any]) -> str:
    """What is wrong with the maps of a graph that are no parts of their own."""
    if not graph["policies"]:
        return "holds no policies"
    for name, error in graph["budget_error"].items():
        whole = isinstance(error, Mapping) and _numbers(error.get("mixture"))
        own = error.get("own") or [] if whole else None
        if not isinstance(own, list) or not all(_numbers(pair) and len(pair) == 2 and None not in pair for pair in own):
            return f"has no budget errors of '{name}'"
    for row in graph["at_budget"]:
        if str(row.get("policy")) not in graph["policies"]:
            return f"compares '{row.get('policy')}', which is none of its policies"
    for name, policy in graph["policies"].items():
        costs = policy.get("cost_at_drop") if isinstance(policy, Mapping) else None
        if not isinstance(costs, Mapping) or not _numbers([*costs.values()]) or not all(map(_is_number, costs)):
            return f"has no costs at drops of '{name}'"
    return ""


def _is_number(text: str) -> bool:
    try:
        return float(text) >= 0
    except ValueError:
        return False


def _numbers(rows: Any) -> bool:
    return isinstance(rows, list) and all(row is None or has_form(row, "number") for row in rows)


def parts(record: Mapping[str, Any]) -> Parts:
    """Every part with its fields and place; a part comes before what is in it, and is whole when that is asked for."""
    yield record, TOLD | STUDY, "the study"
    for figure in record["published"]:
        yield figure, PUBLISHED, "a published figure"
        if figure.get("ours") is not None:
            yield figure["ours"], OURS, "the counterpart of a published figure"
    for key, graph in record["graphs"].items():
        yield from _graph(graph, key)


def _graph(graph: Any, key: str) -> Parts:
    yield graph, GRAPH, f"the graph '{key}'"
    yield graph["oracle"], ORACLE, f"the oracle of '{key}'"
    for name, policy in graph["policies"].items():
        yield policy, POLICY, f"'{name}' on '{key}'"
        yield from _points(policy, f"'{name}' on '{key}'")
    if graph.get("online") is not None:
        yield from _online(graph["online"], f"the stream of '{key}'")
    for name, error in graph["budget_error"].items():
        yield error, BUDGET_ERROR, f"the budget errors of '{name}' on '{key}'"
    rows = {"nodes": NODE, "wall_clock": CLOCK, "resplits": RESPLIT, "at_budget": AT_BUDGET, "gradient_noise": NOISE}
    for what, fields in rows.items():
        for row in graph.get(what) or []:
            yield row, fields, f"a row of {what} of '{key}'"


def _points(policy: Mapping[str, Any], place: str) -> Parts:
    for point in policy["curve"]:
        yield point, CURVE, f"the curve of {place}"
    for point in policy["chosen"]:
        yield point, CHOSEN, f"a point of {place}"
    others = [*policy["settings"], *([policy["non_inferior"]] if policy.get("non_inferior") else [])]
    for point in others:
        fields = AT_A_SETTING if any(point is known for known in policy["settings"]) else WITHIN_MARGIN
        yield point, fields, f"a point of {place}"
    for point in [*policy["chosen"], *others]:
        if point.get("executed") is not None:
            yield point["executed"], EXECUTED, f"an executed point of {place}"


def _online(online: Any, place: str) -> Parts:
    yield online, ONLINE, place
    shares = {name: must("map", "spread") for name in _SHARES}
    for name, own in (("uee-ucb", BANDIT), ("closed-loop", LOOP)):
        fields = own | shares
        yield online[name], fields, place
        for spread, field in fields.items():
            if field.form == "map":
                yield online[name][spread], SPREAD, place
