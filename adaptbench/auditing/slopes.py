"""Does a gradient reach the input through every decision? Where it does not, a failed attack is no evidence."""

from __future__ import annotations

import torch
from torch import Tensor

from adaptbench.adaptive import AdaptiveModel, DecisionGraph, GatedNetwork, TokenDomain, TokenNetwork
from adaptbench.adaptive.tokens import followed
from adaptbench.attacks.base import MASKED_SHARE
from adaptbench.auditing.findings import Check
from adaptbench.auditing.grounds import ground_of_model
from adaptbench.report import words

NAME = "gradients through every decision"
MOSTLY = 0.5
"""Above this share of inputs without a gradient the figures of white-box attacks cannot be trusted."""
NOISE = 8 / 255
"""Of the range."""


def slopes(model: AdaptiveModel, x: Tensor) -> Check:
    """The share of inputs whose gradient through a decision is exactly zero, decision by decision.

    A decision that is the same for all inputs, noise or not, has no gradient by right.

    Args:
        x: (N, …) as the net takes them; of text the gradient is that at the embeddings.
    """
    if "gradients" not in model.capabilities:
        return Check(
            NAME, "cannot be trusted", "the net offers no gradients: what needs them was not run, and is not refuted"
        )
    names = decision_names(model)
    if not names:
        return Check(NAME, "ok", "the net has no decisions")
    many = ground_of_model(model).many
    try:
        zero, finite = _zero_shares(model, x)
    except RuntimeError as error:
        if not isinstance(model.domain, TokenDomain):
            raise
        return Check(NAME, "cannot be trusted", f"no gradient ends at the embeddings: {error}")
    if not finite:
        return Check(NAME, "cannot be trusted", "some gradients are NaN or infinite: attacks take them for zero")
    free = _varies(model, x)
    masked = [(float(zero[d]), name) for d, name in enumerate(names) if zero[d] > MASKED_SHARE and free[d]]
    fixed = int((~free).sum())
    aside = f"; {words.plural(fixed, 'decision')} the same for all {many}" if fixed else ""
    if not masked:
        most = float(torch.where(free, zero, 0.0).max())
        return Check(
            NAME,
            "ok",
            f"{words.plural(len(names), 'decision')}: zero for {words.percent(most, 0)} of {len(x)} {many} at most"
            f"{aside}",
        )
    worst = sorted(masked, reverse=True)
    told = ", ".join(f"{name} ({words.percent(share, 0)})" for share, name in worst[:5])
    more = f" and {len(worst) - 5} more" if len(worst) > 5 else ""
    return Check(
        NAME,
        "cannot be trusted" if worst[0][0] > MOSTLY else "doubt",
        f"exactly zero at {told}{more}, though the decision depends on the input: it is rounded, detached or "
        f"saturated, and attacks by gradient see nothing there{aside}",
    )


def decision_names(model: AdaptiveModel) -> list[str]:
    """D names, in the order of the margins."""
    nodes = model.node_names
    if isinstance(model, DecisionGraph):
        return [f"{nodes[v]} → {nodes[w]}" for v, w in model.structure.edges]
    if isinstance(model, GatedNetwork):
        return [nodes[b + 1] for b, gated in enumerate(model.gated) if gated]
    if isinstance(model, TokenNetwork):
        return list(nodes[1 + model.tokens : -1])
    return [f"decision {d}" for d in range(len(model.dearest_decisions))]


def _zero_shares(model: AdaptiveModel, x: Tensor) -> tuple[Tensor, bool]:
    """(D,) shares, and whether all gradients are finite."""
    with followed(x) as (given, reached):
        margins = model.relax(given, temperature=1.0, last=False).margins
        leaf = reached()
    shares, finite = [], True
    for d in range(margins.shape[1]):
        slope = None
        if margins.requires_grad:
            (slope,) = torch.autograd.grad(margins[:, d].sum(), leaf, retain_graph=True, allow_unused=True)
        if slope is None:
            shares.append(1.0)
            continue
        finite &= bool(torch.isfinite(slope).all())
        shares.append(float((slope.flatten(1) == 0).all(1).float().mean()))
    return torch.tensor(shares), finite


def _varies(model: AdaptiveModel, x: Tensor) -> Tensor:
    """(D,) bool: the margin is not the same number for all inputs, with and without noise."""
    with torch.no_grad():
        both = torch.cat([model.relax(part, last=False).margins for part in (x, _noisy(model, x))])
    return (both != both[:1]).any(0).cpu()


def _noisy(model: AdaptiveModel, x: Tensor) -> Tensor:
    """Of text, other words in as many places."""
    domain, draw = model.domain, torch.Generator().manual_seed(0)
    if isinstance(domain, TokenDomain):
        return torch.where(x == domain.pad, x, domain.drawn(len(x), draw).to(x)[:, : x.shape[1]])
    noise = torch.rand(x.shape, generator=draw).to(x) * 2 - 1
    return domain.clamp(x + NOISE * (domain.high - domain.low) * noise)
