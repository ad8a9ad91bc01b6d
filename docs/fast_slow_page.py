"""Write the table on what engine and plain loop find in docs/performance.md from benchmarks/fast_slow.json.

python docs/fast_slow_page.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "benchmarks" / "fast_slow.json"
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- fast and slow: written by docs/fast_slow_page.py -->", "<!-- end of fast and slow -->"


def table(cases: dict[str, Any]) -> list[str]:
    lines = [
        "| system | attack | pictures | the engine takes back | the plain loop "
        "| engine less plain, points | equal within it | other cost | steps taken | CPU s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for title, row in cases.items():
        ours, plain, apart = row["engine"], row["plain"], row["engine − plain"]
        attack = f"{row['attack']} at {row['settings']['eps']}, {row['settings']['steps']} steps"
        lines.append(
            f"| {title.split()[0]} | {attack} | {row['pictures']} | "
            f"{_share(ours)} | {_share(plain)} | {_points(apart)} | "
            f"{'yes' if apart['low'] <= 0 <= apart['high'] else '**no**'} | {row['pictures that differ']} | "
            f"{ours['steps']} / {plain['steps']} | {ours['cpu_s']:.1f} / {plain['cpu_s']:.1f} |"
        )
    return lines


def _share(of: dict[str, float]) -> str:
    return f"{100 * of['value']:.1f} % [{100 * of['low']:.1f}, {100 * of['high']:.1f}]".replace("-", "−")


def _points(of: dict[str, float]) -> str:
    return f"{100 * of['value']:.2f} [{100 * of['low']:.2f}, {100 * of['high']:.2f}]".replace("-", "−")


def page(text: str, found: dict[str, Any] | None) -> str:
    """The text with the table as the file has it; where there is none, that is said."""
    before, _, rest = text.partition(BEGIN)
    lines = ["No run is committed yet."]
    if found is not None:
        head = f"Commit `{found['commit'][:9]}`, {found['date']}, one thread, torch {found['versions']['torch']}."
        lines = [head, "", *table(found["cases"])]
    return f"{before}{BEGIN}\n\n{chr(10).join(lines)}\n\n{END}{rest.partition(END)[2]}"


def read() -> dict[str, Any] | None:
    """The committed run, where there is one."""
    return dict(json.loads(SOURCE.read_text(encoding="utf-8"))) if SOURCE.exists() else None


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), read()), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE}\n")
