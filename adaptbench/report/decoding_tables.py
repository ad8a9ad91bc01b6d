"""Tables of the page of a run of kind decoding; measured and modelled, depth and length never share a column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adaptbench.report import words
from adaptbench.report.tables import Builder, Column, Table, TableCell, figure, scaled_interval, share_cell

Record = Mapping[str, Any]
Row = Mapping[str, Any]


def decoder_table(record: Record) -> Table:
    """What a character costs, and whose answer it is."""
    table = Builder(
        "decoders",
        "MACs of a character made, executed, without the prompt's; guesses, heads and missing keys and values included",
        (
            Column("decoder", numeric=False),
            Column("MACs a character"),
            Column("saved", unit="1"),
            Column("layers a character"),
            Column("characters a step"),
            Column("guesses that stood", unit="1"),
            Column("answers as greedy", unit="1"),
            Column("up to the first other", unit="1"),
            Column("ties"),
        ),
    )
    for row in record["decoders"]:
        accepted = f"{words.percent(row['acceptance'], 0)}"
        table.add(
            row["case"],
            figure(row, "macs_per_token", words.macs(row["macs_per_token"]), under=_macs(row["macs_per_token_ci"])),
            share_cell(row, "saving_macs"),
            figure(row, "layers_per_token", words.number(row["layers_per_token"])),
            TableCell(words.number(row["tokens_per_step"]), value=row["tokens_per_step"]),
            figure(row, "acceptance", accepted, under=f"{row['accepted']} of {row['drafted']}"),
            share_cell(row, "identical", 0),
            share_cell(row, "same_prefix", 0),
            TableCell(words.count(row["ties"]), value=row["ties"]),
        )
    return table.build()


def cost_table(record: Record) -> Table:
    """Seconds and joules a character; what is modelled has a column of its own."""
    rows = record["decoders"]
    scale = words.one_scale([row["latency_s_per_token"] for row in rows], "s")
    joules = words.one_scale([row["energy_j_per_token"] for row in rows], "J")
    modelled = words.one_scale([row["modelled_energy_j_per_token"] for row in rows], "J")
    table = Builder(
        "costs",
        "A character made, in interleaved windows, without the prompt",
        (
            Column("decoder", numeric=False),
            Column("seconds, measured", unit="s"),
            Column("times as fast as greedy", unit="×"),
            Column("joules, measured", unit="J"),
            Column("joules, modelled", unit="J"),
        ),
    )
    for row in rows:
        table.add(
            row["case"],
            _scaled(row, "latency_s_per_token", scale),
            figure(
                row,
                "speedup",
                f"{words.number(row['speedup'])} ×",
                under=words.interval(row.get("speedup_ci"), 2, scale=1),
            ),
            _scaled(row, "energy_j_per_token", joules),
            _scaled(row, "modelled_energy_j_per_token", modelled),
        )
    return table.build()


def quality_table(record: Record) -> Table:
    """Given text, predicted character by character."""
    table = Builder(
        "quality",
        "Given text: every character is predicted from the true ones before it",
        (
            Column("decoder", numeric=False),
            Column("bits a character", unit="bits"),
            Column("right", unit="1"),
            Column("MACs a character"),
        ),
    )
    for row in record["decoders"]:
        bits = words.number(row["bits_per_character"], 3)
        table.add(
            row["case"],
            figure(row, "bits_per_character", bits, under=words.interval(row.get("bits_per_character_ci"), 3, scale=1)),
            share_cell(row, "accuracy"),
            figure(row, "quality_macs_per_token", words.macs(row["quality_macs_per_token"])),
        )
    table.heading("as if every character left at one exit")
    for row in record["exits"]:
        table.add(
            f"exit {row['exit']}",
            TableCell(words.number(row["bits_per_character"], 3), value=row["bits_per_character"]),
            TableCell(words.percent(row["accuracy"]), value=row["accuracy"]),
            TableCell(words.macs(row["macs_per_token"]), value=row["macs_per_token"]),
        )
    return table.build()


def exit_table(record: Record) -> Table:
    """Where steps ended."""
    layers = record["model"]["layers"]
    table = Builder(
        "exits",
        "Steps that ended at each exit",
        (Column("decoder", numeric=False), *(Column(f"exit {k + 1}") for k in range(layers))),
    )
    for row in record["decoders"]:
        cells = [TableCell(words.count(n), value=n) for n in row["exits_taken"]]
        table.add(row["case"], *cells)
    return table.build()


def attack_table(record: Record, objective: str) -> Table | None:
    """One objective; None where it was not attacked."""
    rows = [row for row in record["attacks"] if row["objective"] == objective]
    if not rows:
        return None
    depth = objective == "depth"
    unit = "MACs a character" if depth else "characters"
    shown = words.macs if depth else lambda value: words.number(value, 1)
    caption = (
        "Depth: MACs a character, where every answer has the same number of characters"
        if depth
        else "Length: characters up to the stop, of greedy decoding, whose depth is fixed"
    )
    table = Builder(
        objective,
        caption,
        (
            Column("decoder", numeric=False),
            Column(f"{unit}, clean"),
            Column("attacked"),
            Column("more", unit="1"),
            Column("one random edit", unit="1"),
            Column("dearest of as many", unit="1"),
            *((Column("saving taken back", unit="1"),) if depth else (Column("ended by the limit", unit="1"),)),
            Column("layers a character, clean"),
            Column("attacked"),
        ),
    )
    for row in rows:
        table.add(
            row["case"],
            TableCell(shown(row["clean"]), value=row["clean"]),
            TableCell(shown(row["attacked"]), value=row["attacked"]),
            *(share_cell(row, f"increase{kind}") for kind in ("", "_random", "_random_best")),
            share_cell(row, "saving_taken_back" if depth else "at_limit"),
            TableCell(words.number(row["layers_clean"]), value=row["layers_clean"]),
            TableCell(words.number(row["layers_attacked"]), value=row["layers_attacked"]),
        )
    return table.build()


def _macs(ends: Any) -> str:
    return "" if ends is None else f"{words.macs(ends[0])} – {words.macs(ends[1])}"


def _scaled(row: Row, name: str, scale: words.Writer) -> TableCell:
    return figure(row, name, scale(row[name]), under=scaled_interval(row.get(f"{name}_ci"), scale))
