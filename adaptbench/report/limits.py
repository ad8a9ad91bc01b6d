"""What a reader must know before believing a run: at most four sentences, the gravest first."""

from __future__ import annotations

from collections.abc import Iterator

from adaptbench.report import clock, names, words
from adaptbench.report.view import Record, View
from adaptbench.results import timing
from adaptbench.results.energy import no_sensor
from adaptbench.results.quality import ACCURACY

MOST = 4
_SMALL = 1000
"""Below so many inputs the width of an accuracy's interval is said."""
_FEW_BLOCKS = 6


def limits(view: View) -> list[str]:
    """The gravest four; the rest stands under Method."""
    found = (_failed, _limited, _flagged, _sensor, _inputs, _attacked, _harness, _ceiling, _blocks, _dirty)
    return [sentence for one in found for sentence in one(view)][:MOST]


def _failed(view: View) -> Iterator[str]:
    failed = [record for record in view.records if record.get("failed")]
    if failed:
        yield f"{words.plural(len(failed), 'case')} failed and {'has' if len(failed) == 1 else 'have'} no figures."


def _limited(view: View) -> Iterator[str]:
    if limit := (view.manifest.get("suite") or {}).get("limit"):
        yield f"The run was cut to the first {words.count(limit)} inputs: a look, not a result."


def _flagged(view: View) -> Iterator[str]:
    marked = clock.flags(view)
    if marked:
        what = words.listing(dict.fromkeys(flag for found in marked.values() for flag in found))
        yield f"Windows of {words.plural(len(marked), 'timed case')} were flagged: {what}."


def _sensor(view: View) -> Iterator[str]:
    kinds = {words.provenance_kind(r.get("energy_provenance")) for r in view.records if _has_energy(r)}
    if "measured" in kinds:
        return
    if "modelled" in kinds:
        meters = {str(r.get("energy_meter")) for r in view.records if _has_energy(r)}
        why = no_sensor(view.manifest.get("meters") or {}, meters).split(" (")[0]
        yield f"Energy is modelled, not measured: {why}. Trust the MACs and the clock, not the joules."
    elif any(record.get("batch_size") for record in view.records):
        yield "No energy was measured or modelled."


def _has_energy(record: Record) -> bool:
    return words.exists(record.get("energy_j_per_sample"))


def _inputs(view: View) -> Iterator[str]:
    clean = [record for subject in view.subjects if (record := view.clean(subject)) is not None]
    amounts = [record["n"] for record in clean if words.exists(record.get("n"))]
    most = max(amounts, default=0)
    bounds = [record[f"{view.metric}_ci"] for record in clean if record.get(f"{view.metric}_ci")]
    widths = [(high - low) / 2 for low, high in bounds if words.exists(low) and words.exists(high)]
    if 0 < most < _SMALL:
        what = f"{'an' if view.metric == ACCURACY else 'a'} {view.metric_word}"
        width = f": {what} is known to about ±{words.number(100 * max(widths), 1)} points" if widths else ""
        yield f"There are {words.count(most)} test inputs{width}."


def _attacked(view: View) -> Iterator[str]:
    """Attacks on fewer inputs than the clean case, and what of the inputs was timed."""
    amounts: dict[int, dict[str, None]] = {}
    for subject in view.subjects:
        whole = (view.clean(subject) or {}).get("n") or 0
        for record in view.attacks(subject):
            if words.exists(record.get("n")) and 0 < record["n"] < whole:
                amounts.setdefault(int(record["n"]), {})[view.condition_names.get(record["condition"], "")] = None
    parts = [f"{words.listing(named)} on {words.count(n)}" for n, named in sorted(amounts.items())]
    timed = {r["n_timed"] for r in view.records if words.exists(r.get("n_timed")) and r["kind"] == "clean"}
    whole = max((r["n"] for r in view.records if r["kind"] == "clean" and words.exists(r.get("n"))), default=0)
    if timed and max(timed) < whole:
        parts.append(f"the clock on {words.count(max(timed))}")
    if parts:
        yield f"Fewer inputs than that for some: {words.listing(parts)}."


def _harness(view: View) -> Iterator[str]:
    shares = [
        r["executor_share"] for r in view.records if r["kind"] == "clean" and words.exists(r.get("executor_share"))
    ]
    if shares and max(shares) >= 0.05:
        low, high = words.number(100 * min(shares), 0), words.percent(max(shares), 0)
        amount = high if f"{low} %" == high else f"{low} to {high}"
        yield f"The harness took {amount} of a window; times are those of nodes and policy, without it."


def _ceiling(view: View) -> Iterator[str]:
    over = [
        model["max_macs"] / model["macs_full"]
        for subject in view.subjects
        if words.exists((model := view.model(subject.model)).get("max_macs"))
        and words.exists(model.get("macs_full"))
        and model["max_macs"] > 1.005 * model["macs_full"] > 0
    ]
    if over:
        yield f"A dearest path costs up to {words.percent(max(over), 0)} of its plain net."


def _blocks(view: View) -> Iterator[str]:
    timed = view.windows[view.windows["meter"] == timing.CLOCK]
    timed = timed[~timed["case"].isin(("idle", "suite"))]
    blocks = int(timed["block"].nunique()) if len(timed) else 0
    if 0 < blocks < _FEW_BLOCKS:
        yield f"Only {words.plural(blocks, 'block')} of windows: intervals of time are wide."


def _dirty(view: View) -> Iterator[str]:
    if (view.manifest.get("git") or {}).get("dirty"):
        yield "The code had uncommitted changes: nobody else can check it out."


def readable(view: View, note: str) -> list[tuple[str, bool]]:
    """A note of the run in pieces, (text, whether it is code); code names outside code are spelled out."""
    told = dict(view.condition_names) | {name: view.model_title(name) for name in view.manifest.get("models") or {}}
    told = {code: name for code, name in told.items() if name.lower() != code and len(code) > 2 and code != name}
    pieces = []
    for place, part in enumerate(note.split("`")):
        if place % 2 == 0:
            part = names.spelled_out(part, told)
        if part:
            pieces.append((part, place % 2 == 1))
    return pieces
