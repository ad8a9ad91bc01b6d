"""The sentences of the page, made from the figures: the verdict, and how everything was measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from adaptbench.report import words
from adaptbench.report.view import Record, Subject, View, saving
from adaptbench.results.energy import no_sensor


@dataclass(frozen=True, slots=True)
class Headline:
    """One large figure under the title."""

    value: str
    what: str
    who: str


def verdict(view: View) -> list[str]:
    """Two to four sentences: what was measured, who saves what, who takes it back, which sensors answered."""
    return [sentence for sentence in (_measured(view), _saves(view), _takes_back(view), _sensors(view)) if sentence]


def best_saving(view: View) -> tuple[Subject, Record, float] | None:
    """The model that saves the largest share of its own static network's MACs on clean inputs."""
    savings = [
        (subject, record, share)
        for subject in view.subjects
        if (record := view.clean(subject)) is not None and (share := saving(record)) is not None
    ]
    return max(savings, key=lambda item: item[2], default=None)


def worst_attack(view: View) -> tuple[Subject, Record] | None:
    """The attack and model with the largest recovery."""
    attacked = [
        (subject, record)
        for subject in view.subjects
        for record in view.attacks(subject)
        if words.exists(record.get("recovery"))
    ]
    return max(attacked, key=lambda item: item[1]["recovery"], default=None)


def headlines(view: View) -> list[Headline]:
    """At most four large figures; what does not exist is left out."""
    made = []
    if best := best_saving(view):
        made.append(
            Headline(words.percent(best[2], 0), "of its static network’s MACs saved on clean inputs", best[0].title)
        )
    if worst := worst_attack(view):
        who = f"{view.condition_title(worst[1])} on {worst[0].title}"
        made.append(
            Headline(words.percent(worst[1]["recovery"], 0), "of the head-room taken back by the strongest attack", who)
        )
    for field, what in (
        ("time", "of the MAC saving seen by the clock (nodes and policy)"),
        ("energy", "of the MAC saving seen by the power sensor"),
    ):
        if shown := _realised(view, field):
            subject, record = shown
            who = f"{subject.title}, batch {record['batch_size']}"
            if field == "time" and words.exists(record.get("executor_share")):
                who += f"; the harness took {words.percent(record['executor_share'], 0)} of the window"
            made.append(Headline(words.percent(record[f"realised_saving_{field}"], 0), what, who))
    return made


def _realised(view: View, field: str) -> tuple[Subject, Record] | None:
    """The clean, timed case at the overview's batch size, of the model that saves most."""
    best = best_saving(view)
    if best is None:
        return None
    for record in view.timed(best[0]):
        measured = field == "time" or words.provenance_kind(record.get("energy_provenance")) == "measured"
        if record["kind"] == "clean" and record["batch_size"] == view.batch_size and measured:
            return (best[0], record) if words.exists(record.get(f"realised_saving_{field}")) else None
    return None


def _measured(view: View) -> str:
    models = len({subject.model for subject in view.subjects})
    data = view.manifest.get("data") or {}
    images = words.listing(
        f"{name} ({words.count(about['n'])} {about.get('split', 'test')} inputs)" for name, about in data.items()
    )
    tried = [{r["condition"] for r in view.attacks(s) if words.exists(r.get("macs_mean"))} for s in view.subjects]
    attacks = max(map(len, tried), default=0)
    held = f"held against {words.plural(attacks, 'attack')}" if attacks else "without an attack"
    if any(len(conditions) < attacks for conditions in tried):
        held = held.replace("against", "against up to")
    device = (view.manifest.get("device") or {}).get("name")
    paths = [view.model(subject.model) for subject in view.subjects]
    fixed = any(words.exists(about.get("max_macs")) and about["max_macs"] == about.get("min_macs") for about in paths)
    adaptive = "" if fixed else "adaptive "
    return (
        f"{words.cardinal(models)} {adaptive}{'model' if models == 1 else 'models'} "
        f"on {images or 'an unnamed data set'}, "
        f"{held}{f', on {device}' if device else ''}."
    )


def _saves(view: View) -> str:
    best = best_saving(view)
    if best is None:
        return "No model has both a clean case and a static network, so that no saving can be stated."
    subject, record, share = best
    static = next(
        (
            reference
            for reference in view.references(subject)
            if reference.get("policy") == "static" and words.exists(reference.get("accuracy"))
        ),
        None,
    )
    against = (
        f" (the static reference, of {words.macs(static.get('macs_mean'))} MACs: {words.percent(static['accuracy'])})"
        if static
        else ""
    )
    if share <= 0:
        return (
            "On clean inputs no model saves MACs against its own static network; "
            f"the nearest is {subject.title} with {words.percent(share)}."
        )
    others = [saving(clean) for other in view.subjects if other != subject and (clean := view.clean(other)) is not None]
    rest = [value for value in others if value is not None]
    what = f"saves {'most, ' if rest else ''}{words.percent(share, 0)} of its own static network’s MACs"
    tail = f"; the others save {_range(rest)} of theirs" if rest else ""
    kept = (
        f" at an accuracy of {words.percent(record['accuracy'])}{against}"
        if words.exists(record.get("accuracy"))
        else ""
    )
    return f"On clean inputs {subject.title} {what}{kept}{tail}."


def _range(shares: list[float]) -> str:
    low, high = words.percent(min(shares), 0), words.percent(max(shares), 0)
    return low if low == high else f"{low} to {high}"


