"""From what decoders made to rows of the record: MACs, depth, agreement; quality; attacks; seconds and joules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from adaptbench.decoding.attacks import Attacked, Objective, changed
from adaptbench.decoding.characters import decode
from adaptbench.decoding.generation import Made
from adaptbench.decoding.schema import Attacks, Way
from adaptbench.results import statistics, timing
from adaptbench.results.statistics import Estimate

Row = dict[str, Any]


def put(row: Row, name: str, value: Estimate | float | None, why: str = "") -> None:
    """A figure with its interval, or null with its reason."""
    if value is None:
        row |= {name: None, f"{name}_missing": why}
    elif isinstance(value, Estimate):
        row |= {name: value.value, f"{name}_ci": value.ci}
    else:
        row[name] = value


def ratio(before: Sequence[float], after: Sequence[float]) -> Estimate:
    """Mean over mean, paired over prompts."""
    return statistics.ratio_of_means(before, after)


def decoder_row(way: Way, made: Sequence[Made], greedy: Sequence[Made], layers: int) -> Row:
    """Of a decoder on all prompts; greedy: what the first decoder made of them."""
    steps = [step for one in made for step in one.steps]
    drafted, accepted = sum(step.drafted for step in steps), sum(step.accepted for step in steps)
    shared = [same_prefix(one, other) / max(1, len(other.ids)) for one, other in zip(made, greedy, strict=True)]
    row: Row = {
        "case": way.id,
        "decoder": way.kind,
        "settings": way.settings,
        "n": len(made),
        "new_tokens": sum(len(one.ids) for one in made),
        "steps": len(steps),
        "prefill_macs": float(np.mean([one.prefill_macs for one in made])),
        "exits_taken": [sum(step.exit == k + 1 for step in steps) for k in range(layers)],
        "drafted": drafted,
        "accepted": accepted,
        "tokens_per_step": sum(len(one.ids) for one in made) / len(steps),
        "identical": float(np.mean([one.ids == other.ids for one, other in zip(made, greedy, strict=True)])),
        "same_prefix": float(np.mean(shared)),
        "ties": sum(step.tie for step in steps),
    }
    tokens = [float(len(one.ids)) for one in made]
    put(row, "macs_per_token", ratio(tokens, [float(one.macs) for one in made]))
    put(row, "layers_per_token", ratio(tokens, [layer_runs(one, way, layers) for one in made]))
    columns = [[len(a.ids), a.macs, len(b.ids), b.macs] for a, b in zip(greedy, made, strict=True)]
    saving = statistics.of_means(columns, lambda m: 1 - (m[:, 3] / m[:, 2]) / (m[:, 1] / m[:, 0]))
    put(row, "saving_macs", saving)
    put(row, "acceptance", accepted / drafted if drafted else None, "nothing was drafted")
    return row


def layer_runs(made: Made, way: Way, layers: int) -> float:
    """Layers that ran on a place, summed over the places: of drafts that were dropped, too."""
    if way.kind != "self-speculative":
        return float(sum(step.exit for step in made.steps))
    return float(sum((step.drafted + 1) * layers for step in made.steps))


def same_prefix(made: Made, other: Made) -> int:
    """Characters up to the first that differs."""
    pairs = zip(made.ids, other.ids, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(made.ids), len(other.ids)))


def sequence_row(way: Way, prompt_id: int, made: Made, greedy: Made) -> Row:
    """Of one prompt."""
    return {
        "case": way.id,
        "prompt_id": prompt_id,
        "prompt": decode(made.prompt[1:]),
        "text": decode(made.ids),
        "prefill_tokens": len(made.prompt) - 1,
        "prefill_macs": made.prefill_macs,
        "new_tokens": len(made.ids),
        "macs": made.macs,
        "stopped": made.stopped,
        "steps": len(made.steps),
        "drafted": sum(step.drafted for step in made.steps),
        "accepted": sum(step.accepted for step in made.steps),
        "ties": sum(step.tie for step in made.steps),
        "same_prefix": same_prefix(made, greedy),
    }


def put_quality(row: Row, found: Sequence[Sequence[Sequence[float]]] | None, why: str) -> None:
    """Bits, accuracy and MACs a character of given text; the unit of the interval is the text.

    Args:
        found: of each text, (bits, right, MACs) a character; None: none were asked for, and why.
    """
    for i, name in enumerate(("bits_per_character", "accuracy", "quality_macs_per_token")):
        if found is None:
            put(row, name, None, why)
        else:
            sums = [float(sum(float(one[i]) for one in text)) for text in found]
            put(row, name, ratio([float(len(text)) for text in found], sums))


def put_measured(row: Row, windows: pd.DataFrame, greedy: str, energy: Sequence[str], why: str) -> None:
    """Seconds and joules a character made; measured and modelled apart.

    Args:
        windows: of the clock and of meters; empty where nothing was timed, and why. greedy: case of the first decoder.
        energy: names of meters of joules, in the file's order.
    """
    case = row["case"]
    seconds = timing.blocks(windows, case, timing.CLOCK) if len(windows) else None
    reason = why or f"no window of it could be read: {timing.missing_reason(windows, case, timing.CLOCK)}"
    put(row, "latency_s_per_token", None if seconds is None else timing.per_sample(seconds), reason)
    first = timing.blocks(windows, greedy, timing.CLOCK) if len(windows) else None
    if seconds is None or first is None:
        put(row, "speedup", None, reason if seconds is None else "greedy was not timed")
    else:
        own, greedy_s = seconds.paired(first)
        put(row, "speedup", statistics.paired_ratio(own, greedy_s))
    for name, measured in (("energy_j_per_token", True), ("modelled_energy_j_per_token", False)):
        reasons = [why] if why else []
        value = None
        for meter in energy if len(windows) else ():
            found = timing.blocks(windows, case, meter)
            if found is None:
                reasons.append(timing.missing_reason(windows, case, meter))
            elif found.measured == measured:
                value = timing.per_sample(found)
                break
        kind = "measures" if measured else "models"
        put(row, name, value, "; ".join(dict.fromkeys(reasons)) or f"no meter that {kind} joules was asked for")


def attack_row(
    objective: Objective,
    spec: Attacks,
    way: Way,
    layers: int,
    found: Sequence[Attacked],
    greedy: Sequence[Made],
    ids: Sequence[int],
) -> Row:
    """Of all prompts under one objective.

    Args:
        way: whose cost it is. greedy: of the clean prompts, as long; for depth only. ids: of the prompts.
    """

    def of(made: Made) -> float:
        return made.macs_per_token if objective == "depth" else float(len(made.ids))

    kinds = ("clean", "attacked", "random", "random_best")
    costs = {kind: [of(getattr(one, kind)) for one in found] for kind in kinds}
    row: Row = {
        "case": f"{way.id}/{objective}",
        "objective": objective,
        "decoder": way.id,
        "edits": spec.edits,
        "edits_mean": float(np.mean([changed(one.clean.prompt, one.prompt) for one in found])),
        "queries": spec.queries,
        "n": len(found),
        **{kind: float(np.mean(values)) for kind, values in costs.items()},
    }
    for kind, name in (("attacked", ""), ("random", "_random"), ("random_best", "_random_best")):
        put(row, f"increase{name}", ratio(costs["clean"], costs[kind]).map(lambda x: x - 1))
    if objective == "depth":
        whole = [one.macs_per_token for one in greedy]
        columns = list(zip(costs["clean"], costs["attacked"], whole, strict=True))
        taken = statistics.of_means(columns, lambda m: (m[:, 1] - m[:, 0]) / (m[:, 2] - m[:, 0]))
        saved = float(np.mean(whole)) > row["clean"]
        put(row, "saving_taken_back", taken if saved else None, "nothing is saved on the clean prompts")
    else:
        put(row, "saving_taken_back", None, "a length is no part of what leaving early saves")
    for kind in ("clean", "attacked"):
        made = [getattr(one, kind) for one in found]
        tokens = sum(len(one.ids) for one in made)
        row[f"tokens_{kind}"] = tokens / len(made)
        row[f"layers_{kind}"] = sum(layer_runs(one, way, layers) for one in made) / tokens
        row[f"macs_per_token_{kind}"] = sum(one.macs for one in made) / tokens
    row["at_limit"] = float(np.mean([not one.attacked.stopped for one in found]))
    row["prompts"] = [
        {
            "prompt_id": prompt_id,
            "prompt": decode(one.clean.prompt[1:]),
            "attacked_prompt": decode(one.prompt[1:]),
            **{kind: of(getattr(one, kind)) for kind in kinds},
            "tokens_clean": len(one.clean.ids),
            "tokens_attacked": len(one.attacked.ids),
        }
        for prompt_id, one in zip(ids, found, strict=True)
    ]
    return row
