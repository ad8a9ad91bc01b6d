"""What trains gates: SkipNet's supervised and hybrid phases, BlockDrop's self-critical REINFORCE.

Draws come from torch's own generator, which `fit` seeds for every epoch, so a training that was killed goes on with the
same draws.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptbench.adaptive import FeedForwardGates, GatedNetwork, Gates
from adaptbench.adaptive.gates import straight_through
from adaptbench.adaptive.model import frozen
from adaptbench.errors import UsageError
from adaptbench.models.blockdrop import PlannedGates
from adaptbench.zoo.training.loop import Loss
from adaptbench.zoo.training.objective import Objective

_HALVINGS = 16


def masked_forward(model: GatedNetwork, x: Tensor, decide: Callable[[int, Tensor], Tensor]) -> Tensor:
    """Every body on every sample, multiplied by actions; in the caller's train or eval mode.

    In eval mode without gradients samples cannot feel each other, and bodies run for the samples that open them only.

    Args:
        model: gated. x: (n, C, H, W).
        decide: index of a gated block and the features before it → (n,) action, 1 to run the block.

    Returns:
        (n, C) logits.
    """
    skips = not model.training and not torch.is_grad_enabled()
    h = model.stem(x)
    for b, body in enumerate(model.bodies):
        base = model.shortcuts[b](h)
        if not model.gated[b]:
            h = model.afters[b](base + body(h))
            continue
        action = decide(b, h)
        if skips:
            rows = action.nonzero().squeeze(1)
            if len(rows):
                base = base.index_add(0, rows, (body(h[rows]) * _wide(action[rows], h)).to(base.dtype))
            h = model.afters[b](base)
        else:
            h = model.afters[b](base + _wide(action, h) * body(h))
    return model.head(h)  # type: ignore[no-any-return]


def _wide(action: Tensor, like: Tensor) -> Tensor:
    """(n,) actions, to multiply features with."""
    return action.to(like.dtype).view(-1, *[1] * (like.ndim - 1))


def drawn_path(model: GatedNetwork, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Draw each gate with probability σ(margin).

    Returns:
        logits (n, C), actions (n, D) of 0 and 1, and their log-probabilities (n, D), which carry the gates' gradients.
    """
    state = model.gates.start(x)
    actions: list[Tensor] = []
    likelihood: list[Tensor] = []

    def decide(block: int, h: Tensor) -> Tensor:
        nonlocal state
        margin, state = model.gates.margin(block, h, state)
        margin = margin.float()
        action = torch.bernoulli(torch.sigmoid(margin.detach()))
        actions.append(action)
        likelihood.append(-F.binary_cross_entropy_with_logits(margin, action, reduction="none"))
        return action

    logits = masked_forward(model, x, decide)
    return logits, torch.stack(actions, 1), torch.stack(likelihood, 1)


def _gated(module: nn.Module) -> GatedNetwork:
    if not isinstance(module, GatedNetwork) or not any(module.gated):
        raise UsageError(
            f"gates were to be trained in a {type(module).__name__} that has none.",
            todo="Give a gated network: skipnet(…) or blockdrop(…).",
        )
    return module


