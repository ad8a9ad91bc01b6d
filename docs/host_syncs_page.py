"""Write the table on waits of the host in docs/performance.md from benchmarks/host_syncs.json.

python docs/host_syncs_page.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "benchmarks" / "host_syncs.json"
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- host syncs: written by docs/host_syncs_page.py -->", "<!-- end of host syncs -->"


def table(systems: dict[str, Any]) -> list[str]:
    lines = ["| system | nodes | batch | compacted | in queues | what for, compacted |", "|---|---|---|---|---|---|"]
    for system, found in systems.items():
        for size, row in found["sizes"].items():
            modes = row["modes"]
            queued = f"{modes['queues']['syncs']:.1f}" if "queues" in modes else "–"
            calls = ", ".join(f"{name.strip('_')} {n:.1f}" for name, n in modes["compacted"]["by_name"].items())
            lines.append(
                f"| {system} | {found['nodes']} | {size} | {modes['compacted']['syncs']:.1f} | {queued} | {calls} |"
            )
    return lines


def page(text: str, found: dict[str, Any]) -> str:
    before, _, rest = text.partition(BEGIN)
    made = f"Commit `{found['commit'][:9]}`, {found['date']}"
    head = f"{made}, {found['batches']} batches, torch {found['versions']['torch']}."
    lines = [head, "", *table(found["systems"])]
    return f"{before}{BEGIN}\n\n{chr(10).join(lines)}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(
        page(PAGE.read_text(encoding="utf-8"), json.loads(SOURCE.read_text(encoding="utf-8"))), encoding="utf-8"
    )
    sys.stdout.write(f"wrote {PAGE}\n")
