"""Things to know: what a careful colleague would add to the table, drawn from the figures themselves."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from statistics import fmean
from types import MappingProxyType
from typing import Any

from adaptbench.bench.contradictions import contradictions
from adaptbench.bench.metered_notes import metered_notes
from adaptbench.experiment.failures import Failure
from adaptbench.report import words
from adaptbench.report.modes import clause
from adaptbench.results.controls import beside, equal_control, queries_of
from adaptbench.results.energy import kind_of, no_sensor, of_cases
from adaptbench.results.identity import mode_of

Record = dict[str, Any]


def things_to_know(
    cases: Sequence[Record],
    *,
    meters: Mapping[str, Mapping[str, Any]],
    models: Mapping[str, Mapping[str, Any]],
    conditions: Mapping[str, Mapping[str, Any]],
    skipped: Sequence[tuple[str, str, str]],
    failures: Collection[Failure] = (),
    data: Sequence[str] = (),
    compiled: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> list[str]:
    """Sentences for the terminal and the report, the gravest first."""
    cases = [case for case in cases if case["n"]]  # what failed as a whole has no figures
    notes = [
        *_failures(failures),
        *_uncounted(models),
        *metered_notes(cases, models),
        *contradictions(_evaluated(cases), conditions),
        *_no_effect(cases),
        *_chance(cases, conditions),
        *_realised(cases),
        *_compiled(compiled),
        *_sensors(meters, cases),
        *said_once(_from_attacks(cases)),
        *_limits(cases),
        *_over_ceiling(models),
        *_queries(cases, conditions),
        *_ties(cases),
        *_versions(conditions),
    ]
    notes += data
    notes += [f"{condition} was not run on {model}: {reason}" for model, condition, reason in skipped]
    return notes


def _failures(failures: Collection[Failure]) -> list[str]:
    if not failures:
        return []
    said = [f"{f.case} failed: {f.reason}{f' ({f.traceback})' if f.traceback else ''}" for f in failures]
    told = f"{words.plural(len(said), 'case')} failed and {'has' if len(said) == 1 else 'have'} no figures"
    return [f"{told}; the same command tries again what failed, and only that", *said]


def _uncounted(models: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [
        f"{name}: MACs leave out {', '.join(model['uncounted'])}, for which there is no formula"
        for name, model in models.items()
        if model.get("uncounted")
    ]


def _sensors(meters: Mapping[str, Mapping[str, Any]], cases: Sequence[Record]) -> list[str]:
    energies = {name: meter for name, meter in meters.items() if of_cases(meter)}
    shown = [c for c in cases if c.get("energy_j_per_sample") is not None]
    if not shown:
        silent = "; ".join(f"{name}: {meter.get('reason') or 'it gave no joules'}" for name, meter in energies.items())
        why = f"no energy meter answered ({silent})" if energies else "no energy meter for single cases was asked for"
        return [f"no joules were recorded: {why}"] if meters else []
    used = list(dict.fromkeys(str(c.get("energy_meter")) for c in shown))
    if any(kind_of(c.get("energy_provenance")) == "measured" for c in shown):
        beside = [name for name, meter in energies.items() if meter.get("found") and name not in used]
        return [
            f"joules a sample are from {', '.join(used)}: what measures comes before what models, then the order in "
            f"the suite counts; {', '.join(beside)} answered too, see windows.parquet"
        ] * bool(beside)
    return [f"{no_sensor(meters, used)}: joules are modelled; `adaptbench doctor` says how to get measured ones"]


def _realised(cases: Sequence[Record]) -> list[str]:
    """Savings and the harness' share as means, never means of ratios: one model that saves little would decide them."""
    told = ("saving_macs", "saving_time", "executor_share")
    by_batch: dict[tuple[int, str], list[Record]] = {}
    for case in cases:
        if case["kind"] == "clean" and case.get("batch_size") and all(case.get(name) is not None for name in told):
            by_batch.setdefault((case["batch_size"], clause(mode_of(case))), []).append(case)
    if not by_batch:
        return []
    parts, most = [], max(map(len, by_batch.values()))
    for (size, mode), timed in sorted(by_batch.items()):
        some = "" if len(timed) == most else f", {len(timed)} of {most} models"  # another mean: not to be set beside
        macs, time, harness = (words.percent(fmean(case[name] for case in timed), 0) for name in told)
        parts.append(
            f"batch {size}{mode}{some}: {time} of the time for {macs} of the MACs (harness: {harness} of the window)"
        )
    return [
        f"saved by the nets, nodes and policy, against their plain nets, mean over models: {'; '.join(parts)}; "
        "the harness' own time is no net's"
    ]


