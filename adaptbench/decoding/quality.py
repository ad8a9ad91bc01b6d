"""How well a decoder predicts given text: bits a character and the share of next characters it gets right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from adaptbench.decoding.costs import StepCosts
from adaptbench.decoding.decoders import Decoder, prefill
from adaptbench.decoding.memory import Memory
from adaptbench.decoding.network import CharacterLm

_LN2 = math.log(2)


@torch.inference_mode()
def predicted(
    net: CharacterLm, costs: StepCosts, decoder: Decoder, text: Sequence[int], given: int
) -> list[tuple[float, bool, int]]:
    """(bits, right, MACs) of every character behind the first `given`, each predicted with the true ones before it.

    The state that a token left with is what later ones see of it, as in decoding. λ(t) runs over the text's length.

    Args:
        decoder: of one character a step. text: ids. given: of the prompt, one at least.
    """
    memory, found = Memory(net, costs), []
    prefill(memory, text[:given])
    for place in range(given - 1, len(text) - 1):
        step = decoder.step(memory, text[place], place, place - given + 1, len(text) - given)
        assert step.logits is not None
        bits = -float(step.logits.log_softmax(-1)[text[place + 1]]) / _LN2
        found.append((bits, step.tokens[0] == text[place + 1], step.macs))
    return found


@torch.inference_mode()
def at_each_exit(
    net: CharacterLm, costs: StepCosts, texts: Sequence[Sequence[int]], given: int
) -> list[dict[str, Any]]:
    """A row an exit: as if every character, prompt and all, went so far and no further.

    Returns:
        exit (from 1), bits, accuracy; MACs a character of a decoder that stops there, mean over the places.
    """
    layers = net.size.layers
    bits, right, macs, n = [0.0] * layers, [0] * layers, [0] * layers, 0
    for text in texts:
        ids = torch.tensor(text, device=net.entry.weight.device)
        logits = net(ids[None, :-1])[0][:, given - 1 :]
        true = ids[given:]
        n += len(true)
        for k in range(layers):
            of_true = logits[k].log_softmax(-1).gather(-1, true[:, None])
            bits[k] += -float(of_true.double().sum()) / _LN2
            right[k] += int((logits[k].argmax(-1) == true).sum())
            macs[k] += sum(
                (k + 1) * costs.layer(1, place + 1) + costs.head for place in range(given - 1, len(text) - 1)
            )
    return [
        {"exit": k + 1, "bits_per_character": bits[k] / n, "accuracy": right[k] / n, "macs_per_token": macs[k] / n}
        for k in range(layers)
    ]
