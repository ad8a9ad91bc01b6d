"""Write the table on queues of gated nets in docs/performance.md from benchmarks/block_queues.json.

python docs/block_queues_page.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "benchmarks" / "block_queues.json"
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- block queues: written by docs/block_queues_page.py -->", "<!-- end of block queues -->"
HEAD = (
    "system", "batch", "MACs ÷ plain net", "rows of a body call, compacted → queues", "compacted ÷ plain net",
    "queues ÷ plain net", "queues ÷ compacted", "nodes, µs a sample", "moving rows, µs a sample",
)  # fmt: skip


def told(ratio: dict[str, float]) -> str:
    """Median by CPU time and the extremes over blocks."""
    return f"{ratio['cpu']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})"


def table(systems: dict[str, Any]) -> list[str]:
    lines = [f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|"]
    for system, sizes in systems.items():
        for size, row in sizes.items():
            rows, spent = row["rows of a body call"], row["profile_us"]
            cells = [
                system,
                size,
                f"{row['macs']:.2f}",
                f"{rows['compacted']:.1f} → {rows['queues']:.1f}",
                *(told(row[pair]) for pair in ("compacted ÷ plain", "queues ÷ plain", "queues ÷ compacted")),
                *(f"{spent['compacted'][part]:.0f} → {spent['queues'][part]:.0f}" for part in ("nodes", "executor")),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def _change(row: dict[str, Any], part: str) -> float:
    spent = row["profile_us"]
    return float(spent["queues"][part] / spent["compacted"][part])


def figures(found: dict[str, Any]) -> str:
    ratios = [row["queues ÷ compacted"]["cpu"] for sizes in found["systems"].values() for row in sizes.values()]
    pays = sum(row["queues ÷ compacted"]["max"] < 1 for sizes in found["systems"].values() for row in sizes.values())
    shown = "in none" if not pays else f"in {pays}"
    nodes, moving = (
        [_change(row, part) for sizes in found["systems"].values() for row in sizes.values()]
        for part in ("nodes", "executor")
    )
    return "\n\n".join(
        [
            f"Commit `{found['commit'][:9]}`, {found['date']}, {found['device']['cpu']}, one thread, "
            f"{2 * found['blocks']} blocks, torch {found['versions']['torch']}; load of the machine "
            f"{found['load_before']:.1f} before, {found['load_after']:.1f} after. Queues take {min(ratios):.2f} to "
            f"{max(ratios):.2f} times as long as the compacted pass on this processor, and are shown to be faster "
            f"{shown} of {len(ratios)} cells. Queues change the nodes' time by {100 * min(nodes) - 100:+.0f} to "
            f"{100 * max(nodes) - 100:+.0f} %; moving rows takes {min(moving):.1f} to {max(moving):.1f} times as long.",
            "\n".join(table(found["systems"])),
        ]
    )


def page(text: str, found: dict[str, Any]) -> str:
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{figures(found)}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(
        page(PAGE.read_text(encoding="utf-8"), json.loads(SOURCE.read_text(encoding="utf-8"))), encoding="utf-8"
    )
    sys.stdout.write(f"wrote {PAGE}\n")
