"""What a run directory holds: the fields, their units, and what a valid document is. No heavy imports here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from adaptbench.errors import RunError
from adaptbench.results.documents import check_manifest
from adaptbench.results.forms import has_form, is_interval, shown
from adaptbench.results.identity import case_key
from adaptbench.results.lifting import with_modes, with_the_harness

SCHEMA_VERSION = 3
"""Raised by one with every change that an older reader would misread."""

Record = dict[str, Any]
"""One case, flat, as it stands in ``summary.json``."""

KINDS = ("clean", "control", "attack", "transfer", "sweep", "reference")

SAMPLE_COLUMNS: dict[str, str] = {
    "case": "string",
    "sample_id": "int64",
    "label": "int64",
    "prediction": "int64",
    "exit": "int64",
    "depth": "int64",
    "macs": "int64",
    "correct": "bool",
    "linf": "float64",
    "l2": "float64",
    "queries": "int64",
    "tie": "bool",
    "confidence": "float64",
    "cost_s": "float64",
    "cost_j": "float64",
    "macs_unpadded": "int64",
}
"""Columns of ``samples.parquet``; ``case`` is the evaluation id, ``queries`` may be null. Where the cost is metered, in
seconds or joules, ``macs`` is null; else both of these are. ``macs_unpadded`` is null of what is no text.
"""
METERED_COLUMNS = {"seconds": "cost_s", "joules": "cost_j"}
"""Unit of a meter → the column, and the stem of the fields, that hold what it read."""

PIXEL_COLUMNS: dict[str, str] = dict.fromkeys(("pixels_right", "pixels_labelled", "pixels_predicted"), "counts")
"""Further columns of ``samples.parquet`` where every pixel is answered: of each image a list, one count a class.

Pixels without a label that counts are in none of them; ``label`` and ``prediction`` are `NO_LABEL` there.
"""

WINDOW_COLUMNS: dict[str, str] = {
    "case": "string",
    "block": "int64",
    "order": "int64",
    "meter": "string",
    "component": "string",
    "energy_j": "float64",
    "duration_s": "float64",
    "n_samples": "int64",
    "provenance": "string",
    "scope": "string",
    "flags": "string",
    "missing": "string",
    "mode": "string",
}
"""Columns of ``windows.parquet``; ``energy_j`` and ``missing`` may be null, never both filled. ``mode`` is null where
nothing adaptive ran: a static reference, the idle device."""

LATER_COLUMNS = frozenset({"mode", *METERED_COLUMNS.values(), "macs_unpadded"})
"""Columns that older files lack."""

CELL_SCHEMAS = frozenset({2, 3})
"""Schemas whose cells are read as they are."""

NO_LABEL = -1
"""``label`` of a picture whose class is none of the net's: ``correct`` says nothing there, distances are NaN.
So is that of an image of which every pixel is answered, whose distances are known; see `PIXEL_COLUMNS`."""

NULLABLE_COLUMNS = LATER_COLUMNS | {"queries", "energy_j", "missing", "macs"}


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a case record.

    Args:
        form: "text", "count", "number", "flag", "map" or "list".
        of: form of what a map or a list holds; "" where anything may stand.
        unit: of a number; "1" where it is a ratio.
        meaning: a line for documents.
        figure: True where null needs a reason in ``<name>_missing``.
        estimated: True where a value comes with a 95 % interval in ``<name>_ci``.
        required: True where the record is nothing without it.
    """

    form: str
    unit: str = ""
    meaning: str = ""
    figure: bool = False
    estimated: bool = False
    required: bool = False
    of: str = ""


def _text(meaning: str, *, required: bool = False) -> Field:
    return Field("text", meaning=meaning, required=required)


def _count(unit: str, meaning: str, *, figure: bool = True) -> Field:
    return Field("count", unit, meaning, figure=figure)


def _estimate(unit: str, meaning: str) -> Field:
    return Field("number", unit, meaning, figure=True, estimated=True)


