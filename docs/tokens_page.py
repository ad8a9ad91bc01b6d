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
RUNS = {  # one run a net where the nets of a suite were run at different times
    "CIFAR-10": ("tokens.json", "tokens-ats.json"),
    "Fashion-MNIST": ("tokens-fashion-mnist.json",),
}
RULES = {"a-vit": "halting scores", "ats": "sampling"}
PATCHES = {
    "shared-8": "one for all, 8 %, in the corner",
    "shared-8-centre": "one for all, 8 %, in the middle",
    "own-8": "a picture's own, 8 %, in the corner",
    "own-8-centre": "a picture's own, 8 %, in the middle",
    "own-25-centre": "a picture's own, a quarter of it, in the middle",
}
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


def whole(document: Record, model: str, which: str) -> str:
    """Accuracy on the whole test split, of the card: "all tokens" or "tokens left"."""
    (card,) = document["manifest"]["models"][model]["card"]["weights"].values()
    return percent(card["accuracy_test"][which], 2)


def figures(name: str, model: str, file: str, document: Record) -> list[str]:
    cases = {case["condition"]: case for case in document["cases"] if case["model"] == model}
    clean = cases["clean"]
    saved = sorted(1 - end / clean["macs_full"] for end in clean["macs_mean_ci"])
    n, mean, full = f"{clean['n']:,}".replace(",", " "), mega(clean["macs_mean"]), mega(clean["macs_full"])
    saving = within(1 - clean["macs_mean"] / clean["macs_full"], saved)
    right, every = within(clean["accuracy"], clean["accuracy_ci"]), whole(document, model, "all tokens")
    if model == "a-vit":  # the card's own rule
        left = whole(document, model, "tokens left")
        told = (
            f"On all test images {left} are right with the tokens that are left and {every} with all of them, by the "
            f"card of the same weights; of {n}, executed here, {right}."
        )
    else:
        told = (
            f"Of {n} test images, executed here, {right} are right with the tokens that are left; of all test images "
            f"{every} with all of them, by the card of the same weights."
        )
    lines = [
        f"### {name}, `{model}`: {RULES[model]}",
        "",
        f"{told} {mean} MACs of {full} were executed in the mean, "
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


SAVED, LOST, TAKEN_BACK, AREA = 0.25, 0.01, 0.8, 8


def verdict(name: str, model: str, document: Record) -> list[str]:
    """Rows of what was aimed at: a saving on CIFAR-10, and what a shared patch takes back, its control beside it."""
    cases = {case["condition"]: case for case in document["cases"] if case["model"] == model}
    clean, patch, chance = (cases[c] for c in ("clean", f"slowformer-{AREA}", f"patch-random-{AREA}"))
    lines = []
    if name == "CIFAR-10":
        saving = 1 - clean["macs_mean"] / clean["macs_full"]
        ends = sorted(1 - end / clean["macs_full"] for end in clean["macs_mean_ci"])
        (card,) = document["manifest"]["models"][model]["card"]["weights"].values()
        every = card["accuracy_test"]["all tokens"]
        if model == "a-vit":  # the card's own rule, on all test images
            lost = every - card["accuracy_test"]["tokens left"]
            told = f"{100 * lost:.2f} points fewer right, all test images"
        else:
            lost = every - clean["accuracy"]
            told = f"{100 * lost:.2f} points fewer right, {clean['n']} images against the card's all".replace("-", "−")
        lines.append(
            f"| {name}, `{model}`: saves {percent(SAVED, 0)} of the MACs for at most {100 * LOST:.0f} point | "
            f"{within(saving, ends)}; {told} | {'yes' if saving >= SAVED and lost <= LOST else 'no'} |"
        )
    back, random = (within(case["recovery"], case["recovery_ci"]) for case in (patch, chance))
    lines.append(
        f"| {name}, `{model}`: a shared patch of {AREA} % of the area takes back {percent(TAKEN_BACK, 0)} | "
        f"{back}; random patches of that area {random} | {'yes' if patch['recovery'] >= TAKEN_BACK else 'no'} |"
    )
    return lines


def patches(document: Record) -> list[str]:
    """What holds a shared patch back: the sharing, the place or the square."""
    models = list(document["manifest"]["models"])
    cases = {(case["model"], case["condition"]): case for case in document["cases"]}
    n = cases[models[0], "clean"]["n"]
    lines = [
        f"### What holds the patch back, CIFAR-10, {n} test images",
        "",
        f"| patch | {' | '.join(f'`{model}` takes back' for model in models)} |",
        f"|---|{'---|' * len(models)}",
    ]
    for condition, title in PATCHES.items():
        told = [cases[model, condition] for model in models]
        lines.append(f"| {title} | {' | '.join(within(case['recovery'], case['recovery_ci']) for case in told)} |")
    return [*lines, "", "`adaptbench run tokens-patches`, [summary](../reports/published/tokens-patches.json).", ""]


def page(text: str) -> str:
    lines: list[str] = []
    held = ["### Aimed at and held", "", "| aimed at | measured | held |", "|---|---|---|"]
    for name, files in RUNS.items():
        for file in files:
            if (place := PUBLISHED / file).exists():
                document = json.loads(place.read_text(encoding="utf-8"))
                for model in document["manifest"]["models"]:
                    lines += figures(name, model, file, document)
                    held += verdict(name, model, document)
    lines += [*held, ""]
    if (place := PUBLISHED / "tokens-patches.json").exists():
        lines += patches(json.loads(place.read_text(encoding="utf-8")))
    before, rest = text.split(START)
    return f"{before}{START}\n{chr(10).join(lines)}{END}{rest.split(END)[1]}"


def main() -> None:
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE}\n")


if __name__ == "__main__":
    main()
