"""Write the figures of docs/decoding.md from a kept run of suites/decoding.yaml.

python docs/decoding_page.py
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "reports" / "published" / "decoding.json"
PAGE = ROOT / "docs" / "decoding.md"
BEGIN, END = "<!-- figures: written by docs/decoding_page.py -->", "<!-- end of figures -->"
Row = dict[str, Any]


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    head = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    return [*head, *(f"| {' | '.join(row)} |" for row in rows)]


def shown(row: Row, name: str, scale: float, digits: int, unit: str = "") -> str:
    """A figure with its interval; a dash where there is none."""
    if row[name] is None:
        return "–"
    ends = row.get(f"{name}_ci")
    between = "" if ends is None else f" [{', '.join(f'{scale * end:.{digits}f}' for end in ends)}]"
    return f"{scale * row[name]:.{digits}f}{unit}{between}".replace("-", "−")


def costs(record: Row) -> list[str]:
    titles = ("decoder", "thousand MACs a character", "saved", "layers a character", "guesses that stood",
              "answers as greedy", "ms a character, measured", "times as fast as greedy")  # fmt: skip
    return table(
        titles,
        [
            (
                f"`{row['case']}`",
                shown(row, "macs_per_token", 1e-3, 1),
                shown(row, "saving_macs", 100, 1, " %"),
                shown(row, "layers_per_token", 1, 2),
                "–" if row["acceptance"] is None else f"{row['accepted']} of {row['drafted']}",
                f"{100 * row['identical']:.0f} %",
                shown(row, "latency_s_per_token", 1e3, 2),
                shown(row, "speedup", 1, 2),
            )
            for row in record["decoders"]
        ],
    )


def quality(record: Row) -> list[str]:
    decoders = [
        (
            f"`{row['case']}`",
            shown(row, "bits_per_character", 1, 3),
            shown(row, "accuracy", 100, 1, " %"),
            shown(row, "quality_macs_per_token", 1e-3, 1),
        )
        for row in record["decoders"]
    ]
    exits = [
        (
            f"all at exit {row['exit']}",
            shown(row, "bits_per_character", 1, 3),
            shown(row, "accuracy", 100, 1, " %"),
            shown(row, "macs_per_token", 1e-3, 1),
        )
        for row in record["exits"]
    ]
    return table(("decoder", "bits a character", "right", "thousand MACs a character"), [*decoders, *exits])


def attacked(record: Row, objective: str) -> list[str]:
    depth = objective == "depth"
    scale, unit = (1e-3, "thousand MACs a character") if depth else (1.0, "characters")
    last = ("saving taken back",) if depth else ("ended by the limit",)
    titles = ("of", f"{unit}, clean", "attacked", "more", "one random edit", "dearest of as many", *last,
              "layers a character")  # fmt: skip
    return table(
        titles,
        [
            (
                f"`{row['case']}`",
                f"{scale * row['clean']:.1f}",
                f"{scale * row['attacked']:.1f}",
                shown(row, "increase", 100, 1, " %"),
                shown(row, "increase_random", 100, 1, " %"),
                shown(row, "increase_random_best", 100, 1, " %"),
                shown(row, "saving_taken_back", 100, 0, " %") if depth else f"{100 * row['at_limit']:.0f} %",
                f"{row['layers_clean']:.2f} → {row['layers_attacked']:.2f}",
            )
            for row in record["attacks"]
            if row["objective"] == objective
        ],
    )


def figures(record: Row) -> str:
    from adaptbench.report.decoding_page import sentences

    model, prompts, device = record["model"], record["prompts"], record["device"]
    first, threads = record["decoders"][0], device["threads"]
    revision = str((record["git"] or {}).get("revision") or "unknown")[:12]
    joules = first["energy_j_per_token_missing"] if first["energy_j_per_token"] is None else ""
    parts = [
        [
            f"`{record['command']}`, [summary](../reports/published/decoding.json), {device['cpu']}, "
            f"{threads} thread{'' if threads == 1 else 's'}, revision `{revision}`. "
            f"{model['parameters']} parameters; {first['n']} prompts of {prompts['chars']} characters, up to "
            f"{prompts['new_chars']} made. Intervals are 95 %, over prompts or blocks of windows."
        ],
        [f"- {' '.join(part for part in pair if part)}" for pair in sentences(record)],
        [f"What a character costs; the prompt costs {first['prefill_macs'] / 1e6:.1f} M MACs, whoever decodes:"],
        costs(record),
        [f"Joules a character: none, because {joules}." if joules else "Joules a character: on the page of the run."],
    ]
    if record["exits"]:
        parts += [
            ["Given text; self-speculation predicts what greedy decoding does, and is asked as that:"],
            quality(record),
        ]
    for objective in ("depth", "length"):
        if any(row["objective"] == objective for row in record["attacks"]):
            parts += [[f"The {objective} attack:"], attacked(record, objective)]
    return "\n\n".join("\n".join(part) for part in parts)


def page(text: str, record: Row) -> str:
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{figures(record)}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    from adaptbench.results.decoding import DecodingRun

    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), DecodingRun.read(SOURCE)), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE}\n")
