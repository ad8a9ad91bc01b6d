"""Closed-loop inference: one pass for everybody; inputs it is unsure of calibrate the net on themselves and run again.

After Niu et al., "Closed-Loop Inference", arXiv 2203.10853. A slowed-down input here costs a multiple of a clean one.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from adaptbench.adaptive import DecisionGraph, ImageDomain, Node, Policy
from adaptbench.errors import UsageError


class FirstPass(nn.Module):
    """Pictures → (pictures, features): the loop needs both.

    Args:
        trunk: the part of the net that is never calibrated.
    """

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures as they came, and the trunk's features."""
        return x, self.trunk(x)


class Tail(nn.Module):
    """(pictures, features) → logits of the part that a loop calibrates."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, pair: tuple[Tensor, Tensor]) -> Tensor:
        """(n, C)."""
        out: Tensor = self.net(pair[1])
        return out


class Calibration(nn.Module):
    """The loop: for each sample a task from its own top-K predictions, a few gradient steps, a second answer.

    Task: the entropy of the mean prediction over the picture and its mirror image, softmax among the K candidates that
    the first pass ranked highest. Steps go into a copy of the tail's weights; the net itself is never written to, so
    there is nothing to restore and no sample can touch another. Gradients of the answer reach the picture through the
    calibrated tail, with the steps taken as given (first order).

    Args:
        trunk, tail: of the net; looked at, not owned.
        steps: gradient steps. lr: their size. candidates: K.
    """

    def __init__(self, trunk: nn.Module, tail: nn.Module, *, steps: int, lr: float, candidates: int) -> None:
        super().__init__()
        self._net = (trunk, tail)  # a tuple, so that no weight is in the state twice
        self.steps, self.lr, self.candidates = steps, lr, candidates

    def forward(self, pair: tuple[Tensor, Tensor]) -> Tensor:
        """(n, C), a sample at a time."""
        x, features = pair
        return torch.cat([self._one(x[i : i + 1], features[i : i + 1]) for i in range(len(x))])

    def _one(self, x: Tensor, features: Tensor) -> Tensor:
        trunk, tail = self._net
        # Outside inference mode and with gradients, whatever the caller's mode is.
        with torch.inference_mode(False), torch.enable_grad():
            with torch.no_grad():
                here = features.detach().clone()
                views = torch.cat([here, trunk(x.detach().clone().flip(-1))])
            weights = {name: p.detach().clone().requires_grad_() for name, p in tail.named_parameters()}
            chosen: Tensor | None = None
            for _ in range(self.steps):
                logits = functional_call(tail, weights, (views,))
                if chosen is None:
                    chosen = logits[0].detach().topk(self.candidates).indices
                mean = logits[:, chosen].softmax(1).mean(0)
                entropy = -(mean * mean.clamp_min(1e-12).log()).sum()
                gradients = torch.autograd.grad(entropy, list(weights.values()))
                weights = {
                    name: (w - self.lr * g).detach().requires_grad_()
                    for (name, w), g in zip(weights.items(), gradients, strict=True)
                }
        settled = {name: w.detach() for name, w in weights.items()}
        answer: Any = functional_call(tail, settled, (features,))
        return answer  # type: ignore[no-any-return]


def looped(
    net: nn.Sequential,
    *,
    tail: int = 2,
    steps: int = 1,
    lr: float = 0.1,
    candidates: int = 5,
    n_classes: int | None = None,
    input_shape: tuple[int, int, int] = (3, 32, 32),
    policy: Policy | None = None,
) -> DecisionGraph:
    """A trained net with a loop behind it: nodes "pass" and "loop", and any chain policy as the filter between them.

    The loop's MACs are those that the dispatcher sees: the mirror image through the trunk, `steps` times two views
    forward and backward through the tail, and one more pass of the tail. The reference is the net alone, so the dearest
    path costs more than 100 % of it.
    Deviates: the paper's filter and task were not at hand; the filter is the policy, the task `Calibration`'s (marginal
    entropy over views, Zhang et al. 2022, restricted to the top K), and the tail is what is calibrated.

    Args:
        net: parts in a row, the last the classifier; shared, not copied.
        tail: how many of its last parts are calibrated.
        steps, lr, candidates: of the loop.
        n_classes: default: the classifier's outputs.
        input_shape: (C, H, W).
        policy: sends a sample into the loop; default: everybody goes.

    Raises:
        UsageError: numbers that make no loop.
    """
    linear = [m for m in net[-1].modules() if isinstance(m, nn.Linear)]
    classes = n_classes or (linear[-1].out_features if linear else 0)
    if not 1 <= tail < len(net) or steps < 1 or not 2 <= candidates <= classes:
        raise UsageError(
            f"tail={tail}, steps={steps}, candidates={candidates} make no loop.",
            why=f"The net has {len(net)} parts and {classes} classes.",
            todo="Give 1 ≤ tail < parts, steps ≥ 1 and 2 ≤ candidates ≤ classes.",
        )
    trunk, rest = net[:-tail], net[-tail:]
    loop = Calibration(trunk, rest, steps=steps, lr=lr, candidates=candidates)
    return DecisionGraph(
        [Node("pass", FirstPass(trunk), Tail(rest), to=("loop",)), Node("loop", loop, reads="pass")],
        domain=ImageDomain(input_shape),
        n_classes=classes,
        policy=policy,
        reference=["pass"],
        shape="looped",
    )


def plain_net(model: DecisionGraph) -> nn.Sequential:
    """The net inside a looped model, sharing its modules, its parts under their own names."""
    trunk, rest = model.stages[0].trunk, model.heads[0].net
    return nn.Sequential(OrderedDict([*trunk.named_children(), *rest.named_children()]))  # type: ignore[union-attr]
