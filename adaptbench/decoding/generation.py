"""Texts made by a decoder: every step as a row, every prompt as a record, MACs of prompt and answer apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from adaptbench.adaptive.model import frozen
from adaptbench.decoding.costs import StepCosts
from adaptbench.decoding.decoders import Decoder, Step, decode, prefill
from adaptbench.decoding.memory import Memory
from adaptbench.decoding.network import CharacterLm
from adaptbench.meters.base import Clock


@dataclass(frozen=True, slots=True)
class Made:
    """What a decoder made of one prompt.

    Args:
        prompt: ids. steps: in order. seconds: of each. prefill_macs: of the prompt but its last character.
        prefill_s: the same in seconds. stopped: the stop came, not the limit.
    """

    prompt: tuple[int, ...]
    steps: tuple[Step, ...]
    seconds: tuple[float, ...]
    prefill_macs: int
    prefill_s: float
    stopped: bool

    @property
    def ids(self) -> list[int]:
        """Made, the stop included."""
        return [token for step in self.steps for token in step.tokens]

    @property
    def macs(self) -> int:
        """Of all steps, without the prefill."""
        return sum(step.macs for step in self.steps)

    @property
    def macs_per_token(self) -> float:
        """Of the steps, a character made."""
        return self.macs / len(self.ids)

    def rows(self, case: str, prompt_id: int) -> list[dict[str, Any]]:
        """Rows of ``steps.parquet``."""
        place, rows = len(self.prompt) - 1, []
        for i, (step, seconds) in enumerate(zip(self.steps, self.seconds, strict=True)):
            rows.append(
                {
                    "case": case,
                    "prompt_id": prompt_id,
                    "step": i,
                    "place": place,
                    "tokens": len(step.tokens),
                    "exit": step.exit,
                    "macs": step.macs,
                    "drafted": step.drafted,
                    "accepted": step.accepted,
                    "tie": step.tie,
                    "latency_s": seconds,
                }
            )
            place += len(step.tokens)
        return rows


def generate(
    net: CharacterLm,
    costs: StepCosts,
    decoder: Decoder,
    prompt: Sequence[int],
    limit: int,
    *,
    stop: int | None = None,
    clock: Clock = lambda: 0.0,
    synchronise: Callable[[], None] = lambda: None,
) -> Made:
    """Decode one prompt.

    Args:
        net: in eval mode. costs: of it. prompt: ids, one at least. limit: characters, at most. stop: id that ends it.
        clock: seconds; nobody looks without one. synchronise: waits for the device before it is read.

    Raises:
        UsageError: settings that the model cannot have, or a prompt longer than its context.
    """
    decoder.check(net.size.layers)
    memory = Memory(net, costs)
    seconds: list[float] = []

    def read() -> float:
        synchronise()
        return clock()

    with torch.inference_mode(), frozen(net):
        begun = read()
        prefill(memory, prompt)
        last = read()
        prefill_s, prefill_macs = last - begun, memory.macs

        def lap() -> None:
            nonlocal last
            now = read()
            seconds.append(now - last)
            last = now

        steps = tuple(decode(decoder, memory, prompt, limit, stop=stop, lap=lap))
    stopped = stop is not None and bool(steps) and steps[-1].tokens[-1] == stop
    return Made(tuple(prompt), steps, tuple(seconds), prefill_macs, prefill_s, stopped)
