"""The four shapes users name: MultiExit, Cascade, NetworkDag and a plain net; each a few lines over `DecisionGraph`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import nn

from adaptbench.adaptive.domain import Domain, ImageDomain, pictures_like
from adaptbench.adaptive.foreign import runs
from adaptbench.adaptive.graph import DecisionGraph, Node
from adaptbench.adaptive.model import frozen
from adaptbench.adaptive.policy import Policy
from adaptbench.errors import GraphError

Shape = tuple[int, int, int]


def _domain(input_shape: Shape, bounds: tuple[float, float]) -> ImageDomain:
    return ImageDomain(tuple(input_shape), *bounds)  # type: ignore[arg-type]


def _classes(net: nn.Module, head: nn.Module | None, domain: Domain, dimensions: int = 2) -> int:
    """C, by running the first exit on one input. dimensions: of the logits, 4 where every pixel is answered."""
    x = pictures_like(next(net.parameters(), torch.zeros(())), domain)
    with frozen(net), frozen(head or nn.Identity()), torch.no_grad(), runs("the first exit"):
        out = net(x)
        logits = head(out) if head is not None else out
    if not isinstance(logits, torch.Tensor) or logits.ndim != dimensions:
        raise GraphError(
            f"the first exit returned {getattr(logits, 'shape', type(logits).__name__)}, not logits of shape "
            f"{'(N, C)' if dimensions == 2 else '(N, C, H, W)'}.",
            why="" if dimensions == 2 else "A net of this kind answers every pixel.",
            todo="End each head with a linear layer over classes." if dimensions == 2 else "Leave the pooling out.",
        )
    return int(logits.shape[1])


class MultiExit(DecisionGraph):
    """One net cut into stages with a head after each: early exit.

    Args:
        stages: the backbone in pieces, each reading the previous one's features.
        heads: one classifier a stage; the last is the net's own.
        input_shape: (C, H, W), of pictures. domain: in its place, of other inputs.
        names: of the exits (default exit1 …).
        policy: decides at every exit but the last.
        bounds: of the input values.

    >>> from torch import nn
    >>> heads = [nn.Linear(4, 3), nn.Linear(8, 3)]
    >>> net = MultiExit(stages=[nn.Flatten(), nn.Linear(4, 8)], heads=heads, input_shape=(1, 2, 2))
    >>> net.node_macs, net.macs_full
    ((12, 56), 56)
    """

    def __init__(
        self,
        stages: Sequence[nn.Module],
        heads: Sequence[nn.Module],
        *,
        input_shape: Shape | None = None,
        domain: Domain | None = None,
        names: Sequence[str] | None = None,
        policy: Policy | None = None,
        bounds: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        if len(stages) != len(heads) or not stages:
            raise GraphError(
                f"{len(stages)} stages were given with {len(heads)} heads.",
                todo="Give one head for each stage; the last is the net's own.",
            )
        names = list(names or [f"exit{k + 1}" for k in range(len(stages))])
        if len(names) != len(stages):
            raise GraphError(f"{len(names)} names were given to {len(stages)} exits.")
        nodes = [
            Node(name, stage, head, reads=names[k - 1] if k else "input", to=tuple(names[k + 1 : k + 2]))
            for k, (name, stage, head) in enumerate(zip(names, stages, heads, strict=True))
        ]
        if (domain is None) == (input_shape is None):
            raise GraphError(
                f"{'neither' if domain is None else 'both'} of input_shape and domain were given.",
                todo="Give input_shape=(C, H, W) of pictures, or domain= of anything else.",
            )
        if domain is None:
            assert input_shape is not None
            domain = _domain(input_shape, bounds)
        super().__init__(
            nodes,
            domain=domain,
            n_classes=_classes(stages[0], heads[0], domain, 4 if self.per_pixel else 2),
            policy=policy,
            reference=names,
            shape="multi-exit",
        )


class NetworkDag(DecisionGraph):
    """Whole nets and the permitted hand-overs between them: network selection.

    Args:
        nets: name → net returning logits, cheapest (the entry) first.
        edges: (from, to) by name; default: every net to every later one.
        input_shape: (C, H, W).
        policy: decides at each net with a way on.
        reference: the most accurate net (default: the last).
        bounds: of the input values.
    """

    def __init__(
        self,
        nets: Mapping[str, nn.Module],
        *,
        input_shape: Shape,
        edges: Sequence[tuple[str, str]] | None = None,
        policy: Policy | None = None,
        reference: str | None = None,
        bounds: tuple[float, float] = (0.0, 1.0),
        shape: str = "dag",
    ) -> None:
        names = list(nets)
        if not names:
            raise GraphError("a network DAG without nets.", todo="Give at least one.")
        if edges is None:
            edges = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
        if unknown := {n for edge in edges for n in edge} - set(names):
            raise GraphError(f"an edge names '{min(unknown)}', which is no net.", todo=f"Nets: {', '.join(names)}.")
        nodes = [Node(name, net, to=tuple(b for a, b in edges if a == name)) for name, net in nets.items()]
        domain = _domain(input_shape, bounds)
        super().__init__(
            nodes,
            domain=domain,
            n_classes=_classes(nets[names[0]], None, domain),
            policy=policy,
            reference=[reference or names[-1]],
            shape=shape,
        )


class Cascade(NetworkDag):
    """Nets of growing size, one after another; each starts from the image and every one visited is paid for.

    Args:
        nets: name → net returning logits, in order.
        input_shape: (C, H, W).
        policy: decides after every net but the last.
        reference: the most accurate member (default: the last).
        bounds: of the input values.
    """

    def __init__(
        self,
        nets: Mapping[str, nn.Module],
        *,
        input_shape: Shape,
        policy: Policy | None = None,
        reference: str | None = None,
        bounds: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        names = list(nets)
        super().__init__(
            nets,
            input_shape=input_shape,
            edges=list(pairwise(names)),
            policy=policy,
            reference=reference,
            bounds=bounds,
            shape="cascade",
        )


class Static(DecisionGraph):
    """A plain net: an adaptive model with one path.

    Args:
        net: returns logits (N, C).
        input_shape: (C, H, W).
        bounds: of the input values.
    """

    def __init__(
        self, net: nn.Module, *, input_shape: Shape, bounds: tuple[float, float] = (0.0, 1.0), name: str = "net"
    ) -> None:
        domain = _domain(input_shape, bounds)
        super().__init__([Node(name, net)], domain=domain, n_classes=_classes(net, None, domain), shape="static")
