"""The first thing on the page: three sentences, made from the figures, and one row a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from adaptbench.report import clock, modes, words
from adaptbench.report.clock import CANNOT_TELL, FASTER, SLOWER, Pace
from adaptbench.report.tables import Builder, Column, Table, TableCell
from adaptbench.report.view import Record, Subject, View, missing, saving
from adaptbench.results.energy import no_sensor

UNDONE, PART, HELD = 0.9, "in part", "holds"
"""From this share of the saving gone on, an attacker has undone it; below a tenth it holds."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One model: what it saves, what the clock sees of it, what an attacker leaves of it."""

    subject: Subject
    clean: Record | None
    saved: float | None
    """Share of the plain net's MACs not run on clean inputs."""
    pace: Pace | None
    worst: Record | None
    """The attack under which the most MACs ran, as a share of the plain net's."""
    under_attack: float | None
    """MACs under it, as a share of the plain net's."""
    lost: float | None
    """Share of the saving that is gone under it, over the attacked inputs; above 1 the plain net would be cheaper."""

    @property
    def attack_word(self) -> str:
        """``undone``, ``in part``, ``holds``, or nothing where there is no saving or no attack."""
        if self.lost is None or self.saved is None or self.saved <= 0:
            return ""
        return "undone" if self.lost >= UNDONE else PART if self.lost > 1 - UNDONE else HELD

    @property
    def words(self) -> str:
        """The verdict in a sentence or two."""
        if self.saved is None:
            return "What it saves cannot be said."
        if self.saved <= 0:
            return "Saves nothing: its plain net runs no more operations."
        seen = self.pace.word if self.pace else ""
        first = {
            FASTER: "Saves operations and time.",
            SLOWER: "Saves operations, but is slower.",
            CANNOT_TELL: "Saves operations; of time the clock cannot tell.",
        }.get(seen, "Saves operations; time was not measured.")
        last = {
            "undone": " An attacker undoes it.",
            PART: " An attacker takes part of it back.",
            HELD: " It holds against the attacks that ran.",
        }.get(self.attack_word, "")
        return first + last


def judge(view: View) -> list[Judged]:
    """Every model of the run."""
    return [_judge(view, subject) for subject in view.subjects]


def _judge(view: View, subject: Subject) -> Judged:
    clean = view.clean(subject)
    attacked = [record for record in view.attacks(subject) if saving(record) is not None]
    worst = max(attacked, key=lambda record: record["macs_mean"] / record["macs_full"], default=None)
    share = lost = None
    if worst is not None:
        share = worst["macs_mean"] / worst["macs_full"]
        before = worst.get("macs_clean_mean")
        if words.exists(before) and before < worst["macs_full"]:
            lost = (worst["macs_mean"] - before) / (worst["macs_full"] - before)
    saved = None if clean is None else saving(clean)
    return Judged(subject, clean, saved, clock.at_suites_batch(view, subject), worst, share, lost)


def sentences(view: View, judged: Sequence[Judged]) -> list[tuple[str, str]]:
    """Three answers, as (the question's answer in two or three words, the rest of the sentence)."""
    return [_operations(judged), _time(view, judged), _attack(view, judged)]


def _some(amount: int, total: int) -> str:
    return f"{words.cardinal(amount).lower()} of {words.cardinal(total).lower()}"


def _operations(judged: Sequence[Judged]) -> tuple[str, str]:
    known = [one.saved for one in judged if one.saved is not None]
    if not known:
        return "Fewer operations?", "No model has both a clean case and a plain net, so that no saving can be stated."
    saving_ones = [share for share in known if share > 0]
    if not saving_ones:
        return "Fewer operations, no.", "No model runs fewer MACs than its plain net on clean inputs."
    whose = "its plain net" if len(judged) == 1 else "their plain nets"
    amount = f"{_range(saving_ones)} fewer MACs than {whose}, on clean inputs."
    if len(saving_ones) == len(judged):
        return "Fewer operations, yes:", amount
    return f"Fewer operations, for {_some(len(saving_ones), len(judged))}:", amount


