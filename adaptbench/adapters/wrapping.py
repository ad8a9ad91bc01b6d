"""Bring your own: a module with several exits becomes a `MultiExit` whose later part is really not run.

The module is traced with torch.fx and its graph is cut at each exit: what later exits need is the stage, what only this
exit needs is its head. Where that fails and exits are named, forward is left there as it stands. Survivors are
compacted between stages like in any other decision graph.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from adaptbench.adapters.answers import part_of
from adaptbench.adapters.asking import graph_of
from adaptbench.adapters.cutting import Cut, unstacked
from adaptbench.adapters.examples import PROBES, probes_like, taken_apart
from adaptbench.adapters.explanation import ExitExplained, Explanation
from adaptbench.adapters.feeding import Inputs
from adaptbench.adapters.leaving import left_at
from adaptbench.adapters.replaying import values_of, without_writes
from adaptbench.adapters.texts import takes_fewer_columns
from adaptbench.adapters.whole import Whole
from adaptbench.adaptive import MultiExit, Policy, TokenDomain
from adaptbench.adaptive.constructors import Shape
from adaptbench.adaptive.domain import Domain
from adaptbench.adaptive.pixels import PixelExits
from adaptbench.adaptive.reaching import reached_exits
from adaptbench.errors import GraphError


class Adapted(MultiExit):
    """A `MultiExit` made of somebody's module; `explain` says what became of it."""

    _explanation: Explanation
    _differences: dict[int, list[float]]  # batch size that was compared → of each exit's logits

    def explain(self) -> Explanation:
        """Exits, their MACs here and in the author's code, the difference to the module, and where gradients reach."""
        return self._explanation


class AdaptedPixels(Adapted, PixelExits):
    """The same of a module that answers every pixel."""


def wrap(
    module: nn.Module,
    *,
    example: Tensor | Mapping[str, Tensor],
    logits: Callable[[Any], Any] | None = None,
    exits: Sequence[str] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    inputs: Inputs | None = None,
    lazy: bool = True,
    policy: Policy | None = None,
    bounds: tuple[float, float] = (0.0, 1.0),
    domain: Domain | None = None,
) -> Adapted:
    """Split a module into a multi-exit net, and compare the two on random inputs.

    Args:
        module: its forward takes pictures, or token ids, and gives the logits of several exits: a list, a tuple, a
            dictionary, a model output, ``(final, [others])``, or one stacked tensor (n, K, C) or (K, n, C). What
            `torch.compile` puts around it is taken off. Where logits are (n, C, H, W), of the pictures' own sides,
            the net is a `PixelExits`.
        example: (n, C, H, W) of a floating type, or ids (n, L), any n: its shape and type; its values are not looked
            at. Or what a tokenizer gives, a dictionary with the ids first: masks and positions then follow from them.
        logits: what forward returns → the list of logits, where forward returns more; with `exits`, what each of them
            returns → its logits.
        exits: names of the sub-modules whose outputs are the logits, from the first on; a list of modules stands for
            all in it, a module that is called several times for as many exits.
        kwargs: of forward, the same for every sample; inputs with a default keep it.
        inputs: a batch → what forward takes of it, where that is more than the batch: a tuple, or a dictionary by name.
        lazy: work that an exit does not need waits for the next one; False: it runs where the author's code has it.
        policy: decides at each exit but the last.
        bounds: of the input values, of pictures.
        domain: of the inputs, where the example does not say all: `TokenDomain` has the pieces that attacks edit by.

    Raises:
        GraphError: the module cannot be traced (the line is named), returns no logits alike, an exit is not
            found, forward draws, couples samples or writes into its own state, or the net is not the same function.
        DomainError: an example that is no batch of the domain, or inputs that do not follow from it.

    >>> class Net(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.body, self.early = nn.Linear(4, 8), nn.Linear(4, 3)
    ...         self.late = nn.Linear(8, 3)
    ...
    ...     def forward(self, x, return_aux=False):
    ...         n, c, h, w = x.shape
    ...         assert h == w, "square pictures only"
    ...         x = x.reshape(n, c * h * w)
    ...         final = self.late(self.body(x).relu())
    ...         return (final, [self.early(x)]) if return_aux else final
    >>> net = wrap(Net(), example=torch.zeros(1, 1, 2, 2), kwargs={"return_aux": True})
    >>> net.node_macs, net.explain().exits[0].macs_deferred
    ((12, 56), 56)
    """
    asked = taken_apart(module, example, kwargs=kwargs, inputs=inputs, bounds=bounds, domain=domain)
    whole = Whole(asked.module, asked.feed, exits=exits, logits=logits, name=asked.name)
    return adapted(whole, asked.probes(), asked.domain, lazy=lazy, policy=policy)


def adapted(whole: Whole, x: Tensor, domain: Domain, *, lazy: bool, policy: Policy | None) -> Adapted:
    """The net of a module that answers at several exits.

    Args:
        x: (n, …) probes. lazy, policy: as for `wrap`.

    Raises:
        GraphError: as `wrap`.
    """
    with torch.compiler.set_stance("force_eager"):
        whole.look([x[:n] for n in PROBES])
        whole.check(x)
        net = _made(whole, x, domain, lazy)
        if isinstance(domain, TokenDomain) and not (domain.trims and takes_fewer_columns(whole, net, domain)):
            net.domain = replace(domain, trims=False)
            net._explanation = replace(net._explanation, columns=domain.length)
    if policy is not None:
        net.policy = policy
    return net


