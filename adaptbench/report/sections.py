"""The tables of the page: overview, attacks, models, sensors."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from adaptbench.report import words
from adaptbench.report.tables import Builder, Column, Table, TableCell, figure, share_cell, unit_cell
from adaptbench.report.view import Record, Subject, View, missing
from adaptbench.results.controls import queries_of


def overview(view: View) -> Table:
    """The terminal's table: models, and under each its conditions."""
    batch = f", batch {view.batch_size}" if view.batch_size else ""
    columns = [
        Column("condition", numeric=False),
        Column("accuracy", unit="share"),
        Column("MACs/sample", unit="MACs"),
        Column("of its static network", unit="share"),
        Column("attacker takes back", unit="share of head-room"),
        Column(f"energy/sample{batch}, measured", unit="J"),
        Column(f"energy/sample{batch}, modelled", unit="J"),
        Column(f"latency/sample{batch}", unit="s"),
    ]
    table = Builder("table-overview", "Models, and under each its conditions", columns)
    shown = [record for subject in view.subjects for record in view.rows(subject)]
    joules = words.one_scale((record.get("energy_j_per_sample") for record in shown), "J")
    seconds = words.one_scale((record.get("latency_s_per_sample") for record in shown), "s")
    for subject in view.subjects:
        full = view.static_macs(subject)
        against = f" · its static network: {words.macs(full)} MACs" if full is not None else ""
        table.heading(subject.title + against)
        for record in view.rows(subject):
            table.add(
                TableCell(view.condition_title(record), value=view.condition_title(record)),
                share_cell(record, "accuracy"),
                _macs(record, view.clean(subject)),
                of_full(record),
                _taken_back(record),
                energy_cell(record, "measured", joules),
                energy_cell(record, "modelled", joules),
                unit_cell(record, "latency_s_per_sample", seconds),
                kind=record["kind"],
            )
    kinds = {words.provenance_kind(record.get("energy_provenance")) for record in view.records}
    return table.build(
        drop_empty=[place for place, kind in ((5, "measured"), (6, "modelled")) if kind not in kinds and kinds - {""}]
        or [6]
    )


def _macs(record: Record, clean: Record | None) -> TableCell:
    """MACs a sample; where fewer inputs were run than clean, the clean mean of the same ones beside them."""
    before = record.get("macs_clean_mean")
    fewer = clean is not None and record.get("n") != clean.get("n") and words.exists(before)
    under = f"clean, the same {words.count(record.get('n'))}: {words.macs(before)}" if fewer else ""
    return figure(record, "macs_mean", words.macs(record.get("macs_mean")), under=under)


def of_full(record: Record) -> TableCell:
    """MACs as a share of those of the model's own static network, with a bar."""
    mean, full = record.get("macs_mean"), record.get("macs_full")
    if not (words.exists(mean) and words.exists(full) and full):
        return TableCell(words.DASH, reason=missing(record, "macs_full"))
    return TableCell(words.percent(mean / full, 0), value=mean / full, share=min(mean / full, 1.0))


def energy_cell(record: Record, kind: str, write: Callable[[float | None], str]) -> TableCell:
    """Energy per sample if it is of this kind; a modelled one never stands in a measured column."""
    provenance = words.provenance_kind(record.get("energy_provenance"))
    if words.exists(record.get("energy_j_per_sample")) and provenance != kind:
        return TableCell(words.DASH, reason=f"this case’s energy is {provenance or 'of no stated origin'}, not {kind}")
    return unit_cell(record, "energy_j_per_sample", write)


def _taken_back(record: Record) -> TableCell:
    if record["kind"] == "clean":
        return TableCell(words.DASH, reason="clean inputs: nobody attacks")
    return share_cell(record, "recovery")


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