def _range(shares: Sequence[float]) -> str:
    low, high = words.number(100 * min(shares), 0), words.percent(max(shares), 0)
    return high if f"{low} %" == high else f"{low} to {high}"


def _time(view: View, judged: Sequence[Judged]) -> tuple[str, str]:
    told = Counter(one.pace.word for one in judged if one.pace and one.pace.word)
    total = sum(told.values())
    if not total:
        return "Less time?", "Nothing was timed in this run."
    at = f"at batch {view.batch_size}{modes.clause(next(iter(view.modes), None))}"
    rest = [
        f"{words.cardinal(told[word]).lower()} {text if told[word] == 1 else many}"
        for word, text, many in ((SLOWER, "is slower", "are slower"),)
        if told[word]
    ]
    if told[CANNOT_TELL]:
        rest.append(f"of {words.cardinal(told[CANNOT_TELL]).lower()} the clock cannot tell")
    faster = told[FASTER]
    if faster == total:
        shares = [one.pace.saving for one in judged if one.pace and one.pace.saving is not None]
        return "Less time, yes:", f"{_range(shares)} less than {_whose(total)} {at}."
    if total == 1:
        if told[SLOWER]:
            return "Less time, no:", f"it is slower than its plain net {at}."
        why = next(one.pace.unclear for one in judged if one.pace and one.pace.unclear)
        return "Less time?", f"The clock cannot tell {at}: {why}."
    if not faster:
        return "Less time, no:" if not told[CANNOT_TELL] else "Less time, for none:", f"{at}, {words.listing(rest)}."
    return f"Less time, for {_some(faster, total)}:", f"{at}, {words.listing(rest)}."


def _whose(total: int) -> str:
    return "its plain net" if total == 1 else "their plain nets"


def _attack(view: View, judged: Sequence[Judged]) -> tuple[str, str]:
    if not any(one.worst is not None for one in judged):
        return "Under attack?", "Nothing is said about attackers: no attack in this run has a cost."
    told = Counter(one.attack_word for one in judged if one.attack_word)
    total = sum(told.values())
    if not total:
        return "Under attack?", "There is no saving for an attacker to take back."
    if told[HELD] == total:
        return "Under attack, it holds:", "no attack that ran takes back a tenth of the saving."
    parts = []
    if told["undone"]:
        parts.append(f"undoes the saving{_on(told['undone'], total)}")
    if told[PART]:
        where = f" on {words.cardinal(told[PART]).lower()}" if told["undone"] else _on(told[PART], total)
        parts.append(f"takes part of {'it' if told['undone'] else 'the saving'}{where}")
    tail = f"; it holds on {words.cardinal(told[HELD]).lower()}" if told[HELD] else ""
    return "Under attack, no:", f"an attacker {words.listing(parts)}{tail}."


def _on(amount: int, total: int) -> str:
    if total == 1:
        return ""
    return " on every one" if amount == total else f" on {_some(amount, total)}"


def chips(view: View) -> list[tuple[str, str]]:
    """What kind of figure each is, as (quantity, kind): counted, measured, modelled or none."""
    timed = any(words.exists(record.get("latency_s_per_sample")) for record in view.records)
    kinds = {
        words.provenance_kind(record.get("energy_provenance"))
        for record in view.records
        if words.exists(record.get("energy_j_per_sample"))
    }
    energy = " and ".join(kind for kind in ("measured", "modelled") if kind in kinds) or "not recorded"
    return [("MACs", "counted"), ("time", "measured" if timed else "not measured"), ("energy", energy)]


