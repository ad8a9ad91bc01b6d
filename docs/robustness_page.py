"""Write the tables of docs/robustness.md from the committed runs; a test holds page and files together.

python docs/robustness_page.py
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from adaptbench.attacks.catalogue import LATEST
from adaptbench.results.statistics import of_means

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "robustness.md"
PUBLISHED = ROOT / "reports" / "published"
MARKS = ("<!-- {}: start -->", "<!-- {}: end -->")
AUDITS = (
    "audit-fashion-mnist",
    "audit-fashion-mnist-gates",
    "audit-cifar10-exits",
    "audit-cifar10-exits-more",
    "audit-cifar10-exact-budget",
    "audit-cifar10-gates",
    "standard-2-skipnet-rnn",
    "standard-2-skipnet-rnn-1000",
    "standard-2-blockdrop",
    "standard-3-blockdrop",
)
TEN_TIMES = (
    "ten-times-fashion-mnist",
    "ten-times-fashion-mnist-gates",
    "ten-times-cifar10",
    "ten-times-cifar10-blockdrop",
)
AMORTISED = ("amortised", "amortised-cifar10", "amortised-cifar10-gates")
TIME, SHARE = 0.01, 0.8
"""Of ILFO's time an input, at most, and of its recovery, at least: what a generator is held to."""
PAIRS = (
    ("skipnet", "audit-fashion-mnist", "audit-fashion-mnist-gates"),
    ("skipnet-rnn", "audit-cifar10-gates", "standard-2-skipnet-rnn"),
    ("blockdrop", "audit-cifar10-gates", "standard-2-blockdrop"),
    ("blockdrop", "standard-2-blockdrop", "standard-3-blockdrop"),
)
"""System, and the summaries that `standard` is an older and a newer attack in."""
KEPT = (
    ("softmax-threshold", "audit-fashion-mnist", "audit-fashion-mnist"),
    ("learned-cascade", "audit-fashion-mnist", "audit-fashion-mnist"),
    ("dag-selection", "audit-fashion-mnist", "audit-fashion-mnist"),
    ("skipnet", "audit-fashion-mnist-gates", "audit-fashion-mnist-gates"),
    ("sdn", "audit-cifar10-exits", "audit-cifar10-exits"),
    ("learned-cascade", "audit-cifar10-exits", "audit-cifar10-exits"),
    ("dag-selection", "audit-cifar10-exits", "audit-cifar10-exits"),
    ("skipnet-rnn", "standard-2-skipnet-rnn", "standard-2-kept-skipnet-rnn"),
    ("blockdrop", "standard-3-blockdrop", "standard-2-kept-blockdrop"),
)
"""System, and the summaries that have `standard` and `standard-kept` on the same pictures."""
ANSWERS, OF_FREE = 0.95, 0.85
"""Answers kept, and share of what the free attack takes back, at least: what `standard-kept` is held to."""
ALONE = ROOT / "benchmarks" / "gates_alone.json"
DEAR = ROOT / "benchmarks" / "dear_starts.json"

Record = dict[str, Any]


def within(record: Record, name: str = "recovery") -> str:
    """A share with its interval, or why there is none."""
    value, ends = record.get(name), record.get(f"{name}_ci")
    if value is None:
        return "–"
    told = f"{100 * value:.1f} %" + ("" if ends is None else f" [{100 * ends[0]:.1f}, {100 * ends[1]:.1f}]")
    return told.replace("-", "−")


def seconds(record: Record) -> str:
    """Crafting time an input; shared changes are crafted once, for all."""
    spent = record.get("craft_s")
    return "–" if spent is None else f"{spent / record['n']:.2g}"


PLANNED = "planned gates"


