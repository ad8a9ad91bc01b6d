"""What a share of hostile requests does to the others: their tail and their goodput, with and without a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adaptbench.report import words
from adaptbench.report.figures import svg
from adaptbench.report.figures.parts import Figure, Legend, Panel, errors
from adaptbench.report.policy_names import policy_name
from adaptbench.report.tables import Table

Row = Mapping[str, Any]
_DRAWN = {"none": (svg.ATTACK, "-"), "budget": (svg.CLEAN, "--")}
_LEGEND = {"none": Legend("attack", "dot", "no defence"), "budget": Legend("clean", "dot", "hard budget (dashed)")}
CAPTION = (
    "Simulated. The 99th percentile of the honest requests' latency over the share of the requests that are hostile, "
    "on the same arrivals; bars are 95 % intervals over repeats, the dotted line is the objective."
)


def harm(record: Mapping[str, Any], table: Table) -> Figure | None:
    """A panel a model, arrival process and mode; None where nobody is hostile. table: behind the figure."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in record["streams"]:
        groups.setdefault((row["model"], row["arrivals"], row["mode"]), []).append(row)
    shown = {key: rows for key, rows in groups.items() if any(row["share"] for row in rows)}
    if not shown:
        return None
    panels = tuple(_panel(i, key, rows, record["objective_p99_s"]) for i, (key, rows) in enumerate(shown.items()))
    drawn = {row["defence"] for rows in shown.values() for row in rows}
    legend = tuple(sign for name, sign in _LEGEND.items() if name in drawn)
    return Figure("fig-harm", CAPTION, panels, legend, table)


def _panel(place: int, key: tuple[str, str, str], rows: Sequence[Row], objective_s: float) -> Panel:
    model, arrivals, mode = key
    title = f"{policy_name(model)}, {arrivals}, {mode}"
    worst = max((row for row in rows if row["defence"] == "none"), key=lambda row: float(row["share"]))
    alt = (
        f"{title}: at {words.percent(worst['share'], 0)} hostile requests the honest wait "
        f"{words.seconds(worst['simulated_benign_p99_s'])} at the 99th percentile."
    )
    with svg.canvas(f"harm-{place}", alt, height=240) as canvas:
        axes = canvas.axes
        axes.grid(axis="y")
        for name, (color, style) in _DRAWN.items():
            line = sorted((row for row in rows if row["defence"] == name), key=lambda row: float(row["share"]))
            if not line:
                continue
            across = [100 * row["share"] for row in line]
            heights = [1e3 * row["simulated_benign_p99_s"] for row in line]
            ends = [_ms(row["simulated_benign_p99_s_ci"]) for row in line]
            arms = [errors(height, end) for height, end in zip(heights, ends, strict=True)]
            axes.errorbar(
                across,
                heights,
                yerr=list(zip(*arms, strict=True)),
                color=color,
                linestyle=style,
                marker="o",
                markersize=4,
                elinewidth=1,
            )
        axes.axhline(1e3 * objective_s, color=svg.MUTED, linewidth=1, linestyle=":")
        axes.set(xlabel="hostile requests, %", ylabel="p99 of the honest, ms", xlim=(-2, None))
        axes.set_ylim(bottom=0)
    return Panel(title, canvas.svg)


def _ms(ends: Sequence[float] | None) -> list[float | None] | None:
    return None if ends is None else [1e3 * end for end in ends]
