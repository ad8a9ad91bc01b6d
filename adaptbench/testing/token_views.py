"""Where the kit looks inside a net whose tokens leave: it runs each sample and each part on its own, on copies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from adaptbench.adaptive.outcome import Inference, tie_margin
from adaptbench.adaptive.token_network import TokenNetwork
from adaptbench.adaptive.writes import apart


def decisions(net: TokenNetwork, inference: Inference) -> tuple[Tensor, Tensor]:
    """(N, D) bool each: which tokens went on, and which were there to be asked."""
    runs = inference.path[:, 1:-1].cpu().reshape(len(inference), len(net.blocks), -1)
    return runs[:, 1:].flatten(1), runs[:, :-1].flatten(1)


def tokens_apart(net: TokenNetwork, x: Tensor, *, everybody: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Path (N, V), logits (N, C) and ties (N,): sample by sample, each token that leaves taken out of its row.

    Args:
        everybody: no token leaves.
    """
    each = [_one(net, one[None], everybody) for one in x]
    path, logits, tie = zip(*each, strict=True)
    return torch.stack(path), torch.cat(logits), torch.tensor(tie)


def _one(net: TokenNetwork, x: Tensor, everybody: bool) -> tuple[Tensor, Tensor, bool]:
    h = apart(net.stem(apart(net.entered(apart(x)))))
    left, state, tie = torch.arange(h.shape[1] - 1, device=h.device), None, False
    runs = torch.zeros(len(net.blocks), h.shape[1] - 1, dtype=torch.bool, device=h.device)
    for b, block in enumerate(net.blocks):
        runs[b, left] = True
        h = apart(block(apart(h)))
        if everybody or b + 1 == len(net.blocks) or not len(left):
            continue
        margin, state = net.rule.margin(b, apart(h[:, 1:]), None if state is None else apart(state))
        tie |= bool((margin.abs() <= tie_margin(x.dtype)).any())
        going = margin[0] > 0
        left, state = left[going], None if state is None else state[:, going]
        h = torch.cat([h[:, :1], h[:, 1:][:, going]], 1)
    sure = torch.ones(1, dtype=torch.bool, device=h.device)
    return torch.cat([sure, runs.flatten(), sure]), net.head(apart(h[:, 0])), tie


@contextmanager
def _tokens_seen(net: TokenNetwork) -> Iterator[list[int]]:
    """How many tokens each block is called with."""
    seen = [0] * len(net.blocks)
    handles = []
    for b, block in enumerate(net.blocks):

        def note(_module: Any, args: Any, _out: Any, b: int = b) -> None:
            seen[b] += args[0].shape[0] * args[0].shape[1]

        handles.append(block.register_forward_hook(note))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def who_left_does_not_run(net: TokenNetwork, calls: list[dict[str, Any]], infer: Callable[..., Inference]) -> None:
    """A block is given the tokens whose path it is on, the class tokens, and nothing beside them.

    Raises:
        AssertionError: tokens that left, or padding, went through a block.
    """
    for how in calls:
        with _tokens_seen(net) as seen:
            _ = net.min_macs  # hooks have blocks counted anew; that is not what is looked at
            seen[:] = [0] * len(seen)
            inference = infer(**how)
        runs = inference.path[:, 1:-1].reshape(len(inference), len(net.blocks), -1).sum((0, 2)) + len(inference)
        for b, (tokens, want) in enumerate(zip(seen, runs.tolist(), strict=True)):
            assert tokens == want, (
                f"block {b + 1} is on the path of {want} tokens, class tokens among them, and ran on {tokens}: "
                "who left must not run, and no row is padded"
            )