FIELDS: dict[str, Field] = {
    "case": _text("evaluation id, with /b<batch size> where it was timed", required=True),
    "evaluation": _text("data/model[@knob=value]/condition[/s<seed>]", required=True),
    "model": _text("registry name, or the label of a net under a policy", required=True),
    "net": _text("registry name of the weights; one net may stand under several policies"),
    "policy": _text("what decides"),
    "policy_settings": Field("map", meaning="of the policy's fit, as the suite gives them"),
    "defence": _text("what was put in the attacker's way, as the suite names it; null for nothing"),
    "defence_settings": Field("map", meaning="of the defence, as the suite gives them"),
    "knob": _text("name of the setting that a sweep turns"),
    "knob_value": Field("number", meaning="its value"),
    "data": _text("data set", required=True),
    "condition": _text("condition id", required=True),
    "kind": _text(" | ".join(KINDS), required=True),
    "device": _text("where it ran", required=True),
    "batch_size": _count("samples", "null where the case was evaluated and not timed", figure=False),
    "mode": _text(
        "how its batches were executed: compacted | per-sample | queues | compiled; null where it was not timed"
    ),
    "seed": _count("", "seed of model, attack and policy", figure=False),
    "n": Field("count", "samples", "inputs evaluated; 0 where the case failed", required=True),
    "failed": _text("why the case could not be run, or not be timed"),
    "metric": _text("what judges the answers: accuracy | miou; null in records of before there was a choice"),
    "accuracy": _estimate("1", "share of right predictions"),
    "miou": _estimate("1", "mean over classes of intersection / union of pixels, counted over all images together"),
    "pixel_accuracy": _estimate("1", "share of the labelled pixels that are right"),
    "macs_mean": _estimate("MACs", "executed MACs a sample, mean"),
    "macs_unpadded_mean": _estimate("MACs", "executed MACs a text with no padding at all, mean; not in macs_mean"),
    "macs_clean_mean": Field("number", "MACs", "the same of the clean case, over the same inputs"),
    "macs_min": _count("MACs", "cheapest path of the model"),
    "macs_max": _count("MACs", "dearest path of the model"),
    "macs_full": _count("MACs", "the model's own static network; of a reference, the suite's static one"),
    "macs_p99": _estimate("MACs", "99th percentile over inputs"),
    "macs_cvar": _estimate("MACs", "mean of the dearest 5 % of the inputs (conditional value at risk)"),
    "macs_seen": Field("count", "MACs", "dearest input of this model that the run has seen, whatever the condition"),
    "macs_budget": Field("number", "MACs", "mean cost that the policy was asked to keep; null where it has no budget"),
    "budget_violation": _estimate("1", "share of inputs that cost more than macs_budget, which is of the mean"),
    "depth_mean": _estimate("nodes", "nodes run a sample, mean"),
    "increase": _estimate("1", "attacked / clean - 1, ratio of mean MACs"),
    "recovery": _estimate("1", "(attacked - clean) / (max - clean), ratio of means"),
    "recovery_seen": _estimate("1", "(attacked - clean) / (macs_seen - clean), ratio of means"),
    "recovery_per_input_mean": _estimate("1", "mean of per-input recoveries, inputs at the ceiling left out"),
    "at_ceiling": _estimate("1", "share of inputs whose clean cost is macs_max"),
    "efficacy_step": _estimate("1", "1 - mean cost / macs_max"),
    "efficacy_trapezoid": _estimate("1", "trapezoid area under the exit CDF (DeepSloth)"),
    "cost_s": _estimate("s", "metered seconds of one inference, mean over inputs; of a box that tells no MACs"),
    "cost_j": _estimate("J", "metered joules of one inference, mean over inputs; of a box that tells no MACs"),
    "cost_s_clean": Field("number", "s", "cost_s of the clean case, over the same inputs"),
    "cost_j_clean": Field("number", "J", "cost_j of the clean case, over the same inputs"),
    "cost_s_max": Field("number", "s", "declared, or metered of the static net; null where neither was given"),
    "cost_j_max": Field("number", "J", "declared, or metered of the static net; null where neither was given"),
    "cost_s_seen": Field("number", "s", "dearest input of this model that the run has seen, whatever the condition"),
    "cost_j_seen": Field("number", "J", "dearest input of this model that the run has seen, whatever the condition"),
    "cost_s_noise": Field("number", "s", "standard error of one input's cost, a median of readings, mean over inputs"),
    "cost_j_noise": Field("number", "J", "standard error of one input's cost, a median of readings, mean over inputs"),
    "cost_increase": _estimate("1", "attacked / clean - 1, ratio of mean metered costs"),
    "cost_recovery": _estimate("1", "(attacked - clean) / (max - clean) of metered costs, ratio of means"),
    "cost_recovery_seen": _estimate("1", "(attacked - clean) / (dearest seen - clean) of metered costs"),
    "accuracy_drop": _estimate("1", "clean accuracy - accuracy, same inputs"),
    "miou_drop": _estimate("1", "clean miou - miou, same images"),
    "label_kept": _estimate("1", "share of inputs answered as in the clean case, same inputs"),
    "linf_max": Field("number", "pixel range", "largest change of one value", figure=True),
    "l2_mean": _estimate("pixel range", "Euclidean norm of the change, mean"),
    "queries_mean": _estimate("queries", "queries an input, mean"),
    "craft_s": Field("number", "s", "time spent crafting, all inputs; no lesson before, no check after", figure=True),
    "energy_j_per_sample": _estimate("J", "by energy_meter"),
    "energy_meter": _text("which meter"),
    "energy_provenance": _text("measured: sensor | modelled: formula"),
    "energy_scope": _text("what the joules are of: device | process | machine"),
    "latency_s_per_sample": _estimate("s", "wall time of a window / samples in it"),
    "nodes_s_per_sample": _estimate("s", "of a window, in the net's stages and heads"),
    "policy_s_per_sample": _estimate("s", "of a window, deciding"),
    "executor_s_per_sample": _estimate("s", "of a window, grouping rows: the harness, no net's"),
    "executor_share": _estimate("1", "of the seconds told apart, the executor's"),
    "n_timed": _count("samples", "different inputs that were timed: the first of the evaluation", figure=False),
    "neighbours": Field(
        "list",
        meaning="clean batches with some attacked rows: attacked, batch_s, batch_increase, neighbour_s (s longer, "
        "spread over the clean rows), batch_macs_increase; null where the suite did not ask",
        of="map",
    ),
    "saving_macs": _estimate("1", "1 - MACs / the static reference's, of the timed inputs"),
    "saving_time": _estimate("1", "1 - seconds of nodes and policy / the static reference's, of the timed inputs"),
    "saving_energy": _estimate("1", "1 - joules of whole windows / the static reference's, of the timed inputs"),
    "realised_saving_time": _estimate("1", "saving_time / saving_macs"),
    "realised_saving_energy": _estimate("1", "saving_energy / saving_macs"),
    "exit_histogram": Field("map", "samples", "samples an exit", of="count"),
    "ties": _count("samples", "samples with a decision margin within 1e-5, or 4 ε of a half-precision net"),
    "inputs_sha256": _text("hash of the uint8 input bytes in sample order"),
    "crafted": _text("file in crafted/"),
    "attack_sha256": _text(
        "hash of what the attack does: kind, settings, foreign code, surrogate's weights, crafting pictures"
    ),
    "surrogate": _text(
        "model that the inputs were crafted on, where it is not this one; DATA/NAME where it was trained on other data"
    ),
    "surrogate_sha256": _text("hash of it: weights, settings, policy, foreign code"),
    "attack_versions": Field("map", meaning="packages, beside this one, that the crafted inputs hang on", of="text"),
    "uncounted": Field("list", meaning="operators that no MAC formula covers", of="text"),
}

