"""Does a bundle hold? Files against their hashes, figures against rows, rows against the net: nothing is crafted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from adaptbench.adaptive import AdaptiveModel, Split
from adaptbench.auditing import bundle, plain
from adaptbench.auditing.audit import Audit
from adaptbench.auditing.findings import at_rest
from adaptbench.auditing.grounds import ground_told
from adaptbench.auditing.replayed import NET, Again, again_of, mended, replay
from adaptbench.auditing.target import Pictures
from adaptbench.errors import AdaptBenchError
from adaptbench.experiment.keys import model_hash
from adaptbench.experiment.progress import Progress, Silent
from adaptbench.report import words
from adaptbench.results.audits import audit_figures, differing, tried
from adaptbench.results.metrics import CostBounds, summarise
from adaptbench.results.store import Run
from adaptbench.version import __version__

HELD, BROKEN, OPEN = 0, 1, 3
HEADLINES = ("accuracy", "saving", "recovery", "recovery_seen")
ELSEWHERE = ("efficacy_trapezoid", "macs_budget", "budget_violation")
"""Figures of a record that hang on what only the net or its policy knows."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was compared.

    Args:
        what: it was. holds: None where it cannot be told. seen: what was seen, in a sentence.
    """

    what: str
    holds: bool | None
    seen: str


@dataclass(frozen=True, slots=True)
class Verification:
    """What holds of a bundle, and what does not. ``print(verification)`` says it.

    Args:
        path: the bundle. findings: in the order in which they were made.
    """

    path: Path
    findings: tuple[Finding, ...]

    @property
    def exit_code(self) -> int:
        """0 all holds, 1 something does not, 3 something cannot be told."""
        holds = [finding.holds for finding in self.findings]
        return BROKEN if False in holds else OPEN if None in holds else HELD

    def __str__(self) -> str:
        said = {True: "holds   ", False: "DIFFERS ", None: "unknown "}
        lines = [f"{said[f.holds]}{f.what}: {f.seen}" for f in self.findings]
        wrong = sum(f.holds is False for f in self.findings)
        untold = sum(f.holds is None for f in self.findings)
        end = {
            HELD: "all holds",
            BROKEN: f"{words.plural(wrong, 'thing')} of {len(lines)} {'does' if wrong == 1 else 'do'} not hold",
            OPEN: f"{words.plural(untold, 'thing')} of {len(lines)} could not be told",
        }
        return "\n".join([*lines, "", end[self.exit_code]])


def verify(
    path: str | Path,
    model: str | AdaptiveModel | None = None,
    *,
    data: str | Split | Pictures | None = None,
    allow_imports: bool = False,
    data_root: Path | None = None,
    download: bool = False,
    zoo: Path | None = None,
    refit: bool = False,
    on_progress: Progress | None = None,
) -> Verification:
    """Compare a bundle with itself and with the net that it speaks of.

    Args:
        path: the bundle.
        model: as for `audit`; None for the registered one that the bundle names, if it names one.
        data: as for `audit`; None for what the bundle names or holds.
        allow_imports: a factory's file may be run. data_root, download, zoo: where data and checkpoints are.
        refit: fit the policy once more, in place of the bundle's own.
        on_progress: told of each stretch of work.

    Raises:
        RunError: it is no bundle. UsageError: no such factory, one without `allow_imports`, or nothing to refit.
    """
    place = Path(path)
    wrong = bundle.altered(place)
    found = [Finding("files", False, sentence) for sentence in wrong] or [_all_files(place)]
    audit: Audit | None = None
    try:
        audit = Audit.open(place)
        run = Run.open(place / bundle.RUN)
        found += _from_rows(audit, run)
    except (AdaptBenchError, LookupError, TypeError, ValueError) as error:
        if audit is None and not wrong:
            raise
        said = error.seen if isinstance(error, AdaptBenchError) else f"{type(error).__name__}: {error}"
        seen = (
            f"what is altered cannot be read any further: {said}" if wrong else f"made anew were only the sums: {said}"
        )
        return Verification(place, (*found, Finding("figures", None if wrong else False, seen)))
    again = again_of(
        audit, model, data, allow_imports=allow_imports, data_root=data_root, download=download, zoo=zoo, refit=refit
    )
    if again.policy is not None:
        found.append(Finding("the policy", again.policy.holds, again.policy.seen))
    if again.model is None:
        found.append(Finding(NET, None, again.why))
        return Verification(place, tuple(found))
    with at_rest(again.model):
        found += _with_the_net(audit, run, again, on_progress or Silent())
    return Verification(place, tuple(found))


def _all_files(place: Path) -> Finding:
    amount = words.plural(len(bundle.files_in(place)), "file")
    return Finding("files", True, f"{amount}, each as in {bundle.SUMS}, whose own SHA-256 is {bundle.digest_of(place)}")


def _from_rows(audit: Audit, run: Run) -> list[Finding]:
    """The figures of the summary, worked out again from the rows that lie beside it."""
    told, net = audit.summary["model"], next(iter(run.manifest["models"].values()))
    bounds = CostBounds(told["min_macs"], told["max_macs"], told["macs_full"], tuple(net["exit_names"]))
    conditions = tried(run.cases)
    figures = audit_figures(run.samples(), conditions, bounds, seed=audit.summary["seed"])
    off = differing(audit.figures, figures)
    frames = {c.condition: run.samples([c.evaluation]) for c in conditions}
    for case in run.cases:
        if case["n"]:
            clean = None if case["kind"] == "clean" else frames["clean"]
            known = replace(bounds, seen=figures["macs_seen"])
            whole = summarise(frames[case["condition"]], clean, known, seed=case["seed"] or 0)
            anew = {name: value for name, value in whole.items() if not name.startswith(ELSEWHERE)}
            kept = {name: case.get(name) for name in anew}
            off += [f"run/{case['condition']}.{name}" for name in differing(kept, anew)]
    found = [
        Finding("figures from the rows", False, f"{_some(off)} are not what the rows give")
        if off
        else Finding("figures from the rows", True, "every figure of the summary is what the rows give")
    ]
    if audit.summary["versions"].get("adaptbench") == __version__:
        said = (audit.path / bundle.WORDS).read_text(encoding="utf-8", errors="replace")
        same = said == plain.page(audit.summary)
        seen = f"{bundle.WORDS} says what the summary says" if same else f"{bundle.WORDS} is not of this summary"
        found.append(Finding("words", same, seen))
    return found


def _some(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _with_the_net(audit: Audit, run: Run, again: Again, progress: Progress) -> list[Finding]:
    model, told, many = again.model, audit.summary["model"], ground_told(audit.summary).many
    assert model is not None
    now = model_hash(model)
    found = [
        Finding(NET, True, f"weights, settings, policy and code are those of {now}")
        if now == told["sha256"]
        else Finding(NET, False, f"it is another one: its hash is {now}, the audited one's is {told['sha256']}")
    ]
    costs = {name: getattr(model, name) for name in ("min_macs", "max_macs", "macs_full")}
    if off := differing({name: told[name] for name in costs}, costs):
        seen = ", ".join(f"{name} is {costs[name]}, was {told[name]}" for name in off)
        found.append(Finding("costs of its paths", False, seen))
    if again.split is None:
        found.append(Finding(many, None, again.why))
    else:
        same, seen = again.split.sha256 == audit.summary["data"]["sha256"], f"SHA-256 {again.split.sha256}"
        other = f"{seen}, the audited ones have {audit.summary['data']['sha256']}"
        found.append(Finding(many, same, seen if same else other))
    conditions, frames = tried(run.cases), []
    progress.begin(f"evaluating the crafted {many} again", len(conditions))
    for i, condition in enumerate(conditions):
        frame, holds, seen = replay(audit, run, again, condition)
        found.append(Finding(condition.condition, holds, seen))
        frames.append(frame)
        progress.advance(i + 1)
    progress.end()
    return [*found, *_figures_again(audit, run, again, frames)]


def _figures_again(audit: Audit, run: Run, again: Again, frames: list[Any]) -> list[Finding]:
    """Which figures hold on the rows as they are now; ties count as they fell then."""
    import pandas as pd

    if any(frame is None for frame in frames):
        return [Finding("figures", None, "some conditions could not be run again")]
    assert again.model is not None
    bounds = CostBounds(again.model.min_macs, again.model.max_macs, again.model.macs_full, again.model.exit_names)
    stored = run.samples()
    figures = audit_figures(
        pd.concat([mended(frame, stored) for frame in frames], ignore_index=True),
        tried(run.cases),
        bounds,
        seed=audit.summary["seed"],
    )
    off = differing(audit.figures, figures)
    found = []
    for name in HEADLINES:
        was, now = audit.figures[name], figures[name]
        if was is None and now is None:
            continue
        holds = not any(other == name or other.startswith(f"{name}.") for other in off)
        seen = _percent(was) if holds else f"it is {_percent(now)}, the bundle says {_percent(was)}"
        found.append(Finding(name.replace("_", " "), holds, seen))
    rest = [name for name in off if name.partition(".")[0] not in HEADLINES]
    told = "every other figure" if not rest else f"{_some(rest)} differ"
    return [*found, Finding("other figures", not rest, told)]


def _percent(estimate: dict[str, float] | None) -> str:
    if estimate is None:
        return words.DASH
    ends = np.array([estimate["low"], estimate["high"]], dtype=float)
    return f"{words.percent(estimate['value'])} {words.interval([float(e) for e in ends])}".rstrip()
