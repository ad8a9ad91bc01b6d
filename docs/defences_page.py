"""Write the figures of docs/defences.md from the committed run and its budgets; a test holds page and files together.

python docs/defences_page.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "defences.md"
SUMMARY = ROOT / "reports" / "published" / "defences.json"
BUDGETS = ROOT / "reports" / "published" / "budgets" / "defences.json"
MARKS = ("<!-- {}: start -->", "<!-- {}: end -->")
UNDEFENDED = {"adversarial-heads": "softmax-threshold"}
BUDGETED = (("softmax-threshold", "standard"), ("dag-selection", "standard"))

Record = dict[str, Any]


def percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f} %".replace("-", "−")


def within(value: float, ends: list[float] | None) -> str:
    if ends is None:
        return percent(value)
    low, high = (f"{100 * end:.1f}".replace("-", "−") for end in ends)
    return f"{percent(value)} [{low}, {high}]"


def mega(value: float) -> str:
    return f"{value / 1e6:.2f} M"


def saving(record: Record) -> str:
    full, ends = record["macs_full"], record.get("macs_mean_ci")
    return within(1 - record["macs_mean"] / full, None if ends is None else sorted(1 - end / full for end in ends))


def figures(document: Record) -> list[str]:
    cases = {(case["model"], case["condition"]): case for case in document["cases"]}
    lines = [
        "| | accuracy, clean | saving, clean | MACs, clean | noise | deepsloth | standard: MACs | takes back | right |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for model in document["manifest"]["models"]:
        clean, noise, worst = (cases[model, condition] for condition in ("clean", "noise", "standard"))
        sloth = cases.get((model, "deepsloth"))
        cells = [
            within(clean["accuracy"], clean.get("accuracy_ci")),
            saving(clean),
            mega(clean["macs_mean"]),
            mega(noise["macs_mean"]),
            "–" if sloth is None else mega(sloth["macs_mean"]),
            f"{mega(worst['macs_clean_mean'])} → {mega(worst['macs_mean'])}",
            within(worst["recovery"], worst.get("recovery_ci")),
            percent(worst["accuracy"], 0),
        ]
        lines.append(f"| {model} | {' | '.join(cells)} |")
    counts = {c["condition"]: c["n"] for c in document["cases"] if c["kind"] not in ("reference", "transfer")}
    eps = document["manifest"]["conditions"]["standard"]["settings"]["eps"]
    told = ", ".join(f"{name} {n:,}".replace(",", " ") for name, n in counts.items())
    (full,) = {mega(c["macs_full"]) for c in document["cases"] if c["model"] == "softmax-threshold"}
    return [
        f"Fashion-MNIST, the first test images ({told}), ε = {255 * eps:.0f}/255, seed 0, CPU: "
        "[summary](../reports/published/defences.json). The static net of softmax-threshold costs "
        f"{full}. Intervals are bootstraps over pictures, 95 %.",
        "",
        *lines,
    ]


def unknowing(document: Record) -> list[str]:
    """Attackers that do not know the defence, beside the one who does."""
    own = {(c["model"], c["condition"]): c for c in document["cases"] if c["kind"] == "attack"}
    carried = {(c["surrogate"], c["model"]): c for c in document["cases"] if c["kind"] == "transfer"}
    lines = [
        "| | `standard`, knows the defence | `standard` of the undefended net, sent unseen | "
        "the most of any other net | `black-box`, 200 questions | more than `standard` |",
        "|---|---|---|---|---|---|",
    ]
    for model in document["manifest"]["models"]:
        plain = UNDEFENDED.get(model, model.partition("+")[0])
        adaptive, asked = own[model, "standard"], own[model, "black-box"]
        sent = None if plain == model else carried[plain, model]
        most = max((c for (_, on), c in carried.items() if on == model), key=lambda c: c["recovery"])
        ahead = [name for name, case in (("sent", sent), ("other", most), ("asked", asked)) if _beats(case, adaptive)]
        cells = [
            within(adaptive["recovery"], adaptive.get("recovery_ci")),
            "–" if sent is None else within(sent["recovery"], sent.get("recovery_ci")),
            f"{within(most['recovery'], most.get('recovery_ci'))}, {most['surrogate']}",
            within(asked["recovery"], asked.get("recovery_ci")),
            ", ".join(ahead) or "none",
        ]
        lines.append(f"| {model} | {' | '.join(cells)} |")
    return lines


def _beats(case: Record | None, adaptive: Record) -> bool:
    """Its whole interval lies above what the attacker with gradients takes back."""
    return case is not None and bool((case.get("recovery_ci") or [case["recovery"]])[0] > adaptive["recovery"])


def shared(document: Record) -> list[str]:
    lines: list[str] = []
    for model, condition in BUDGETED:
        rows = [r for r in document["rows"] if (r["model"], r["condition"]) == (model, condition)]
        first = rows[0]
        lines += [
            "",
            f"{model}, {condition}: each input adds {mega(first['rate_macs'])} ({first['headroom']:g} × the mean clean "
            f"input), the bucket holds {first['burst']:g} of them; {first['n']} pictures, {first['orders']} orders of "
            "the stream, 95 % over orders.",
            "",
            "| attacker's share | honest inputs lose | forced | attacker: MACs | takes back | all: MACs | no budget |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in rows:
            attacker, gained, lost = row["attacker_macs_mean"], row["attacker_recovery"], row["benign_accuracy_lost"]
            cells = [
                percent(row["share"], 0),
                within(lost["value"], [lost["low"], lost["high"]]),
                percent(row["benign_forced"]["value"]),
                "–" if attacker is None else mega(attacker["value"]),
                "–" if gained is None else within(gained["value"], [gained["low"], gained["high"]]),
                mega(row["stream_macs_mean"]["value"]),
                mega(row["stream_macs_free_mean"]["value"]),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return lines[1:]


def page(text: str) -> str:
    document = _read(SUMMARY)
    written = {"figures": figures(document), "unknowing": unknowing(document), "budgets": shared(_read(BUDGETS))}
    for name, lines in written.items():
        start, end = (mark.format(name) for mark in MARKS)
        before, rest = text.split(start)
        _, after = rest.split(end)
        text = f"{before}{start}\n{chr(10).join(lines)}\n{end}{after}"
    return text


def _read(place: Path) -> Record:
    document: Record = json.loads(place.read_text(encoding="utf-8"))
    return document


def main() -> None:
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE}\n")


if __name__ == "__main__":
    main()