ESTIMATED = tuple(name for name, field in FIELDS.items() if field.estimated)
FIGURES = tuple(name for name, field in FIELDS.items() if field.figure)

METERED = ("cost_s", "cost_j", "cost_increase", "cost_recovery", "cost_recovery_seen")
"""Figures of what a meter read in the place of MACs."""
COUNTED_HERE = "MACs are counted here: nothing was metered in their place"

LATER: dict[str, str] = {
    **dict.fromkeys(
        ("macs_cvar", "budget_violation", "recovery_seen", "label_kept"),
        "recorded before tails, budgets, the dearest path seen and kept answers were: run the suite again",
    ),
    **dict.fromkeys(METERED, COUNTED_HERE),
    "macs_unpadded_mean": "recorded before texts were run without their padding too",
    **dict.fromkeys(
        ("miou", "pixel_accuracy", "miou_drop"), "recorded before pixels were answered: accuracy judges it"
    ),
}
"""Figures that were added without a new schema → what is said of a record that has neither value nor reason."""


def _with_reasons(record: Any) -> Any:
    """A record in which figures that came later are null, with the reason."""
    if not isinstance(record, dict):
        return record
    absent = [name for name in LATER if name not in record]
    return record | dict.fromkeys(absent) | {f"{name}_missing": LATER[name] for name in absent} if absent else record


MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: with_the_harness, 2: with_modes}
"""version → function that lifts a document (manifest, summary or baseline) of that version to the next."""


def migrate(document: Any, where: str) -> dict[str, Any]:
    """A document lifted to the present schema.

    Args:
        document: parsed JSON.
        where: the file, for the message.

    Raises:
        RunError: no version, a later one, or one that no migration starts from.
    """
    version = document.get("schema") if isinstance(document, dict) else None
    if not isinstance(version, int) or isinstance(version, bool):
        raise RunError(
            f"{where}: there is no schema number in it.",
            why="So it was not written by adaptbench, or was cut short.",
            todo="Name a directory that `adaptbench run` left behind.",
        )
    while version < SCHEMA_VERSION and version in MIGRATIONS:
        document = MIGRATIONS[version](dict(document))
        version += 1
        document["schema"] = version
    if version == SCHEMA_VERSION:
        cases = document.get("cases")
        return dict(document) | ({"cases": list(map(_with_reasons, cases))} if isinstance(cases, list) else {})
    if version > SCHEMA_VERSION:
        todo = "Upgrade adaptbench, or run the suite again with this version."
    else:
        todo = "Run the suite again; this version cannot read what that one wrote."
    raise RunError(
        f"{where}: schema {version}; this adaptbench reads schema {SCHEMA_VERSION}.",
        why="Fields may have another meaning there.",
        todo=todo,
    )


