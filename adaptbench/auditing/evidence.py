"""Checks after the run: did the attacks do what they say, and do the controls leave their figures standing?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adaptbench.auditing.findings import Check
from adaptbench.auditing.grounds import PICTURES, TEXT, Ground
from adaptbench.report import words
from adaptbench.results.schema import Record
from adaptbench.results.store import Run

HALF_LEVEL = 0.5 / 255
"""Pictures are on the 8-bit grid, so that what is outside is outside by a grey level."""
CHANCE = {"noise": 0.05, "noise-sign": 0.10, "series-noise": 0.10, "words-random": 0.10}
"""What a control may take back before the clean figures say little."""
HELD = {
    "pictures": "eps after rounding to 8 bits",
    "text": "its share of words, counted anew from the ids",
    "series": "eps in the series' own unit",
}
APART = 0.05
"""Recoveries against the structural and the seen maximum that differ by more are told apart in a doubt."""


def evidence(run: Run, figures: Record, skipped: Sequence[Mapping[str, Any]], ground: Ground = PICTURES) -> list[Check]:
    """All of them.

    Args:
        run: of the bench. figures: of `results.audits`. skipped: conditions that do not apply to the net.
        ground: of the inputs.
    """
    found = [_whole(run), _ran(figures, skipped), _in_the_ball(run, ground), _controls(figures), _search(run, figures)]
    return [*found, _paths(figures), _answers(run, figures)]


def _whole(run: Run) -> Check:
    failed = [f"{case['condition']} ({case['failed']})" for case in run.cases if case.get("failed")]
    if failed:
        return Check("every case ran", "cannot be trusted", f"the audit is incomplete; failed: {'; '.join(failed)}")
    return Check("every case ran", "ok", f"{words.plural(len(run.cases), 'case')}, none failed")


def _ran(figures: Record, skipped: Sequence[Mapping[str, Any]]) -> Check:
    name = "attacks that apply"
    not_run = "; ".join(f"{case['condition']}: {case['reason']}" for case in skipped)
    if not any(case["kind"] == "attack" for case in figures["conditions"].values()):
        return Check(name, "cannot be trusted", f"no attack was run ({not_run or 'none succeeded'})")
    return Check(name, "doubt" if skipped else "ok", f"not run: {not_run}" if skipped else "all that were asked for")


def _in_the_ball(run: Run, ground: Ground) -> Check:
    bound = "budget" if ground is TEXT else "ball"
    name, outside, bounded = f"crafted {ground.many} inside their {bound}", [], 0
    for case in run.cases:
        if case["kind"] not in ("control", "attack") or not case["n"]:
            continue
        settings = run.manifest["conditions"][case["condition"]]["settings"]
        eps = settings.get("eps")
        beyond = (case.get("craft_details") or {}).get("outside_constraint", 0)
        if not ground.bounds(settings):
            pass
        elif ground is not PICTURES:
            bounded += 1
        elif isinstance(eps, int | float):
            bounded += 1
            if case["linf_max"] > eps + HALF_LEVEL:
                outside.append(f"{case['condition']} moves a value by {words.eps(case['linf_max'])}")
                continue
        if beyond:
            outside.append(f"{case['condition']} leaves it with {words.plural(beyond, ground.one, ground.many)}")
    if outside:
        return Check(name, "cannot be trusted", f"{'; '.join(outside)}: its figures are not of this threat model")
    return Check(name, "ok", f"{words.plural(bounded, 'condition')} held to {HELD[ground.kind]}")


def _controls(figures: Record) -> Check:
    name, conditions = "controls", figures["conditions"]
    controls = {k: c["recovery"] for k, c in conditions.items() if c["kind"] == "control" and c["recovery"]}
    told = ", ".join(f"{control} takes back {words.percent(r['value'])}" for control, r in controls.items())
    worst = figures["recovery"]
    if worst is not None and any(r["value"] >= worst["value"] > 0 for r in controls.values()):
        return Check(name, "cannot be trusted", f"{told}: as much as the attacks, which found nothing beyond chance")
    if any(r["value"] > CHANCE.get(control, 0.05) for control, r in controls.items()):
        return Check(
            name,
            "doubt",
            f"{told}: chance alone makes the net dearer, so the clean saving is that of clean inputs only",
        )
    return Check(name, "ok", told or "there is no saving that they could take back")


def _search(run: Run, figures: Record) -> Check:
    name = "the search"
    said = [
        f"{case['condition']}: {note}"
        for case in run.cases
        for note in (case.get("craft_details") or {}).get("notes") or []
    ]
    worst = figures["recovery"]
    if worst is not None and worst["value"] <= 0:
        said.append("no attack took anything back: a weak attack is no proof of a strong net")
    if said:
        return Check(name, "doubt", "; ".join(said))
    return Check(name, "ok", "no attack reported masked gradients or a spent budget")


def _paths(figures: Record) -> Check:
    name = "the dearest path"
    share = figures["macs_seen"] / figures["macs_max"]
    structural, seen = figures["recovery"], figures["recovery_seen"]
    if share >= 1:
        return Check(name, "ok", f"reached, under {figures['seen_in']}")
    told = f"never seen: the dearest input ({figures['seen_in']}) cost {words.percent(share)} of it"
    if structural and seen and seen["value"] - structural["value"] > APART:
        return Check(
            name,
            "doubt",
            f"{told}; against the dearest path seen the recovery is {words.percent(seen['value'])}, against the "
            f"structural one {words.percent(structural['value'])}",
        )
    return Check(name, "ok", told)


def _answers(run: Run, figures: Record) -> Check:
    name, accuracy = "the net answers", figures["accuracy"]
    ((_, data),) = run.manifest["data"].items()
    chance = 1 / data["n_classes"]
    if accuracy["low"] is not None and accuracy["low"] <= chance:
        return Check(
            name,
            "cannot be trusted",
            f"{words.percent(accuracy['value'])} right, chance is {words.percent(chance)}: cost without answers",
        )
    if figures["saving"]["value"] <= 0:
        return Check(name, "doubt", "it saves nothing on clean inputs, so there is nothing that can be taken away")
    return Check(name, "ok", f"{words.percent(accuracy['value'])} right, chance is {words.percent(chance)}")
