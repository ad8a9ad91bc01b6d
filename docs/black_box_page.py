"""Write the tables of docs/black-box.md from committed runs of suites/black-box.yaml; a test holds the two together.

python docs/black_box_page.py
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adaptbench.results.baseline import Baseline
    from adaptbench.results.query_curves import Curve, Point

ROOT = Path(__file__).parent.parent
SOURCES = tuple(
    ROOT / "reports" / "published" / f"{name}.json" for name in ("black-box", "black-box-2", "black-box-clock")
)
"""Runs of the suite on the same pictures and seeds; an attack is taken from the first that has it."""
PAGE = ROOT / "docs" / "black-box.md"
BEGIN, END = "<!-- figures: written by docs/black_box_page.py -->", "<!-- end of figures -->"
OF_WHITE = {100: 0.6, 1000: 0.8}
"""Of what the white box takes back, by queries."""
METERED = "black-box-seconds"
AIMED = (
    ("black-box", 200, 0.52, "`black-box` takes back at least 0.52 with 200 queries"),
    ("black-box-2", 200, 0.52, "`black-box-2` takes back at least 0.52 with 200 queries"),
    *(
        (name, queries, "of the white box", f"`{name}` takes back at least {100 * share:.0f} % of the white box")
        for name in ("black-box", "black-box-2", "black-box-logits")
        for queries, share in OF_WHITE.items()
    ),
    ("ereba-disjoint", 500, None, "EREBA on disjoint pictures beats the dearest of as many random signs"),
    ("ereba-ordinal", 200, None, "the ordinal ensemble beats the dearest of as many random signs"),
)


def told(point: Point | None) -> str:
    return "–" if point is None else f"{point.recovery:.3f} [{point.low:.2f}, {point.high:.2f}]"


def curves_of(runs: Sequence[Baseline]) -> list[Curve]:
    curves: dict[str, Curve] = {}
    for kept in runs:
        for curve in _curves(kept):
            curves.setdefault(curve.name, curve)
    return list(curves.values())


def _curves(kept: Baseline) -> list[Curve]:
    from adaptbench.results.query_curves import query_curves

    def costs(evaluation: str) -> dict[int, int] | None:
        rows = kept.samples(evaluation)
        return None if rows is None else dict(zip(rows.sample_id.tolist(), rows.macs.tolist(), strict=True))

    return query_curves(kept.manifest, kept.cases, costs, budgets=1)


def figures(runs: Sequence[Baseline]) -> str:
    curves, kept = curves_of(runs), runs[0]
    (white,) = (c.points[0] for c in curves if c.access == "white-box")
    asking = [c for c in curves if c.access == "black-box"]
    budgets = sorted({p.queries for c in asking for p in c.points if p.queries is not None})
    seeds = ", ".join(str(seed) for seed in kept.manifest["seeds"])
    lines = [
        f"{white.n} test images, seeds {seeds}; share of the head-room taken back, mean over seeds, 95 % intervals "
        f"for which images and seeds were drawn again. White box (`standard`): {told(white)}.",
        "",
        "| recipe | " + " | ".join(f"{b} queries" for b in budgets) + " |",
        "|---|" + "---|" * len(budgets),
    ]
    found = {(c.name, p.queries): p for c in asking for p in c.points}
    for curve in sorted(asking, key=lambda c: (c.kind == "control", c.name)):
        control = " (control)" if curve.kind == "control" else ""
        lines.append(
            f"| `{curve.name}`{control} | " + " | ".join(told(found.get((curve.name, b))) for b in budgets) + " |"
        )
    lines += ["", "| aimed at | measured | held |", "|---|---|---|"]
    for name, queries, wanted, claim in AIMED:
        point, chance = found[name, queries], found["best-of-n", queries]
        if isinstance(wanted, str):
            share = point.recovery / white.recovery
            held, beside = share >= OF_WHITE[queries], f"; {100 * share:.1f} % of {white.recovery:.3f}"
        elif wanted is None:
            held, beside = point.low > chance.recovery, f"; chance {told(chance)}"
        else:
            held, beside = point.recovery >= wanted, ""
        lines.append(f"| {claim} | {told(point)} at {queries}{beside} | {'yes' if held else 'no'} |")
    spent = [(sum(c.get("craft_s") or 0 for c in run.cases) / 60, run.manifest["device"]["cpu"]) for run in runs]
    told_apart = "; ".join(f"{minutes:.0f} minutes on {cpu}" for minutes, cpu in spent)
    lines += ["", *on_the_clock(runs)]
    lines += ["", f"Crafting took, a run each: {told_apart}."]
    return "\n".join(lines)


def on_the_clock(runs: Sequence[Baseline]) -> list[str]:
    """What who meters seconds takes back, beside the counter and chance on the same pictures, seed by seed."""
    (run,) = (r for r in runs if any(c["condition"] == METERED for c in r.cases))
    points = {c.name: c.points[0] for c in _curves(run)}
    lines = [
        "| 100 queries, the same run | seed by seed | mean | noise of a reading, ms, seed by seed |",
        "|---|---|---|---|",
    ]
    for name in (METERED, "black-box", "best-of-n"):
        noise = [c["craft_details"].get("meter_noise_seconds") for c in run.cases if c["condition"] == name]
        told_noise = ", ".join(f"{1000 * one:.2f}" for one in noise if one is not None) or "–"
        by_seed = ", ".join(f"{share:.3f}" for share in points[name].by_seed)
        lines.append(f"| `{name}` | {by_seed} | {told(points[name])} | {told_noise} |")
    return lines


def read() -> list[Baseline]:
    from adaptbench.results.baseline import Baseline

    return [Baseline.load(source) for source in SOURCES]


def page(text: str, runs: Sequence[Baseline]) -> str:
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{figures(runs)}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), read()), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE}\n")
