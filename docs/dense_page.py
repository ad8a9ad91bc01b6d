"""Write the figures of docs/dense.md from the committed run; a test holds page and file together.

python docs/dense_page.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "dense.md"
SUMMARY = ROOT / "reports" / "published" / "dense.json"
START, END = "<!-- figures: start -->", "<!-- figures: end -->"

Record = dict[str, Any]


def percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f} %".replace("-", "−")


def within(value: float | None, ends: list[float] | None) -> str:
    if value is None or ends is None:
        return percent(value)
    low, high = (f"{100 * end:.1f}".replace("-", "−") for end in ends)
    return f"{percent(value)} [{low}, {high}]"


def mega(value: float) -> str:
    return f"{value / 1e6:.2f} M"


def saved(case: Record) -> str:
    ends = sorted(1 - end / case["macs_full"] for end in case["macs_mean_ci"])
    return within(1 - case["macs_mean"] / case["macs_full"], ends)


def exits_of(document: Record) -> list[str]:
    """Every exit on every test image, of the card of the weights."""
    about = document["manifest"]["models"]["dense-exits"]
    (card,) = about["card"]["weights"].values()
    paid = 0
    lines = ["| exit | MACs to it | mIoU | pixels right |", "|---|---|---|---|"]
    for name, macs in zip(card["node_names"], card["node_macs"], strict=True):
        paid += macs
        told = (percent(card[f"{metric}_test"][name]) for metric in ("miou", "pixel_accuracy"))
        lines.append(f"| {name} | {mega(paid)} | {' | '.join(told)} |")
    return lines


def figures(document: Record) -> list[str]:
    cases = document["cases"]
    clean = [case for case in cases if case["kind"] == "clean"]
    n = f"{clean[0]['n']:,}".replace(",", " ")
    lines = [
        f"All {n} test images through every exit, by the card of the shipped weights; the plain net is the stages and "
        f"the last head, {mega(clean[0]['macs_full'])}:",
        "",
        *exits_of(document),
        "",
        f"Under policies, as executed, on {n} images; `dense-exits` is one threshold on the confidence, fitted on the "
        "calibration split:",
        "",
        "| policy | mIoU | pixels right | MACs | saved of the plain net |",
        "|---|---|---|---|---|",
        *(
            f"| {case['model']} | {within(case['miou'], case['miou_ci'])} | {percent(case['pixel_accuracy'])} | "
            f"{mega(case['macs_mean'])} | {saved(case)} |"
            for case in clean
        ),
        "",
        "What is taken back, of what the clean images left unspent:",
        "",
        "| policy | condition | images | MACs | takes back | mIoU lost, points |",
        "|---|---|---|---|---|---|",
    ]
    for case in cases:
        if case["kind"] in ("control", "attack"):
            title = f"{case['condition']} (control)" if case["kind"] == "control" else case["condition"]
            lost = within(case["miou_drop"], case.get("miou_drop_ci")).replace(" %", "")
            lines.append(
                f"| {case['model']} | {title} | {case['n']} | {mega(case['macs_mean'])} | "
                f"{within(case['recovery'], case.get('recovery_ci'))} | {lost} |"
            )
    lines += ["", "[Summary](../reports/published/dense.json); intervals are bootstraps over images, 95 %.", ""]
    return lines


def page(text: str, document: Record) -> str:
    before, rest = text.split(START)
    return f"{before}{START}\n{chr(10).join(figures(document))}{END}{rest.split(END)[1]}"


def main() -> None:
    document = json.loads(SUMMARY.read_text(encoding="utf-8"))
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), document), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE}\n")


if __name__ == "__main__":
    main()
