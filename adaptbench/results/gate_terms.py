"""What two sides must have in common before their figures may meet: suite, data, attacks, rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from adaptbench.errors import AdaptBenchError, BaselineError
from adaptbench.results.gate_rows import GateRow, RowVerdict
from adaptbench.results.gate_rules import METRICS, OF_ANSWERS, Metric, Rule, Source, parse_gate
from adaptbench.results.schema import KINDS, Record

NEUTRAL_SECTIONS = ("measure", "gate", "title", "description", "cite", "published", "notes")
"""Sections of a suite or study that leave its figures comparable."""
SCALES = {
    "recovery": "macs_max",
    "recovery_per_input_mean": "macs_max",
    "efficacy_step": "macs_max",
    "efficacy_trapezoid": "macs_max",
    "realised_saving_time": "macs_full",
    "realised_saving_energy": "macs_full",
}
"""Metric → the bound that it is a share of: where the bound moved, the figure is one on another scale."""
_NAMES = ("models", "references", "conditions")
_NAMED = 3
_ABSENT = object()


def suite_obstacle(here: Mapping[str, Any], there: Mapping[str, Any], notes: list[str]) -> str | None:
    """Why nothing of two runs can be compared; None where it can.

    Args:
        here: the run's manifest. there: the baseline's. notes: what is to be said is added.
    """
    own, kept = here.get("suite") or {}, there.get("suite") or {}
    if own.get("name") != kept.get("name"):
        return f"another suite: {own.get('name')}, baseline {kept.get('name')}"
    if own.get("limit") != kept.get("limit"):
        return f"another limit: {own.get('limit')} inputs, baseline {kept.get('limit')}"
    changed = sorted(set(own.get("overrides") or []) ^ set(kept.get("overrides") or []))
    if beyond := [text for text in changed if text.partition(".")[0].partition("=")[0] not in NEUTRAL_SECTIONS]:
        return f"other overrides: {', '.join(beyond)}"
    if own.get("sha256") != kept.get("sha256") or changed:
        if _substance(own.get("text")) != _substance(kept.get("text")):
            return f"the suite '{own.get('name')}' says something else than when the baseline was written"
        if changed or own.get("text") != kept.get("text"):
            notes.append(f"the suites differ in {', '.join(NEUTRAL_SECTIONS)} only: compared")
    return _data_obstacle(here.get("data") or {}, there.get("data") or {})


def _data_obstacle(here: Mapping[str, Any], there: Mapping[str, Any]) -> str | None:
    for name in sorted({*here, *there}):
        hashes = [(side.get(name) or {}).get("sha256") for side in (here, there)]
        if hashes[0] != hashes[1]:
            return f"other data: '{name}' holds other pictures or labels than the baseline's (sha256 differs)"
    return None


def _substance(text: Any) -> Any:
    """A suite without the sections that leave its figures comparable; the raw text where it is not a table."""
    from adaptbench.errors import SuiteError
    from adaptbench.located_yaml import parse

    try:
        parsed = parse(str(text or ""), "suite").value
    except SuiteError:
        return text
    if not isinstance(parsed, dict):
        return text
    return {name: value for name, value in parsed.items() if name not in NEUTRAL_SECTIONS}


def attack_obstacle(seen: Record, kept: Record, here: Mapping[str, Any], there: Mapping[str, Any]) -> str | None:
    """Why a control or an attack is not the baseline's; None where it is, or the case is neither.

    A recipe is found by its name, so that one of the same name may be another attack: the hashes in the records and
    every setting in the manifests must agree.

    Args:
        seen, kept: records of the run and of the baseline. here, there: their manifests.
    """
    if seen["kind"] not in ("control", "attack") and kept["kind"] not in ("control", "attack"):
        return None
    name = seen["condition"]
    own, kept_as = ((side.get("conditions") or {}).get(name) for side in (here, there))
    if own is None or kept_as is None:
        side = "run" if own is None else "baseline"
        return f"the {side} does not say how '{name}' was set: write it again with this version"
    parts = [_flat(part) for part in (own, kept_as)]
    moved = [key for key in sorted({*parts[0], *parts[1]}) if parts[0].get(key, _ABSENT) != parts[1].get(key, _ABSENT)]
    if moved:
        said = [f"{key} {parts[0].get(key, 'absent')}, baseline {parts[1].get(key, 'absent')}" for key in moved]
        more = " …" if len(moved) > _NAMED else ""
        return f"another attack under the name '{name}': {'; '.join(said[:_NAMED])}{more}"
    if seen.get("attack_sha256") != kept.get("attack_sha256"):
        return f"another attack under the name '{name}': its code or its surrogate's weights changed"
    return None


def _flat(condition: Mapping[str, Any]) -> dict[str, Any]:
    return {"kind": condition.get("kind"), "access": condition.get("access"), **(condition.get("settings") or {})}


def figure_obstacle(rule: Rule, seen: Record, kept: Record) -> str | None:
    """Why one figure of one case stands on another footing than the baseline's; None where it does not."""
    scale = SCALES.get(rule.metric)
    if scale is not None and seen.get(scale) != kept.get(scale):
        return f"{rule.metric} is a share of {scale}, which is {seen.get(scale)} here and {kept.get(scale)} there"
    source = METRICS[rule.metric].source
    if source in (Source.SENSOR, Source.TIMED):
        if seen.get("n_timed") != kept.get("n_timed"):
            return f"{seen.get('n_timed')} inputs were timed, in the baseline {kept.get('n_timed')}"
        return None
    if source is Source.METERED or rule.metric in OF_ANSWERS or rule.metric == "queries_mean":
        return None
    new = sorted(set(map(str, seen.get("uncounted") or [])) - set(map(str, kept.get("uncounted") or [])))
    if new:
        return f"operators without a MAC formula run that the baseline does not have: {', '.join(new[:_NAMED])}"
    return None