def table(view: View, judged: Sequence[Judged]) -> Table:
    """One row a model; every column a figure of the run, the last one says it in words."""
    batch = f", batch {view.batch_size}{modes.clause(next(iter(view.modes), None))}" if view.batch_size else ""
    columns = [
        Column("model", numeric=False),
        Column(f"{view.metric_word} (plain net’s)", unit="share"),
        Column("MACs saved", unit="share of the plain net's"),
        Column(f"time saved{batch}", unit="share of the plain net's"),
        Column("MACs under the worst attack, of the plain net’s", unit="share"),
        Column("in words", numeric=False),
    ]
    made = Builder("table-verdict", "The verdict, one row a model", columns)
    for one in judged:
        made.add(
            TableCell(one.subject.title, value=one.subject.title),
            _accuracy(view, one),
            _saved(one),
            _time_cell(one),
            _worst(view, one),
            one.words,
        )
    return made.build(cards=True)


def plain_accuracy(view: View, subject: Subject) -> tuple[float | None, str]:
    """The accuracy, or mIoU, of a model's plain net, and where it is from, or why there is none.

    A static case of the model's own counts; else the checkpoint's card tells how its last classifier reads the test
    split.
    """
    own = next(
        (
            record
            for record in view.of(subject, "reference")
            if record.get("policy") == "static" and words.exists(record.get(view.metric))
        ),
        None,
    )
    if own is not None:
        return own[view.metric], "this run"
    about = view.model(subject.model)
    names = [str(name) for name in about.get("node_names") or []]
    card = about.get("card")
    weights = (card.get("weights") if isinstance(card, dict) else None) or {}
    for part in weights.values() if isinstance(weights, dict) else ():
        told = part.get(f"{view.metric}_test") if isinstance(part, dict) else None
        if isinstance(told, dict) and part.get("data") == subject.data.partition("@")[0]:
            value = told.get("ungated", told.get("all tokens", told.get(names[-1]) if names else None))
            if words.exists(value):
                return value, "the checkpoint’s card"
    return None, "neither the run nor a checkpoint’s card tells it"


def _accuracy(view: View, one: Judged) -> TableCell:
    record = one.clean or {}
    if not words.exists(record.get(view.metric)):
        return TableCell(words.DASH, reason=missing(record, view.metric))
    plain, origin = plain_accuracy(view, one.subject)
    note = f"the plain net’s {view.metric_word} in brackets: {origin}"
    return TableCell(
        f"{words.percent(record[view.metric])} ({words.percent(plain)})",
        value=record[view.metric],
        reason=note if origin != "this run" else "",
    )


def _saved(one: Judged) -> TableCell:
    if one.saved is None:
        return TableCell(words.DASH, reason=missing(one.clean or {}, "macs_full"))
    return TableCell(words.percent(one.saved, 0), value=one.saved)


def _time_cell(one: Judged) -> TableCell:
    if one.pace is None or one.pace.saving is None:
        reason = "this model was not timed" if one.pace is None else one.pace.reason
        return TableCell(words.DASH, reason=reason)
    bounds = words.interval(one.pace.bounds, 0)
    if one.pace.word == CANNOT_TELL:
        under = f"flagged: {one.pace.flags}" if one.pace.flags else bounds
        return TableCell(CANNOT_TELL, value=one.pace.saving, under=under, kind="unclear")
    under = f"{one.pace.word} {bounds}" if one.pace.word == SLOWER else bounds
    return TableCell(
        words.percent(one.pace.saving, 0), value=one.pace.saving, under=under,
        kind="bad" if one.pace.word == SLOWER else "good",
    )  # fmt: skip


def _worst(view: View, one: Judged) -> TableCell:
    if one.worst is None or one.under_attack is None:
        return TableCell(words.DASH, reason="no attack on this model has a cost")
    under = view.condition_title(one.worst)
    if one.clean is not None and one.worst.get("n") != one.clean.get("n"):
        under += f", {words.count(one.worst.get('n'))} inputs"
    kind = {"undone": "bad", HELD: "good"}.get(one.attack_word, "")
    return TableCell(words.percent(one.under_attack, 0), value=one.under_attack, under=under, kind=kind)


def measured(view: View) -> str:
    """What was run: models, data, attacks, device."""
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


def sensors(view: View) -> str:
    """Where the joules are from, in a sentence."""
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
