"""MACs of a decoder's parts, for every number of places, from a few that are counted."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from adaptbench.adaptive.counting import counting
from adaptbench.adaptive.model import frozen
from adaptbench.decoding.network import CharacterLm, Layer
from adaptbench.errors import GraphError

_COUNTED = ((1, 1), (1, 2), (2, 2), (3, 7), (2, 5))
"""(new places, places seen): three fix the plane, the others say whether it is one."""


@dataclass(frozen=True, slots=True)
class StepCosts:
    """MACs.

    Args:
        place: of a layer, a new place. pair: of a layer, a new place and each that its attention is computed with.
        fill: of a layer's keys and values alone, a place. head: of the logits, a place.
        uncounted: operators without a formula.
    """

    place: int
    pair: int
    fill: int
    head: int
    uncounted: tuple[str, ...] = ()

    def layer(self, new: int, seen: int) -> int:
        """Of one layer on `new` places that attend to `seen`, themselves among them.

        Attention is counted as it is computed: masked pairs are computed, too.
        """
        return self.place * new + self.pair * new * seen

    def pass_(self, new: int, seen: int, layers: int) -> int:
        """Of so many layers, no head."""
        return layers * self.layer(new, seen)


def count_costs(net: CharacterLm) -> StepCosts:
    """Run each layer on a few numbers of places, its keys and values alone, and a head.

    Raises:
        GraphError: layers that differ, or whose cost is no plane in places and pairs.
    """
    found: set[tuple[int, ...]] = set()
    uncounted: set[str] = set()
    with frozen(net):
        for layer in net.layers:
            assert isinstance(layer, Layer)
            counted = []
            for new, seen in _COUNTED:
                h = net.entry(torch.zeros(1, seen, dtype=torch.int64, device=net.entry.weight.device))
                turns = net.turns[:, :seen].to(h.dtype)
                with counting() as counter:
                    kept = layer.keys_values(h, turns)
                fill = counter.macs
                old = kept[0].shape[2] - new
                mask = None if new in (1, seen) else torch.ones(new, seen, dtype=torch.bool, device=h.device)
                with counting() as counter:
                    layer(h[:, old:], turns[:, old:], *kept, mask)
                uncounted |= set(counter.uncounted)
                counted.append((counter.macs + fill * new // seen, fill // seen))
            found.add(_plane(counted))
        with counting() as counter:
            net.exit_logits(h[0, :1], 0)
    if len(found) != 1:
        raise GraphError(
            f"the layers of the model cost differently: {sorted(found)}.",
            why="A step's cost is worked out of one layer's.",
            todo="Build it of layers of one size.",
        )
    place, pair, fill = found.pop()
    return StepCosts(place, pair, fill, counter.macs, tuple(sorted(uncounted)))


def _plane(counted: list[tuple[int, int]]) -> tuple[int, int, int]:
    """(place, pair, fill) of one layer."""
    (first, fill), (second, _), *_ = counted
    pair = second - first
    place = first - pair
    for (new, seen), (macs, one) in zip(_COUNTED, counted, strict=True):
        if (macs, one) != (place * new + pair * new * seen, fill):
            raise GraphError(
                f"a layer costs {macs} MACs for {new} places that see {seen}, which does not follow from the others.",
                why="A step's cost is looked up as places × a + pairs × b.",
                todo="Use full attention; attention in windows costs otherwise.",
            )
    return place, pair, fill
