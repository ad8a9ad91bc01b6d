"""Edits of a prompt that make decoding dearer, by two objectives that are never added up.

*depth*: MACs a character, where the number of characters is fixed; *length*: characters up to the stop, by a decoder
whose depth is fixed. A figure in which both move would say nothing about either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from adaptbench.decoding.characters import OTHER, VOCABULARY
from adaptbench.decoding.costs import StepCosts
from adaptbench.decoding.decoders import Decoder, Greedy
from adaptbench.decoding.generation import Made, generate
from adaptbench.decoding.network import CharacterLm

Objective = Literal["depth", "length"]
_DRAWN = 3
"""One in so many queries draws all edits anew, before the climb."""
OBJECTIVES: tuple[Objective, ...] = ("depth", "length")


@dataclass(frozen=True, slots=True)
class Search:
    """Draws of all edits, the dearest of which a climb goes on from: query access, no gradients, the hard cost.

    Args:
        edits: characters of the prompt that may be another one (Hamming distance), places and lengths staying.
        queries: decodings a prompt, the clean one not among them. seed: of what is tried.
    """

    edits: int
    queries: int
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Attacked:
    """One prompt under one objective.

    Args:
        clean, attacked: what was made of the prompt, and of the dearest that the climb met.
        random: of one draw of as many edits. random_best: the dearest of as many draws as there were queries.
        prompt: ids of the attacked prompt.
    """

    clean: Made
    attacked: Made
    random: Made
    random_best: Made
    prompt: tuple[int, ...]


def attack(
    net: CharacterLm,
    costs: StepCosts,
    objective: Objective,
    decoder: Decoder,
    prompt: Sequence[int],
    limit: int,
    stop: int | None,
    search: Search,
    stream: int,
) -> Attacked:
    """Climb, and draw the control of equal edits and equal queries.

    Args:
        decoder: attacked for depth; a length is that of `Greedy`, at full depth.
        prompt: ids, the first of which (the end of the text before) is left alone. limit: characters, at most.
        stop: id that ends a text; for depth there is none: all go to the limit.
        stream: number of the prompt, for the seed.
    """

    def run(ids: Sequence[int]) -> Made:
        if objective == "depth":
            return generate(net, costs, decoder, ids, limit)
        return generate(net, costs, Greedy(), ids, limit, stop=stop)

    def cost(made: Made) -> float:
        return made.macs_per_token if objective == "depth" else float(len(made.ids))

    rng = np.random.default_rng([search.seed, stream, OBJECTIVES.index(objective)])
    clean = run(prompt)
    best, reached = tuple(prompt), clean
    for query in range(search.queries):
        drawing = query < search.queries // _DRAWN
        tried = _drawn(prompt, search.edits, rng) if drawing else _neighbour(best, prompt, search.edits, rng)
        made = run(tried)
        if cost(made) >= cost(reached):
            best, reached = tried, made
    drawn = [run(_drawn(prompt, search.edits, rng)) for _ in range(search.queries)]
    return Attacked(clean, reached, drawn[0], max(drawn, key=cost), best)


def _neighbour(ids: tuple[int, ...], clean: Sequence[int], edits: int, rng: np.random.Generator) -> tuple[int, ...]:
    """One more character is another; where the budget is spent, one that is another is taken back before."""
    new = list(ids)
    changed = [i for i in range(1, len(ids)) if ids[i] != clean[i]]
    place = int(rng.integers(1, len(ids)))
    if len(changed) >= edits and place not in changed:
        back = changed[int(rng.integers(len(changed)))]
        new[back] = clean[back]
    new[place] = _another(clean[place], rng)
    return tuple(new)


def _drawn(clean: Sequence[int], edits: int, rng: np.random.Generator) -> tuple[int, ...]:
    new = list(clean)
    for place in rng.choice(np.arange(1, len(clean)), size=min(edits, len(clean) - 1), replace=False):
        new[place] = _another(clean[place], rng)
    return tuple(new)


def _another(than: int, rng: np.random.Generator) -> int:
    """A printable character that is not this one."""
    able = [i for i in range(OTHER + 1, len(VOCABULARY)) if i != than]
    return able[int(rng.integers(len(able)))]


def changed(clean: Sequence[int], attacked: Sequence[int]) -> int:
    """Characters that differ."""
    return sum(a != b for a, b in zip(clean, attacked, strict=True))
