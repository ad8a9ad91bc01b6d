"""A patch: one square in which anything may stand."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from adaptbench.attacks.constraints import SLACK, Constraint
from adaptbench.attacks.randomness import sample_keys
from adaptbench.attacks.ranges import count, real

_PLACES = -2
"""The draw that places are made from; attacks count theirs from 0."""


@dataclass(frozen=True, slots=True)
class Patch(Constraint):
    """Only pixels inside a square change, to any value.

    Args:
        area: share of the picture, of which the side is made. side: in pixels, instead.
        place: "corner" is the upper left one; "centre"; "fixed", at row and column; "random", once a run, by its seed.
        row, column: of the upper left pixel, for "fixed".
    """

    name: ClassVar[str] = "patch"
    start: ClassVar[float] = 0.999
    area: Annotated[float, real(0, 1, open_low=True)] = 0.05
    side: Annotated[int, count(1, 4096)] | None = None
    place: Literal["corner", "centre", "fixed", "random"] = "corner"
    row: Annotated[int, count(0, 4095)] = 0
    column: Annotated[int, count(0, 4095)] = 0

    def size(self, shape: tuple[int, ...]) -> int:
        """The side in pixels; (…, H, W)."""
        height, width = shape[-2:]
        return self.side if self.side is not None else max(1, round(math.sqrt(self.area * height * width)))

    def rectangle(self, shape: tuple[int, ...]) -> tuple[slice, slice]:
        """Rows and columns of the square; (…, H, W)."""
        side, (height, width) = self.size(shape), shape[-2:]
        if self.place == "random":
            return self.placed(0, shape).rectangle(shape)
        row, column = {
            "corner": (0, 0),
            "centre": ((height - side) // 2, (width - side) // 2),
            "fixed": (self.row, self.column),
        }[self.place]
        return slice(row, row + side), slice(column, column + side)

    def applies_to(self, shape: tuple[int, ...]) -> str | None:
        """Not where it does not fit in."""
        side, (height, width) = self.size(shape), shape[-2:]
        row, column = (self.row, self.column) if self.place == "fixed" else (0, 0)
        if row + side > height or column + side > width:
            at = f" at row {row}, column {column}" if self.place == "fixed" else ""
            return f"a patch of {side} × {side} pixels{at} does not fit into {height} × {width}"
        return None

    def placed(self, seed: int, shape: tuple[int, ...]) -> Patch:
        """Where chance decides, at the place that the seed draws."""
        if self.place != "random":
            return self
        side, (height, width) = self.size(shape), shape[-2:]
        down, right = sample_keys(torch.arange(2), seed, _PLACES).tolist()
        return replace(self, place="fixed", row=down % (height - side + 1), column=right % (width - side + 1))

    def inside(self, like: Tensor) -> Tensor:
        """(H, W) bool, the square."""
        mask = torch.zeros(like.shape[-2:], dtype=torch.bool, device=like.device)
        mask[self.rectangle(tuple(like.shape))] = True
        return mask

    def project(self, x: Tensor, clean: Tensor) -> Tensor:
        """The clean picture outside."""
        return torch.where(self.inside(clean), x.clamp(0.0, 1.0), clean)

    def steepest(self, gradient: Tensor) -> Tensor:
        """The sign."""
        return gradient.sign()

    def draw(self, noise: Tensor, radius: float | None) -> Tensor:
        """The noise, of full range without a radius."""
        return noise * self.inside(noise) * (1.0 if radius is None else radius)

    def scatter(self, clean: Tensor, noise: Tensor) -> Tensor:
        """The noise itself, whatever stood there."""
        return torch.where(self.inside(clean), 0.5 + 0.5 * noise, clean)

    def lay(self, shared: Tensor, clean: Tensor) -> Tensor:
        """Over what stood there."""
        return torch.where(self.inside(clean), shared, clean)

    def outside(self, change: Tensor, slack: float = SLACK) -> Tensor:
        """Where anything else changed; of a place that is still to be drawn, more than one square holds."""
        changed = (change.abs() > slack).any(1)
        if self.place != "random":
            return (changed & ~self.inside(change)).flatten(1).any(1)
        side = self.size(tuple(change.shape))
        return (_extent(changed.any(2)) > side) | (_extent(changed.any(1)) > side)

    def readings(self, change: Tensor) -> dict[str, float]:
        """L0: how many pixels changed in any channel."""
        return {"pixels_changed_mean": float((change != 0).any(1).flatten(1).double().sum(1).mean())}

    def squash(self, w: Tensor, clean: Tensor) -> Tensor:
        """The whole range inside."""
        return torch.where(self.inside(clean), 0.5 + 0.5 * torch.tanh(w), clean)

    def unsquash(self, x: Tensor, clean: Tensor) -> Tensor:
        """Zero outside, where no variable moves anything."""
        w = torch.atanh((2.0 * x - 1.0).clamp(-self.start, self.start))
        return torch.where(self.inside(clean), w, torch.zeros_like(w))


def _extent(line: Tensor) -> Tensor:
    """(N,) from the first to the last true of (N, n)."""
    n = line.shape[1]
    at = torch.arange(n, device=line.device)
    last = torch.where(line, at, -1).amax(1)
    first = torch.where(line, at, n).amin(1)
    return (last - first + 1).clamp_min(0)
