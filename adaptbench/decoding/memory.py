"""What a sequence leaves behind while it is decoded: keys and values of every layer, and states that left early."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from adaptbench.decoding.costs import StepCosts
from adaptbench.decoding.network import CharacterLm, Layer
from adaptbench.errors import UsageError


@dataclass(slots=True)
class Memory:
    """One sequence in decoding.

    A place whose token left at an exit has no keys and values in the layers above. When a later token gets that far,
    they are made of the state that left (CALM's state propagation, Schuster et al. 2022, §3.3), all that are missing
    in a layer at once; their MACs are of the step that needs them.

    Args:
        net: in eval mode. costs: of its parts.

    Attributes:
        macs: executed so far. filled: places that have keys and values, by layer; never more in a layer than below it.
    """

    net: CharacterLm
    costs: StepCosts
    macs: int = 0
    filled: list[int] = field(init=False)
    _keys: list[Tensor] = field(init=False)
    _values: list[Tensor] = field(init=False)
    _states: Tensor = field(init=False)

    def __post_init__(self) -> None:
        size, like = self.net.size, self.net.entry.weight
        shape = (1, size.heads, size.context, size.width // size.heads)
        self.filled = [0] * size.layers
        self._keys = [torch.zeros(shape, dtype=like.dtype, device=like.device) for _ in range(size.layers)]
        self._values = [torch.zeros_like(keys) for keys in self._keys]
        self._states = torch.zeros(1, size.context, size.width, dtype=like.dtype, device=like.device)

    def enter(self, ids: list[int], start: int) -> Tensor:
        """(1, n, d) states of ids at places from `start`, before any layer.

        Raises:
            UsageError: more than the context holds.
        """
        if start + len(ids) > self.net.size.context:
            raise UsageError(
                f"{start + len(ids)} characters were to be read by a model of {self.net.size.context}.",
                todo="Give a shorter prompt, or ask for fewer new characters.",
            )
        states: Tensor = self.net.entry(torch.tensor([ids], device=self._states.device))
        return states

    def run(self, layer: int, h: Tensor, start: int) -> Tensor:
        """A layer (from 0) on states (1, n, d) at places from `start`; what it has of earlier places is made whole."""
        module = self.net.layers[layer]
        assert isinstance(module, Layer)
        if (seen := self.filled[layer]) < start:
            self._keep(layer, module, self._states[:, seen:start], seen)
            self.macs += self.costs.fill * (start - seen)
        n = h.shape[1]
        end = start + n
        turns = self._keep(layer, module, h, start)
        mask = None
        if n > 1 and start:
            places = torch.arange(end, device=h.device)
            mask = places[None] <= places[start:, None]
        h = module(h, turns, self._keys[layer][:, :, :end], self._values[layer][:, :, :end], mask)
        self.macs += self.costs.layer(n, end)
        return h

    def logits(self, h: Tensor, exit: int) -> Tensor:
        """(n, V) of states (1, n, d) at an exit (from 0)."""
        self.macs += self.costs.head * h.shape[1]
        return self.net.exit_logits(h[0], exit)

    def leave(self, h: Tensor, place: int) -> None:
        """Remember the state (1, 1, d) with which a place left, for the layers above."""
        self._states[:, place : place + 1] = h

    def forget(self, length: int) -> None:
        """Drop what places from `length` on left behind: they were guesses."""
        self.filled = [min(filled, length) for filled in self.filled]

    def _keep(self, layer: int, module: Layer, h: Tensor, start: int) -> Tensor:
        end = start + h.shape[1]
        turns = self.net.turns[:, start:end].to(h.dtype)
        keys, values = module.keys_values(h, turns)
        self._keys[layer][:, :, start:end] = keys
        self._values[layer][:, :, start:end] = values
        self.filled[layer] = end
        return turns
