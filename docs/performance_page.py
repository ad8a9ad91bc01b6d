"""Write the tables of docs/performance.md from two files in benchmarks/; a test holds them and the page together.

python docs/performance_page.py
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "benchmarks" / "performance.json"
HALF = ROOT / "benchmarks" / "half_precision.json"
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- figures: written by docs/performance_page.py -->", "<!-- end of figures -->"
BEGIN_HALF, END_HALF = "<!-- bf16: written by docs/performance_page.py -->", "<!-- end of bf16 -->"
STEPS = {"bare ÷ ours": 0.9, "pgd ÷ ours": 1.0, "pgd on the path taken ÷ ours": None}
EFFICIENCY = {"digits": {"1": 0.6, "32": 0.75, "256": 0.85}, "cifar10": {"1": 0.9, "32": 0.95, "256": 0.95}}
TWICE = 2.0
"""Steps in bf16 over steps of PGD in fp32, at least."""
RUNNER = 1.02
LARGE = 10_000_000
"""MACs from which on the runner is held to its aim."""
INSTEAD = ("all exits, then choose", "slowest in the batch", "compacted", "queues", "written out for one sample")
GROUPS = ("node", "policy", "hand-over", "restored order", "python")


def told(ratio: dict[str, float] | None, digits: int = 2) -> str:
    """Median by CPU time and the extremes over blocks."""
    if ratio is None:
        return "–"
    return f"{ratio['cpu']:.{digits}f} ({ratio['min']:.{digits}f} to {ratio['max']:.{digits}f})"


def held(yes: bool | None) -> str:
    return "–" if yes is None else "yes" if yes else "**no**"


def verdict(ratio: dict[str, float], aim: float | None, *, most: bool = False) -> str:
    """Whether every block keeps an aim, none does, or both are seen. most: the aim is not to be passed."""
    if aim is None:
        return "–"
    worst, best = (ratio["max"], ratio["min"]) if most else (ratio["min"], ratio["max"])
    keeps = [(end <= aim) if most else (end >= aim) for end in (worst, best)]
    return held(keeps[0]) if keeps[0] == keeps[1] else "cannot tell"


def steps(systems: dict[str, Any]) -> list[str]:
    lines = [
        "| system | attack | ms a step | compared with | steps a second, ours ÷ theirs | by the wall | aim | held |",
        "|---|---|---|---|---|---|---|---|",
    ]
    names = {
        "bare ÷ ours": "bare loop",
        "pgd ÷ ours": "torchattacks PGD, every exit run",
        "pgd on the path taken ÷ ours": "torchattacks PGD, path taken only",
        "bare ÷ ours, whole craft of 30 steps": "bare loop of 30 steps, our whole craft",
    }
    for system, rows in systems.items():
        if (attack := rows.get("attack")) is None:
            continue
        for key, name in names.items():
            ratio, aim = attack[key], STEPS.get(key)
            lines.append(
                f"| {system} | {attack['attack']}, {attack['pictures']} pictures | {attack['step_ms']:.1f} | {name} | "
                f"{told(ratio)} | {ratio['wall']:.2f} | {'–' if aim is None else f'≥ {aim:g}'} | "
                f"{verdict(ratio, aim)} |"
            )
    return lines


def runner(systems: dict[str, Any]) -> list[str]:
    lines = [
        "| system | MACs of the plain net | pictures | runner ÷ bare loop | aim | held |",
        "|---|---|---|---|---|---|",
    ]
    for system, rows in systems.items():
        if (of := rows.get("runner")) is None:
            continue
        large = rows["macs_full"] >= LARGE
        ratio = of["runner ÷ bare"]
        lines.append(
            f"| {system} | {rows['macs_full'] / 1e6:.1f} M | {of['samples']} | {told(ratio, 3)} | "
            f"{f'≤ {RUNNER:g}' if large else '–'} | {verdict(ratio, RUNNER if large else None, most=True)} |"
        )
    return lines


def executor(systems: dict[str, Any]) -> list[str]:
    lines = [
        "| system | batch | mode | calls | parts ÷ call | aim | held | parts ÷ `infer`, with checks and records |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for system, rows in systems.items():
        for size, mode, aim, ratio in cells(system, rows):
            recorded = rows["executor"][size].get("compacted, with checks and records") if mode == "compacted" else None
            lines.append(
                f"| {system} | {size} | {mode} | {ratio['calls']} | {told(ratio, 3)} | ≥ {aim:g} | "
                f"{verdict(ratio, aim)} | {told(recorded)} |"
            )
    return lines


def cells(system: str, rows: dict[str, Any]) -> Iterator[tuple[str, str, float, dict[str, Any]]]:
    """Batch size, mode, aim and ratio of each executed cell."""
    for size, modes in rows["executor"].items():
        aim = EFFICIENCY[system.partition("/")[0]][size]
        for mode in ("compacted", "queues"):
            if mode in modes:
                yield size, mode, aim, modes[mode]


def profiles(systems: dict[str, Any]) -> list[str]:
    """Where the time of a call goes, of the cells that are not shown to keep their aim."""
    lines = [
        "| system | batch | mode | µs a sample | " + " | ".join(GROUPS) + " | calls of torch by the executor |",
        "|---|---|---|---|" + "---|" * len(GROUPS) + "---|",
    ]
    for system, rows in systems.items():
        for size, mode, aim, ratio in cells(system, rows):
            if (shares := ratio.get("profile")) and verdict(ratio, aim) != "yes":
                lines.append(
                    f"| {system} | {size} | {mode} | {ratio['call_us']:.0f} | "
                    + " | ".join(f"{100 * max(shares[group], 0):.1f} %" for group in GROUPS)
                    + f" | {shares['calls of torch']:.0f} |"
                )
    return lines if len(lines) > 2 else []


def instead(systems: dict[str, Any]) -> list[str]:
    lines = [
        "| system | batch | MACs ÷ plain net | " + " | ".join(INSTEAD) + " |",
        "|---|---|---|" + "---|" * len(INSTEAD),
    ]
    for system, rows in systems.items():
        for size, arms in rows.get("instead", {}).items():
            lines.append(
                f"| {system} | {size} | {arms['macs']:.2f} | "
                + " | ".join(told(arms.get(arm)) for arm in INSTEAD)
                + " |"
            )
    return lines


def conclusion(systems: dict[str, Any]) -> list[str]:
    """In how many cells the compacted pass is faster than each of the others, by every block of both together."""
    told_of = []
    for other in ("all exits, then choose", "slowest in the batch", "written out for one sample"):
        ratios = {
            f"{system}/{size}": ratio
            for system, rows in systems.items()
            for size, arms in rows.get("instead", {}).items()
            if (ratio := arms.get(f"compacted ÷ {other}"))
        }
        if ratios:
            faster = sum(ratio["max"] < 1 for ratio in ratios.values())
            slower = [name for name, ratio in ratios.items() if ratio["min"] > 1]
            of = f"*{other}*: faster in {faster} of {len(ratios)} cells"
            told_of.append(of + (f", slower in {', '.join(slower)}" if slower else ", slower in none"))
    if not told_of:
        return []
    return [
        f"Compacted, beside each, where every block says the same. {'; '.join(told_of)}. In the others blocks differ."
    ]


def figures(found: dict[str, Any]) -> str:
    systems = found["systems"]
    own_files = " with changes that are in no commit" if found.get("dirty") else ""
    parts = [
        f"Commit `{found['commit'][:9]}`{own_files}, {found['date']}, {found['device']['cpu']}, one thread, "
        f"{found['blocks']} blocks (executor and runner twice as many), torch {found['versions']['torch']}. "
        f"{_company(found)} Ratios are of "
        "CPU time, median and extremes over blocks; the wall's clock stands beside the steps.",
        "## Attack steps",
        *_table(steps(systems)),
        "## The runner",
        *_table(runner(systems)),
        "## The executor",
        *_table(executor(systems)),
        *_profiled(profiles(systems)),
        "## What others do",
        "Time ÷ time of the plain net on the same pictures; below 1 saves.",
        *_table(instead(systems)),
        *conclusion(systems),
    ]
    return "\n\n".join(parts)


def half(found: dict[str, Any]) -> str:
    """Steps in bf16, and what `standard` finds by them."""
    names = {
        "pgd ÷ bf16": "torchattacks PGD in fp32, every exit run",
        "fp32 ÷ bf16": "the same attack in fp32",
        "bare fp32 ÷ bf16": "bare loop in fp32",
        "bare bf16 ÷ bf16": "bare loop in bf16",
    }
    lines = [
        "| system | attack | ms a step of the batch, fp32 | bf16 | compared with "
        "| steps a second, ours in bf16 ÷ theirs | by the wall | aim | held |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    crafted = [
        "| system | attack | pictures | in fp32 takes back | in bf16 | bf16 less fp32, points | equal within it "
        "| steps taken | CPU s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for system, parts in found["systems"].items():
        rows = parts.get("steps")
        for key, name in names.items() if rows else ():
            ratio, aimed = rows[key], key == "pgd ÷ bf16"
            lines.append(
                f"| {system} | {rows['attack']}, {rows['pictures']} pictures | {rows['step_ms']['fp32']:.0f} | "
                f"{rows['step_ms']['bf16']:.0f} | {name} | {told(ratio)} | {ratio['wall']:.2f} | "
                f"{f'≥ {TWICE:g}' if aimed else '–'} | {verdict(ratio, TWICE if aimed else None)} |"
            )
        if (both := parts.get("standard")) is None:
            continue
        full, short, apart = both["fp32"], both["bf16"], both["bf16 − fp32"]
        shares = [f"{100 * one['recovery']:.1f} %" for one in (full, short)]
        more = f"{100 * apart['value']:.1f} [{100 * apart['low']:.1f}, {100 * apart['high']:.1f}]".replace("-", "−")
        crafted.append(
            f"| {system} | standard at {both['eps']} | {both['pictures']} | {shares[0]} | {shares[1]} | {more} | "
            f"{held(apart['low'] <= 0 <= apart['high'])} | {full['steps']} / {short['steps']} | "
            f"{full['cpu_s']:.0f} / {short['cpu_s']:.0f} |"
        )
    start = (
        f"Commit `{found['commit'][:9]}`, {found['date']}, {found['device']['cpu']}, one thread, torch "
        f"{found['versions']['torch']}. {_company(found)}"
    )
    return "\n\n".join([start, "\n".join(lines), "\n".join(crafted)])


def _company(found: dict[str, Any]) -> str:
    """Who else was there."""
    return (
        f"Load of the machine: {found['load_before']:.1f} before, {found['load_after']:.1f} after, of which 1 is this "
        "script's own."
    )


def _profiled(lines: list[str]) -> list[str]:
    return (
        ["Where the time of a call goes, of the cells above that are not shown to hold:", *_table(lines)]
        if lines
        else []
    )


def _table(lines: list[str]) -> list[str]:
    return ["\n".join(lines)]


def page(text: str, found: dict[str, Any], short: dict[str, Any]) -> str:
    """The text with both sets of figures as their files have them."""
    for begin, end, written in ((BEGIN, END, figures(found)), (BEGIN_HALF, END_HALF, half(short))):
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n\n{written}\n\n{end}{rest.partition(end)[2]}"
    return text


def read(place: Path) -> dict[str, Any]:
    """A benchmark's file."""
    made: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
    return made


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), read(SOURCE), read(HALF)), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE}\n")