def note_surroundings(here: Mapping[str, Any], there: Mapping[str, Any], notes: list[str]) -> None:
    """What else differs and explains a difference when there is one."""
    own, kept = here.get("versions") or {}, there.get("versions") or {}
    moved = [f"{name} {kept[name]} → {own[name]}" for name in own if name in kept and own[name] != kept[name]]
    if moved:
        notes.append(f"versions since the baseline: {', '.join(moved)}")
    if (here.get("gate") or {}) != (there.get("gate") or {}):
        notes.append("the gate section is not the one that the baseline was written with: the stricter rules hold")
    if other := _otherwise_compiled(here.get("compiled") or {}, there.get("compiled") or {}):
        notes.append(f"compiled otherwise than in the baseline, which may move their seconds: {'; '.join(other)}")


def _otherwise_compiled(own: Mapping[str, Any], kept: Mapping[str, Any]) -> list[str]:
    """Each net and batch of both sides whose compiled parts are not the same: + now and not then, − the reverse."""
    told = []
    for name in (name for name in own if name in kept):
        now, then = ({part["name"] for part in side[name]["parts"] if part["kept"]} for side in (own, kept))
        news = [f"{said} {', '.join(sorted(parts))}" for said, parts in (("+", now - then), ("−", then - now)) if parts]
        told += [f"{name} {' '.join(news)}"] if news else []
    return told


def idle_patterns(
    rules: Iterable[Rule],
    records: Sequence[Record],
    manifests: Sequence[Mapping[str, Any]],
    notes: list[str],
    kinds: Iterable[str] = KINDS,
) -> list[GateRow]:
    """A row for each rule whose ``cases:`` name nothing: a misspelt one would watch nobody, and be green.

    Args:
        rules: in force. records: of both sides. manifests: of both; a kind, a model or a condition that they know and
            no case has is a note. notes: what is to be said is added. kinds: that cases may be of.
    """
    known = {*kinds, *(name for side in manifests for part in _NAMES for name in side.get(part) or {})}
    rows = []
    for rule in rules:
        unknown = rule.idle(records, known)
        if caseless := [pattern for pattern in rule.idle(records) if pattern not in unknown]:
            notes.append(f"gate.{rule.metric}: no case is matched by {', '.join(caseless)}")
        if unknown:
            reason = f"no case, kind, model or condition is called {', '.join(map(repr, unknown))}: it watches nothing"
            rows.append(GateRow("*", rule.metric, rule.text, RowVerdict.NOT_COMPARABLE, reason))
    return rows


def rules_of(manifest: Mapping[str, Any], place: object, metrics: Mapping[str, Metric] = METRICS) -> list[Rule]:
    """The rules that a side was written with.

    Args:
        manifest: of the side. place: where it was read. metrics: that its kind can watch.

    Raises:
        BaselineError: its gate section is none.
    """
    try:
        return parse_gate(manifest.get("gate"), metrics)
    except AdaptBenchError as error:
        raise BaselineError(f"{place}: {error.seen}", why=error.why, todo=error.todo) from None


def in_force(
    kept: Sequence[Rule], own: Sequence[Rule], records: Sequence[Record]
) -> tuple[list[Rule], list[tuple[Rule, str]]]:
    """The rules that hold, and those of the baseline that the run's suite loosened or dropped.

    The baseline's hold; the run's are added where they ask for more.

    Args:
        kept: the baseline's. own: the run's. records: of both sides.

    Returns:
        (rules, [(rule of the baseline, the first case that the run's rules let go)]).
    """
    loosened = []
    for rule in kept:
        lost = next((r for r in records if rule.watches(r) and not _covered(rule, r, own)), None)
        if lost is not None:
            loosened.append((rule, str(lost["case"])))
    added = [rule for rule in own if any(rule.watches(r) and not _covered(rule, r, kept) for r in records)]
    return [*kept, *added], loosened


def _covered(rule: Rule, record: Record, by: Sequence[Rule]) -> bool:
    return any(other.watches(record) and other.holds(rule, record) for other in by)