def complete(record: Record) -> Record:
    """The record in the order of `FIELDS`; absent fields null, absent reasons "not computed".

    ``X_ci`` is null where there are too few blocks for an interval.
    """
    full: Record = {}
    for name, field in FIELDS.items():
        full[name] = record.get(name)
        if field.estimated and full[name] is not None:
            ends = record.get(f"{name}_ci")
            full[f"{name}_ci"] = None if ends is None else [float(end) for end in ends]
        if field.figure and full[name] is None:
            full[f"{name}_missing"] = record.get(f"{name}_missing") or "not computed"
    full["exit_histogram"] = full["exit_histogram"] or {}
    full["uncounted"] = full["uncounted"] or []
    full["attack_versions"] = full["attack_versions"] or {}
    for name in sorted(record.keys() - full.keys()):  # fields of plug-ins ride along
        if name.removesuffix("_ci").removesuffix("_missing") not in FIELDS:
            full[name] = record[name]
    return full


def validate_record(record: Any, where: str) -> None:
    """Check one case record.

    Raises:
        RunError: a required field is absent, a form is wrong, or a null figure has no reason.
    """
    if not isinstance(record, dict):
        raise _invalid(where, f"a case is {type(record).__name__}, not an object")
    place = f"{where}, case {shown(record.get('case'))}"
    for name, field in FIELDS.items():
        value = record.get(name)
        if value is None:
            if field.required:
                raise _invalid(place, f"'{name}' is absent")
            if field.figure and not record.get(f"{name}_missing"):
                raise _invalid(place, f"'{name}' is null and '{name}_missing' gives no reason")
        elif not has_form(value, field.form, field.of):
            raise _invalid(place, f"'{name}' is {shown(value)}, not a {field.form}")
        reason = record.get(f"{name}_missing")
        if reason is not None and not isinstance(reason, str):
            raise _invalid(place, f"'{name}_missing' is {shown(reason)}, not a reason")
        interval = record.get(f"{name}_ci")
        if interval is not None and not is_interval(interval):
            raise _invalid(place, f"'{name}_ci' is {shown(interval)}, not [low, high]")
    if record["kind"] not in KINDS:
        raise _invalid(place, f"'kind' is {shown(record['kind'])}, not one of {', '.join(KINDS)}")


def validate_summary(document: Any, where: str = "summary.json") -> list[Record]:
    """The case records of a summary, lifted and checked.

    Raises:
        RunError: unknown schema version, or a record that is not valid.
    """
    cases = migrate(document, where).get("cases")
    if not isinstance(cases, list):
        raise _invalid(where, "there is no list 'cases'")
    validate_records(cases, where)
    return cases


def validate_records(cases: Iterable[Any], where: str) -> None:
    """Check every record, and that no case stands twice.

    Raises:
        RunError: as `validate_record`, or two cases of one id or of the same fields.
    """
    seen: set[Any] = set()
    for record in cases:
        validate_record(record, where)
        for name in (record["case"], case_key(record)):
            if name in seen:
                raise _invalid(where, f"case {shown(record['case'])} stands twice")
            seen.add(name)


MANIFEST_PARTS = {
    "suite": ("suite", "device", "meters", "models", "conditions", "data"),
    "study": ("suite", "device"),
    "serving": ("suite", "device", "data"),
    "decoding": ("suite", "device", "data"),
}
"""Kind → parts that readers lean on."""


def validate_manifest(document: Any, where: str = "manifest.json") -> dict[str, Any]:
    """A manifest, lifted and checked for the parts that readers lean on.

    Raises:
        RunError: unknown schema version, another kind of document, or a part that is absent.
    """
    manifest = migrate(document, where)
    if manifest.get("kind") == "run":  # of before studies had one
        manifest["kind"] = "suite"
    parts = MANIFEST_PARTS.get(str(manifest.get("kind")))
    if parts is None:
        raise _invalid(where, f"its kind is {manifest.get('kind')!r}, not {' or '.join(map(repr, MANIFEST_PARTS))}")
    for name in parts:
        if not isinstance(manifest.get(name), dict):
            raise _invalid(where, f"there is no '{name}' in it")
    check_manifest(manifest, where)
    return manifest


def _invalid(where: str, what: str) -> RunError:
    return RunError(
        f"{where}: {what}.",
        why="Reports and gates would have to guess.",
        todo="Run the suite again; if it comes back, it is a fault of adaptbench or of a plug-in.",
    )
