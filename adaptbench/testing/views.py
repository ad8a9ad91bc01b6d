"""Where the kit looks inside a model: which module runs for which node, which margin belongs to which decision."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from adaptbench.adaptive.gated import GatedNetwork
from adaptbench.adaptive.graph import DecisionGraph
from adaptbench.adaptive.model import AdaptiveModel, frozen
from adaptbench.adaptive.outcome import Inference, Signals, seeds_from_content
from adaptbench.adaptive.policy import NeverStop
from adaptbench.adaptive.replay import replay
from adaptbench.adaptive.token_network import TokenNetwork
from adaptbench.adaptive.writes import Lent, apart
from adaptbench.testing import token_views


def node_modules(model: AdaptiveModel) -> list[nn.Module | None]:
    """V modules that run exactly where their node is on the path; None where nothing can be said."""
    if isinstance(model, DecisionGraph):
        return list(model.stages)
    if isinstance(model, GatedNetwork):
        return [None, *model.bodies, None]
    return [None] * len(model.node_names)


def overhead_macs(model: AdaptiveModel, inference: Inference) -> Tensor | None:
    """(N,) MACs beside the nodes': policy, prediction, gates. None for a kind of model that does not tell."""
    if isinstance(model, DecisionGraph):
        deciding = (inference.path.cpu() * torch.tensor(model.policy_macs)).sum(1)
        return deciding + torch.tensor(model.predict_macs)[inference.exit.cpu()]
    if isinstance(model, GatedNetwork):
        return torch.full((len(inference),), model.gate_macs)
    if isinstance(model, TokenNetwork):
        return model.pair_macs(inference.path)
    return None


def hard_decisions(model: AdaptiveModel, inference: Inference) -> tuple[Tensor, Tensor] | None:
    """(N, D) bool each: where the hard pass went on spending, and which decisions it came to at all."""
    path = inference.path.cpu()
    if isinstance(model, DecisionGraph):
        taken, asked = [], []
        for v, w in model.structure.edges:
            between = path[:, v + 1 : w].any(1)  # nodes run in order, so the next one run is the one handed over to
            taken.append(path[:, v] & path[:, w] & ~between)
            asked.append(path[:, v])
        empty = torch.zeros(len(path), 0, dtype=torch.bool)
        return (torch.stack(taken, 1), torch.stack(asked, 1)) if taken else (empty, empty)
    if isinstance(model, GatedNetwork):
        columns = [b + 1 for b, gated in enumerate(model.gated) if gated]
        return path[:, columns], torch.ones(len(path), len(columns), dtype=torch.bool)
    if isinstance(model, TokenNetwork):
        return token_views.decisions(model, inference)
    return None


