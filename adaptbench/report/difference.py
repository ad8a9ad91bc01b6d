"""Two runs side by side: what changed beyond noise, the largest first, and what cannot be compared at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from adaptbench.report import compared, difference_tables, html, sensed, words
from adaptbench.report.figures import shift
from adaptbench.report.pairing import Common, Inputs, Pair, match
from adaptbench.report.view import Record, RunLike, View
from adaptbench.results.devices import obstacle as devices_obstacle

_NAMED = 6
"""Changes that the lead spells out."""

SECTIONS = {
    "changed": "Beyond noise",
    "cost": "Cost, side by side",
    "all": "Everything behind it",
    "cases": "Cases that only one run has",
    "comparable": "What the two runs are",
}
"""Those without content are left out of a page."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Two runs, compared once: for the page and for the terminal.

    Args:
        first, second: A and B. pairs: the cases that both have. left: cases that only A and only B have.
        common: the inputs of each evaluation that both have. findings: counted figures, the largest beyond noise first.
        sensed: seconds and joules, the same. obstacle: why they cannot be compared; empty if they can.
    """

    first: View
    second: View
    pairs: list[Pair]
    left: tuple[list[Record], list[Record]]
    common: list[tuple[Pair, Common]]
    findings: list[compared.Finding]
    sensed: list[sensed.Sensed]
    obstacle: str

    @classmethod
    def of(cls, a: RunLike, b: RunLike) -> Self:
        """Match, pair and estimate."""
        first, second = View(a), View(b)
        pairs, only_a, only_b = match(first, second)
        inputs = Inputs(first, second)
        each = {(str(p.old["evaluation"]), str(p.new["evaluation"])): p for p in reversed(pairs)}
        common = [(pair, inputs.common(pair)) for pair in reversed(each.values())]
        findings = [finding for pair, shared in common for finding in compared.find(pair, shared)]
        devices = [view.manifest.get("device") or {} for view in (first, second)]
        obstacle = devices_obstacle(devices[0], devices[1], ("A", "B"))
        windows = [view.run.windows() for view in (first, second)]
        timed = [found for pair in pairs for found in sensed.find(pair, windows, obstacle)]
        return cls(
            first,
            second,
            pairs,
            (only_a, only_b),
            common,
            compared.beyond_noise(findings),
            sensed.beyond_noise(timed),
            obstacle,
        )

    def verdict(self) -> str:
        """One sentence: whether anything changed beyond noise, and which way."""
        if not self.pairs:
            return "No case occurs in both runs, so that nothing can be compared."
        if not any(finding.change is not None for finding in self.findings):
            return "Nothing can be compared."
        moved = [finding for finding in self.findings if finding.beyond]
        slow = [found for found in self.sensed if found.beyond and found.kind == "measured"]
        if not moved and not slow:
            same = not any(finding.change for finding in self.findings)
            return "Every counted figure is the same in both runs." if same else "Nothing changed beyond noise."
        said = []
        if moved:
            worse = sum(finding.worse for finding in moved)
            of = words.plural(sum(finding.change is not None for finding in self.findings), "counted figure")
            said.append(f"{words.count(len(moved))} of {of} changed beyond noise: {_ways(worse, len(moved) - worse)}")
        if slow:
            joules = any(found.metric is not sensed.TIME for found in slow)
            worse = sum((found.change or 0.0) > 0 for found in slow)
            total = sum(f.change is not None and f.kind == "measured" for f in self.sensed)
            of = words.plural(total, "measured figure" if joules else "measured time")
            ways = ("dearer", "cheaper") if joules else ("slower", "faster")
            also = "; and " if moved else ""
            said.append(
                f"{also}{words.count(len(slow))} of {of} changed beyond noise: {_ways(worse, len(slow) - worse, *ways)}"
            )
        return "".join(said) + "."

    def lead(self) -> list[str]:
        """The verdict, then the largest changes and what the comparison stands on, in sentences: for the terminal."""
        named = self._named() if self.pairs else []
        return [self.verdict(), *named, *self.basis()]

    def _named(self, most: int = _NAMED) -> list[str]:
        beyond = [finding.text for finding in self.findings if finding.beyond]
        beyond += [found.text for found in self.sensed if found.beyond and found.kind == "measured"]
        if not beyond:
            return []
        if most == 1:
            return [f"The largest: {beyond[0]}."]
        more = f"; and {words.count(len(beyond) - most)} more" if len(beyond) > most else ""
        return [f"The largest first: {'; '.join(beyond[:most])}{more}."]

    def basis(self) -> list[str]:
        """What was compared, how noise was told, and what could not be compared."""
        said = [self._matching()] if self.pairs else []
        broken = dict.fromkeys(f.obstacle for f in self.findings if f.obstacle and f.metric.field != "recovery")
        said += [f"Some figures cannot be compared: {'; '.join(broken)}."] if broken else []
        moved = [finding for finding in self.findings if finding.change]
        if within := sum(not finding.beyond for finding in moved):
            figures = words.plural(within, "counted figure")
            said.append(f"{figures} moved within noise: the 95 % interval over inputs, corrected for {len(moved)}.")
        said.append(
            f"Seconds and joules cannot be compared: {self.obstacle}."
            if self.obstacle
            else "Seconds and joules come from the same device."
        )
        return said

    def _matching(self) -> str:
        said = f"{words.plural(len(self.pairs), 'case')} occur in both runs, matched by model, policy and condition; "
        said += "every difference is B against A"
        partial = dict.fromkeys(shared.text for _, shared in self.common if not shared.whole)
        if partial:
            said += f", over the inputs that both have ({words.listing(partial)})"
        seeds = sum(bool(pair.seeds) for pair in self.pairs)
        return said + (f"; {words.plural(seeds, 'case')} had another seed." if seeds else ".")

    def page(self) -> str:
        """The page as text; the same two runs give the same bytes."""
        views = (self.first, self.second)
        suites = [str((view.manifest.get("suite") or {}).get("name") or view.run.path.name) for view in views]
        paths = _told_apart([view.run.path for view in views])
        parts = {
            "changed": difference_tables.changed(self.findings, self.sensed),
            "cost": shift.panels(self.first, self._costs()),
            "counted": difference_tables.counted(self.findings),
            "sensed": difference_tables.timed(self.sensed),
            "exits": difference_tables.exits(self.common),
            "cases": [(s, [str(r["case"]) for r in left]) for s, left in zip("AB", self.left, strict=True) if left],
            "comparable": difference_tables.facts(self.first, self.second),
        }
        shown = parts | {"all": parts["counted"] or parts["sensed"] or self.obstacle}
        names = {key: name for key, name in SECTIONS.items() if shown[key]}
        return html.render(
            "difference.html.j2",
            title=f"{suites[0]} and {suites[1]}: what differs"
            if suites[0] != suites[1]
            else f"{suites[0]}: what differs between two runs",
            kicker=[f"A {paths[0]}", f"B {paths[1]}"],
            contents=list(names.items()),
            names=names,
            sources=f"the runs A “{paths[0]}” and B “{paths[1]}”",
            verdict=self.verdict(),
            largest=self._named(1),
            basis=self.basis(),
            legend=shift.LEGEND,
            obstacle=self.obstacle,
            **parts,
        )

    def _costs(self) -> dict[str, tuple[Record, Record]]:
        """A's evaluation id → both records, with the cost over the common inputs."""
        return {
            str(f.pair.old["evaluation"]): (
                {**f.pair.old, "macs_mean": f.values[0]},
                {**f.pair.new, "macs_mean": f.values[1]},
            )
            for f in self.findings
            if f.metric.field == "macs_mean" and f.values is not None
        }


def _ways(worse: int, better: int, bad: str = "for the worse", good: str = "for the better") -> str:
    parts = [(n, way) for n, way in ((worse, bad), (better, good)) if n]
    if len(parts) == 1 and parts[0][0] > 1:
        return f"all {parts[0][1]}"
    return words.listing(f"{words.count(n)} {way}" for n, way in parts)


def _told_apart(paths: Sequence[Path]) -> list[str]:
    """Names of two directories: as many of their last folders as tell them apart."""
    most = max(len(path.parts) for path in paths)
    for depth in range(1, most + 1):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [path.name for path in paths]
