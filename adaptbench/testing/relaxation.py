"""The relaxed pass beside the hard one: margins, expected costs and gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from adaptbench.adaptive.model import AdaptiveModel
from adaptbench.adaptive.outcome import Inference, tie_margin
from adaptbench.adaptive.tokens import followed
from adaptbench.testing import views


def margins_follow_decisions(model: AdaptiveModel, x: Tensor, inference: Inference) -> None:
    """A margin is > 0 exactly where the hard pass went on spending, with and without the last exit's answer.

    Raises:
        AssertionError: another shape, another pass without the last exit, or a margin of the other sign.
    """
    with torch.no_grad():
        relaxed, short = model.relax(x), model.relax(x, last=False)
    for what in ("margins", "expected_macs", "reach"):
        assert torch.equal(getattr(relaxed, what), getattr(short, what)), (
            f"{what} change where the last exit is left out"
        )
    decisions = len(model.dearest_decisions)
    assert relaxed.margins.shape == (len(x), decisions), f"margins are (N, D) with D = {decisions}"
    assert relaxed.exit_logits.shape == (len(x), len(model.exit_names), model.n_classes), "exit_logits is (N, K, C)"
    assert relaxed.reach.shape == (len(x), len(model.node_names)), "reach is (N, V)"
    if (decided := views.hard_decisions(model, inference)) is None:
        return
    taken, asked = decided
    if (macs := model.macs_of(relaxed.margins > 0)) is not None:
        off = (macs != inference.macs) & ~inference.tie
        assert not off.any(), f"sample {int(off.nonzero()[0])}: macs_of(margins > 0) is not what the hard pass executed"
    margins, tie = relaxed.margins.cpu(), inference.tie[:, None].cpu()
    wrong = asked & ~tie & ((margins > 0) != taken) & (margins.abs() > tie_margin(model.taken(x).dtype))
    if wrong.any():
        i, d = wrong.nonzero()[0].tolist()
        raise AssertionError(
            f"sample {i}, decision {d}: the margin is {margins[i, d]:.3g}, but the hard pass "
            f"{'went on' if taken[i, d] else 'did not go on'}"
        )


def expected_macs_settle(model: AdaptiveModel, x: Tensor, inference: Inference) -> None:
    """Expected MACs stay between the extremes and become the executed ones as the temperature falls.

    Raises:
        AssertionError: they leave the extremes, or end elsewhere.
    """
    slack = 1e-5 * model.max_macs
    with torch.no_grad():
        for temperature in (10.0, 1.0, 0.1, 0.01, 1e-7):
            expected = model.relax(x, temperature=temperature).expected_macs.double()
            assert torch.isfinite(expected).all(), f"expected_macs is not finite at temperature {temperature:g}"
            low, high = float(expected.min()), float(expected.max())
            assert model.min_macs - slack <= low <= high <= model.max_macs + slack, (
                f"expected_macs spans [{low:.6g}, {high:.6g}] at temperature {temperature:g}; "
                f"no path costs less than {model.min_macs} or more than {model.max_macs}"
            )
    off = ((expected - inference.macs).abs() > max(slack, 0.5)) & ~inference.tie
    if off.any():
        i = int(off.nonzero()[0])
        raise AssertionError(
            f"sample {i}: expected_macs is {expected[i]:.6g} at temperature 1e-7, executed are {int(inference.macs[i])}"
        )


def gradients_reach(model: AdaptiveModel, x: Tensor, *, follows_input: bool) -> None:
    """Exit logits, and where decisions follow the picture expected MACs and margins, have gradients.

    Raises:
        AssertionError: a gradient that is missing, not finite or zero everywhere.
    """
    with followed(x) as (given, reached):
        relaxed = model.relax(given, temperature=1.0)
    leaf = reached()
    targets = {"exit_logits": relaxed.exit_logits}
    if follows_input and relaxed.margins.shape[1] and views.decides_from_input(model):
        targets |= {"expected_macs": relaxed.expected_macs, "margins": relaxed.margins}
    for what, value in targets.items():
        assert value.requires_grad, f"{what} has no gradient: was something detached or rounded?"
        (gradient,) = torch.autograd.grad(value.sum(), leaf, retain_graph=True, allow_unused=True)
        assert gradient is not None, f"{what} does not depend on the input"
        assert torch.isfinite(gradient).all(), f"the gradient of {what} is not finite"
        weights = torch.linspace(-1, 1, value.numel(), device=value.device).view_as(value)  # sums may cancel
        (weighted,) = torch.autograd.grad((value * weights).sum(), leaf, retain_graph=True)
        assert (gradient != 0).any() or (weighted != 0).any(), f"the gradient of {what} is zero everywhere"
