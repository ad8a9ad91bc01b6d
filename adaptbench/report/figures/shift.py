"""Two runs: each condition's cost in A and in B, one panel a model."""

from __future__ import annotations

from collections.abc import Mapping

from adaptbench.report import words
from adaptbench.report.figures import svg
from adaptbench.report.figures.parts import KIND_COLOURS, Legend, Panel, row_titles
from adaptbench.report.view import Record, View

_ROW = 36

LEGEND = (
    Legend("muted", "ring", "A"),
    Legend("clean", "disc", "B, clean"),
    Legend("control", "disc", "B, control"),
    Legend("attack", "disc", "B, attacked"),
)


def panels(view: View, other: Mapping[str, tuple[Record, Record]]) -> tuple[Panel, ...]:
    """Panels of the models that both runs have.

    Args:
        view: run A.
        other: A's evaluation id → both records, with their cost over the inputs that both have.
    """
    made = []
    for subject in view.subjects:
        pairs = [other[record["evaluation"]] for record in view.rows(subject) if record["evaluation"] in other]
        pairs = [pair for pair in pairs if all(words.exists(record.get("macs_mean")) for record in pair)]
        if pairs:
            made.append(_panel(view, subject.key, subject.title, pairs))
    return tuple(made)


def _panel(view: View, key: str, title: str, pairs: list[tuple[Record, Record]]) -> Panel:
    alt = f"MACs a sample of {title}, A to B: " + "; ".join(
        f"{view.condition_title(old)} {words.macs(old['macs_mean'])} to {words.macs(new['macs_mean'])}"
        for old, new in pairs
    )
    top = max(record["macs_mean"] for pair in pairs for record in pair) or 1.0
    factor, unit = words.decade(top)
    places = list(range(len(pairs), 0, -1))
    with svg.canvas(f"shift-{key}", alt, height=_ROW * len(pairs) + 48) as canvas:
        axes = canvas.axes
        axes.grid(axis="x")
        for place, (old, new) in zip(places, pairs, strict=True):
            ends = [record["macs_mean"] / factor for record in (old, new)]
            colour = KIND_COLOURS[new["kind"]]
            axes.plot(ends, [place, place], color=colour, linewidth=1.6, alpha=0.5)
            axes.plot([ends[1]], [place], "o", markersize=5.5, color=colour, markeredgewidth=0)
            axes.plot(
                [ends[0]],
                [place],
                "o",
                markersize=8,
                markerfacecolor="none",
                markeredgecolor=svg.MUTED,
                markeredgewidth=1.4,
            )
        row_titles(axes, [view.condition_title(old) for old, _ in pairs], [place + 0.42 for place in places])
        axes.set(
            xlim=(0, 1.06 * top / factor),
            ylim=(0.5, len(pairs) + 0.75),
            yticks=[],
            xlabel=f"{unit} MACs/sample".strip(),
        )
        axes.spines["left"].set_visible(False)
    return Panel(title, canvas.svg)
