"""Write the figures of docs/scale.md from benchmarks/scale.json; a test holds the page and the file together.

python docs/scale_page.py
"""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent / "scale.md"
SOURCE = Path(__file__).parent.parent / "benchmarks" / "scale.json"
BEGIN, END = "<!-- by docs/scale_page.py -->\n", "<!-- end -->\n"
IMAGES, CHUNK = 50_000, 500
WORKERS = (1, 8, 64)
MIB, GIB = 2**20, 2**30


def standard_steps() -> int:
    """Steps of `standard` on a net with exits, an input at most."""
    from adaptbench.attacks.catalogue import LATEST
    from adaptbench.located_yaml import read

    members = read(PAGE.parent.parent / "attacks" / f"{LATEST['standard']}.yaml").value["members"]
    return sum(_length(member) for member in members if member.get("on", "exits") == "exits")


def _length(member: dict[str, Any]) -> int:
    (settings,) = member["search"].values()
    return int(settings["steps"])


def hours(seconds: float) -> str:
    """Seconds in the unit that suits them."""
    for size, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}" if seconds >= 10 * size else f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def imagenet(found: dict[str, Any], steps: int) -> list[str]:
    """Time of `standard` on ImageNet's validation pictures by the number of workers, from a measured step."""
    step, shard = found["steps"]["step_cpu_s"], found["shards"]
    piece = CHUNK * steps * step
    bytes_of = CHUNK * 3 * 224 * 224
    moved = shard["piece_wall_s"] * bytes_of / shard["piece_bytes"]
    told = (
        f"A step of an attack on one picture of 224 × 224 took {1000 * step:.0f} ms of CPU on one core of "
        f"{device(found)} (a ResNet-50 with four exits, {found['steps']['macs_full'] / 1e9:.2f} GMACs). "
        f"`standard` makes {steps} steps an input at most, so that {CHUNK} pictures, a chunk, are {hours(piece)} of a "
        f"core, beside which the {hours(moved)} that moving its pictures through Ray takes are nothing. On paper, "
        f"{spaced(IMAGES)} pictures:"
    )
    lines = [
        *filled(told),
        "",
        "| steps a second and worker | " + " | ".join(f"{n} worker{'s' if n > 1 else ''}" for n in WORKERS) + " |",
        "|---|" + "---:|" * len(WORKERS),
    ]
    for name, rate in (
        (f"{1 / step:.1f} (this core)", 1 / step),
        ("500 (suppose a GPU)", 500.0),
        ("2 000 (suppose a larger one)", 2000.0),
    ):
        cells = " | ".join(hours(IMAGES * steps / rate / n) for n in WORKERS)
        lines.append(f"| {name} | {cells} |")
    chunks = IMAGES // CHUNK
    end = (
        "The rows of GPUs are arithmetic, not measurements: `python benchmarks/scale.py steps --device cuda` "
        f"measures the rate of a card. There are {chunks} chunks, so that of more workers than that some have none; "
        "a smaller `chunk` makes more of them."
    )
    return [*lines, "", *filled(end)]


def spaced(n: int) -> str:
    return f"{n:,}".replace(",", " ")


def filled(text: str) -> list[str]:
    return textwrap.wrap(text, 140, break_long_words=False, break_on_hyphens=False)


def device(found: dict[str, Any]) -> str:
    return str(found["device"]["name"])


def figures() -> str:
    found = json.loads(SOURCE.read_text(encoding="utf-8"))
    shard, store, page, study = (found[name] for name in ("shards", "store", "page", "study"))
    rows = [
        ("a cluster of this machine's cores starts", hours(shard["start_wall_s"]), ""),
        ("its first two workers import torch and have a net of 3.6 MB sent", hours(shard["first_wall_s"]), ""),
        (f"{CHUNK} CIFAR pictures there and back, a chunk", f"{1000 * shard['piece_wall_s']:.0f} ms", ""),
        ("the same on the local engine", f"{1000 * shard['local_piece_wall_s']:.1f} ms", ""),
    ]
    n = store["large"]["records"]
    by_policy = study["replay_cpu_s_each"]
    cheap, dear = min(by_policy, key=by_policy.get), max(by_policy, key=by_policy.get)
    bound = study["policies"] * study["log_bytes"] / study["read_bytes_per_s"]
    both, samples = page["run"]["records"] // 2, f"{spaced(study['samples'])} × {study['exits']} × {study['classes']}"
    less = spaced(store["small"]["records"])
    walls = page["report"]["report_wall_s"] + page["check"]["check_wall_s"]
    large = [
        (
            "records a second into the store",
            f"{store['records_per_cpu_s'] / 1e6:.2f} M",
            "≥ 1 M",
            f"{store['records_per_wall_s'] / 1e6:.2f} M",
        ),
        (f"memory, {spaced(n)} records less {less}", f"{store['growth_bytes'] / MIB:.0f} MiB", "≤ 50 MiB", ""),
        ("reading them in parts", hours(store["large"]["read_cpu_s"]), "", hours(store["large"]["read_wall_s"])),
        (
            f"report of {spaced(both)} samples, clean and attacked",
            hours(page["report"]["report_cpu_s"]),
            "",
            hours(page["report"]["report_wall_s"]),
        ),
        (
            "check of them against themselves",
            hours(page["check"]["check_cpu_s"]),
            "",
            hours(page["check"]["check_wall_s"]),
        ),
        ("both", hours(page["cpu_s"]), "≤ 30 s", hours(walls)),
        ("their peak", f"{page['peak_bytes'] / GIB:.2f} GiB", "≤ 2 GiB", ""),
        (
            f"{study['policies']} policies on a log of {samples}",
            hours(study["study_cpu_s"]),
            "≤ 5 min",
            hours(study["study_wall_s"]),
        ),
        ("reading that log once for each of them", hours(bound), "", ""),
        ("memory beside the log", f"{study['peak_over_log_bytes'] / MIB:.0f} MiB", "", ""),
    ]
    commit = found["git"]["revision"][:12]
    opening = (
        f"Measured on one core of {device(found)} by `python benchmarks/scale.py`, commit {commit}, on a machine that "
        "others used meanwhile: seconds are CPU time, except where Ray's processes work together, which are told by "
        "the clock on the wall."
    )
    made = (
        "Rows and logits are made, not computed by a net. A study's part here is the way, answer and MACs of every "
        "sample under each fitted policy, and what is lost against the last exit with its interval; the log lies in "
        "memory, which a study needs once."
    )
    closing = (
        f"A replay takes from {by_policy[cheap]:.1f} s ({cheap}) to {by_policy[dear]:.1f} s ({dear}) of CPU a policy: "
        "what sees one exit reads its logits and a softmax of them, what sees the history makes as many softmaxes as "
        "a sample has passed exits."
    )
    lines = [
        *filled(opening),
        "",
        "### What a shard costs",
        "",
        "| | time |",
        "|---|---:|",
        *(f"| {what} | {value} |" for what, value, _ in rows),
        "",
        "### ImageNet × `standard`",
        "",
        *imagenet(found, standard_steps()),
        "",
        "### A million samples",
        "",
        *filled(made),
        "",
        "| | CPU | wanted | clock on the wall |",
        "|---|---:|---:|---:|",
        *(f"| {what} | {value} | {goal} | {wall} |" for what, value, goal, wall in large),
        "",
        *filled(closing),
    ]
    return "\n".join(lines) + "\n"


def page(text: str) -> str:
    """The page with its figures anew."""
    head, rest = text.split(BEGIN)
    return head + BEGIN + figures() + END + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE}\n")
