"""Further tables of the page: attacks, models, sensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from adaptbench.report import words
from adaptbench.report.tables import Builder, Column, Table, TableCell, figure, share_cell, unit_cell
from adaptbench.report.view import Record, Subject, View
from adaptbench.results.controls import queries_of


def settings(value: object) -> str:
    """Settings as ``name value`` pairs, nested ones in brackets."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_inner(inner)}".strip() for name, inner in value.items())
    return _inner(value)


def _inner(value: object) -> str:
    if isinstance(value, Mapping):
        return f"({settings(value)})" if value else ""
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def made_with(condition: Mapping[str, Any]) -> str:
    """Foreign packages that an attack's figures hang on, with their versions."""
    versions = condition.get("versions") or {}
    if not versions.keys() - {"torch"}:
        return ""
    return "made with " + ", ".join(f"{name} {version}" for name, version in versions.items())


def attack_audit(view: View) -> Table | None:
    """What each attack did, after rounding to 8 bits, beside its control: noise, or chance at as many queries."""
    columns = [
        Column("condition", numeric=False),
        Column("taken back", unit="share of head-room"),
        Column("up to the dearest seen", unit="share of head-room"),
        Column("by its control", unit="share of head-room"),
        Column(view.metric_word, unit="share"),
        Column("answers kept", unit="share"),
        Column("largest L∞", unit="pixel range"),
        Column("mean L2", unit="pixel range"),
        Column("queries/input"),
        Column("crafting, in all", unit="s"),
        Column("inputs"),
    ]
    table = Builder("table-attacks", "Attacks as they were carried out", columns)
    for subject in view.subjects:
        controls, attacks = view.controls(subject), view.attacks(subject)
        if not attacks:
            continue
        table.heading(subject.title)
        for record in [*controls, *attacks]:
            table.add(
                TableCell(view.condition_title(record)),
                share_cell(record, "recovery"),
                share_cell(record, "recovery_seen"),
                _by_control(view, subject, record),
                share_cell(record, view.metric),
                share_cell(record, "label_kept"),
                figure(record, "linf_max", words.size_of(_settings_of(view, record), record.get("linf_max"))),
                figure(record, "l2_mean", words.number(record.get("l2_mean"), 3)),
                _queries(record),
                unit_cell(record, "craft_s", words.seconds),
                figure(record, "n", words.count(record.get("n"))),
                kind=record["kind"],
            )
    return table.build() if table.rows else None


def _by_control(view: View, subject: Subject, record: Record) -> TableCell:
    """What chance takes back under the same terms; a control stands beside nothing."""
    if record["kind"] == "control":
        return TableCell(words.DASH, reason="this is a control")
    control = view.control_of(subject, record)
    if control is None:
        asks = queries_of((view.manifest.get("conditions") or {}).get(record["condition"]) or {}) is not None
        what = (
            "control that asks as often, at equal ε and inputs"
            if asks
            else "noise control that changes a value as much"
        )
        return TableCell(words.DASH, reason=f"the run has no {what}")
    return replace(share_cell(control, "recovery"), under=view.condition_title(control))


def _queries(record: Record) -> TableCell:
    if not words.exists(record.get("queries_mean")):
        return TableCell(
            words.DASH,
            reason=str(
                record.get("queries_mean_missing") or "works with gradients, or with none of the model’s answers"
            ),
        )
    return TableCell(words.number(record["queries_mean"], 0), value=record["queries_mean"])


def _settings_of(view: View, record: Mapping[str, Any]) -> Mapping[str, Any]:
    held = ((view.manifest.get("conditions") or {}).get(record.get("condition")) or {}).get("settings")
    return held if isinstance(held, Mapping) else {}


