"""Limits that an audit is held to, each against the end of the interval that speaks against the net."""

from __future__ import annotations

from dataclasses import dataclass

from adaptbench.auditing.audit import Audit
from adaptbench.auditing.grounds import ground_told
from adaptbench.errors import UsageError
from adaptbench.report import words

HELD, BROKEN, OPEN = 0, 1, 3


@dataclass(frozen=True, slots=True)
class Limits:
    """What a net must keep; None for no limit.

    Args:
        max_recovery: share that the worst attack may take back, against the interval's upper end.
        min_accuracy: on clean pictures, against the lower end.
        max_macs: mean MACs of a picture under the dearest condition, against the upper end.

    Raises:
        UsageError: a share outside [0, 1], or MACs below 0.
    """

    max_recovery: float | None = None
    min_accuracy: float | None = None
    max_macs: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("max-recovery", self.max_recovery), ("min-accuracy", self.min_accuracy)):
            if value is not None and not 0 <= value <= 1:
                raise UsageError(f"--{name} {value:g} is no share.", todo="Write a number from 0 to 1, such as 0.5.")
        if self.max_macs is not None and not self.max_macs >= 0:
            raise UsageError(f"--max-macs {self.max_macs:g} is no cost.", todo="Write MACs a picture, such as 4e6.")


@dataclass(frozen=True, slots=True)
class Verdict:
    """How an audit stands to its limits.

    Args:
        exit_code: 0 held, 1 a limit is broken, 3 it cannot be told. lines: a sentence each.
    """

    exit_code: int
    lines: tuple[str, ...]


def verdict(audit: Audit, limits: Limits) -> Verdict:
    """Hold an audit to its limits; what cannot be trusted holds nothing."""
    figures = audit.figures
    broken: list[str] = []
    kept: list[str] = []
    untold: list[str] = []
    if limits.min_accuracy is not None:
        low = audit.accuracy.low
        told = f"accuracy is {words.percent(low)} at least"
        (kept if low >= limits.min_accuracy else broken).append(
            f"{told}; asked for: {words.percent(limits.min_accuracy)}"
        )
    if limits.max_recovery is not None:
        asked = f"allowed: {words.percent(limits.max_recovery)}"
        if figures["recovery"] is None:
            untold.append(f"there is no recovery to hold against the limit; {asked}")
        else:
            high = audit.recovery.high
            told = f"{figures['worst']} takes back {words.percent(high)} at most"
            (kept if high <= limits.max_recovery else broken).append(f"{told}; {asked}")
    if limits.max_macs is not None:
        name, most = max(
            ((name, c["macs_mean"]["high"] or float("inf")) for name, c in figures["conditions"].items()),
            key=lambda pair: float(pair[1]),
        )
        told = f"a {ground_told(audit.summary).one} costs {words.macs(most)} MACs at most, in the mean, under {name}"
        (kept if most <= limits.max_macs else broken).append(f"{told}; allowed: {words.macs(limits.max_macs)}")
    if not audit.trusted:
        untold += [str(check) for check in audit.doubts if check.level == "cannot be trusted"]
    lines = [f"BROKEN  {line}" for line in broken] + [f"kept    {line}" for line in kept]
    lines += [f"UNKNOWN {line}" for line in untold]
    return Verdict(BROKEN if broken else OPEN if untold else HELD, tuple(lines))
