"""A study's nets and splits on another machine: loaded there by name, set up as here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from adaptbench.adaptive import DecisionGraph, Split
from adaptbench.experiment.by_name import net_part, split_part
from adaptbench.experiment.engines import Part
from adaptbench.experiment.keys import model_hash
from adaptbench.experiment.options import Options
from adaptbench.study.keys import set_up
from adaptbench.study.schema import Graph


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Parts of a graph's pieces.

    Args:
        graph: of the study. options: of the run. folder: of the study's file, for factories.
    """

    graph: Graph
    options: Options
    folder: Path | None = None

    def __call__(self, model: DecisionGraph, split: Split) -> dict[str, Part]:
        """Of one log."""
        named = net_part(model, self.graph.model, split.name, self.options, self.folder)
        assert named.again is not None
        net = Part(model, model_hash, partial(_set_up, named.again, self.options.device), what=named.what)
        return {"net": net, "split": split_part(split, self.graph.data, self.options)}


def _set_up(load: Callable[[], DecisionGraph], device: str) -> DecisionGraph:
    net = load()
    set_up(net, device.partition(":")[0])
    return net
