"""What ``study.json`` holds: the fields of its parts, their units, and what a valid one is. No heavy imports here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from adaptbench.results.schema import Field, has_form


def _must(form: str, meaning: str, unit: str = "", of: str = "") -> Field:
    return Field(form, unit, meaning, required=True, of=of)


def _estimate(unit: str, meaning: str) -> Field:
    return Field("number", unit, meaning, estimated=True)


STUDY: dict[str, Field] = {
    "schema": _must("count", "raised with every change that an older reader would misread"),
    "kind": Field("text", meaning="study"),
    "cite": _must("text", "whose claims are replicated"),
    "paper": _must("text", "the policy as published"),
    "ours": _must("text", "the one meant to beat it"),
    "published": _must("list", "figures that somebody else stated, and where ours stand"),
    "graphs": _must("map", "by key: what was found"),
    "failed_graphs": Field("map", meaning="graphs of which there is nothing, and why", of="text"),
}
PUBLISHED: dict[str, Field] = {
    "claim": _must("text", "in a few words"),
    "value": _must("number", "theirs; accuracy and points in percent"),
    "provenance": _must("text", "[abs], [xls], [code], [2nd], [calc]"),
    "tolerance": _must("number", "differences up to this count as the same"),
    "better": _must("text", "higher | lower"),
    "ours": Field("map", meaning="graph, policy, figure and point of our counterpart"),
    "why": _must("text", "why there is none, or what else to know"),
    "points_lost": Field("number", "points", "accuracy that theirs lost at that very point"),
    "unlike": Field("text", meaning="what the two figures measure differently"),
    "target": _must("flag", "a goal of ours, no published figure"),
}
GRAPH: dict[str, Field] = {
    "title": Field("text", meaning="for the page"),
    "data": _must("text", "data set"),
    "model": _must("text", "registry name"),
    "top": Field("count", meaning="an answer among so many largest logits counts as right"),
    "n_test": Field("count", "samples", "that judge"),
    "n_fitting": Field("count", "samples", "that policies are fitted on"),
    "n_training": Field("count", "samples", "that NAME@train is fitted on; null where nothing is"),
    "n_choosing": Field("count", "samples", "that points are chosen on"),
    "macs_full": _must("number", "of the static reference", "MACs"),
    "reference_accuracy": _must("number", "of the static reference, on test", "1"),
    "margin": Field("number", "1", "of non-inferiority"),
    "nodes": Field("list", meaning="name, MACs alone and in the graph, accuracy of each"),
    "successors": Field("list", meaning="where each node may hand over"),
    "oracle": _must("map", "mean MACs and accuracy of looking at the label"),
    "dominance_violations": Field("number", "1", "share that an earlier node gets right and the last one wrong"),
    "choices_sha256": Field("text", meaning="of everything fitted and chosen, before test labels were opened"),
    "policies": _must("map", "by name: family, curve, chosen points"),
    "failed": _must("map", "policies of which there is nothing, and why", of="text"),
    "missing": Field("map", meaning="stages and timings of which there is nothing, and why", of="text"),
    "not_run": Field("map", meaning="stages that do not apply to this graph, and why", of="text"),
    "budgets": _must("list", "shares of the reference's MACs at which policies are compared", of="number"),
    "at_budget": _must("list", "accuracy of each policy at each budget"),
    "budget_error": _must("map", "realised against asked cost, by a mixture of corners and by the policy itself"),
    "resplits": _must("list", "how often an ε was broken"),
    "online": Field("map", meaning="policies with state over shuffles of the test stream"),
    "gradient_noise": Field("list", meaning="variance of two estimators of the learned cascade's gradient"),
    "wall_clock": _must("list", "chosen points on the clock; windows.parquet holds the windows"),
    "made": Field("map", meaning="when, where and with what the figures were made"),
    "card": Field("map", meaning="of the weights"),
}
POLICY: dict[str, Field] = {
    "fit_s": Field("number", "s", "fitting the whole family"),
    "members": Field("count", meaning="operating points"),
    "curve": Field("list", meaning="cost and accuracy of each member, on test and where it was chosen"),
    "area": Field("number", "1", "mean accuracy over mean costs; null where the curve does not reach down"),
    "area_from": Field("number", "1", "share of the reference's MACs from which on"),
    "cost_at_drop": Field("map", meaning="share of MACs at which the curve reaches an accuracy; null where never"),
    "chosen": _must("list", "the point chosen on calibration for each drop"),
    "non_inferior": Field("map", meaning="the cheapest point that calibration shows to be non-inferior"),
    "non_inferior_missing": Field("text", meaning="why there is none"),
    "settings": _must("list", "points of knob values that were asked for one by one"),
}
POINT: dict[str, Field] = {
    "drop": Field("number", "1", "accuracy that may be lost"),
    "setting": Field("number", meaning="its knob, where there is one"),
    "policy": Field("map", meaning="its settings"),
    "macs_mean": _must("number", "executed MACs a sample, mean, the policy's included", "MACs"),
    "cost_share": _must("number", "of the reference's MACs", "1"),
    "speedup": _must("number", "the reference's MACs over these", "1"),
    "accuracy": _must("number", "on test", "1"),
    "drop_points": _must("number", "accuracy lost against the reference, paired, with drop_points_ci", "points"),
    "oracle_share": Field("number", "1", "of the oracle's saving; null where the oracle saves nothing"),
    "exits": Field("list", "samples", "samples that left at each node", of="count"),
    "executed": Field("map", meaning="n, ties, differing, accuracy and macs_mean of running it for real"),
    "choosing_loss_bound": Field("number", "1", "upper 95 % bound of the loss where it was chosen"),
    "margin": Field("number", "1", "of non-inferiority"),
    "held": Field("flag", meaning="whether test bears the margin out"),
}
CLOCK: dict[str, Field] = {
    "point": _must("text", "policy and drop"),
    "batch_size": _must("count", "inputs handed over at once", "samples"),
    "macs_speedup": _must("number", "by MACs, of the timed inputs", "1"),
    "speedup": _estimate("1", "of whole windows, harness included"),
    "net_speedup": _estimate("1", "of the net: nodes and policy"),
    "us_per_sample": Field("number", "µs", "of a whole window"),
    "us_per_sample_net": Field("number", "µs", "in nodes and policy"),
    "us_per_sample_executor": Field("number", "µs", "grouping rows: the harness"),
    "us_per_sample_static": Field("number", "µs", "of the static reference"),
    "blocks": _must("count", "pairs of windows behind the interval"),
}
RESPLIT: dict[str, Field] = {
    "policy": _must("text", "the rule"),
    "epsilon": _must("number", "promised", "1"),
    "count": _must("count", "cuts that it was fitted on"),
    "broken": Field("count", meaning="of them, those that lost more"),
    "rate": _estimate("1", "broken / count"),
    "drop_points": Field("number", "points", "realised, mean; with the 5 % and 95 % quantiles"),
    "fidelity": Field("number", "1", "mean drop / ε; null where ε is 0"),
    "speedup": Field("number", "1", "mean"),
    "asked": Field("count", meaning="cuts, where it could not be fitted on all"),
    "missing": Field("text", meaning="why not"),
}
AT_BUDGET: dict[str, Field] = {
    "policy": _must("text", "registry name"),
    "budget": _must("number", "mean cost on test, share of the reference's", "1"),
    "accuracy": Field("number", "1", "null where the curve does not reach down to the budget"),
    "ours_ahead_points": _estimate("points", "of ours, paired; null where either stops"),
    "over_paper_points": _estimate("points", "of this policy over the paper's, paired"),
}
PARTS = {
    "the study": STUDY,
    "a published figure": PUBLISHED,
    "a graph": GRAPH,
    "a policy of a graph": POLICY,
    "a chosen point": POINT,
    "a row of wall_clock": CLOCK,
    "a row of resplits": RESPLIT,
    "a row of at_budget": AT_BUDGET,
}


def fault(record: Mapping[str, Any]) -> str:
    """The first thing that makes a record no study; "" where it is one."""
    for part, fields, place in parts(record):
        if not isinstance(part, Mapping):
            return f"{place} is no object"
        for name, field in fields.items():
            value = part.get(name)
            if value is None:
                if field.required:
                    return f"'{name}' of {place} is missing"
            elif not has_form(value, field.form, field.of):
                return f"'{name}' of {place} is no {field.form}{f' of {field.of}s' if field.of else ''}"
        if fields is GRAPH and not part["policies"]:
            return f"{place} holds no policies"
    return ""


def parts(record: Mapping[str, Any]) -> Iterator[tuple[Any, dict[str, Field], str]]:
    """Every part with its fields and place; a part comes before what is in it, and is whole when that is asked for."""
    yield record, STUDY, "the study"
    for figure in record["published"]:
        yield figure, PUBLISHED, "a published figure"
    for key, graph in record["graphs"].items():
        yield graph, GRAPH, f"the graph '{key}'"
        for name, policy in graph["policies"].items():
            yield policy, POLICY, f"'{name}' on '{key}'"
            points = [*policy["chosen"], *policy["settings"], policy.get("non_inferior")]
            for point in points:
                if point is not None:
                    yield point, POINT, f"a point of '{name}' on '{key}'"
        for rows, fields in (("wall_clock", CLOCK), ("resplits", RESPLIT), ("at_budget", AT_BUDGET)):
            for row in graph[rows]:
                yield row, fields, f"a row of {rows} of '{key}'"