def chosen_afterwards(model: AdaptiveModel, x: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """Path (N, V), logits (N, C) and ties (N,) of running each part on copies, on everybody, and choosing then."""
    with frozen(model), torch.no_grad():
        if isinstance(model, DecisionGraph):
            answers = answers_apart(model, x)
            shown = torch.stack([model.shown(answer) for answer in answers], 1)
            replayed = replay(model.policy, model.structure, shown, seeds=seeds_from_content(x))
            if not model.per_pixel:
                return replayed.path, replayed.logits, replayed.tie
            taken = torch.stack(answers, 1)[torch.arange(len(x)), replayed.exit]
            return replayed.path, taken, replayed.tie
        if isinstance(model, GatedNetwork):
            path, logits = _blocks_apart(model, x)
            return path, logits, torch.zeros(len(x), dtype=torch.bool)
        if isinstance(model, TokenNetwork):
            return token_views.tokens_apart(model, x)
    return None


def logits_apart(model: DecisionGraph, x: Tensor, *, defended: bool = True) -> Tensor:
    """(N, V, C), as policies see it, of `answers_apart`; arguments as there."""
    return torch.stack([model.shown(answer) for answer in answers_apart(model, x, defended=defended)], 1)


def answers_apart(model: DecisionGraph, x: Tensor, *, defended: bool = True) -> list[Tensor]:
    """V of (N, C) or (N, C, H, W), every stage and head on a copy of what it reads: nobody writes into what others see.

    Args:
        defended: False where what stands in front of the net is left out, as in the static reference.
    """
    features: list[Any] = []
    logits: list[Tensor] = []
    x = model.entered(apart(x)) if defended else x
    for v, source in enumerate(model.reads):
        features.append(apart(model.stages[v](apart(x if source < 0 else features[source]))))
        logits.append(model.heads[v](apart(features[v])))
    return logits


def everything_run_apart(model: AdaptiveModel, x: Tensor) -> Tensor | None:
    """(N, K, C) of all exits, or of the ungated net, each part on a copy."""
    with frozen(model), torch.no_grad():
        if isinstance(model, DecisionGraph):
            return logits_apart(model, x)
        if isinstance(model, GatedNetwork):
            return _blocks_apart(model, x, everybody=True)[1][:, None]
        if isinstance(model, TokenNetwork):
            return token_views.tokens_apart(model, x, everybody=True)[1][:, None]
    return None


def _blocks_apart(net: GatedNetwork, x: Tensor, *, everybody: bool = False) -> tuple[Tensor, Tensor]:
    path = torch.ones(len(x), len(net.node_names), dtype=torch.bool)
    x = net.entered(apart(x))
    state, h = net.gates.start(x.clone()), net.stem(x.clone())
    for b, (body, shortcut, after) in enumerate(zip(net.bodies, net.shortcuts, net.afters, strict=True)):
        h = apart(h)
        if net.gated[b]:
            margin, state = net.gates.margin(b, h.clone(), state)
            path[:, b + 1] = (margin > 0) | everybody
        runs = path[:, b + 1].to(h.device).view(-1, *[1] * (h.ndim - 1))
        ran = body(h.clone())
        if net.whole[b]:
            h = torch.where(runs, ran, shortcut(h.clone())) if net.gated[b] else ran
        else:
            base = apart(shortcut(h.clone()))
            h = after(torch.where(runs, base + ran, base))
    return path, net.head(apart(h))


def deciding_writes(model: AdaptiveModel, x: Tensor) -> int | None:
    """A node at which the policy writes into the signals it is shown; None where it does nowhere."""
    if not isinstance(model, DecisionGraph):
        return None
    with frozen(model), torch.no_grad():
        logits = logits_apart(model, x)
        for v, ways in enumerate(model.structure.successors):
            visited = (torch.arange(logits.shape[1], device=x.device) <= v).expand(len(x), -1)
            shown = Lent((logits[:, v], logits * visited[..., None], visited, seeds_from_content(x)))
            given, history, seen, seeds = shown.value
            signals = Signals(given, ways=ways, history=history, visited=seen, seeds=seeds)
            if ways and not model.needs_labels:
                model.policy.scores(v, signals)
            model.policy.predict(v, signals)
            if shown.is_written:
                return v
    return None


def draws(model: AdaptiveModel) -> bool:
    """True where decisions are drawn by chance."""
    return bool(getattr(getattr(model, "policy", None), "draws", False))


def decides_from_input(model: AdaptiveModel) -> bool:
    """False where decisions are constant or drawn, so that no gradient can reach the input."""
    return not draws(model) and not isinstance(getattr(model, "policy", None), NeverStop)


def batch_of(value: Any) -> int:
    """How many samples a module was called with."""
    return next((len(leaf) for leaf in tree_leaves(value) if isinstance(leaf, Tensor) and leaf.ndim), 0)


def mixed_paths(model: AdaptiveModel, n: int) -> Tensor:
    """(N, V): every path that the model lists, in turn."""
    paths = torch.stack(model.paths())
    return paths[torch.arange(n) % len(paths)]
