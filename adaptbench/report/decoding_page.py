"""A run of kind decoding as one HTML page: the verdict, decoders, given text, seconds and joules, attacks, answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adaptbench.report import decoding_tables, html, words
from adaptbench.results.decoding import DecodingRun

SECTIONS = {
    "decoders": "What a character costs",
    "quality": "What it costs in quality",
    "costs": "Seconds and joules",
    "depth": "Depth under attack",
    "length": "Length under attack",
    "answers": "Answers, side by side",
    "reproduce": "Method, and how to do it again",
}
_SHOWN = 3
Record = Mapping[str, Any]
Row = Mapping[str, Any]


def write_decoding_report(run: Path, out: Path) -> Path:
    """Write the page of a run's directory or kept file.

    Raises:
        RunError: it holds none. OutputError: ``out`` cannot be written.
    """
    return html.write(decoding_page(DecodingRun.read(run)), out)


def decoding_page(record: Record) -> str:
    """The page as text; the same run gives the same bytes."""
    device = record.get("device") or {}
    depth, length = (decoding_tables.attack_table(record, objective) for objective in ("depth", "length"))
    timed = any(row["latency_s_per_token"] is not None for row in record["decoders"])
    filled_in = {
        "decoders": True,
        "quality": record["exits"],
        "costs": timed,
        "depth": depth,
        "length": length,
        "answers": record["sequences"],
        "reproduce": True,
    }
    names = {key: name for key, name in SECTIONS.items() if filled_in[key]}
    return html.render(
        "decoding.html.j2",
        title=record["title"] or record["name"],
        kicker=[f"suite {record['name']}", str(device.get("name") or ""), str(record.get("started", ""))[:10]],
        contents=list(names.items()),
        names=names,
        sources=f"the run “{record['name']}”",
        limit=_limit(record),
        verdict=sentences(record),
        chips=_chips(record),
        limits=limits(record),
        decoders=decoding_tables.decoder_table(record),
        exits=decoding_tables.exit_table(record),
        quality=decoding_tables.quality_table(record) if record["exits"] else None,
        costs=decoding_tables.cost_table(record) if timed else None,
        prefill=_prefill(record),
        depth=depth,
        length=length,
        edits=_edits(record),
        answers=_answers(record),
        command=str(record.get("command") or ""),
        facts=_facts(record),
        text=str(record.get("text") or ""),
        versions=html.facts(record.get("versions") or {}),
    )


def sentences(record: Record) -> list[tuple[str, str]]:
    """Four at most, each as (the point, the rest): leaving early, guessing, depth, length."""
    found = (_early(record), _guessed(record), _attacked(record, "depth"), _attacked(record, "length"))
    return [(lead, rest) for lead, rest in found if lead or rest]


def _early(record: Record) -> tuple[str, str]:
    rows = [row for row in record["decoders"] if row["decoder"] == "calm" and row["saving_macs"] is not None]
    if not rows:
        return "No decoder of this run leaves early.", ""
    best = max(rows, key=lambda row: float(row["saving_macs"]))
    if best["saving_macs"] <= 0:
        return f"Leaving early saves nothing here: {best['case']} takes {_less(best)} MACs a character.", ""
    lead = (
        f"Leaving early saves up to {words.percent(best['saving_macs'])} of the MACs of a character ({best['case']})."
    )
    greedy = record["decoders"][0]
    if best["bits_per_character"] is None or greedy["bits_per_character"] is None:
        return lead, ""
    rest = (
        f"Given text then takes {words.number(best['bits_per_character'])} bits a character instead of "
        f"{words.number(greedy['bits_per_character'])}, and {words.percent(best['identical'], 0)} of the answers are "
        "the greedy ones."
    )
    return lead, rest


def _less(row: Row) -> str:
    return f"{words.percent(-row['saving_macs'])} more" if row["saving_macs"] < 0 else "as many"


def _guessed(record: Record) -> tuple[str, str]:
    rows = [row for row in record["decoders"] if row["decoder"] == "self-speculative"]
    if not rows:
        return "", ""
    fast = [row for row in rows if row["speedup"] is not None]
    best = max(fast, key=lambda row: float(row["speedup"])) if fast else rows[0]
    told = "" if best["speedup"] is None else _faster(best)
    same = all(row["identical"] == 1 for row in rows)
    lead = (
        "Self-speculation gives the greedy answers, every one of them."
        if same
        else f"Self-speculation gives {words.percent(min(row['identical'] for row in rows), 0)} of the greedy answers."
    )
    taken = _less(best) if best["saving_macs"] <= 0 else f"{words.percent(best['saving_macs'])} fewer"
    return lead, f"It takes {taken} MACs a character{told} ({best['case']})."


def _faster(row: Row) -> str:
    """Seconds beside greedy's; where the interval holds 1, nothing is claimed."""
    ends = row.get("speedup_ci")
    said = "" if ends is None else f" [{words.number(ends[0])}, {words.number(ends[1])}]"
    told = f"{words.number(row['speedup'])} times as fast as greedy decoding{said}"
    sure = ends is not None and not ends[0] <= 1 <= ends[1]
    return f" and is measured {told}" if sure else f"; measured {told}, which says neither faster nor slower"


