"""Exits put on a net that has none, and their heads fitted with the net left as it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from adaptbench.adapters.examples import taken_apart
from adaptbench.adapters.exit_names import not_called
from adaptbench.adapters.feeding import Feed, Inputs
from adaptbench.adapters.gap_linear import GapLinear, Layout, channels_of, checked_layout, has_padding, words_in
from adaptbench.adapters.layouts import Layouts
from adaptbench.adapters.tracing import Tap
from adaptbench.adapters.whole import Whole
from adaptbench.adapters.wrapping import Adapted, adapted
from adaptbench.adaptive import MultiExit, Policy, Split, TokenDomain
from adaptbench.adaptive.domain import Domain
from adaptbench.adaptive.model import frozen
from adaptbench.adaptive.writes import apart
from adaptbench.errors import GraphError, UsageError

FINAL = "final"
Head = Callable[[Tensor], nn.Module]


class _WithExits(nn.Module):
    """A classifier whose sub-modules' outputs are also read by heads.

    Args:
        words: where forward's ids are and what pads them, for heads that leave padding out. masked: which heads do.
    """

    def __init__(
        self,
        module: nn.Module,
        after: Sequence[str],
        heads: Sequence[nn.Module],
        words: tuple[int | str, int] | None = None,
        masked: Sequence[bool] = (),
    ) -> None:
        super().__init__()
        self.module, self.after, self.words, self.masked = module, tuple(after), words, tuple(masked)
        self.heads = nn.ModuleList(heads)
        self.final = nn.Identity()

    def forward(self, *given: Any, **kwargs: Any) -> Any:
        """The classifier's own answer; its exits and the heads are sub-modules that are called on the way."""
        is_word: list[Tensor] = []
        if self.words is not None and any(self.masked):
            key, pad = self.words
            is_word = [(given[key] if isinstance(key, int) else kwargs[key]) != pad]

        def read(k: int, out: Any) -> Any:
            return self.heads[k](out, *(is_word if self.masked[k] else ()))

        with _tapped(self.module, self.after, read):
            return self.final(self.module(*given, **kwargs))