def from_logits_list(
    module: nn.Module,
    *,
    input_shape: Shape,
    exits: Sequence[str] | None = None,
    output: int | str | None = None,
    policy: Policy | None = None,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Adapted:
    """`wrap` for pictures of a known shape.

    Args:
        module: its forward takes pictures (N, C, H, W) and returns a list or tuple of logits, earliest exit first.
        input_shape: (C, H, W).
        exits, policy, bounds: as for `wrap`.
        output: index or key of the list of logits, where forward returns it beside other things.

    Raises:
        GraphError: as `wrap`.

    >>> class Net(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.early = nn.Linear(4, 3)
    ...         self.body, self.late = nn.Linear(4, 8), nn.Linear(8, 3)
    ...
    ...     def forward(self, x):
    ...         x = x.flatten(1)
    ...         return [self.early(x), self.late(self.body(x).relu())]
    >>> from_logits_list(Net(), input_shape=(1, 2, 2)).node_macs
    (12, 56)
    """
    logits = None if output is None else partial(part_of, output=output, name=type(module).__name__)
    example = torch.zeros(1, *input_shape)
    return wrap(module, example=example, logits=logits, exits=exits, policy=policy, bounds=bounds)


def _made(whole: Whole, x: Tensor, domain: Domain, lazy: bool) -> Adapted:
    """By tracing; where that fails and exits are named, by leaving forward at them."""
    try:
        return traced(whole, x, domain, lazy=lazy)
    except GraphError as first:
        if whole.exits is None:
            raise
        try:
            return left(whole, x, domain)
        except GraphError as second:
            raise GraphError(
                first.seen, why=first.why, todo=f"{first.todo}\nLeft at its exits as it stands: {second}"
            ) from first


def traced(whole: Whole, x: Tensor, domain: Domain, *, lazy: bool = True) -> Adapted:
    """The net, by tracing.

    Args:
        x: (n, …) probes.
    """
    graph, sizes_asked = graph_of(whole, [x[: PROBES[0]], x[PROBES[0] :]])
    steps = without_writes(graph, x[:1], whole.name)
    (last,) = [n for n in graph.graph.nodes if n.op == "output"]
    leaves = [unstacked(leaf, steps.values) for leaf in last.args[0]]
    cut = Cut(graph, leaves, steps.macs, values_of(graph, [x[:n] for n in PROBES]), PROBES)
    order = whole.put_in_order(cut.own_macs)
    cut = cut.in_order(order, lazy=lazy)
    _warn_of_falling(cut.own_macs, whole.name)
    net = _judged(whole, *cut.parts(), x, domain, sizes_asked)
    return _told(net, whole, "traced", cut.lazy, cut.macs_as_written, cut.macs_unused)


def left(whole: Whole, x: Tensor, domain: Domain) -> Adapted:
    """The net, by leaving forward at its exits; arguments as above."""
    stages, heads, plan = left_at(whole, [x[:n] for n in PROBES])
    net = _judged(whole, stages, heads, x, domain, ())
    unused = plan.macs_full - plan.macs_as_written[-1]
    return _told(net, whole, "left at its exits", False, plan.macs_as_written, unused)


def _judged(
    whole: Whole,
    stages: Sequence[nn.Module],
    heads: Sequence[nn.Module],
    x: Tensor,
    domain: Domain,
    sizes_asked: Iterable[int],
) -> Adapted:
    """The net, compared with the module in several batch sizes."""
    kind = AdaptedPixels if whole.per_pixel else Adapted
    net = kind(stages, heads, domain=domain, names=whole.exit_names)
    net._differences = {
        n: whole.compare(net, x[:n] if n <= len(x) else probes_like(x, domain, n))
        for n in sorted({1, len(x), *sizes_asked})
    }
    return net


def _warn_of_falling(own: Sequence[int], name: str) -> None:
    if falling := [k for k in range(1, len(own)) if own[k] < own[k - 1]]:
        warnings.warn(
            f"exit {falling[0] + 1} of {name} takes {own[falling[0]]} MACs on its own, the one before it "
            f"{own[falling[0] - 1]}: list exits from the earliest to the deepest; the last is the static reference.",
            stacklevel=4,
        )


def _told(net: Adapted, whole: Whole, way: str, lazy: bool, as_written: Sequence[int], unused: int) -> Adapted:
    """The net with what is to be said of it."""
    paid = list(accumulate(net.node_macs))
    reached = reached_exits(net, net.dense_logits)
    exits = tuple(
        ExitExplained(name, paid[k], as_written[k], max(d[k] for d in net._differences.values()), reached[k])
        for k, name in enumerate(net.exit_names)
    )
    net._explanation = Explanation(whole.name, way, lazy, exits, unused, tuple(net._differences))
    return net