def _takes_back(view: View) -> str:
    worst = worst_attack(view)
    if worst is None:
        return "Nothing is said about attackers: no attack in this run has a recovery."
    subject, record = worst
    bounds = words.interval(record.get("recovery_ci"))
    control = view.control_of(subject, record)
    noise = ""
    if control and words.exists(control.get("recovery")):
        title = view.condition_title(control)
        noise = f" {title[:1].upper()}{title[1:]} of the same size takes back {words.percent(control['recovery'])}."
    if record["recovery"] <= 0:
        return (
            f"No attack that ran takes anything back; the nearest, {view.condition_title(record)} on {subject.title}, "
            f"reaches {words.percent(record['recovery'])}.{noise}"
        )
    before, after = record.get("macs_clean_mean"), record.get("macs_mean")
    rise = (
        f", from {words.macs(before)} to {words.macs(after)} MACs a sample,"
        if words.exists(before) and words.exists(after)
        else ""
    )
    kept = f" at an accuracy of {words.percent(record['accuracy'])}" if words.exists(record.get("accuracy")) else ""
    return (
        f"{view.condition_title(record)} takes back most: {words.percent(record['recovery'])} {bounds} "
        f"of the head-room of {subject.title}{rise}{kept}.{noise}"
    ).replace("  ", " ")


def _sensors(view: View) -> str:
    kinds: dict[str, dict[str, None]] = {}
    for record in view.records:
        if words.exists(record.get("energy_j_per_sample")):
            kind = words.provenance_kind(record.get("energy_provenance"))
            kinds.setdefault(kind, {})[str(record.get("energy_meter") or "an unnamed meter")] = None
    if "measured" in kinds:
        also = (
            f"; energies from {words.listing(kinds['modelled'])} are modelled and kept apart"
            if "modelled" in kinds
            else ""
        )
        return f"Energy was measured by {words.listing(kinds['measured'])}{also}."
    if "modelled" in kinds:
        why = no_sensor(view.manifest.get("meters") or {}, kinds["modelled"])
        return f"{why[:1].upper()}{why[1:]}: energies are modelled, from MACs and the bytes of weights and inputs."
    return "No energy was measured or modelled."


def method(view: View) -> Iterator[tuple[str, str]]:
    """Paragraphs on what was done, as (heading, text)."""
    yield (
        "Counting",
        (
            "MACs are counted where they are executed, sample by sample: the nodes on the sample’s path, their heads "
            "and the policy. FLOPs are twice the MACs. A model’s own static network does the same task without "
            "adaptive machinery. " + _uncounted(view)
        ),
    )
    yield (
        "Attackers",
        (
            "Recovery is (attacked − clean) ÷ (dearest path − clean), of means over the attacked inputs and "
            "their clean runs; increase is attacked ÷ clean − 1. Crafted inputs are rounded to 8 bits "
            "and then run hard, as deployed; norms are audited after rounding. " + _ties(view)
        ),
    )
    yield (
        "Intervals",
        (
            "Brackets and bars are 95 % confidence intervals. Accuracies have Wilson’s; mean MACs, recovery and the "
            "other ratios are bootstrapped over inputs (BCa), paired with the clean run of the same inputs. Seconds "
            "and joules are Hodges–Lehmann centres of the measuring blocks on the log scale, savings the same over "
            "paired blocks. "
            "Tables leave some out for room; summary.json has them all. One that is missing there too did not vary, or "
            "has too few blocks."
        ),
    )
    yield "Measuring", _measuring(view)


def _uncounted(view: View) -> str:
    ops = dict.fromkeys(
        str(op) for model in (view.manifest.get("models") or {}).values() for op in model.get("uncounted") or []
    )
    ops |= dict.fromkeys(str(op) for record in view.records for op in record.get("uncounted") or [])
    if not ops and any(model.get("uncounted") is None for model in (view.manifest.get("models") or {}).values()):
        return "Whether something ran uncounted is not recorded."
    if not ops:
        return "No operation that torch was seen to run is without a formula."
    return f"Operations that ran and that no formula covers: {words.listing(ops)}."


def _ties(view: View) -> str:
    counts = {record["evaluation"]: record["ties"] for record in view.records if words.exists(record.get("ties"))}
    ties = sum(counts.values())
    if not counts:
        return "Ties are not recorded."
    if not ties:
        return "No decision was a tie."
    return (
        f"In {words.plural(int(ties), 'pass', 'passes')} of a sample, over all conditions, a decision fell within 10⁻⁵ "
        "of its threshold, where sums in another order may decide otherwise; they are counted as they fell."
    )


def _measuring(view: View) -> str:
    meters = view.manifest.get("meters") or {}
    answered = [name for name, meter in meters.items() if meter.get("found")]
    silent = [
        f"{name} ({meter.get('reason') or 'no reason given'})"
        for name, meter in meters.items()
        if not meter.get("found")
    ]
    windows = view.run.windows()
    windows = windows[~windows["case"].isin(("idle", "suite"))]
    if windows.empty:
        return "Nothing was timed in this run."
    blocks = int(windows["block"].nunique())
    parts = [
        f"Conditions were interleaved in random order within each of {words.plural(blocks, 'block')}, after warm-up.",
        f"Meters that answered: {words.listing(answered) or 'none'}.",
    ]
    if silent:
        parts.append(f"Silent: {'; '.join(silent)}.")
    return " ".join(parts)