def _compiled(plans: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What became of the parts; where none stays compiled, the case's failure says so."""
    told = []
    for name, plan in plans.items():
        ran = [part for part in plan["parts"] if part["calls"]]
        kept, there = (sum(part[of] for part in plan["parts"]) for of in ("kept", "in_reference"))
        if kept:
            same = plan["agreement"]
            told.append(
                f"{name}: {kept} of {len(ran)} parts, of its plain net {there}, in {plan['made_s']:.0f} s; of "
                f"{same['rows']} inputs {same['other_ways']} go another way and {same['other_answers']} are answered "
                f"otherwise, as only ties may{_padded(plan)}"
            )
    return [f"compiled before the first window: {'; '.join(told)}"] if told else []


def _padded(plan: Mapping[str, Any]) -> str:
    """Rows that graphs run for nothing: no MACs count them, and the seconds hold them."""
    most = max((part.get("padding") or 0.0 for part in plan["parts"] if part["kept"]), default=0.0)
    return (
        f"; graphs of fixed sizes run up to {100 * most:.0f} % more rows than arrive, which no MACs count"
        if most
        else ""
    )


def _evaluated(cases: Sequence[Record]) -> list[Record]:
    """One record an evaluation, whatever batch sizes it was timed at."""
    return list({case["evaluation"]: case for case in cases}.values())


def _no_effect(cases: Sequence[Record]) -> list[str]:
    weak = [
        f"{c['condition']} on {c['model']}"
        for c in _evaluated(cases)
        if c["kind"] == "attack"
        and c.get("recovery") is not None
        and c["recovery"] <= 0
        and not c["condition"].startswith("torchattacks/")
    ]
    return (
        [f"no head-room was taken back by {', '.join(weak)}: a weak attack is no proof of a strong model"]
        if weak
        else []
    )


def _over_ceiling(models: Mapping[str, Mapping[str, Any]]) -> list[str]:
    over = [
        (n, m["max_macs"] / m["macs_full"])
        for n, m in models.items()
        if m.get("macs_full") and m["max_macs"] > 1.005 * m["macs_full"]
    ]
    if not over:
        return []
    parts = ", ".join(f"{name} {words.percent(share, 0)}" for name, share in over)
    return [f"the dearest path costs more than the model’s own plain net: {parts} of it"]


def _queries(cases: Sequence[Record], conditions: Mapping[str, Mapping[str, Any]]) -> list[str]:
    notes = []
    for name, condition in conditions.items():
        spent = [
            c["queries_mean"] for c in _evaluated(cases) if c["condition"] == name and c.get("queries_mean") is not None
        ]
        budget = (condition.get("settings") or {}).get("queries")
        if spent and budget:
            notes.append(f"{name} was held to {budget} queries an input and made {fmean(spent):.0f} on average")
    return notes


def _chance(cases: Sequence[Record], conditions: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Attacks that ask, held against as many questions that learn nothing."""
    notes = []
    rows = _evaluated(cases)
    for name, condition in conditions.items():
        if condition.get("kind") != "attack" or (budget := queries_of(condition)) is None:
            continue
        control = equal_control(name, conditions)
        if control is None:
            settings = condition.get("settings") or {}
            if settings.get("constraint") == "words":
                notes.append(
                    f"{name} stands beside no control of {budget} queries: add `words-best-of-n: {{queries: "
                    f"{budget}}}` at its share and limit; one draw of random edits is less than it may ask"
                )
            else:
                notes.append(
                    f"{name} stands beside no control of {budget} queries: add `best-of-n: {{queries: {budget}}}` at "
                    "its eps and limit; one draw of noise is less than it may ask"
                )
            continue
        weaker = []
        for record in (r for r in rows if r["condition"] == name and r.get("recovery") is not None):
            same = [r for r in rows if r["model"] == record["model"] and r["seed"] == record["seed"]]
            chance = beside(record, same, conditions)
            if chance is not None and chance.get("recovery") is not None and chance["recovery"] >= record["recovery"]:
                shares = f"{words.percent(record['recovery'])} against {words.percent(chance['recovery'])}"
                weaker.append(f"{record['model']} ({shares})")
        if weaker:
            notes.append(f"{name} takes back no more than {control} at equal queries on {', '.join(weaker)}")
    return notes


def _versions(conditions: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Foreign attacks with the versions that their figures hang on."""
    by_version: dict[str, list[str]] = {}
    for name, condition in conditions.items():
        versions = condition.get("versions") or {}
        if versions.keys() - {"torch"}:
            text = ", ".join(f"{package} {version}" for package, version in versions.items())
            by_version.setdefault(text, []).append(name)
    return [f"{', '.join(names)}: made with {text}" for text, names in by_version.items()]


def _from_attacks(cases: Sequence[Record]) -> list[tuple[str, str, str]]:
    """What the attacks themselves had to say, each of a condition and a model: missing gradients, deadlines."""
    return [
        (c["condition"], c["model"], note)
        for c in _evaluated(cases)
        for note in (c.get("craft_details") or {}).get("notes") or []
    ]


_FIGURE = re.compile(r"\d+(?:\.\d+)?")
_LISTED = 4
"""Figures that are named one by one; of more, the least and the greatest are."""


def said_once(said: Sequence[tuple[str, str, str]]) -> list[str]:
    """One sentence where an attack says the same of several models: their figures stand in the models' order.

    Args:
        said: (condition, model, sentence), in order.
    """
    groups: dict[tuple[str, str], list[tuple[str, list[str]]]] = {}
    for condition, model, note in said:
        key = (condition, _FIGURE.sub("{}", note.replace("{", "{{").replace("}", "}}")))
        groups.setdefault(key, []).append((model, _FIGURE.findall(note)))
    notes = []
    for (condition, form), found in groups.items():
        figures = [_together(column) for column in zip(*(figures for _, figures in found), strict=True)]
        models = dict.fromkeys(model for model, _ in found)  # seeds share one
        notes.append(f"{condition} on {words.listing(models)}: {form.format(*figures)}")
    return notes


def _together(figures: Sequence[str]) -> str:
    if len(set(figures)) == 1:
        return figures[0]
    if len(figures) <= _LISTED:
        return words.listing(figures)
    return f"{min(figures, key=float)} to {max(figures, key=float)}"


def _ties(cases: Sequence[Record]) -> list[str]:
    near = {c["evaluation"]: c.get("ties") or 0 for c in cases}
    total = sum(near.values())
    return (
        [
            f"in {words.plural(total, 'pass', 'passes')} of a sample, over all conditions, a decision within 1e-5 "
            "(half-precision nets: 4 ε of their type) of its threshold may fall the other way elsewhere"
        ]
        if total
        else []
    )


def _limits(cases: Sequence[Record]) -> list[str]:
    most = max((c["n"] for c in cases), default=0)
    by_size: dict[int, dict[str, None]] = {}
    for case in cases:
        if case["n"] < most:
            by_size.setdefault(case["n"], {})[case["condition"]] = None
    parts = [f"{', '.join(names)}: the first {n}" for n, names in sorted(by_size.items(), reverse=True)]
    return [f"fewer than the {most} inputs were used by some conditions: {'; '.join(parts)}"] if parts else []
