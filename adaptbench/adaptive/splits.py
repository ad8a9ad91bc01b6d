"""Labelled samples with a role. The role decides what they may be used for: fitting, choosing or claiming."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from adaptbench.errors import DataFormatError, DomainError, LeakageError, UsageError

Role = Literal["train", "calibration", "test"]
_KINDS = ((torch.uint8, 4), (torch.int64, 2), (torch.float32, 3))
IGNORED = 255
"""Label of a pixel that does not count: neither right nor wrong."""


@dataclass(frozen=True, slots=True)
class Split:
    """Samples of one role, in a fixed order.

    Args:
        name: the data set's name.
        role: what the samples may be used for.
        x: (N, C, H, W) uint8 pictures, (N, L) int64 token ids, or (N, C, T) float32 series.
        y: (N,) int64 labels; of pictures also (N, H, W) uint8, one a pixel, `IGNORED` where it does not count.
        ids: (N,) int64, unique over all roles of the data set.
        class_names: one name a class.
        sha256: of inputs and labels, worked out here; given only where other inputs stand in for them.

    Raises:
        UsageError: tensors of another type or shape, of different lengths, or an id twice.
        DataFormatError: a label outside the classes.
    """

    name: str
    role: Role
    x: Tensor
    y: Tensor
    ids: Tensor
    class_names: tuple[str, ...]
    sha256: str = field(default="")

    def __post_init__(self) -> None:
        if not (isinstance(self.x, Tensor) and (self.x.dtype, self.x.ndim) in _KINDS):
            raise UsageError(
                f"a split of '{self.name}' holds {_kind(self.x)} as inputs.",
                todo="Give uint8 pictures of shape (N, C, H, W), the normaliser being the model's; int64 token ids "
                "of shape (N, L); or float32 series of shape (N, C, T).",
            )
        for what, values in (("labels", self.y), ("ids", self.ids)):
            if what == "labels" and self.per_pixel:
                continue
            if not (isinstance(values, Tensor) and values.dtype == torch.int64 and values.ndim == 1):
                raise UsageError(
                    f"a split of '{self.name}' holds {_kind(values)} as {what}.",
                    why="One-hot, soft or fractional labels are none of the classes." if what == "labels" else "",
                    todo=f"Give int64 {what} of shape (N,)"
                    + ("; a class for each pixel: uint8 of shape (N, H, W)." if what == "labels" else "."),
                )
        if not (len(self.x) == len(self.y) == len(self.ids)):
            raise UsageError(
                f"a split of '{self.name}' has {len(self.x)} inputs, {len(self.y)} labels and {len(self.ids)} ids."
            )
        known = self.y[self.y != IGNORED] if self.per_pixel else self.y
        if len(known) and not (known.min() >= 0 and known.max() < len(self.class_names)):
            raise DataFormatError(
                f"a split of '{self.name}' holds labels from {int(known.min())} to {int(known.max())}; "
                f"its classes are 0 … {len(self.class_names) - 1}.",
                why="A label outside the classes is a damaged or a different file.",
            )
        if len(set(self.ids.tolist())) < len(self.ids):
            raise UsageError(
                f"a split of '{self.name}' gives one id to several samples.",
                why="Samples are paired by id across runs.",
            )
        if not self.sha256:
            object.__setattr__(self, "sha256", hash_samples(self.x, self.y))

    def __len__(self) -> int:
        return len(self.y)

    @property
    def per_pixel(self) -> bool:
        """Every pixel has a label of its own."""
        y, x = self.y, self.x
        return (
            isinstance(y, Tensor)
            and (y.dtype, y.ndim, x.dtype) == (torch.uint8, 3, torch.uint8)
            and y.shape[1:] == x.shape[-2:]
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of one picture, (L,) of one text, (C, T) of one series."""
        return tuple(self.x.shape[1:])

    @property
    def picture_shape(self) -> tuple[int, int, int]:
        """(C, H, W).

        Raises:
            DomainError: they are no pictures.
        """
        _, c, h, w = self.images(0, 0).shape
        return c, h, w

    def images(self, start: int = 0, stop: int | None = None) -> Tensor:
        """(n, C, H, W) float32 in [0, 1] of the rows start … stop.

        Raises:
            DomainError: they are no pictures.
        """
        if self.x.dtype != torch.uint8:
            raise DomainError(
                f"pictures were asked of the {'series' if self.x.is_floating_point() else 'texts'} of '{self.name}'.",
                why="Series have values of their own; scaled like pixels they mean nothing."
                if self.x.is_floating_point()
                else "Token ids are names; scaled like pixels they mean nothing.",
                todo="Ask for split.inputs(), or name a data set of pictures.",
            )
        return self.x[start:stop].float().div_(255.0)

    def inputs(self, start: int = 0, stop: int | None = None) -> Tensor:
        """What a model takes of the rows start … stop: `images`, (n, L) int64 token ids, (n, C, T) series."""
        return self.images(start, stop) if self.x.dtype == torch.uint8 else self.x[start:stop].clone()

    def chunks(self, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """(inputs, labels, ids) in pieces cut at fixed places."""
        for start in range(0, len(self), size):
            yield self.inputs(start, start + size), self.y[start : start + size], self.ids[start : start + size]

    def first(self, n: int | None) -> Split:
        """The first n samples (all, when n is None or larger)."""
        if n is None or n >= len(self):
            return self
        return replace(self, x=self.x[:n], y=self.y[:n], ids=self.ids[:n], sha256="")

    def require(self, *roles: Role, purpose: str) -> None:
        """Refuse a purpose that this role may not serve.

        Raises:
            LeakageError: the role is not among those allowed.
        """
        if self.role not in roles:
            raise LeakageError(
                f"the {self.role} split of '{self.name}' was given for {purpose}.",
                why="A figure measured on samples that shaped the model is not evidence.",
                todo=f"Give the {' or '.join(roles)} split.",
            )


def _kind(values: object) -> str:
    if isinstance(values, Tensor):
        return f"{values.dtype} of shape {tuple(values.shape)}"
    return f"a {type(values).__name__}"


def hash_samples(x: Tensor, y: Tensor) -> str:
    """SHA-256 over shape, pixels or ids, and labels, in order."""
    digest = hashlib.sha256(repr(tuple(x.shape)).encode())
    digest.update(x.contiguous().numpy().tobytes())
    digest.update(y.to(torch.int64).contiguous().numpy().tobytes())
    return digest.hexdigest()
