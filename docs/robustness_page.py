"""Write the tables of docs/robustness.md from the committed runs; a test holds page and files together.

python docs/robustness_page.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "robustness.md"
PUBLISHED = ROOT / "reports" / "published"
MARKS = ("<!-- {}: start -->", "<!-- {}: end -->")
AUDITS = ("audit-fashion-mnist", "audit-cifar10-exits", "audit-cifar10-gates")
TEN_TIMES = ("ten-times-fashion-mnist",)

Record = dict[str, Any]


def within(record: Record, name: str = "recovery") -> str:
    """A share with its interval, or why there is none."""
    value, ends = record.get(name), record.get(f"{name}_ci")
    if value is None:
        return "–"
    told = f"{100 * value:.1f} %" + ("" if ends is None else f" [{100 * ends[0]:.1f}, {100 * ends[1]:.1f}]")
    return told.replace("-", "−")


def seconds(record: Record) -> str:
    """Crafting time an input; shared changes are crafted once, for all."""
    spent = record.get("craft_s")
    return "–" if spent is None else f"{spent / record['n']:.2g}"


def called(case: Record, manifest: Record) -> str:
    """A condition, `standard` by its version: on exits, cascades and DAGs standard-1 and standard-2 are one attack."""
    name = str(case["condition"])
    version = manifest["conditions"][name]["summary"].split(",")[0].split(" ")[0]
    if not name.startswith("standard") or not version.startswith("standard-"):
        return name
    kept = "-kept" if name.endswith("-kept") else ""
    gated = manifest["models"][case["model"]]["shape"] == "gated"
    return f"{version}{kept}" if gated or version != "standard-1" else f"standard-1{kept} = standard-2{kept}"


def audit(document: Record) -> list[str]:
    """A table a system: a row a condition, the dearest first within its kind."""
    lines: list[str] = []
    order = {"clean": 0, "control": 1, "attack": 2}
    for model in document["manifest"]["models"]:
        cases = [c for c in document["cases"] if c["model"] == model and c["kind"] in order]
        clean = next(c for c in cases if c["kind"] == "clean")
        lines += [
            "",
            f"**{model}**: {100 * clean['accuracy']:.1f} % right, {clean['macs_mean'] / 1e6:.2f} M MACs a picture of "
            f"{clean['macs_full'] / 1e6:.2f} M.",
            "",
            "| condition | n | MACs | takes back | up to the dearest seen | right | answers kept | s an input |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for case in sorted(cases, key=lambda c: (order[c["kind"]], c.get("recovery") or 0.0)):
            if case["kind"] == "clean":
                continue
            kept = case.get("label_kept")
            cells = [
                called(case, document["manifest"]) + (" (control)" if case["kind"] == "control" else ""),
                f"{case['n']:,}".replace(",", " "),
                f"{case['macs_mean'] / 1e6:.2f} M",
                within(case),
                within(case, "recovery_seen"),
                f"{100 * case['accuracy']:.1f} %",
                "–" if kept is None else f"{100 * kept:.1f} %",
                seconds(case),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return lines[1:]


def ten_times(documents: list[Record]) -> list[str]:
    """`standard` and `exhaustive` on the same pictures."""
    lines = [
        "| data | system | n | standard | ten times its steps | more, points | steps an input |",
        "|---|---|---|---|---|---|---|",
    ]
    for document in documents:
        cases = {(c["model"], c["condition"]): c for c in document["cases"]}
        (data,) = document["manifest"]["data"]
        for model in document["manifest"]["models"]:
            short, long = cases[model, "standard"], cases[model, "exhaustive"]
            n = short["n"]
            steps = " / ".join(f"{c['craft_details']['steps_run'] / n:.0f}" for c in (short, long))
            more = f"{100 * (long['recovery'] - short['recovery']):.1f}"
            lines.append(f"| {data} | {model} | {n} | {within(short)} | {within(long)} | {more} | {steps} |")
    return lines


def page(text: str) -> str:
    """The text with every table as the files have it."""
    written = {name: audit(_read(name)) for name in AUDITS} | {"ten-times": ten_times([_read(n) for n in TEN_TIMES])}
    for name, lines in written.items():
        start, end = (mark.format(name) for mark in MARKS)
        before, rest = text.split(start)
        _, after = rest.split(end)
        text = f"{before}{start}\n{chr(10).join(lines)}\n{end}{after}"
    return text


def _read(name: str) -> Record:
    document: Record = json.loads((PUBLISHED / f"{name}.json").read_text(encoding="utf-8"))
    return document


def main() -> None:
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE}\n")


if __name__ == "__main__":
    main()
