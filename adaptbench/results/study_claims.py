"""A study's claims, each with what became of it; and what an interval says against a figure that it may hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from adaptbench.results.studies import judged


class Outcome(StrEnum):
    """What became of a claim, the gravest first."""

    NOT_MET = "not met"
    DIFFERS = "differs"
    """Another trade: it saves more and loses more, or less of both."""
    MET = "met"
    NOT_COMPARABLE = "not comparable"


_OUTCOMES = {
    "met": Outcome.MET,
    "same": Outcome.MET,
    "better": Outcome.MET,
    "not comparable": Outcome.NOT_COMPARABLE,
    "saves more, loses more": Outcome.DIFFERS,
    "saves less, loses less": Outcome.DIFFERS,
}
_REPEATED = "as above"


@dataclass(frozen=True, slots=True)
class Claim:
    """A published figure or a target, and ours.

    Args:
        published: as the study's file has it. value: ours, None where there is none. interval: of it, where it has one.
        said: the verdict, one of `studies.judged`. outcome: the class of the verdict.
        why: what to know of it, "as above" written out.
    """

    published: Mapping[str, Any]
    value: float | None
    interval: list[float] | None
    said: str
    outcome: Outcome
    why: str

    @property
    def text(self) -> str:
        """What is claimed, without the statistician's word for it."""
        return str(self.published["claim"]).replace("non-inferior within", "shown to lose less than")


def claims(record: Mapping[str, Any]) -> list[Claim]:
    """Every claim of a study, in the order of its file."""
    found: list[Claim] = []
    above = ""
    for published in record["published"]:
        value, interval, said = judged(record, published)
        why = published.get("unlike") or published["why"]
        above = above if why == _REPEATED else why
        # whatever else `judged` says is a saving that was not shown: a drop not kept, no point shown
        found.append(Claim(published, value, interval, said, _OUTCOMES.get(said, Outcome.NOT_MET), above))
    return found


def side_of(interval: Sequence[float] | None, at: float) -> int | None:
    """1 where an interval lies above a figure, −1 where below, 0 where it holds it; None without an interval."""
    if interval is None:
        return None
    low, high = interval
    return 1 if low > at else -1 if high < at else 0
