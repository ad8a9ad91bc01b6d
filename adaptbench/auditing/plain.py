"""AUDIT.md: what was audited, against whom, what was found and not tried, in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adaptbench.attacks import list_attacks, load_attack
from adaptbench.attacks.catalogue import LATEST
from adaptbench.auditing import shown
from adaptbench.auditing.bundle import INPUTS, PAGE, RUN, SUMMARY, SUMS
from adaptbench.auditing.grounds import PICTURES, SERIES, TEXT, Ground, ground_told, threat
from adaptbench.errors import AdaptBenchError
from adaptbench.report import words

Summary = Mapping[str, Any]

KNOWS = {
    "white-box": "sees the net: weights, policy, gradients",
    "black-box": "asks the deployed net for its cost and sees nothing else",
    "transfer": "works on another net ({surrogate}) and never asks this one",
    "none": "does not look at the net at all",
}
NEVER = (
    "time and joules: cost is executed MACs, which is what an attacker drives and a clock follows",
    "what one attacked input does to the others of its batch",
    "poisoned training data, altered weights, and attackers who choose the policy",
)


def not_tried(tried: list[str], ground: Ground = PICTURES) -> list[str]:
    """Recipes for such inputs that were not run, then what no recipe does, a line each."""
    named = {LATEST.get(name, name) for name in tried}
    rest = sorted(
        listed.name for listed in list_attacks() if listed.name not in named and _ground(listed.name) is ground
    )
    return [*([f"recipes that were not run: {', '.join(rest)}"] if rest else []), *NEVER, *ground.never]


def _ground(recipe: str) -> Ground:
    try:
        settings = load_attack(recipe).settings
    except AdaptBenchError:  # a broken file of somebody's own beside the shipped ones
        return PICTURES
    return next((ground for ground in (TEXT, SERIES) if ground.bounds(settings)), PICTURES)


def page(summary: Summary) -> str:
    """The whole file."""
    parts = [
        _what(summary),
        _against(summary),
        _found(summary),
        _checked(summary),
        _left_out(summary),
        _verify(summary),
    ]
    return "\n".join([f"# Audit of {summary['model']['name']} on {summary['data']['name']}", "", *parts])


def _what(summary: Summary) -> str:
    model, data = summary["model"], summary["data"]
    ground = ground_told(summary)
    kept = f"; they lie in `{INPUTS}`" if data["stored"] else ""
    lines = [
        "## What was audited",
        "",
        f"- Net: {model['title']}. Shape {model['shape']}, policy {model['policy']}, from {model['source']} "
        f"`{model['spec']}`.",
        f"- Its hash, over weights, settings, policy and foreign code: `{model['sha256']}`.",
        f"- Cost of a {ground.one}: {words.macs(model['min_macs'])} MACs on the cheapest path, "
        f"{words.macs(model['max_macs'])} on the dearest, {words.macs(model['macs_full'])} for the static net.",
        f"- {ground.many.capitalize()}: the first {words.count(summary['figures']['n'])} of the {data['split']} split "
        f"of {data['name']}, SHA-256 `{data['sha256']}`{kept}.",
        f"- adaptbench {summary['versions']['adaptbench']}, torch {summary['versions'].get('torch', '?')}, seed "
        f"{summary['seed']}; everything else about the machine is in `{RUN}/manifest.json`.",
        "",
    ]
    return "\n".join(lines)


def _against(summary: Summary) -> str:
    lines = [
        "## Threat model",
        "",
        threat(summary),
        "",
    ]
    for name, condition in summary["conditions"].items():
        if condition["kind"] == "clean":
            continue
        lines.append(f"- **{name}**: {condition['summary']}. It {_knows(condition)}.")
        if condition["cite"]:
            lines[-1] += f" {condition['cite']}."
        lines += [f"  - deviates: {line}" for line in condition["deviates"]]
    return "\n".join([*lines, ""])


def _knows(condition: Mapping[str, Any]) -> str:
    if condition["access"] == "black-box" and "logits" in str(condition.get("settings", {}).get("returns")):
        return "asks the deployed net for its cost and the logits of its answer, and sees nothing else"
    return KNOWS[condition["access"]].format(surrogate=condition.get("settings", {}).get("surrogate", "of its own"))


def _found(summary: Summary) -> str:
    figures, ground = summary["figures"], ground_told(summary)
    worst = figures["worst"]
    lines = [
        "## Figures",
        "",
        "```",
        shown.table(summary),
        "```",
        "",
        f"- Clean: {shown.share(figures['accuracy'])} right, {shown.share(figures['saving'])} of the static net's MACs "
        "saved.",
    ]
    if worst is not None:
        lines.append(
            f"- Worst attack: **{worst}** takes back {shown.share(figures['recovery'])} of the way to the dearest "
            f"path, {shown.share(figures['recovery_seen'])} of the way to the dearest cost that any input had "
            f"({words.macs(figures['macs_seen'])}, {figures['seen_in']})."
        )
    lines += [
        f"- {name}: {shown.share(c['answers_kept'])} of the answers are those of the clean {ground.many}."
        for name, c in figures["conditions"].items()
        if c["kind"] == "attack" and c["answers_kept"]
    ]
    return "\n".join([
        *lines,
        "",
        "*Takes back* is (attacked − clean) / (dearest − clean), a ratio of mean MACs; in brackets the 95 % interval "
        f"of a bootstrap over {ground.many}. p99 and CVaR 5 % are of a {ground.one}'s MACs: the 99th percentile, and "
        "the mean of the dearest twentieth. A figure says what these attacks found, never that no other finds more.",
        "",
    ])  # fmt: skip


def _checked(summary: Summary) -> str:
    broken = [c for c in summary["checks"] if c["level"] == "cannot be trusted"]
    verdict = "The figures above cannot be trusted where a check says NOT." if broken else ""
    lines = shown.checks(summary["checks"], all_of_them=True)
    return "\n".join(["## Checks", "", *([verdict, ""] if verdict else []), "```", *lines, "```", ""])


def _left_out(summary: Summary) -> str:
    skipped = [f"{case['condition']}: {case['reason']}" for case in summary["skipped"]]
    return "\n".join(["## What was not tried", "", *(f"- {line}." for line in [*skipped, *summary["not_tried"]]), ""])


def _verify(summary: Summary) -> str:
    model, data = summary["model"], summary["data"]
    named = model["spec"] if model["source"] != "object" else "package.module:factory"
    words_ = ["adaptbench", "verify", "DIR", "--model", named]
    if model["source"] != "registry":
        words_.append("--allow-imports")
    if not data["stored"]:
        words_ += ["--data", data["name"]]
    return "\n".join([
        "## How to verify it",
        "",
        "```",
        " ".join(words_),
        "```",
        "",
        f"It compares every file with `{SUMS}`, runs the crafted {ground_told(summary).many} through the net once more "
        f"(nothing is crafted) and works the figures of `{SUMMARY}` out again. `{PAGE}` opens offline; "
        f"`{RUN}` is an ordinary run directory.",
        "",
    ])  # fmt: skip
