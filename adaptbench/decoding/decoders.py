"""Ways to decode: whole, leaving early where the model is sure, and guessing early and checking whole.

Every decoder is a class that makes `Step`s of a `Memory`; a step is what a service waits for: one or more characters.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from adaptbench.decoding.memory import Memory
from adaptbench.errors import UsageError

TIE = 1e-4
"""Two best logits that are closer may change places with the number of places that are computed at once."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one step made.

    Args:
        tokens: ids, in order. exit: layers that the last of them went through (from 1); of a check, all.
        macs: executed, drafts and what was missing below included. drafted, accepted: guesses, and those that stood.
        tie: an answer or a decision to leave was so close that rounding may turn it.
        logits: (V,) that the last token was chosen by.
    """

    tokens: tuple[int, ...]
    exit: int
    macs: int
    drafted: int = 0
    accepted: int = 0
    tie: bool = False
    logits: Tensor | None = field(default=None, compare=False)


class Decoder(ABC):
    """How the next characters are found. Subclasses are frozen dataclasses of their settings."""

    kind: ClassVar[str]

    def check(self, layers: int) -> None:  # noqa: B027 (most have nothing to refuse)
        """Refuse settings that a model of so many layers cannot have.

        Raises:
            UsageError: says which.
        """

    @abstractmethod
    def step(self, memory: Memory, token: int, place: int, t: int, limit: int) -> Step:
        """The characters after a token.

        Args:
            memory: of the places before. token: id at `place`, the last there is. t: characters made so far.
            limit: characters that are made in all, at most.
        """


@dataclass(frozen=True, slots=True)
class Greedy(Decoder):
    """Every layer for every character; the likeliest is taken."""

    kind: ClassVar[str] = "greedy"

    def step(self, memory: Memory, token: int, place: int, t: int, limit: int) -> Step:
        """One character."""
        before, layers = memory.macs, memory.net.size.layers
        h = memory.enter([token], place)
        for layer in range(layers):
            h = memory.run(layer, h, place)
        logits = memory.logits(h, layers - 1)[0]
        return Step((int(logits.argmax()),), layers, memory.macs - before, tie=_close(logits), logits=logits)


@dataclass(frozen=True, slots=True)
class Calm(Decoder):
    """Leave at the first exit that is sure (CALM, Schuster et al. 2022): softmax of the best − of the second ≥ λ.

    Args:
        threshold: λ, 0 … 1. decay: τ of λ(t) = min(1, 0.9 λ + 0.1 exp(−τ t / N)), eq. 5; None: λ throughout.
        exits: layers (from 1) after which it is asked; None: all. Each that is asked costs its logits.
    """

    threshold: float
    decay: float | None = None
    exits: tuple[int, ...] | None = None
    kind: ClassVar[str] = "calm"

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1 or (self.decay is not None and not 0 <= self.decay < math.inf):
            raise UsageError(
                f"threshold={self.threshold}, decay={self.decay} is no rule to leave by.",
                todo="Give a threshold between 0 and 1, and a decay of at least 0.",
            )

    def check(self, layers: int) -> None:
        """Exits are layers of the model."""
        if self.exits is not None and not set(self.exits) <= set(range(1, layers + 1)):
            raise UsageError(f"exits {list(self.exits)} are not among the layers.", todo=f"Layers are 1 … {layers}.")

    def threshold_at(self, t: int, limit: int) -> float:
        """λ(t) of the t-th character (from 0) of `limit`."""
        if self.decay is None:
            return self.threshold
        return min(1.0, 0.9 * self.threshold + 0.1 * math.exp(-self.decay * t / limit))

    def step(self, memory: Memory, token: int, place: int, t: int, limit: int) -> Step:
        """One character."""
        before, layers = memory.macs, memory.net.size.layers
        asked = range(1, layers) if self.exits is None else self.exits
        least, close = self.threshold_at(t, limit), False
        h = memory.enter([token], place)
        for layer in range(layers):
            h = memory.run(layer, h, place)
            last = layer + 1 == layers
            if last or layer + 1 in asked:
                logits = memory.logits(h, layer)[0]
                sure = confidence(logits)
                close |= not last and abs(sure - least) <= TIE
                if last or sure >= least:
                    break
        memory.leave(h, place)
        token = int(logits.argmax())
        return Step((token,), layer + 1, memory.macs - before, tie=close or _close(logits), logits=logits)


@dataclass(frozen=True, slots=True)
class SelfSpeculative(Decoder):
    """Guess at an early exit, check by the layers above in one pass (LayerSkip, Elhoushi et al. 2024).

    The guesses' keys and values below the exit, and their states there, are those of the check. What the check
    disagrees with is dropped with all behind it, and its own answer taken: the text is the greedy one.

    Args:
        exit: layer (from 1) that guesses. drafts: guesses a step, at most.
    """

    exit: int
    drafts: int = 4
    kind: ClassVar[str] = "self-speculative"

    def __post_init__(self) -> None:
        if self.exit < 1 or self.drafts < 1:
            raise UsageError(
                f"exit={self.exit}, drafts={self.drafts} guesses nothing.", todo="Give at least 1 of each."
            )

    def check(self, layers: int) -> None:
        """Something is above the exit."""
        if self.exit >= layers:
            raise UsageError(
                f"the exit {self.exit} guesses, of {layers} layers.",
                why="Nothing is left that could check a guess.",
                todo=f"Give an exit of 1 … {layers - 1}.",
            )

    def step(self, memory: Memory, token: int, place: int, t: int, limit: int) -> Step:
        """Up to ``drafts + 1`` characters: the guesses that stood, and one of the check's own."""
        before, layers = memory.macs, memory.net.size.layers
        most = min(self.drafts, limit - t - 1, memory.net.size.context - place - 1)
        ids, states = [token], []
        for i in range(most + 1):
            h = memory.enter(ids[-1:], place + i)
            for layer in range(self.exit):
                h = memory.run(layer, h, place + i)
            states.append(h)
            if i < most:
                ids.append(int(memory.logits(h, self.exit - 1)[0].argmax()))
        h = torch.cat(states, 1)
        for layer in range(self.exit, layers):
            h = memory.run(layer, h, place)
        logits = memory.logits(h, layers - 1)
        answers = logits.argmax(-1).tolist()
        stood = next((i for i in range(most) if answers[i] != ids[i + 1]), most)
        memory.forget(place + stood + 1)
        close = any(_close(row) for row in logits[: stood + 1])
        made = tuple(answers[: stood + 1])
        return Step(made, layers, memory.macs - before, most, stood, close, logits[stood])


