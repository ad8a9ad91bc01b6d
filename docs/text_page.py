"""Write the figures of docs/text.md from the committed runs; a test holds page and files together.

python docs/text_page.py
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from adaptbench.results.baseline import Baseline

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "text.md"
PUBLISHED = ROOT / "reports" / "published"
SETS = (("SST-2", "text-attacks", "text-chance"), ("AG News", "text-attacks-ag-news", "text-chance-ag-news"))
WIDE = {"AG News": "text-attacks-ag-news-wide"}
AGAIN = {"AG News": "text-attacks-ag-news-again"}
FURTHER = ((WIDE, "searches as wide as the recipes' own"), (AGAIN, "misspellings taken back and tried again"))
QUERIES, ASKS, TRIES_AGAIN = 200, "words-black-box", "words-again"
BEGIN, END = "<!-- figures: written by docs/text_page.py -->", "<!-- end of figures -->"
PADDING = {"SST-2": "text-padding", "AG News": "text-padding-ag-news"}
PADDING_BEGIN, PADDING_END = "<!-- padding: written by docs/text_page.py -->", "<!-- end of padding -->"
ALL_LAYERS = "last"
TARGET, CHANCE, EDITED = 0.5, 0.1, 0.1

Record = dict[str, Any]


def percent(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f} %".replace("-", "−")


def within(value: float, ends: list[float]) -> str:
    low, high = (f"{round(100 * end)}".replace("-", "−") for end in ends)
    return f"{percent(value)} [{low}, {high}]"


def edited(case: Record) -> float:
    """Share of all words that were edited."""
    details = case["craft_details"]
    return float(details["words_edited"] / details["words"])


def rows(*documents: Record) -> list[str]:
    conditions = {name: told for d in documents for name, told in d["manifest"]["conditions"].items()}
    lines = [
        "| | texts | words edited | takes back | at the last exit | answer kept | right | queries |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for case in sorted((c for d in documents for c in d["cases"]), key=lambda c: c["kind"] != "control"):
        if case["kind"] not in ("control", "attack"):
            continue
        settings = conditions[case["condition"]]["settings"]
        name, queries = re.sub(r"-\d+$", "", case["condition"]), settings.get("queries", QUERIES)
        ceiling = case["exit_histogram"][max(case["exit_histogram"])] / case["n"]
        many = "" if queries == QUERIES else ", " + f"{queries:,} queries".replace(",", " ")
        shown = f"`{name}`, {percent(settings['share'])}{many}"
        cells = [
            str(case["n"]),
            percent(edited(case), 1),
            within(case["recovery"], case["recovery_ci"]),
            percent(ceiling),
            percent(case["label_kept"]),
            percent(case["accuracy"]),
            "–" if case.get("queries_mean") is None else f"{case['queries_mean']:.0f}",
        ]
        lines.append(f"| {shown} | {' | '.join(cells)} |")
    return lines


def told(title: str, document: Record) -> str:
    clean = next(c for c in document["cases"] if c["condition"] == "clean")
    share = 1 - clean["macs_mean"] / clean["macs_full"]
    return (
        f"**{title}** ({clean['n']} test texts): clean, the net saves {percent(share)} of "
        f"{clean['macs_full'] / 1e9:.2f} G MACs under one threshold of confidence, the cheapest within half a "
        f"point on calibration, and is right in {percent(clean['accuracy'])}."
    )


def verdict(title: str, document: Record, asked: Record) -> list[str]:
    cases = {c["condition"]: c for c in document["cases"]}
    further = [_read(names[title]) for names, _ in FURTHER if title in names]
    every = [case for d in (document, *further) for case in d["cases"]]
    attacks = [c for c in every if c["kind"] == "attack" and edited(c) <= EDITED]
    best = max(attacks, key=lambda c: c["recovery"])
    chance, questions = cases["words-random"], next(c for c in asked["cases"] if c["kind"] == "control")
    lines = [
        f"| {title}: takes back {percent(TARGET)} with at most {percent(EDITED)} of the words edited | "
        f"{within(best['recovery'], best['recovery_ci'])}, `{best['condition']}`, {percent(edited(best), 1)} edited | "
        f"{'yes' if best['recovery'] >= TARGET else 'no'} |",
        f"| {title}: as many random edits take back less than {percent(CHANCE)} | "
        f"{within(chance['recovery'], chance['recovery_ci'])} | {'yes' if chance['recovery'] < CHANCE else 'no'} |",
        more_than_chance(title, cases[ASKS], cases[ASKS]["recovery"], questions),
    ]
    if title in AGAIN:
        again = {c["condition"]: c for c in _read(AGAIN[title])["cases"]}
        chance, questions = again["words-random"], again["words-best-of-n"]
        lines += [
            f"| {title}: as many random misspellings take back less than {percent(CHANCE)} | "
            f"{within(chance['recovery'], chance['recovery_ci'])} | {'yes' if chance['recovery'] < CHANCE else 'no'} |",
            more_than_chance(title, again[TRIES_AGAIN], of_first(AGAIN[title], TRIES_AGAIN, questions["n"]), questions),
        ]
    return lines


def more_than_chance(title: str, asks: Record, taken: float, chance: Record) -> str:
    """The row that sets an attacker by queries beside who asks as often and learns nothing, on the same texts."""
    where = "" if asks["n"] == chance["n"] else f" (the first {chance['n']} texts)"
    return (
        f"| {title}: `{asks['condition']}` takes back more than the dearest of as many random edits as there are "
        f"questions{where} | {percent(taken)} against {within(chance['recovery'], chance['recovery_ci'])} | "
        f"{'yes' if taken > chance['recovery_ci'][1] else 'no'} |"
    )


def of_first(name: str, condition: str, n: int) -> float:
    """What a condition takes back of the first n texts of a run."""
    kept = Baseline.load(PUBLISHED / f"{name}.json")
    cases = {c["condition"]: c for c in kept.cases}
    clean, after = (kept.samples(cases[c]["evaluation"]) for c in ("clean", condition))
    assert clean is not None
    assert after is not None
    before = clean.macs[:n].mean()
    return float((after.macs[:n].mean() - before) / (cases[condition]["macs_max"] - before))


def figures() -> list[str]:
    documents = [(title, name, *map(_read, (name, chance))) for title, name, chance in SETS]
    lines: list[str] = []
    for title, name, document, chance in documents:
        lines += [
            "",
            f"{told(title, document)} `adaptbench run {name}`, [summary](../reports/published/{name}.json).",
            "",
            *rows(document, chance),
        ]
        for names, called in FURTHER:
            if title not in names:
                continue
            further = _read(names[title])
            n = next(c["n"] for c in further["cases"] if c["condition"] == "clean")
            lines += [
                "",
                f"**{title}, {called}** (the first {n} of them). "
                f"`adaptbench run {names[title]}`, [summary](../reports/published/{names[title]}.json).",
                "",
                *rows(further),
            ]
    lines += ["", "| aimed at | measured | held |", "|---|---|---|"]
    return lines + [line for title, _, *both in documents for line in verdict(title, *both)] + [""]


def mega(value: float, ends: list[float] | None = None) -> str:
    told = f"{value / 1e6:.1f} M"
    return told if ends is None else f"{told} [{ends[0] / 1e6:.1f}, {ends[1] / 1e6:.1f}]"


def padding() -> list[str]:
    """MACs of every test text in rows of 64 and with no padding at all; savings against every layer, run alike."""
    lines = [
        "| | texts | padded to 64 | saved | without padding | saved | of the padded |",
        "|---|---|---|---|---|---|---|",
    ]
    runs = {title: name for title, name in PADDING.items() if (PUBLISHED / f"{name}.json").exists()}
    for title, name in runs.items():
        cases = {case["model"]: case for case in _read(name)["cases"]}
        plain = cases.get(ALL_LAYERS)
        for model, case in cases.items():
            every = model == ALL_LAYERS
            padded, bare = case["macs_mean"], case["macs_unpadded_mean"]
            cells = [
                f"{case['n']:,}".replace(",", " "),
                mega(padded, None if every else case["macs_mean_ci"]),
                "–" if every or plain is None else percent(1 - padded / plain["macs_mean"], 1),
                mega(bare, case["macs_unpadded_mean_ci"]),
                "–" if every or plain is None else percent(1 - bare / plain["macs_unpadded_mean"], 1),
                percent(bare / padded),
            ]
            shown = "all six layers and heads" if every else f"`{model}`"
            lines.append(f"| {title}, {shown} | {' | '.join(cells)} |")
    told = " and ".join(f"`adaptbench run {n}` ([summary](../reports/published/{n}.json))" for n in runs.values())
    return [*lines, "", f"{told}; intervals are bootstraps over texts, 95 %."]


def _read(name: str) -> Record:
    document: Record = json.loads((PUBLISHED / f"{name}.json").read_text(encoding="utf-8"))
    return document


def page(text: str) -> str:
    for begin, end, lines in ((BEGIN, END, figures()), (PADDING_BEGIN, PADDING_END, padding())):
        before, rest = text.split(begin)
        _, after = rest.split(end)
        text = f"{before}{begin}\n{chr(10).join(lines)}\n{end}{after}"
    return text


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.stdout.write(f"{PAGE.relative_to(ROOT)}\n")