def skipnet_supervised(price: float = 0.0, rate: float | None = None) -> Loss:
    """SkipNet's first phase: cross-entropy through straight-through gates.

    Wang et al., ECCV 2018. Returns a loss (module, x, y) → scalar for `fit`.

    Args:
        price: weight of the rate term; 0 leaves it out, as the paper does.
        rate: share of the gated blocks that should run. With it the term is (mean opening − rate)² over the whole net;
            without, the mean opening itself. An opening is what the hard pass does, its gradient the probability's: a
            term on probabilities is content with every margin just above 0, and nothing is ever skipped.
    """

    def loss(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        logits, margins = _gated(module).gated_forward(x)
        value = F.cross_entropy(logits, y)
        if price:
            opening = straight_through(margins).mean()
            value = value + price * (opening if rate is None else (opening - rate).square())
        return value

    return loss


def _last_maps(gates: Gates) -> list[nn.Linear]:
    """The linear maps that margins come out of."""
    each = gates.gates if isinstance(gates, FeedForwardGates) else [gates]
    lasts = [[m for m in gate.modules() if isinstance(m, nn.Linear)][-1:] for gate in each]
    return [last for of_gate in lasts for last in of_gate]


@torch.no_grad()
def set_rate(model: GatedNetwork, x: Tensor, rate: float) -> float:
    """Shift all margins by one number, so that the hard pass opens `rate` of the gated blocks on some pictures.

    Straight-through training with a rate term stops a little above the rate, where cross-entropy pulls as hard.

    Args:
        model: gated, in eval mode. x: (n, C, H, W), training pictures.

    Returns:
        The share that is open now.

    Raises:
        UsageError: gates whose margins do not come out of a linear map with a bias.
    """
    gates = _gated(model).gates
    maps = _last_maps(gates)
    margins = model.gated_forward(x)[1]
    if not maps or any(m.bias is None for m in maps):
        raise UsageError(
            f"the margins of {gates.name} cannot be shifted.",
            why="They do not come out of a linear map with a bias.",
            todo="Let the last module of each gate be an nn.Linear with a bias.",
        )
    low, high, at = float(margins.min()), float(margins.max()), 0.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        for last in maps:  # a gate of its own ends in (skip, run) or in the margin, a plan in one margin a block
            (last.bias[-1:] if isinstance(gates, FeedForwardGates) else last.bias).sub_(middle - at)
        at = middle
        # Features change with what runs before, so the margins have to be asked again each time.
        opening = float((model.gated_forward(x)[1] > 0).float().mean())
        low, high = (middle, high) if opening > rate else (low, middle)
    return opening


@torch.no_grad()
def decisive(model: GatedNetwork, x: Tensor, median: float = 6.0) -> float:
    """Scale the gates' last linear maps until the median size of their margins is `median`.

    Straight-through training knows a margin's sign only and leaves it near 0, where σ draws coins. What the hard pass
    does stays as it is; drawn paths come close to it.

    Args:
        model: gated, in eval mode. x: (n, C, H, W) to look at. median: 6 draws the other way in 0.2 % of the cases, and
            more often where a margin is smaller.

    Returns:
        The factor.

    Raises:
        UsageError: gates that do not end in a linear map, or margins that are all 0.
    """
    gates = _gated(model).gates
    before = model.gated_forward(x)[1]
    size = float(before.abs().median())
    factor = median / size if size else 0.0
    for last in _last_maps(gates):
        last.weight.mul_(factor)
        if last.bias is not None:
            last.bias.mul_(factor)
    if not size or not torch.allclose(model.gated_forward(x)[1], before * factor, rtol=1e-2, atol=1e-2):
        raise UsageError(
            f"the margins of {gates.name} cannot be scaled by {factor:.3g}.",
            why="They must not all be 0, and each gate must end in a linear map.",
            todo="Let the last module of each gate be an nn.Linear.",
        )
    return factor


def skipnet_hybrid(alpha: float = 0.1, scale: float = 0.01) -> Loss:
    """SkipNet's second phase: cross-entropy of a drawn path, and REINFORCE on the gates that drew it.

    Gate i of N earns (α/N)·(1 − a_i), the end −CE; its return is the undiscounted sum from there on, times `scale`.
    Wang et al., ECCV 2018, released code. Returns a loss (module, x, y) → scalar for `fit`.

    Args:
        alpha: reward for skipping everything. scale: of the returns.
    """

    def loss(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        logits, actions, likelihood = drawn_path(_gated(module), x)
        each = F.cross_entropy(logits, y, reduction="none")
        rewards = (1 - actions) * (alpha / actions.shape[1])
        returns = rewards.flip(1).cumsum(1).flip(1) - each.detach()[:, None]
        return each.mean() - scale * (likelihood * returns).sum(1).mean()

    return loss


def plan_reward(logits: Tensor, y: Tensor, actions: Tensor, gamma: float) -> Tensor:
    """(n,) BlockDrop's reward: 1 − (share of blocks run)² where the answer is right, −γ where it is wrong."""
    sparse = 1 - actions.mean(1).square()
    return torch.where(logits.argmax(1) == y, sparse, torch.full_like(sparse, -gamma))


class BlockDrop(Objective):
    """Self-critical REINFORCE: the advantage of a drawn plan is its reward less the rounded plan's.

    Wu et al., CVPR 2018, released code: plans are drawn from p ← α·p + (1 − α)·(1 − p), log-likelihoods summed over the
    blocks. Train it with `fit_objective`. A net that is not trained too stays in eval mode, without gradients.
    Deviates: in joint training the rounded plan is judged in eval mode, so that it moves no batch-norm statistics.

    Args:
        model: from `blockdrop`.
        gamma: penalty for a wrong answer (10 on CIFAR-10, 5 on ImageNet).
        alpha: bounds the probabilities to [1 − α, α].
        joint: train the net with the plan, by the drawn path's cross-entropy.
        curriculum: decide on the last block only in the first epoch and on one more each epoch; the others run.
        entropy: weight of −Σ p·log p, subtracted (released: 0.1 in the curriculum, 0 in joint training).

    Raises:
        UsageError: gates that plan nothing, or an α out of range.
    """

    model: GatedNetwork

    def __init__(
        self,
        model: GatedNetwork,
        gamma: float = 10.0,
        *,
        alpha: float = 0.8,
        joint: bool = False,
        curriculum: bool = False,
        entropy: float = 0.0,
    ) -> None:
        if not isinstance(_gated(model).gates, PlannedGates):
            raise UsageError(
                f"BlockDrop was asked to train {model.gates.name}.",
                why="It draws the whole plan at once.",
                todo="Build the net with blockdrop(…), or train these gates with skipnet_hybrid().",
            )
        if not 0.5 < alpha < 1.0:
            raise UsageError(f"alpha = {alpha} bounds no probability.", todo="Give 0.5 < α < 1; released: 0.8.")
        super().__init__(model)
        self.gamma, self.alpha, self.entropy = gamma, alpha, entropy
        self.joint, self.curriculum = joint, curriculum
        self.columns = [b for b, gated in enumerate(model.gated) if gated]

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Two plans a sample: a drawn one and the rounded one."""
        model = self.model
        margins = model.gates.start(x)[:, self.columns].float()
        chance = torch.sigmoid(margins)
        bounded = self.alpha * chance + (1 - self.alpha) * (1 - chance)
        decided = self._decided(margins)
        drawn = torch.where(decided, torch.bernoulli(bounded.detach()), 1.0)
        rounded = torch.where(decided, (margins > 0).float(), 1.0)
        with frozen(model), torch.no_grad():
            baseline = plan_reward(self._answer(x, rounded), y, rounded, self.gamma)
        with ExitStack() as held:
            if not self.joint:
                held.enter_context(frozen(model))
                held.enter_context(torch.no_grad())
            logits = self._answer(x, drawn)
        advantage = plan_reward(logits.detach(), y, drawn, self.gamma) - baseline
        likelihood = torch.where(drawn > 0, bounded, 1 - bounded).log()
        value = -((likelihood * decided).sum(1) * advantage).mean()
        value = value + self.entropy * (bounded * bounded.log()).sum(1).mean()
        return value + F.cross_entropy(logits, y) if self.joint else value

    def _decided(self, margins: Tensor) -> Tensor:
        """(D,) bool: the blocks that the plan decides on in this epoch."""
        count = margins.shape[1]
        if not self.curriculum:
            return torch.ones(count, dtype=torch.bool, device=margins.device)
        return torch.arange(count, device=margins.device) >= count - 1 - self.epoch()

    def _answer(self, x: Tensor, plan: Tensor) -> Tensor:
        column = {b: d for d, b in enumerate(self.columns)}
        return masked_forward(self.model, x, lambda block, _h: plan[:, column[block]])
