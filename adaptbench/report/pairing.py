"""Which cases of two runs are the same, and the inputs that both have of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from adaptbench.report import words
from adaptbench.report.policy_names import data_name
from adaptbench.report.view import Record, View, reference_name
from adaptbench.results.identity import clean_of

if TYPE_CHECKING:
    import pandas as pd

WHO = ("data", "model", "policy", "knob", "knob_value", "condition", "batch_size", "mode")
"""What two cases must share to be the same; seeds may differ."""
_COLUMNS = ("label", "exit", "macs", "correct")


@dataclass(frozen=True, slots=True)
class Pair:
    """One case in both runs."""

    old: Record
    new: Record
    name: str = ""
    """Whose case it is, in words, and the seeds where they differ."""

    @property
    def title(self) -> str:
        """A's id, and the seeds where they differ."""
        return f"{self.old['case']}{self.seeds}"

    @property
    def evaluation(self) -> str:
        """A's evaluation id, and the seeds where they differ."""
        return f"{self.old['evaluation']}{self.seeds}"

    @property
    def seeds(self) -> str:
        """A clause, with a space before it; empty where both have the same seed."""
        seeds = [record.get("seed") or 0 for record in (self.old, self.new)]
        return "" if seeds[0] == seeds[1] else f" (seed {seeds[0]} and {seeds[1]})"


def match(first: View, second: View) -> tuple[list[Pair], list[Record], list[Record]]:
    """The cases that both runs have, in A's order, and those that only A and only B have.

    A case is matched with the one of the same seed, else with the next of another seed.
    """
    waiting: dict[tuple[Any, ...], list[Record]] = {}
    for record in second.records:
        waiting.setdefault(_who(record), []).append(record)
    partners: dict[int, Record] = {}
    for whatever_seed in (False, True):
        for place, record in enumerate(first.records):
            others = waiting.get(_who(record), [])
            fits = [other for other in others if whatever_seed or _seed(other) == _seed(record)]
            if place not in partners and fits:
                partners[place] = fits[0]
                others[:] = [other for other in others if other is not fits[0]]
    found = [Pair(record, partners[place]) for place, record in enumerate(first.records) if place in partners]
    pairs = [replace(pair, name=f"{case_name(first, pair.old)}{pair.seeds}") for pair in found]
    left = [record for place, record in enumerate(first.records) if place not in partners]
    matched = {id(record) for record in partners.values()}
    return pairs, left, [record for record in second.records if id(record) not in matched]


def case_name(view: View, record: Record) -> str:
    """A case in words, without its batch size: ``SkipNet, ILFO 8/255``; its data set where the run has several."""
    name = view.model_title(record["model"])
    if record.get("kind") == "reference":
        reference = reference_name(record)
        name += f": {'plain net' if reference == 'static' else reference.replace('-', ' ')}"
    elif record.get("knob") is not None and words.exists(record.get("knob_value")):
        name += f" at {record['knob']} {record['knob_value']:g}"
    else:
        title = view.condition(record["condition"]).get("title") or record["condition"]
        name += f", {title}"
    several = len({other["data"] for other in view.records}) > 1
    return f"{name} on {data_name(record['data'])}" if several else name


def _who(record: Record) -> tuple[Any, ...]:
    return tuple(record.get(name) for name in WHO)


def _seed(record: Record) -> int:
    return int(record.get("seed") or 0)


@dataclass(frozen=True, slots=True)
class Common:
    """The inputs that both runs evaluated of one case, in order of sample id.

    Args:
        frame: columns label, exit, macs, correct, each with _a and _b; index sample id.
        clean: the same of the clean cases that the two are held against; None for clean cases.
        of: (inputs in A, inputs in B).
        obstacle: why they do not pair; empty if they do.
    """

    frame: pd.DataFrame
    clean: pd.DataFrame | None
    of: tuple[int, int]
    obstacle: str = ""

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def whole(self) -> bool:
        """True where neither run has an input more."""
        return len(self) == self.of[0] == self.of[1]

    @property
    def text(self) -> str:
        """``64 of 360 and 64``, or ``360``."""
        return str(len(self)) if self.whole else f"{len(self)} of {self.of[0]} and {self.of[1]}"


class Inputs:
    """Per-sample rows of both runs, paired by sample id."""

    def __init__(self, first: View, second: View) -> None:
        self.views = (first, second)
        self._frames = [
            {str(name): rows for name, rows in view.run.samples().groupby("case", sort=False)} for view in self.views
        ]

    def common(self, pair: Pair) -> Common:
        """The inputs that both have of a case, and of its clean case."""
        sides = [self._rows(place, record) for place, record in enumerate((pair.old, pair.new))]
        joined = self._joined(sides)
        same = bool((joined["label_a"] == joined["label_b"]).all())
        obstacle = "" if same else "the same sample ids carry other labels: they are other pictures"
        if not len(joined):
            obstacle = "no input in common"
        return Common(joined, self._clean(pair, joined), (len(sides[0]), len(sides[1])), obstacle)

    def _clean(self, pair: Pair, joined: pd.DataFrame) -> pd.DataFrame | None:
        if pair.old["kind"] not in ("control", "attack"):
            return None
        held = [clean_of(record, view.records) for record, view in zip((pair.old, pair.new), self.views, strict=True)]
        if held[0] is None or held[1] is None:
            return None
        clean = self._joined([self._rows(place, record) for place, record in enumerate(held) if record is not None])
        return clean.loc[joined.index] if joined.index.isin(clean.index).all() else None

    def _rows(self, place: int, record: Record) -> pd.DataFrame:
        import pandas as pd

        rows = self._frames[place].get(str(record["evaluation"]))
        if rows is None:
            rows = pd.DataFrame({name: [] for name in ("sample_id", *_COLUMNS)})
        return rows.drop_duplicates("sample_id").set_index("sample_id")[list(_COLUMNS)]

    def _joined(self, sides: Sequence[pd.DataFrame]) -> pd.DataFrame:
        return sides[0].add_suffix("_a").join(sides[1].add_suffix("_b"), how="inner").sort_index()


def exit_shares(common: Common, pair: Pair) -> tuple[list[str], list[list[float]]] | None:
    """(exit names, [A's shares, B's shares]) over the common inputs; None where the exits are not the same."""
    names = list(pair.old.get("exit_histogram") or {})
    if not names or names != list(pair.new.get("exit_histogram") or {}) or not len(common):
        return None
    exits = [common.frame[f"exit_{side}"].to_numpy(dtype=np.int64) for side in "ab"]
    if any(len(taken) and (taken.min() < 0 or taken.max() >= len(names)) for taken in exits):
        return None
    return names, [(np.bincount(taken, minlength=len(names)) / len(taken)).tolist() for taken in exits]