def recipes(view: View) -> Table | None:
    """Threat models: one row a condition that is an attack or a control."""
    columns = [
        Column("condition", numeric=False),
        Column("access", numeric=False),
        Column("settings", numeric=False),
        Column("deviates from the paper", numeric=False),
        Column("source", numeric=False),
    ]
    table = Builder("table-recipes", "Threat models and settings", columns)
    for name, condition in (view.manifest.get("conditions") or {}).items():
        if condition.get("kind") == "clean":
            continue
        table.add(
            ": ".join(dict.fromkeys((name, str(condition.get("summary") or condition.get("title") or name)))),
            str(condition.get("access") or "none"),
            "; ".join(filter(None, [settings(condition.get("settings") or {}), made_with(condition)])) or words.DASH,
            "; ".join(str(line) for line in condition.get("deviates") or [])
            or ("in nothing that is known" if condition.get("cite") else words.DASH),
            str(condition.get("cite") or words.DASH),
            kind=str(condition.get("kind", "")),
        )
    return table.build() if table.rows else None


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
        Column("accuracy", unit="share"),
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
                share_cell(record, "accuracy"),
                share_cell(record, "label_kept"),
                figure(record, "linf_max", words.eps(record.get("linf_max"))),
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


def model_table(view: View) -> Table | None:
    """Every model: what decides, where it may leave, what its paths cost."""
    columns = [
        Column("model", numeric=False),
        Column("shape", numeric=False),
        Column("policy", numeric=False),
        Column("exits", numeric=False),
        Column("cheapest path", unit="MACs"),
        Column("dearest path", unit="MACs"),
        Column("static network", unit="MACs"),
        Column("accuracy on the card", unit="share"),
        Column("uncounted operations", numeric=False),
    ]
    table = Builder("table-models", "Models and their paths", columns)
    for name, model in (view.manifest.get("models") or {}).items():
        exits = [str(exit_name) for exit_name in model.get("exit_names") or []]
        accuracy = (model.get("card") or {}).get("accuracy")
        table.add(
            view.model_title(name),
            str(model.get("shape") or words.DASH),
            str(model.get("policy") or words.DASH),
            words.listing(exits) or words.DASH,
            *(_cost(model.get(field), reason) for field, reason in _COSTS),
            TableCell(words.percent(accuracy), value=accuracy)
            if words.exists(accuracy)
            else TableCell(words.DASH, reason="the card states no accuracy"),
            (words.listing(str(op) for op in model["uncounted"]) or "none")
            if model.get("uncounted") is not None
            else TableCell(words.DASH, reason="the manifest does not say"),
        )
    return table.build() if table.rows else None


_COSTS = (
    ("min_macs", "the manifest does not say"),
    ("max_macs", "the manifest does not say"),
    ("macs_full", "no static reference"),
)


def _cost(value: Any, reason: str) -> TableCell:
    return TableCell(words.macs(value), value=value) if words.exists(value) else TableCell(words.DASH, reason=reason)


def path_table(view: View, name: str, place: int) -> Table | None:
    """A model’s nodes and their MACs."""
    model = view.model(name)
    nodes, costs = model.get("node_names") or [], model.get("node_macs") or []
    if not nodes or len(nodes) != len(costs):
        return None
    total = sum(costs) or 1
    columns = [Column("node", numeric=False), Column("MACs", unit="MACs"), Column("of all nodes", unit="share")]
    table = Builder(f"table-nodes-{place}", f"Nodes of {view.model_title(name)}", columns)
    for node, cost in zip(nodes, costs, strict=True):
        table.add(
            str(node),
            TableCell(words.macs(cost), value=cost),
            TableCell(words.percent(cost / total), value=cost / total, share=cost / total),
        )
    return table.build()


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


def all_cases(view: View) -> Table:
    """Every record as it stands, for whoever wants the rest."""
    fields = ["case", "kind", "n", "accuracy", "macs_mean", "macs_p99", "macs_cvar", "budget_violation",
              "depth_mean", "increase", "recovery", "recovery_seen", "label_kept",
              "energy_j_per_sample", "energy_provenance", "latency_s_per_sample", "ties", "inputs_sha256"]  # fmt: skip
    text = {"case", "kind", "energy_provenance", "inputs_sha256"}
    table = Builder("table-cases", "All cases", [Column(name, numeric=name not in text) for name in fields])
    for record in view.records:
        cells = []
        for name in fields:
            value = record.get(name)
            if name in text:
                cells.append(
                    TableCell(
                        words.clip(str(value or words.DASH), 12 if name == "inputs_sha256" else 200),
                        value=str(value or ""),
                    )
                )
            elif words.exists(value):
                cells.append(TableCell(f"{value:.6g}", value=value))
            else:
                cells.append(TableCell(words.DASH, reason=missing(record, name)))
        table.add(*cells, kind=str(record.get("kind", "")))
    return table.build()
