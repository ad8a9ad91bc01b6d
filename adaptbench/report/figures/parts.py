"""What a figure on the page is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from adaptbench.report import words
from adaptbench.report.figures import svg
from adaptbench.report.tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from adaptbench.report.view import Record


@dataclass(frozen=True, slots=True)
class Panel:
    """One drawing."""

    title: str
    svg: Markup
    narrow: Markup | None = None
    """The same for a narrow window, where it is drawn apart."""


@dataclass(frozen=True, slots=True)
class Legend:
    """One sign of the legend, which stands in HTML so that it wraps and follows the theme."""

    role: str
    """A CSS variable's name (``clean``, ``attack`` …)."""
    shape: str
    """``bar``, ``dot``, ``diamond``, ``square``, ``star``, ``triangle``, ``line`` or ``dashes``."""
    label: str


@dataclass(frozen=True, slots=True)
class Figure:
    """Panels that share a legend, a caption and a table."""

    key: str
    caption: str
    panels: tuple[Panel, ...]
    legend: tuple[Legend, ...]
    table: Table


KIND_COLOURS = {"clean": svg.CLEAN, "control": svg.CONTROL, "attack": svg.ATTACK}
KIND_LEGEND = {"clean": "clean inputs", "control": "noise (control)", "attack": "attacked inputs"}


def kind_legend(records: Sequence[Record], shape: str) -> tuple[Legend, ...]:
    """The legend of clean, control and attack, as far as they occur."""
    present = {record["kind"] for record in records}
    return tuple(Legend(kind, shape, label) for kind, label in KIND_LEGEND.items() if kind in present)


def row_titles(axes: Axes, titles: Sequence[str], places: Sequence[float]) -> None:
    """Write each row's title above its mark, from the left edge: long titles need no margin."""
    from matplotlib.transforms import blended_transform_factory

    where = blended_transform_factory(axes.transAxes, axes.transData)
    for title, place in zip(titles, places, strict=True):
        axes.text(
            0.0, place, words.clip(title, 52), transform=where, ha="left", va="center", fontsize=10, color=svg.INK
        )


def errors(centre: float, bounds: Sequence[float | None] | None) -> tuple[float, float]:
    """Lengths of the two arms of an error bar; 0 where there is no interval."""
    if not bounds or len(bounds) != 2:
        return 0.0, 0.0
    low, high = bounds
    if low is None or high is None:
        return 0.0, 0.0
    return max(centre - low, 0.0), max(high - centre, 0.0)
