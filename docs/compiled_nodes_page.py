"""Write the tables on compiled parts in docs/performance.md from benchmarks/compiled_nodes.json.

python docs/compiled_nodes_page.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "benchmarks" / "compiled_nodes.json"
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- compiled parts: written by docs/compiled_nodes_page.py -->", "<!-- end of compiled parts -->"
RATIOS = ("compiled ÷ as it is", "static compiled ÷ static", "as it is ÷ static", "compiled ÷ static compiled")
HEAD = (
    "system", "batch", "MACs ÷ plain net", "parts compiled, of those run", "compiled ÷ as it is",
    "plain net compiled ÷ as it is", "as it is ÷ plain net", "both compiled", "other ways, answers", "made in, s",
)  # fmt: skip
PARTS = ("system", "batch", "part", "rows of a call", "compiled ÷ as it is, alone", "it runs")
MANY = 8
"""Parts of one group beyond which they are one row."""


def told(ratio: dict[str, float]) -> str:
    """Median by CPU time and the extremes over blocks."""
    return f"{ratio['cpu']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})"


def cells(found: dict[str, Any]) -> list[str]:
    """A row a net and batch size."""
    lines = [f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|"]
    for name, row in found.items():
        system, _, size = name.rpartition("/")
        ran = [part for part in row["parts"] if part["calls"]]
        kept, same = [part for part in ran if part["kept"]], row["agreement"]
        compared = f"{same['other_ways']}, {same['other_answers']} of {same['rows']}" if same else "–"
        made = f"{row['made_s']:.0f}"
        shown = [
            f"{row['macs']:.2f}",
            f"{len(kept)} of {len(ran)}",
            *(told(row[key]) for key in RATIOS),
            compared,
            made,
        ]
        lines.append(f"| {' | '.join([system, size, *shown])} |")
    return lines


def parts(found: dict[str, Any]) -> list[str]:
    """A row a part; parts of one group that gain alike and are more than eight are one row."""
    lines = [f"| {' | '.join(PARTS)} |", "|---" * len(PARTS) + "|"]
    for name, row in found.items():
        system, _, size = name.rpartition("/")
        groups: dict[str, list[dict[str, Any]]] = {}
        for part in row["parts"]:
            if part["calls"]:
                groups.setdefault(part["name"].partition(".")[0], []).append(part)
        for group, members in groups.items():
            together = [members] if len(members) > MANY else [[part] for part in members]
            lines += [f"| {system} | {size} | {' | '.join(_row(group, some))} |" for some in together]
    return lines


def _row(group: str, some: list[dict[str, Any]]) -> list[str]:
    rows = [int(n) for part in some for n in part["calls"]]
    ratios = [part["compiled_s"] / part["plain_s"] for part in some if part["plain_s"]]
    kept = sum(part["kept"] for part in some)
    reasons = sorted({part["reason"] for part in some if part["reason"]})
    shown = f"{kept} of {len(some)} compiled" if len(some) > 1 else "compiled" if kept else "as it is"
    return [
        some[0]["name"] if len(some) == 1 else f"{len(some)} {group}",
        f"{min(rows)} to {max(rows)}" if min(rows) < max(rows) else str(rows[0]),
        "–" if not ratios else f"{min(ratios):.2f}" + (f" to {max(ratios):.2f}" if len(ratios) > 1 else ""),
        shown + (f": {'; '.join(reasons)}" if reasons else ""),
    ]


def figures(found: dict[str, Any]) -> str:
    """What the run says."""
    rows = found["cells"]
    compiled = [name for name, row in rows.items() if any(part["kept"] for part in row["parts"])]
    pays = [name for name in compiled if rows[name]["compiled ÷ as it is"]["max"] < 1]
    return "\n\n".join(
        [
            f"Commit `{found['commit'][:9]}`, {found['date']}, {found['device']['cpu']}, one thread, "
            f"{2 * found['blocks']} blocks, torch {found['versions']['torch']}; load of the machine "
            f"{found['load_before']:.1f} before, {found['load_after']:.1f} after. Compiled parts are shown to pay in "
            f"{len(pays)} of {len(rows)} cells{': ' + ', '.join(pays) if pays else ''}.",
            "\n".join(cells(rows)),
            "\n".join(parts(rows)),
        ]
    )


def page(text: str, found: dict[str, Any]) -> str:
    """The text with the tables as the file has them."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{figures(found)}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(
        page(PAGE.read_text(encoding="utf-8"), json.loads(SOURCE.read_text(encoding="utf-8"))), encoding="utf-8"
    )
    sys.stdout.write(f"wrote {PAGE}\n")
