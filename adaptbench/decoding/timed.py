"""Arms for the interleaved protocol: the prefill of some prompts, and each decoder's steps on them, without it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from adaptbench.decoding.costs import StepCosts
from adaptbench.decoding.decoders import decode, prefill
from adaptbench.decoding.generation import generate
from adaptbench.decoding.memory import Memory
from adaptbench.decoding.network import CharacterLm
from adaptbench.decoding.schema import Prompts, Way
from adaptbench.meters.reading import Work
from adaptbench.meters.windows import Arm

PREFILL = "prefill"
"""The arm of the prompts alone: the same pass for every decoder. Its samples are their characters but the last."""


def arms_of(
    net: CharacterLm, costs: StepCosts, ways: Sequence[Way], prompts: Sequence[list[int]], spec: Prompts
) -> dict[str, Arm]:
    """Case → arm; an arm's samples are characters, of a decoder those that it makes.

    Every answer starts from a memory that holds its prompt already; what it adds is dropped before the next window.
    """

    @torch.inference_mode()
    def read() -> None:
        for prompt in prompts:
            prefill(Memory(net, costs), prompt)

    n = sum(len(prompt) - 1 for prompt in prompts)
    macs = sum(costs.pass_(len(prompt) - 1, len(prompt) - 1, net.size.layers) for prompt in prompts)
    arms = {PREFILL: Arm(PREFILL, read, Work(macs, None, n), [read])}
    for way in ways:
        arms[way.id] = _arm(net, costs, way, prompts, spec)
    return arms


def _arm(net: CharacterLm, costs: StepCosts, way: Way, prompts: Sequence[list[int]], spec: Prompts) -> Arm:
    made = [generate(net, costs, way.decoder, prompt, spec.new_chars, stop=spec.stop_id) for prompt in prompts]
    memories = [Memory(net, costs) for _ in prompts]
    with torch.inference_mode():
        for memory, prompt in zip(memories, prompts, strict=True):
            prefill(memory, prompt)

    def run() -> None:
        for memory, prompt in zip(memories, prompts, strict=True):
            memory.forget(len(prompt) - 1)
            for _ in decode(way.decoder, memory, prompt, spec.new_chars, stop=spec.stop_id):
                pass

    work = Work(sum(one.macs for one in made), None, sum(len(one.ids) for one in made))
    return Arm(way.id, run, work, [run])