DECODERS: dict[str, type[Decoder]] = {kind.kind: kind for kind in (Greedy, Calm, SelfSpeculative)}


def confidence(logits: Tensor) -> float:
    """Probability of the best − of the second of (V,) logits."""
    best = logits.softmax(-1).topk(2).values
    return float(best[0] - best[1])


def _close(logits: Tensor) -> bool:
    best = logits.topk(2).values
    return bool(best[0] - best[1] <= TIE)


def prefill(memory: Memory, prompt: Sequence[int]) -> None:
    """All layers on all ids but the last, which the first step takes; no logits are asked for."""
    if len(prompt) > 1:
        h = memory.enter(list(prompt[:-1]), 0)
        for layer in range(memory.net.size.layers):
            h = memory.run(layer, h, 0)


@torch.inference_mode()
def decode(
    decoder: Decoder,
    memory: Memory,
    prompt: Sequence[int],
    limit: int,
    *,
    stop: int | None = None,
    lap: Callable[[], None] = lambda: None,
) -> Iterator[Step]:
    """The steps after a prompt that is in the memory, up to a stop, `limit` characters or the end of the context.

    A step may bring characters behind the stop; they are cut off it, and its MACs stay.
    """
    token, place, made = prompt[-1], len(prompt) - 1, 0
    while made < limit and place < memory.net.size.context:
        step = decoder.step(memory, token, place, made, limit)
        lap()
        tokens = step.tokens[: limit - made]
        stopped = stop is not None and stop in tokens
        if stopped:
            tokens = tokens[: tokens.index(stop) + 1]
        yield step if tokens == step.tokens else _cut(step, tokens)
        if stopped:
            return
        made += len(tokens)
        place += len(tokens)
        token = tokens[-1]


def _cut(step: Step, tokens: tuple[int, ...]) -> Step:
    return Step(tokens, step.exit, step.macs, step.drafted, min(step.accepted, len(tokens)), step.tie, step.logits)
