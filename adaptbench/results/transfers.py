"""The transfer matrix of a run, put together from its records: what crafted on one model takes back of the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adaptbench.results.identity import carried_id
from adaptbench.results.schema import Record


@dataclass(frozen=True, slots=True)
class Matrix:
    """One condition's pictures, judged on every model.

    Args:
        condition: its id. seed: of crafting. models: of rows and columns.
        cells: (crafted on, judged on) → record; the diagonal is the attack on the model itself. Pairs that mean nothing
            are absent.
    """

    condition: str
    seed: int
    models: tuple[str, ...]
    cells: dict[tuple[str, str], Record]


def matrices(cases: Sequence[Record]) -> list[Matrix]:
    """One a condition and seed, in the order of the records.

    The figures are the records' own: each was worked out from its rows by `metrics.summarise`.
    """
    over = [c for c in cases if c["kind"] == "transfer"]
    if not over:
        return []
    own = [c for c in cases if c["kind"] == "attack"]
    told = list(dict.fromkeys((c["condition"], c["seed"] or 0) for c in own))
    found = []
    for condition, seed in told:
        at_home = {c["model"]: c for c in own if (c["condition"], c["seed"] or 0) == (condition, seed)}
        away = {
            (c["surrogate"], c["model"]): c
            for c in over
            if c["surrogate"] and c["condition"] == carried_id(condition, c["surrogate"]) and (c["seed"] or 0) == seed
        }
        if away:
            named = dict.fromkeys([*at_home, *(model for pair in away for model in pair)])
            cells = {(model, model): record for model, record in at_home.items()} | away
            found.append(Matrix(condition, seed, tuple(named), cells))
    return found