def model_table(view: View) -> Table | None:
    """Every model: what decides, where it may leave, what its paths cost."""
    columns = [
        Column("model", numeric=False),
        Column("shape", numeric=False),
        Column("policy", numeric=False),
        Column("exits", numeric=False),
        Column("cheapest path", unit="MACs"),
        Column("dearest path", unit="MACs"),
        Column("plain net", unit="MACs"),
        Column(f"{view.metric_word} on the card", unit="share"),
        Column("uncounted operations", numeric=False),
    ]
    table = Builder("table-models", "Models and their paths", columns)
    for name, model in (view.manifest.get("models") or {}).items():
        exits = [str(exit_name) for exit_name in model.get("exit_names") or []]
        told = (model.get("card") or {}).get(view.metric)
        table.add(
            view.model_title(name),
            str(model.get("shape") or words.DASH),
            str(model.get("policy") or words.DASH),
            words.listing(exits) or words.DASH,
            *(_cost(model.get(field), reason) for field, reason in _COSTS),
            TableCell(words.percent(told), value=told)
            if words.exists(told)
            else TableCell(words.DASH, reason=f"the card states no {view.metric_word}"),
            (words.listing(str(op) for op in model["uncounted"]) or "none")
            if model.get("uncounted") is not None
            else TableCell(words.DASH, reason="the manifest does not say"),
        )
    return table.build() if table.rows else None


_COSTS = (
    ("min_macs", "the manifest does not say"),
    ("max_macs", "the manifest does not say"),
    ("macs_full", "no plain net"),
)


def _cost(value: Any, reason: str) -> TableCell:
    return TableCell(words.macs(value), value=value) if words.exists(value) else TableCell(words.DASH, reason=reason)


def path_table(view: View, name: str, place: int) -> Table | None:
    """A model’s nodes and their MACs."""
    model = view.model(name)
    nodes, costs = model.get("node_names") or [], model.get("node_macs") or []
    if not nodes or len(nodes) != len(costs):
        return None
    if model.get("shape") == "tokens":
        nodes, costs = _by_block(nodes, costs)
    total = sum(costs) or 1
    columns = [Column("node", numeric=False), Column("MACs", unit="MACs"), Column("of all nodes", unit="share")]
    title = view.model_title(name)
    alone = sum(view.model_title(other) == title for other in view.manifest.get("models") or {}) < 2
    table = Builder(f"table-nodes-{place}", f"Nodes of {title}" + ("" if alone else f" ({name})"), columns)
    for node, cost in zip(nodes, costs, strict=True):
        table.add(
            str(node),
            TableCell(words.macs(cost), value=cost),
            TableCell(words.percent(cost / total), value=cost / total, share=cost / total),
        )
    return table.build()


def _by_block(nodes: list[Any], costs: list[Any]) -> tuple[list[str], list[Any]]:
    """Tokens of a block in one line; each costs as much as the others."""
    blocks: dict[str, list[Any]] = {}
    for node, cost in zip(nodes, costs, strict=True):
        blocks.setdefault(str(node).partition(".")[0], []).append(cost)
    names = [name if len(each) == 1 else f"{name}, {len(each)} tokens" for name, each in blocks.items()]
    return names, [sum(each) for each in blocks.values()]


def card_lines(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A checkpoint card as (term, description) pairs; nested parts get dotted terms."""
    lines: list[tuple[str, str]] = []
    for term, value in card.items():
        if isinstance(value, Mapping):
            lines += [(f"{term}.{inner}", text) for inner, text in card_lines(value)]
        elif isinstance(value, float):
            lines.append((str(term), f"{value:.6g}"))
        else:
            lines.append((str(term), value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))
    return lines


def meter_table(view: View) -> Table | None:
    """Which sensors answered, and why the others did not."""
    columns = [
        Column("meter", numeric=False),
        Column("answered", numeric=False),
        Column("reason", numeric=False),
        Column("details", numeric=False),
    ]
    table = Builder("table-meters", "Meters", columns)
    for name, meter in (view.manifest.get("meters") or {}).items():
        details = {key: value for key, value in meter.items() if key not in ("found", "reason") and value is not None}
        table.add(
            str(name),
            "yes" if meter.get("found") else "no",
            str(meter.get("reason") or words.DASH),
            settings(details) or words.DASH,
            kind="" if meter.get("found") else "silent",
        )
    return table.build() if table.rows else None
