"""Two runs side by side: what changed, by how much, and what cannot be compared at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from adaptbench.report import compared, html, words
from adaptbench.report.figures import shift
from adaptbench.report.pairing import Common, Inputs, Pair, exit_shares, match
from adaptbench.report.tables import Builder, Column, Table, TableCell
from adaptbench.report.view import Record, RunLike, View
from adaptbench.results.devices import differing
from adaptbench.results.devices import obstacle as devices_obstacle

_NAMED = 6
"""Changes that the lead spells out."""

SECTIONS = {
    "comparable": "What can be compared",
    "counted": "Counted: MACs, accuracy, recovery",
    "sensed": "Sensed: time and energy",
    "exits": "Where inputs leave",
    "cases": "Cases that only one run has",
}


@dataclass(frozen=True, slots=True)
class Difference:
    """Two runs, compared once: for the page and for the terminal.

    Args:
        first, second: A and B. pairs: the cases that both have. left: cases that only A and only B have.
        common: the inputs of each evaluation that both have. findings: counted figures, the largest beyond noise first.
        obstacle: why seconds and joules cannot be compared; empty if they can.
    """

    first: View
    second: View
    pairs: list[Pair]
    left: tuple[list[Record], list[Record]]
    common: list[tuple[Pair, Common]]
    findings: list[compared.Finding]
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
        return cls(first, second, pairs, (only_a, only_b), common, compared.beyond_noise(findings), obstacle)

    def lead(self) -> list[str]:
        """What changed, in sentences, the gravest first."""
        if not self.pairs:
            said = ["No case occurs in both runs, so that nothing can be compared."]
        else:
            changes, matching = self._changes(), self._matching()
            said = [*changes, matching] if any(f.beyond or f.obstacle for f in self.findings) else [matching, *changes]
        said.append(
            f"Seconds and joules cannot be compared: {self.obstacle}."
            if self.obstacle
            else "Seconds and joules come from the same device."
        )
        return said

    def _changes(self) -> list[str]:
        beyond = [finding for finding in self.findings if finding.beyond]
        moved = [finding for finding in self.findings if finding.change]
        broken = dict.fromkeys(f.obstacle for f in self.findings if f.obstacle and f.metric.field != "recovery")
        said = [f"Some figures cannot be compared: {'; '.join(broken)}."] if broken else []
        if beyond:
            more = f"; and {words.plural(len(beyond) - _NAMED, 'more')}" if len(beyond) > _NAMED else ""
            listed = "; ".join(finding.text for finding in beyond[:_NAMED])
            said.append(f"Beyond noise, the largest first: {listed}{more}.")
        if not any(finding.change for finding in self.findings if finding.metric.field == "macs_mean"):
            said.append("The counted cost is the same in every one of them.")
        if len(moved) > len(beyond):
            within = words.plural(len(moved) - len(beyond), "counted figure")
            said.append(f"{within} moved within noise: the 95 % interval over inputs, corrected for {len(moved)}.")
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
        names = [str((view.manifest.get("suite") or {}).get("name") or view.run.path.name) for view in views]
        paths = _told_apart([view.run.path for view in views])
        return html.render(
            "difference.html.j2",
            title=f"{names[0]} and {names[1]}: what differs"
            if names[0] != names[1]
            else f"{names[0]}: what differs between two runs",
            kicker=[f"A {paths[0]}", f"B {paths[1]}"],
            contents=list(SECTIONS.items()),
            names=SECTIONS,
            sources=f"the runs A “{paths[0]}” and B “{paths[1]}”",
            lead=self.lead(),
            facts=_facts(self.first, self.second),
            shift=shift.panels(self.first, self._costs()),
            legend=shift.LEGEND,
            counted=self._counted(("clean", "control", "attack"), "table-counted", "Counted figures of both runs"),
            swept=self._counted(("sweep", "reference"), "table-swept", "Sweeps and references of both runs"),
            sensed=self._sensed(),
            exits=self._exits(),
            only=[(side, [str(r["case"]) for r in left]) for side, left in zip("AB", self.left, strict=True) if left],
            obstacle=self.obstacle,
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

    def _counted(self, kinds: Sequence[str], key: str, caption: str) -> Table | None:
        table = Builder(key, caption, compared.columns(inputs=True))
        table.rows.extend(compared.counted_row(f) for f in self.findings if f.pair.old["kind"] in kinds)
        return table.build() if table.rows else None

    def _sensed(self) -> Table | None:
        table = Builder("table-sensed", "Times and energies of both runs", compared.columns())
        windows = [view.run.windows() for view in (self.first, self.second)]
        for pair in self.pairs:
            if not (pair.old.get("batch_size") and pair.new.get("batch_size")):
                continue
            for metric in compared.SENSED:
                obstacle = self.obstacle or compared.sensor_obstacle(pair.old, pair.new, metric)
                bounds = None if obstacle else compared.window_interval(windows, pair, metric)
                table.rows.append(compared.sensed_row(pair, metric, bounds, obstacle))
        return table.build() if table.rows else None

    def _exits(self) -> Table | None:
        columns = [
            Column("case", numeric=False),
            Column("exit", numeric=False),
            Column("A"),
            Column("B"),
            Column("shift", unit="share"),
        ]
        table = Builder("table-exit-shift", "Exits of both runs", columns)
        for pair, common in self.common:
            shares = None if common.obstacle else exit_shares(common, pair)
            if shares is None or shares[1][0] == shares[1][1]:
                continue
            for name, before, after in zip(shares[0], *shares[1], strict=True):
                change = after - before
                table.add(
                    pair.evaluation,
                    name,
                    *(TableCell(words.percent(share), value=share) for share in (before, after)),
                    TableCell(words.points(change) if change else "none", value=change),
                    kind="changed" if change else "",
                )
        return table.build() if table.rows else None


def _moved(a: View, b: View) -> list[str]:
    """The details of the device that differ; the number of threads in any case."""
    details = [name for name, _, _ in differing(a.manifest.get("device") or {}, b.manifest.get("device") or {})]
    return list(dict.fromkeys([*(name for name in details if name != "name"), "threads"]))


def _facts(a: View, b: View) -> Table:
    columns = [
        Column("", numeric=False),
        Column("A", numeric=False),
        Column("B", numeric=False),
        Column("verdict", numeric=False),
    ]
    table = Builder("table-comparable", "What the two runs are", columns)

    def part(view: View, *path: str) -> str:
        value: Any = view.manifest
        for key in path:
            value = (value or {}).get(key)
        return "" if value is None else str(value)

    lines = [
        ("suite", ("suite", "name"), "cases are matched by model, policy and condition"),
        ("suite sha256", ("suite", "sha256"), "another suite: only cases that both have are compared"),
        ("limit", ("suite", "limit"), "figures are over the inputs that both have"),
        ("device", ("device", "name"), "sensor figures are not comparable"),
        ("fingerprint", ("device", "fingerprint"), "sensor figures are not comparable"),
        *((name, ("device", name), "sensor figures are not comparable") for name in _moved(a, b)),
        ("git revision", ("git", "revision"), "another commit"),
        ("torch", ("versions", "torch"), "crafted inputs may differ"),
        ("started", ("started",), "another time"),
        ("command", ("command",), "another command"),
    ]
    for name, path, verdict in lines:
        old, new = part(a, *path), part(b, *path)
        said = "same" if old == new else verdict
        sides = [
            TableCell(
                words.clip(text, 13) if "sha256" in path or "fingerprint" in path else text or words.DASH, value=text
            )
            for text in (old, new)
        ]
        table.add(name, *sides, said, kind="" if old == new else "changed")
    meters = sorted({*(a.manifest.get("meters") or {}), *(b.manifest.get("meters") or {})})
    for meter in meters:
        answers = [((view.manifest.get("meters") or {}).get(meter) or {}).get("found") for view in (a, b)]
        states = ["answered" if one else "silent" if one is False else "not asked" for one in answers]
        same = states[0] == states[1]
        table.add(
            f"meter {meter}",
            *states,
            "same" if same else "its figures are not comparable",
            kind="" if same else "changed",
        )
    return table.build()


def _told_apart(paths: Sequence[Path]) -> list[str]:
    """Names of two directories: as many of their last folders as tell them apart."""
    most = max(len(path.parts) for path in paths)
    for depth in range(1, most + 1):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [path.name for path in paths]
