"""What every kind of patterns must hold to.

Subclass in a test file and give yours::

    class TestMyPatterns(PatternConformance):
        def make(self) -> PatternKind:
            return MyPatterns(strength=3)

pytest collects the checks.
"""

from __future__ import annotations

from abc import abstractmethod

import pytest
import torch
from torch import Tensor, nn

from adaptbench.adaptive import MultiExit
from adaptbench.attacks.access import BlackBox
from adaptbench.attacks.base import Task
from adaptbench.attacks.constraints import Linf
from adaptbench.attacks.pattern_kinds import PatternKind
from adaptbench.attacks.queried import Campaign
from adaptbench.policies import UniformThreshold

SHAPES = ((1, 1, 1), (3, 5, 9), (1, 28, 28), (3, 32, 32))
INPUTS = 12


def campaign(shape: tuple[int, int, int], rows: Tensor | None = None, *, seed: int = 0) -> Campaign:
    """A craft of `INPUTS` pictures, or of some of them, that may ask ten times; the clean pictures are asked for.

    Args:
        shape: (C, H, W). rows: which pictures.
    """
    rows = torch.arange(INPUTS) if rows is None else rows
    pictures = torch.rand(INPUTS, *shape, generator=torch.Generator().manual_seed(5)).mul(255).round().div(255)
    net = MultiExit([nn.Flatten()], [nn.Linear(pictures[0].numel(), 2)], input_shape=shape)
    net.policy = UniformThreshold(0.9)
    task = Task(
        net.eval(), pictures[rows], torch.zeros_like(rows), rows * 7 + 3, seed, None, lambda *_: None
    )  # ids that are no positions
    return Campaign(task, Linf(), BlackBox(10))


class PatternConformance:
    """Checks that pytest collects from a subclass; each failure says which rule is broken."""

    @abstractmethod
    def make(self) -> PatternKind:
        """A new object for the kind under test."""

    def test_it_has_a_name(self) -> None:
        """Recipes write it."""
        assert self.make().name == self.make().name.strip() != ""

    @pytest.mark.parametrize("shape", SHAPES)
    def test_patterns_are_signs_of_every_shape(self, shape: tuple[int, int, int]) -> None:
        """±1 a pixel: a smaller change gives room of the ball away."""
        pattern = self.make().draw(campaign(shape))
        assert pattern.shape == (INPUTS, *shape)
        assert pattern.is_floating_point()
        assert (pattern.abs() == 1).all(), "a pattern is a sign a pixel"

    @pytest.mark.parametrize("shape", SHAPES[1:])
    def test_every_draw_is_another_one(self, shape: tuple[int, int, int]) -> None:
        """In time and between inputs; a pattern that comes back is a query for nothing."""
        asking, kind = campaign(shape), self.make()
        drawn = [kind.draw(asking) for _ in range(8)]
        assert not all(torch.equal(drawn[0], later) for later in drawn[1:]), "each draw is the same"
        together = torch.stack(drawn)
        assert (together != together[:, :1]).any(), "each input is given the same"

    @pytest.mark.parametrize("shape", SHAPES)
    def test_draws_belong_to_seed_and_input(self, shape: tuple[int, int, int]) -> None:
        """Whatever the batch and the global random state are."""
        torch.manual_seed(1)
        asking, kind = campaign(shape), self.make()
        whole = [kind.draw(asking) for _ in range(3)]
        torch.manual_seed(2)
        order = torch.arange(INPUTS).flip(0)[:5]
        part = campaign(shape, order)
        assert all(torch.equal(kind.draw(part), drawn[order]) for drawn in whole), "a pattern depends on the batch"
        if shape != SHAPES[0]:
            other = campaign(shape, seed=1)
            again = [kind.draw(other) for _ in range(3)]
            assert not all(map(torch.equal, whole, again)), "the seed is not looked at"

    def test_nothing_is_asked_and_nothing_written(self) -> None:
        """Queries are the search's to spend; the clean pictures are the attacker's own."""
        asking = campaign((1, 28, 28))
        clean, asked = asking.clean.clone(), asking.asked
        for _ in range(3):
            self.make().draw(asking)
        assert asking.asked == asked, "a pattern is drawn without a query"
        assert torch.equal(asking.clean, clean), "the clean pictures were changed"
