"""Accuracy against cost for every policy of a study: the paper's, ours, and the rest behind them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adaptbench.report import words
from adaptbench.report.figures import svg
from adaptbench.report.figures.parts import Legend, Panel
from adaptbench.report.policy_names import data_name, policy_name
from adaptbench.report.study_tables import graph_title

LEGEND = (
    Legend("clean", "dot", "ours"),
    Legend("attack", "dot", "as published"),
    Legend("rule", "line", "other policies"),
    Legend("ink", "square", "single nets or exits; at 100 % the plain net"),
    Legend("promise", "ring", "ours, shown to lose less than the margin"),
    Legend("oracle", "star", "oracle (looks at the label)"),
)
CAPTION = (
    "Accuracy on test against mean executed MACs, the policy's own included. A line joins the corners of the policy's "
    "hull on the choosing part of the calibration split; randomising between neighbours realises every point between. "
    "An oracle beyond the upper edge has its accuracy written beside it."
)


def panels(record: Mapping[str, Any]) -> tuple[Panel, ...]:
    """One panel a graph."""
    return tuple(_panel(record, key, graph) for key, graph in record["graphs"].items())


def _corners(policy: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    corners = [p for p in policy["curve"] if p["corner"]]
    return [100 * p["cost_share"] for p in corners], [100 * p["accuracy"] for p in corners]


def _panel(record: Mapping[str, Any], key: str, graph: Mapping[str, Any]) -> Panel:
    from matplotlib.ticker import MaxNLocator

    paper, ours = record["paper"], record["ours"]
    full = graph["macs_full"]
    alt = f"Accuracy against cost on {data_name(graph['data'])}."
    if ours in graph["policies"]:
        last = graph["policies"][ours]["chosen"][0]
        alt += (
            f" {policy_name(ours)} loses {words.number(last['drop_points'])} points at "
            f"{words.percent(last['cost_share'])} of the plain net's MACs."
        )
    alt += f" The oracle needs {words.percent(graph['oracle']['macs'] / full)}."
    heights = [100 * p["accuracy"] for r in graph["policies"].values() for p in r["curve"] if p["corner"]]
    with svg.canvas(f"study-{key}", alt, height=300) as canvas:
        axes = canvas.axes
        axes.grid()
        for name, policy in graph["policies"].items():
            if name not in (paper, ours):
                axes.plot(*_corners(policy), color=svg.RULE, linewidth=1.1)
        axes.plot(*_nodes(graph), "s", color=svg.INK, markersize=5, markeredgewidth=0)
        for name, color in ((paper, svg.ATTACK), (ours, svg.CLEAN)):
            if name in graph["policies"]:
                axes.plot(*_corners(graph["policies"][name]), color=color, marker="o", markersize=4, markeredgewidth=0)
        safe = graph["policies"].get(ours, {}).get("non_inferior")
        if safe is not None:
            place = [100 * safe["cost_share"]], [100 * safe["accuracy"]]
            axes.plot(*place, "o", color=svg.PROMISE, markersize=9, markerfacecolor="none", markeredgewidth=2)
        across, high, top = 100 * graph["oracle"]["macs"] / full, 100 * graph["oracle"]["accuracy"], max(heights) + 2
        if high > top:
            axes.annotate(
                f"{words.number(high, 1)} %",
                (across, top),
                (8, 0),
                textcoords="offset points",
                va="center",
                fontsize=10,
            )
        axes.plot(
            [across],
            [min(high, top)],
            "*",
            color=svg.ORACLE,
            markersize=11,
            markeredgewidth=0,
        )
        span = max(heights) - min(heights) or 1.0
        axes.set(
            xlim=(0, 112),
            ylim=(max(heights) - min(span, 25) - 1, max(heights) + 2.5),
            xlabel="MACs a sample, % of the plain net",
            ylabel="accuracy, %",
        )
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.yaxis.set_major_locator(MaxNLocator(6))
    return Panel(graph_title(key, graph), canvas.svg)


def _nodes(graph: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    """Where always leaving at each node lies, run alone: its own stages and what they read, its own head."""
    across = [100 * node["alone_macs"] / graph["macs_full"] for node in graph["nodes"]]
    return across, [100 * node["accuracy_test"] for node in graph["nodes"]]
