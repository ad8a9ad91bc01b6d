"""What a module is asked with: its domain, from an example, and random inputs of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from adaptbench.adapters.asking import check_bound, unwrapped
from adaptbench.adapters.feeding import Feed, Inputs, unpacked
from adaptbench.adapters.texts import followed_words, looked_up, padding_of, token_domain, token_probes
from adaptbench.adaptive import ImageDomain, TokenDomain
from adaptbench.adaptive.domain import Domain, pictures_like
from adaptbench.errors import DomainError

PROBES = (2, 3)
"""Sizes of the two batches that a module is looked at with."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A module, and how it is asked.

    Args:
        module: somebody's; of text with its table of words in our form. feed: how its forward is called.
        domain: of its inputs. dtype: of the example.
    """

    module: nn.Module
    feed: Feed
    domain: Domain
    dtype: torch.dtype

    @property
    def name(self) -> str:
        """Of its class."""
        return type(self.module).__name__

    def probes(self) -> Tensor:
        """(n, …) random inputs that the module is looked at with, in the type of its weights."""
        weight = next(self.module.parameters(), torch.zeros((), dtype=self.dtype))
        return probes_like(weight, self.domain, sum(PROBES))


def taken_apart(
    module: Any,
    example: Any,
    *,
    kwargs: Mapping[str, Any] | None,
    inputs: Inputs | None,
    bounds: tuple[float, float],
    domain: Domain | None,
) -> Subject:
    """A module and how it is asked; arguments as for `wrap`.

    Raises:
        GraphError: no module, or inputs of its forward without a value.
        DomainError: the example is no batch of a domain.
    """
    module = unwrapped(module)
    pad = domain.pad if isinstance(domain, TokenDomain) else None
    if isinstance(example, Mapping):
        if inputs is not None:
            raise DomainError(
                "inputs= and an example of several tensors were both given.",
                todo="Give the ids alone as the example, or leave inputs= out.",
            )
        example, inputs = _unpacked(example, [pad] if pad is not None else [*_declared(module), 0])
    feed = Feed(dict(kwargs or {}), inputs)
    if domain is not None or not is_ids(example):
        domain = domain_of(example, bounds, domain)
        check_bound(module, feed, example)
        if not is_ids(example):
            return Subject(module, feed, domain, example.dtype)
    check_bound(module, feed, example)
    tables = looked_up(module, feed, example)
    if domain is None:
        domain = token_domain(tables, example, padding_of(tables), type(module).__name__)
    return Subject(followed_words(module, tables), feed, domain, example.dtype)


def domain_of(example: Any, bounds: tuple[float, float], domain: Domain | None = None) -> Domain:
    """What a net takes of which nothing else is known than an example.

    Raises:
        DomainError: no floating tensor (n, C, H, W), and no domain that fits it.
    """
    if domain is None and is_ids(example):
        raise DomainError(
            f"the example is ids {tuple(example.shape)}, and which there are is not known.",
            todo=f"Say it: domain=ab.TokenDomain({example.shape[1]}, vocabulary), the piece of each id.",
        )
    return _picture_domain(example, bounds) if domain is None else _fitting(domain, example)


def is_ids(example: Any) -> bool:
    """(n, L) whole numbers."""
    return isinstance(example, Tensor) and example.ndim == 2 and example.dtype in (torch.int64, torch.int32)


def probes_like(weight: Tensor, domain: Domain, n: int) -> Tensor:
    """(n, …) random inputs of a domain, on a weight's device; texts full and padded by turns."""
    if isinstance(domain, TokenDomain):
        return token_probes(domain, n).to(weight.device)
    return pictures_like(weight, domain, n)


def _declared(module: nn.Module) -> list[int]:
    return [m.padding_idx for m in module.modules() if isinstance(m, nn.Embedding) and m.padding_idx is not None]


def _unpacked(example: Mapping[str, Tensor], pads: list[int]) -> tuple[Tensor, Inputs | None]:
    for pad in pads[:-1]:
        try:
            return unpacked(example, pad)
        except DomainError:
            continue
    return unpacked(example, pads[-1])


def _picture_domain(example: Any, bounds: tuple[float, float]) -> ImageDomain:
    if not isinstance(example, Tensor) or example.ndim != 4 or not example.is_floating_point() or not len(example):
        raise DomainError(
            f"the example is {_seen(example)}, not a batch of pictures (n, C, H, W) of a floating type, "
            "nor of token ids (n, L).",
            why="Series (n, C, T) need their range said: domain=ab.SeriesDomain((C, T), low, high)."
            if isinstance(example, Tensor) and example.ndim == 3 and example.is_floating_point()
            else "",
            todo="Give one as the net takes it: example=torch.zeros(1, 3, 32, 32), or torch.zeros(1, 64, "
            "dtype=torch.int64); 8-bit pictures: x / 255.",
        )
    _, c, h, w = example.shape
    return ImageDomain((c, h, w), *bounds)


def _fitting(domain: Domain, example: Any) -> Domain:
    floats = not isinstance(domain, TokenDomain)
    if (
        not isinstance(example, Tensor)
        or tuple(example.shape[1:]) != tuple(domain.shape)
        or example.is_floating_point() != floats
    ):
        raise DomainError(
            f"the example is {_seen(example)}; the domain takes {'floats' if floats else 'ids'} "
            f"(n, {', '.join(map(str, domain.shape))}).",
            todo="Give an example and a domain of one shape.",
        )
    return domain


def _seen(example: Any) -> str:
    return f"{example.dtype} {tuple(example.shape)}" if isinstance(example, Tensor) else type(example).__name__