@contextmanager
def _tapped(module: nn.Module, after: Sequence[str], read: Callable[[int, Any], Any]) -> Iterator[None]:
    taps = [Tap(lambda out, k=k: read(k, out)) for k in range(len(after))]  # type: ignore[misc]
    handles = [module.get_submodule(path).register_forward_hook(tap) for path, tap in zip(after, taps, strict=True)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def attach_exits(
    module: nn.Module,
    *,
    after: Sequence[str],
    example: Tensor | Mapping[str, Tensor],
    head: str | Head = "gap-linear",
    kwargs: Mapping[str, Any] | None = None,
    inputs: Inputs | None = None,
    lazy: bool = True,
    policy: Policy | None = None,
    bounds: tuple[float, float] = (0.0, 1.0),
    domain: Domain | None = None,
    layout: Layout | None = None,
) -> Adapted:
    """Put exits on a classifier; what comes after an exit is really not run.

    Args:
        module: its forward takes pictures or token ids and returns logits (n, C); it is shared and not changed.
        after: names of sub-modules, in the order in which forward calls them: an exit reads what each of them gives.
        example: (n, C, H, W) or ids (n, L), any n: its shape and type; or as for `wrap`.
        head: "gap-linear", the mean over places, padding left out, and a linear layer; or a function of the features
            (n, …) → a module that gives (n, C). Fit them with `fit_heads`.
        kwargs, inputs, lazy, policy, bounds, domain: as for `wrap`.
        layout: of the features that "gap-linear" reads, where it cannot be told from the layers that they come from.

    Raises:
        GraphError: a sub-module is not there or gives no tensor, a head does not fit, which dimension holds channels,
            or which places are padding, cannot be told, or as `wrap`.
        UsageError: no such head or layout.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    >>> exits = attach_exits(net, after=["2", "4"], example=torch.zeros(1, 1, 2, 2))
    >>> exits.exit_names, exits.node_macs
    (('2', '4', 'final'), (56, 66, 18))
    """
    asked = taken_apart(module, example, kwargs=kwargs, inputs=inputs, bounds=bounds, domain=domain)
    module, x = asked.module, asked.probes()
    name, after = type(module).__name__, [after] if isinstance(after, str) else list(after)
    checked_layout(layout)
    if head != "gap-linear" and not callable(head):
        raise UsageError(
            f"'{head}' is no head.", todo="Give 'gap-linear', or a function of the features (n, …) → nn.Module."
        )
    two = x[:2]
    follow = Layouts(None if isinstance(asked.domain, TokenDomain) else two)
    features, n_classes = _looked_at(module, after, two, asked.feed, name, follow)
    words, masked, heads = words_in(asked.feed, x, asked.domain), [False] * len(after), []
    for k, (path, (h, dim)) in enumerate(zip(after, features, strict=True)):
        if callable(head):
            heads.append(head(h))
            continue
        channels = channels_of(path, h, dim, layout)
        masked[k] = has_padding(path, h, channels, words, asked.domain)
        heads.append(GapLinear(h, channels, n_classes))
    together = _WithExits(module, after, heads, words, masked)
    for made in heads:
        made.train(module.training)
    exits = [f"heads.{k}" for k in range(len(heads))]
    whole = Whole(together, asked.feed, exits=[*exits, FINAL], logits=None, name=name, exit_names=[*after, FINAL])
    return adapted(whole, x, asked.domain, lazy=lazy, policy=policy)


def _looked_at(
    module: nn.Module, after: Sequence[str], x: Tensor, feed: Feed, name: str, follow: Layouts
) -> tuple[list[tuple[Tensor, int | None]], int]:
    """What each of the sub-modules gives, with the dimension of its channels, and how many classes there are."""
    named = dict(module.named_modules(remove_duplicate=False))
    if not after or len(set(after)) < len(after):
        raise GraphError(f"after={list(after)!r} names {'no sub-module' if not after else 'a sub-module twice'}.")
    for path in after:
        if path not in named or not path:
            raise not_called(module, path, name, [p for p in named if p])
    seen: list[tuple[str, Any, int | None]] = []

    def note(k: int, out: Any) -> None:
        seen.append((after[k], out, follow.dim_of(out) if isinstance(out, Tensor) else None))

    with _tapped(module, after, note), follow:
        answer = Whole(module, feed, exits=None, logits=None, name=name).returned(x)
    calls = [path for path, _, _ in seen]
    for path in after:
        if path not in calls:
            raise not_called(module, path, name, [p for p in named if p])
    if calls != list(after):
        raise GraphError(
            f"{name}.forward calls them in the order {', '.join(calls)}.",
            why="An exit comes once, and a sample that goes on comes to the next one.",
            todo="List sub-modules that are called once, in the order of their calls.",
        )
    for path, out, _ in seen:
        if not isinstance(out, Tensor) or out.ndim < 2 or len(out) != 2:
            shown = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise GraphError(
                f"'{path}' gives {shown} for two pictures, no tensor (n, …).",
                todo="Put the exit after a sub-module that gives one tensor.",
            )
    if not isinstance(answer, Tensor) or answer.ndim != 2:
        raise GraphError(
            f"{name}.forward returns {tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__}, "
            "not logits (n, C).",
            todo="Exits are put on a classifier; one that has several already goes into ab.wrap.",
        )
    return [(out, dim) for _, out, dim in seen], int(answer.shape[1])


def fit_heads(
    net: MultiExit, train: Split, *, epochs: int = 10, lr: float = 1e-2, batch_size: int = 128, seed: int = 0
) -> tuple[float, ...]:
    """Fit the heads of all exits but the last by cross-entropy; everything else of the net stays as it is.

    Args:
        net: with exits, as from `attach_exits`. train: of role train. epochs: over all of it.
        lr: of Adam, falling to zero. batch_size: samples a step. seed: of the order.

    Returns:
        accuracy of each exit on the training samples, in the last epoch; the last exit's is the net's own.

    Raises:
        LeakageError: a split of another role. UsageError: nothing to fit, or heads of pixels.
    """
    train.require("train", purpose="fitting heads")
    if net.per_pixel:
        raise UsageError(
            "heads that answer every pixel were to be fitted.",
            why="fit_heads fits classifiers, by one label an input.",
            todo="Train the module as its author does, and wrap it then: its weights are shared.",
        )
    kept = {id(p) for part in (*net.stages, net.heads[-1]) for p in part.parameters()}
    heads = list(net.heads)[:-1]
    fitted = [p for h in heads for p in h.parameters() if id(p) not in kept]
    if not fitted or epochs < 1:
        raise UsageError(
            "no head has weights of its own." if epochs >= 1 else f"{epochs} epochs fit nothing.",
            todo="Give a net with exits (ab.attach_exits) and one epoch or more.",
        )
    asked = [p.requires_grad for p in fitted]
    draws = torch.Generator().manual_seed(seed)
    steps = epochs * math.ceil(len(train) / batch_size)
    optimiser = torch.optim.Adam(fitted, lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    right = torch.zeros(len(net.heads))
    with frozen(net), torch.enable_grad(), torch.inference_mode(False):
        try:
            for p in fitted:
                p.requires_grad_(True)
            for h in heads:
                h.train()
            for _ in range(epochs):
                right = torch.zeros(len(net.heads))
                for rows in torch.split(torch.randperm(len(train), generator=draws), batch_size):
                    x, y = _inputs(train.x[rows], fitted[0]), train.y[rows].to(fitted[0].device)
                    answers = _answers(net, x)
                    loss = sum((cross_entropy(z, y) for z in answers[:-1]), torch.zeros((), device=y.device))
                    optimiser.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimiser.step()
                    schedule.step()
                    right += torch.stack([(z.argmax(1) == y).sum().cpu() for z in answers])
        finally:
            for h in heads:
                h.eval()
            for p, wanted in zip(fitted, asked, strict=True):
                p.requires_grad_(wanted).grad = None
    return tuple((right / len(train)).tolist())


def _inputs(x: Tensor, weight: Tensor) -> Tensor:
    """8-bit pictures in [0, 1], in a weight's type; ids as they are."""
    return x.float().div_(255.0).to(weight) if x.dtype == torch.uint8 else x.to(weight.device)


def _answers(net: MultiExit, x: Tensor) -> list[Tensor]:
    """Logits of every exit; only those heads that are fitted are in the graph."""
    costs, given = net._counted(net.taken(x)), net.entered(net.taken(x))
    answers = []
    for v, (stage, head) in enumerate(zip(net.stages, net.heads, strict=True)):
        with torch.no_grad():
            given = stage(apart(given) if costs.stage_writes[v] else given)
        with torch.set_grad_enabled(v < len(net.stages) - 1):
            answers.append(head(apart(given) if costs.head_writes[v] else given))
    return answers
