"""Write the figures of docs/tokens.md from the committed runs; a test holds page and files together.

python docs/tokens_page.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "tokens.md"
PUBLISHED = ROOT / "reports" / "published"
RUNS = {"CIFAR-10": "tokens.json", "Fashion-MNIST": "tokens-fashion-mnist.json"}
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


def of_card(document: Record, which: str) -> float:
    """Accuracy on the whole test split, of the card: "all tokens" or "tokens left", the same weights."""
    (card,) = document["manifest"]["models"]["a-vit"]["card"]["weights"].values()
    value: float = card["accuracy_test"][which]
    return value


def figures(name: str, file: str, document: Record) -> list[str]:
    cases = {case["condition"]: case for case in document["cases"]}
    clean = cases["clean"]
    saved = sorted(1 - end / clean["macs_full"] for end in clean["macs_mean_ci"])
    n, mean, full = f"{clean['n']:,}".replace(",", " "), mega(clean["macs_mean"]), mega(clean["macs_full"])
    saving = within(1 - clean["macs_mean"] / clean["macs_full"], saved)
    left, every = (percent(of_card(document, which), 2) for which in ("tokens left", "all tokens"))
    right = within(clean["accuracy"], clean["accuracy_ci"])
    lines = [
        f"### {name}",
        "",
        f"On all test images {left} are right with the tokens that are left and {every} with all of them, by the card "
        f"of the same weights; of {n}, executed here, {right}. {mean} MACs of {full} were executed in the mean, "
        f"a saving of {saving}; the cheapest path costs {mega(clean['macs_min'])}. "
        f"[Summary](../reports/published/{file}); intervals are bootstraps over images, 95 %.",
        "",
        "| condition | images | MACs | takes back | accuracy | answers kept |",
        "|---|---|---|---|---|---|",
    ]
    for condition, case in cases.items():
        if condition == "clean":
            continue
        title = f"{condition} (control)" if case["kind"] == "control" else condition
        lines.append(
            f"| {title} | {case['n']} | {mega(case['macs_mean'])} | {within(case['recovery'], case['recovery_ci'])} | "
            f"{percent(case['accuracy'])} | {percent(case['label_kept'])} |"
        )
    return [*lines, ""]


def page(text: str) -> str:
    lines: list[str] = []
    for name, file in RUNS.items():
        if (place := PUBLISHED / file).exists():
            lines += figures(name, file, json.loads(place.read_text(encoding="utf-8")))
    before, rest = text.split(START)
    return f"{before}{START}\n{chr(10).join(lines)}{END}{rest.split(END)[1]}"


def main() -> None:
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE}\n")


if __name__ == "__main__":
    main()