def called(case: Record, manifest: Record) -> str:
    """A condition, `standard` by all versions that are one attack on such a net: ``standard-1 = 2 = 3`` on exits."""
    name = str(case["condition"])
    version = manifest["conditions"][name]["summary"].split(",")[0].split(" ")[0]
    if not name.startswith("standard") or not version.startswith("standard-"):
        return name
    kept = "-kept" if name.endswith("-kept") else ""
    own, newest = (
        int(full.removeprefix("standard-").removesuffix("-kept")) for full in (version, LATEST[f"standard{kept}"])
    )
    about = manifest["models"][case["model"]]
    if about["shape"] != "gated":
        alike = range(1, newest + 1)
    elif own == 1 or about["policy"] == PLANNED:
        alike = range(own, own + 1)
    else:
        alike = range(2, newest + 1)
    return "standard-" + " = ".join(f"{number}{kept}" for number in alike)


def audit(document: Record) -> list[str]:
    """A table a system: a row a condition, the dearest first within its kind."""
    lines: list[str] = []
    order = {"clean": 0, "control": 1, "attack": 2}
    for model in document["manifest"]["models"]:
        cases = [c for c in document["cases"] if c["model"] == model and c["kind"] in order]
        clean = next(c for c in cases if c["kind"] == "clean")
        lines += [
            "",
            f"**{model}**: {100 * clean['accuracy']:.1f} % right, {clean['macs_mean'] / 1e6:.2f} M MACs a picture of "
            f"{clean['macs_full'] / 1e6:.2f} M.",
            "",
            "| condition | n | MACs | takes back | up to the dearest seen | right | answers kept | s an input |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for case in sorted(cases, key=lambda c: (order[c["kind"]], c.get("recovery") or 0.0)):
            if case["kind"] == "clean":
                continue
            kept = case.get("label_kept")
            cells = [
                called(case, document["manifest"]) + (" (control)" if case["kind"] == "control" else ""),
                f"{case['n']:,}".replace(",", " "),
                f"{case['macs_mean'] / 1e6:.2f} M",
                within(case),
                within(case, "recovery_seen"),
                f"{100 * case['accuracy']:.1f} %",
                "–" if kept is None else f"{100 * kept:.1f} %",
                seconds(case),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return lines[1:]


def ten_times(documents: list[Record]) -> list[str]:
    """`standard` and `exhaustive` on the same pictures; a gated system from the last run that has it."""
    lines = [
        "| data | system | n | attack | takes back | ten times its steps | more, points | dearer on | steps an input |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    rows: dict[tuple[str, str], str] = {}
    for document in documents:
        cases = {(c["model"], c["condition"]): c for c in document["cases"]}
        (data,) = document["manifest"]["data"]
        for model in document["manifest"]["models"]:
            short, long = cases[model, "standard"], cases[model, "exhaustive"]
            n = short["n"]
            steps = " / ".join(f"{c['craft_details']['steps_run'] / n:.0f}" for c in (short, long))
            more = f"{100 * (long['recovery'] - short['recovery']):.1f}"
            both = [_macs(document["samples"][f"{data}/{model}/{which}"]) for which in ("standard", "exhaustive")]
            dearer = str(sum(both[1][i] > macs for i, macs in both[0].items()))
            cells = [
                data,
                model,
                str(n),
                called(short, document["manifest"]),
                within(short),
                within(long),
                more,
                dearer,
            ]
            rows[data, model] = f"| {' | '.join([*cells, steps])} |"
    return lines + list(rows.values())


def pairs() -> list[str]:
    """An older and a newer `standard` on the pictures that both have seen."""
    lines = [
        "| data | system | n | older | newer | more, points | dearer on | cheaper on |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for model, first, second in PAIRS:
        before, after = _read(first), _read(second)
        (data,) = after["manifest"]["data"]
        clean, one = (_macs(before["samples"][f"{data}/{model}/{which}"]) for which in ("clean", "standard"))
        two = _macs(after["samples"][f"{data}/{model}/standard"])
        dearest = after["manifest"]["models"][model]["max_macs"]
        ids = sorted(one.keys() & two.keys())
        columns = np.array([[clean[i], one[i], two[i]] for i in ids])

        def back(m: Any, column: int, dearest: int = dearest) -> Any:
            return 100 * (m[:, column] - m[:, 0]) / (dearest - m[:, 0])

        shares = [of_means(columns, lambda m, k=k: back(m, k)).value for k in (1, 2)]
        more = of_means(columns, lambda m: back(m, 2) - back(m, 1))
        told = f"{more.value:.1f} [{more.low:.1f}, {more.high:.1f}]".replace("-", "−")
        counts = [(columns[:, 2] > columns[:, 1]).sum(), (columns[:, 2] < columns[:, 1]).sum()]
        names = [called({"condition": "standard", "model": model}, side["manifest"]) for side in (before, after)]
        told_apart = [f"{name}: {share:.1f} %" for name, share in zip(names, shares, strict=True)]
        cells = [data, model, f"{len(ids):,}".replace(",", " "), *told_apart, told]
        lines.append(f"| {' | '.join([*cells, *map(str, counts)])} |")
    return lines


def kept() -> list[str]:
    """`standard` free and with every answer kept, on the pictures that both have seen."""
    lines = [
        "| data | system | n | attack | takes back, free | with every answer kept | of it | answers kept |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for model, free, bound in KEPT:
        first, second = _read(free), _read(bound)
        (data,) = second["manifest"]["data"]
        clean, open_, closed = (
            _macs(document["samples"][f"{data}/{model}/{which}"])
            for document, which in ((first, "clean"), (first, "standard"), (second, "standard-kept"))
        )
        (case,) = (c for c in second["cases"] if (c["model"], c["condition"]) == (model, "standard-kept"))
        dearest = second["manifest"]["models"][model]["max_macs"]
        ids = sorted(open_.keys() & closed.keys())
        columns = np.array([[clean[i], open_[i], closed[i]] for i in ids])

        def back(m: Any, column: int, dearest: int = dearest) -> Any:
            return 100 * (m[:, column] - m[:, 0]) / (dearest - m[:, 0])

        shares = [of_means(columns, lambda m, k=k: back(m, k)).value for k in (1, 2)]
        part = of_means(columns, lambda m: 100 * back(m, 2) / back(m, 1))
        held = part.value >= 100 * OF_FREE and case["label_kept"] >= ANSWERS
        told = f"{part.value:.1f} % [{part.low:.1f}, {part.high:.1f}]" + ("" if held else ", **missed**")
        (free_case,) = (c for c in first["cases"] if (c["model"], c["condition"]) == (model, "standard"))
        attack, n = called(free_case, first["manifest"]), f"{len(ids):,}".replace(",", " ")
        cells = [data, model, n, attack, *(f"{s:.1f} %" for s in shares), told]
        lines.append(f"| {' | '.join(cells)} | {100 * case['label_kept']:.1f} % |")
    return lines


QUICK = {
    "amortised": "generator",
    "amortised-refined-1": "generator, 1 step",
    "amortised-refined-2": "generator, 2 steps",
    "no-generator-1": "1 step alone (control)",
    "no-generator-2": "2 steps alone (control)",
}
"""Conditions that are held to a share of ILFO's time and recovery, as they are called."""


def amortised(documents: list[Record]) -> list[str]:
    """What is quick beside ILFO: recovery on the pictures that both have seen, and what one picture takes."""
    lines = [
        "| data | system | attack | pictures of both | takes back | ILFO | of ILFO's | all pictures | s an input "
        "| ILFO | of ILFO's | training, once |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for document in documents:
        cases = {(c["model"], c["condition"]): c for c in document["cases"]}
        (data,) = document["manifest"]["data"]
        for model, about in document["manifest"]["models"].items():
            ilfo = cases[model, "ilfo"]
            names = ("clean", "ilfo", "noise-sign", *(name for name in QUICK if (model, name) in cases))
            macs = {which: _macs(document["samples"][f"{data}/{model}/{which}"]) for which in names}
            ids = sorted(macs["ilfo"].keys() & macs["amortised"].keys())
            clean = sum(macs["clean"][i] for i in ids)
            room = len(ids) * about["max_macs"] - clean
            back = {which: (sum(macs[which][i] for i in ids) - clean) / room for which in names[1:]}
            for which in names[2:]:
                ours = cases[model, which]
                spent = [case["craft_s"] / case["n"] for case in (ours, ilfo)]
                share, quick, passes = back[which] / back["ilfo"], spent[0] / spent[1], _trained(ours)
                cells = [
                    data,
                    model,
                    QUICK.get(which, "random signs (control)"),
                    str(len(ids)),
                    *(f"{100 * back[one]:.1f} %".replace("-", "−") for one in (which, "ilfo")),
                    f"{100 * share:.0f} %".replace("-", "−") + _missed(which, share >= SHARE),
                    f"{ours['n']:,}: ".replace(",", " ") + within(ours),
                    f"{spent[0]:.2g}",
                    f"{spent[1]:.2g}",
                    f"{100 * quick:.2f} %" + _missed(which, quick <= TIME),
                    "–"
                    if passes is None
                    else f"{passes / 1000:.1f} k passes, as ILFO on "
                    f"{passes / (ilfo['craft_details']['steps_run'] / ilfo['n']):.0f} pictures",
                ]
                lines.append(f"| {' | '.join(cells)} |")
    return lines


def _missed(which: str, held: bool) -> str:
    return "" if held or not which.startswith("amortised") else ", **missed**"


def _trained(case: Record) -> float | None:
    passes = case["craft_details"].get("training_passes")
    return None if passes is None else float(passes)


def alone(document: Record) -> list[str]:
    """Gates that were tried one by one: a row a system."""
    lines = [
        "| data | system | n | closed | never opened alone | attack | takes back | with all that ever opened |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, found in document["systems"].items():
        shares = [
            f"{100 * e['value']:.1f} % [{100 * e['low']:.1f}, {100 * e['high']:.1f}]"
            for e in (found["recovery"], found["recovery_bound"])
        ]
        closed = f"{found['pairs']} of {found['n'] * found['gates']}"
        cells = [
            *name.split("/"),
            str(found["n"]),
            closed,
            str(found["pairs_never_opened"]),
            found["attack"]["name"],
            *shares,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def dear(document: Record) -> list[str]:
    """One more member, from dear pictures and from noise: a row a system and start."""
    lines = [
        "| data | system | n | below the ceiling | after | takes back | dearer on |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, found in document["systems"].items():
        after = {found["attack"]["name"]: found} | {
            f"{document['steps']} more steps from {start}": more for start, more in found["more"].items()
        }
        for title, told in after.items():
            share = told["recovery"]
            cells = [
                *name.split("/"),
                str(found["n"]),
                str(found["below_the_ceiling"]),
                title,
                f"{100 * share['value']:.1f} % [{100 * share['low']:.1f}, {100 * share['high']:.1f}]",
                str(told.get("dearer_on", "–")),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def _macs(packed: Record) -> dict[int, float]:
    """MACs by sample id."""
    levels, first = packed["macs"]["levels"], packed["sample_id"]["first"]
    index = np.frombuffer(base64.b64decode(packed["macs"]["index"]), dtype="<u1" if len(levels) <= 256 else "<u2")
    return {first + i: float(levels[at]) for i, at in enumerate(index)}


def page(text: str) -> str:
    """The text with every table as the files have it."""
    written = {name: audit(_read(name)) for name in AUDITS}
    written |= {
        "ten-times": ten_times([_read(n) for n in TEN_TIMES]),
        "pairs": pairs(),
        "kept": kept(),
        "amortised": amortised([_read(n) for n in AMORTISED]),
        "alone": alone(json.loads(ALONE.read_text(encoding="utf-8"))),
        "dear": dear(json.loads(DEAR.read_text(encoding="utf-8"))),
    }
    sys.path.insert(0, str(Path(__file__).parent))  # a script's own folder, for whoever loads it by its place
    import robustness_glance as glance

    written |= {"cite": glance.cite(), "aimed": glance.aimed(), "costs": glance.costs(), "tails": glance.tails()}
    for name, lines in written.items():
        start, end = (mark.format(name) for mark in MARKS)
        before, rest = text.split(start)
        _, after = rest.split(end)
        text = f"{before}{start}\n{chr(10).join(lines)}\n{end}{after}"
    return text


def _read(name: str) -> Record:
    document: Record = json.loads((PUBLISHED / f"{name}.json").read_text(encoding="utf-8"))
    return document


def main() -> None:
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE}\n")


if __name__ == "__main__":
    main()