def _attacked(record: Record, objective: str) -> tuple[str, str]:
    row = next((row for row in record["attacks"] if row["objective"] == objective), None)
    if row is None or row["increase"] is None:
        return "", ""
    what = "MACs a character" if objective == "depth" else "characters up to the stop"
    lead = (
        f"{words.plural(row['edits'], 'edited character')} of a prompt: {words.percent(row['increase'], signed=True)} "
        f"{what} ({row['case']})."
    )
    chance = (
        f"One random edit of as many: {words.percent(row['increase_random'], signed=True)}; the dearest of as many "
        f"draws: {words.percent(row['increase_random_best'], signed=True)}."
    )
    if objective == "depth" and row["saving_taken_back"] is not None:
        chance += f" The attack takes {words.percent(row['saving_taken_back'], 0)} of the saving back."
    return lead, chance


def _chips(record: Record) -> list[tuple[str, str]]:
    """(kind, text): how the figures of the page came about."""
    rows = record["decoders"]
    timed = any(row["latency_s_per_token"] is not None for row in rows)
    joules = any(row["energy_j_per_token"] is not None for row in rows)
    modelled = any(row["modelled_energy_j_per_token"] is not None for row in rows)
    return [
        ("counted", "MACs, exits and answers executed"),
        ("measured", "seconds measured") if timed else ("absent", "no seconds measured"),
        ("measured", "joules measured") if joules else ("absent", "no joules measured"),
        *([("modelled", "joules modelled, in a column of their own")] if modelled else []),
    ]


def _limit(record: Record) -> str:
    """What a run with ``--limit`` has to say of itself before anything else; "" of a whole one."""
    if record.get("limit") is None:
        return ""
    return f"A trial run: --limit {record['limit']} let so many prompts in at most; its figures are not the suite’s."


def limits(record: Record) -> list[str]:
    """What a careful reader should know, the gravest first."""
    notes = DecodingRun.incomplete(record)
    if ties := sum(row["ties"] for row in record["decoders"]):
        notes.append(
            f"In {words.plural(ties, 'step')} two answers or an exit are so close that rounding may turn them."
        )
    if record["model"]["uncounted"]:
        notes.append(f"Not counted, for want of a formula: {', '.join(record['model']['uncounted'])}.")
    first = record["decoders"][0] if record["decoders"] else None
    if first is not None and first["energy_j_per_token"] is None:
        notes.append(f"No joules: {first['energy_j_per_token_missing']}.")
    notes += [str(note) for note in record.get("notes") or []]
    return notes


def _prefill(record: Record) -> str:
    macs = record["decoders"][0]["prefill_macs"] if record["decoders"] else None
    told = f"The prompt costs {words.macs(macs)} MACs whoever decodes, in one pass"
    seconds = record["prefill_s_per_token"]
    return f"{told}." if seconds is None else f"{told}; measured, {words.seconds(seconds)} a character of it."


def _edits(record: Record) -> dict[str, list[tuple[str, str, str]]]:
    """Objective → (prompt, attacked prompt, what became of it) of some prompts."""
    found: dict[str, list[tuple[str, str, str]]] = {}
    for row in record["attacks"]:
        shown = words.macs if row["objective"] == "depth" else lambda value: words.number(value, 0)
        found[row["objective"]] = [
            (one["prompt"], one["attacked_prompt"], f"{shown(one['clean'])} → {shown(one['attacked'])}")
            for one in row["prompts"][:_SHOWN]
        ]
    return found


def _answers(record: Record) -> list[tuple[str, list[tuple[str, str]]]]:
    """(prompt, [(decoder, answer)]) of some prompts."""
    ids = list(dict.fromkeys(row["prompt_id"] for row in record["sequences"]))[:_SHOWN]
    return [
        (
            next(row["prompt"] for row in record["sequences"] if row["prompt_id"] == i),
            [(row["case"], row["text"]) for row in record["sequences"] if row["prompt_id"] == i],
        )
        for i in ids
    ]


def _facts(record: Record) -> list[tuple[str, str]]:
    device, git, model = record.get("device") or {}, record.get("git") or {}, record["model"]
    card = model.get("card") or {}
    return html.facts(
        {
            "suite": record["name"],
            "suite sha256": record["sha256"],
            "model": f"{words.count(model['parameters'])} parameters, {model['layers']} layers of {model['width']}, "
            f"{model['context']} characters, {model['dtype']}",
            "weights": f"{card.get('command') or ''}, sha256 {str(card.get('sha256') or '')[:12]}…",
            "device": f"{device.get('name', 'unknown')}, {device.get('threads', '?')} threads" if device else "",
            "git revision": git.get("revision"),
            "started": record.get("started"),
            "ended": record.get("ended"),
        }
    )
