"""How the losses of a multi-exit net's heads are weighed in training: an axis of its own beside policies and heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, get_type_hints

import torch
import torch.nn.functional as F
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from adaptbench.adaptive import DecisionGraph, TokenDomain
from adaptbench.errors import UsageError
from adaptbench.models.exit_heads import BoostedStage
from adaptbench.registry import did_you_mean
from adaptbench.zoo.training.objective import Objective


class Strategy(Objective):
    """Σ_k w_k · CE_k over the exits; subclasses give the weights.

    Args:
        model: a multi-exit net of K exits.
    """

    name: ClassVar[str] = "strategy"
    model: DecisionGraph

    def __init__(self, model: DecisionGraph) -> None:
        super().__init__(model)
        self.exits = len(model.exit_names)

    def weights(self, losses: Tensor) -> Tensor:
        """(K,) weights from the batch's (K,) losses, which are detached."""
        raise NotImplementedError

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """One dense pass, every head's cross-entropy; texts without the columns that are padding in all of them."""
        domain = self.model.domain
        logits = self.model.dense_logits(domain.trimmed(x) if isinstance(domain, TokenDomain) else x)
        losses = exit_losses(logits, y)
        return (self.weights(losses.detach()) * losses).sum() + self.beside(logits, losses)

    def beside(self, logits: Tensor, losses: Tensor) -> Tensor:
        """What is added to the weighted sum; nothing here. logits: (N, K, C); losses: (K,)."""
        return losses.new_zeros(())

    def constant(self, values: Sequence[float]) -> Tensor:
        """(K,) float32 on the model's device."""
        return torch.tensor(list(values), dtype=torch.float32, device=self.step.device)


def exit_losses(logits: Tensor, y: Tensor) -> Tensor:
    """(K,) mean cross-entropy of each exit. logits: (N, K, C)."""
    return torch.stack([F.cross_entropy(of_exit, y) for of_exit in logits.unbind(1)])


class Uniform(Strategy):
    """Every exit alike: Σ CE_k (MSDNet, Huang et al., ICLR 2018)."""

    name = "uniform"

    def weights(self, losses: Tensor) -> Tensor:
        """Ones."""
        return torch.ones_like(losses)


class Weighted(Strategy):
    """Weights given by hand (BranchyNet, Teerapittayanon et al., ICPR 2016).

    Args:
        values: one an exit.
    """

    name = "weighted"

    def __init__(self, model: DecisionGraph, values: Sequence[float]) -> None:
        super().__init__(model)
        if len(values) != self.exits:
            raise UsageError(f"{len(values)} weights were given to {self.exits} exits.", todo="Give one an exit.")
        self.register_buffer("values", self.constant(values))

    def weights(self, losses: Tensor) -> Tensor:
        """As given."""
        return self.get_buffer("values")


class Linear(Weighted):
    """Exit j of K weighs j / (K·(K + 1)); the weights sum to ½ (EENet, Ilhan et al., WACV 2024, released code)."""

    name = "linear"

    def __init__(self, model: DecisionGraph) -> None:
        count = len(model.exit_names)
        super().__init__(model, [j / (count * (count + 1)) for j in range(1, count + 1)])


class ShallowDeep(Strategy):
    """The last exit weighs 1; internal ones ramp up: τ_i = min(τmax_i, 0.01 + τmax_i · epoch / epochs), epoch from 1.

    Kaya, Hong, Dumitras, ICML 2019, released code.

    Args:
        most: τmax of each internal exit; default its share of the net's MACs, which is what 0.15 … 0.90 are for the
            placement that the paper chooses.
    """

    name = "sdn"

    def __init__(self, model: DecisionGraph, most: Sequence[float] | None = None) -> None:
        super().__init__(model)
        if most is None:
            reached = torch.tensor(model.node_macs).cumsum(0)
            most = [min(1.0, float(r) / model.macs_full) for r in reached[:-1]]
        if len(most) != self.exits - 1:
            raise UsageError(
                f"{len(most)} greatest weights were given to {self.exits - 1} internal exits.", todo="Give one each."
            )
        self.register_buffer("most", self.constant(most))

    def weights(self, losses: Tensor) -> Tensor:
        """τ of this epoch, and 1."""
        most = self.get_buffer("most")
        ramp = torch.minimum(most, 0.01 + most * (self.epoch() + 1) / self.epochs)
        return torch.cat([ramp, most.new_ones(1)])


class AdaLoss(Strategy):
    """w_k ∝ 1 / running mean of CE_k: the product of the losses is minimised, not their sum.

    Hu, Dey, Hebert, Bagnell, "Learning Anytime Predictions in Neural Networks via Adaptive Loss Balancing", AAAI 2019.
    Deviates: weights are scaled to sum to K, so that learning rates of "uniform" hold; the mean's decay is ours.

    Args:
        decay: of the running mean, which starts at the first batch's losses.
    """

    name = "adaloss"

    def __init__(self, model: DecisionGraph, decay: float = 0.9) -> None:
        super().__init__(model)
        self.decay = decay
        self.register_buffer("mean", self.constant([0.0] * self.exits))

    def weights(self, losses: Tensor) -> Tensor:
        """From the mean, this batch included."""
        mean = self.get_buffer("mean")
        new = torch.where(self.step == 0, losses, self.decay * mean + (1 - self.decay) * losses)
        if self.training:
            mean.copy_(new)
        share = 1 / new.clamp_min(1e-6)
        return self.exits * share / share.sum()


class DynExit(Strategy):
    """Weights learned with the net: Σ_k e^{−s_k}·CE_k + s_k/2.

    After "DynExit: A Dynamic Early-Exit Strategy for Deep Residual Networks", SiPS 2019.
    Deviates: the paper makes the exits' weights adapt during training; its own rule was not at hand. This is the
    uncertainty weighting of Kendall, Gal, Cipolla, CVPR 2018, whose optimum is e^{−s_k} = 1 / (2·CE_k).

    Args:
        bound: s_k stays within ±bound, so no exit is given up or takes all.
    """

    name = "dynexit"

    def __init__(self, model: DecisionGraph, bound: float = 3.0) -> None:
        super().__init__(model)
        self.bound = bound
        self.free = nn.Parameter(self.constant([0.0] * self.exits))

    def _log_variance(self) -> Tensor:
        return self.bound * torch.tanh(self.free / self.bound)

    def weights(self, losses: Tensor) -> Tensor:
        """e^{−s}; gradients reach s."""
        return torch.exp(-self._log_variance())

    def beside(self, logits: Tensor, losses: Tensor) -> Tensor:
        """Σ s/2: what keeps the weights from vanishing."""
        return self._log_variance().sum() / 2


class Boosted(Uniform):
    """Σ CE(F_k) on running sums F_k = z_k + η·F_{k−1}, those before detached: additive boosting over the exits.

    Yu et al., "Boosted Dynamic Neural Networks", AAAI 2023. The model must answer with the sums: `boosted(model)`,
    which also shares out the gradient. Deviates: no weight decay of its own for each stage.
    """

    name = "boosted"

    def __init__(self, model: DecisionGraph) -> None:
        super().__init__(model)
        if not all(isinstance(stage, BoostedStage) for stage in model.stages):
            raise UsageError(
                "the boosted strategy was given a net whose exits answer each for itself.",
                why="What is trained must be what is deployed: running sums of the exits' logits.",
                todo="Wrap the net first: adaptbench.models.exit_heads.boosted(model).",
            )


class Distilled(Linear):
    """The weights of "linear", and from 75 % of the epochs on α·T²·KL(last exit ‖ exit j), the last one detached.

    EENet, Ilhan et al., WACV 2024. Deviates: the KL is summed over classes and averaged over samples; the released code
    averages over classes too, which makes it C times weaker.

    Args:
        alpha: weight. temperature: T. start: share of the epochs after which it begins.
    """

    name = "distilled"

    def __init__(
        self, model: DecisionGraph, alpha: float = 0.01, temperature: float = 3.0, start: float = 0.75
    ) -> None:
        super().__init__(model)
        self.alpha, self.temperature, self.start = alpha, temperature, start

    def beside(self, logits: Tensor, losses: Tensor) -> Tensor:
        """Σ_j α·T²·KL, or 0 before its time."""
        on = (self.epoch() >= self.start * self.epochs).to(losses.dtype)
        return on * self.alpha * divergence(logits[:, :-1], logits[:, -1:].detach(), self.temperature).sum()


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """(K,) T²·KL(softmax(teacher/T) ‖ softmax(student/T)), the mean over samples. (N, K, C) and (N, 1 or K, C)."""
    target = F.log_softmax(teacher.float() / temperature, -1)
    own = F.log_softmax(student.float() / temperature, -1)
    return temperature**2 * (target.exp() * (target - own)).sum(-1).mean(0)


STRATEGIES: dict[str, type[Strategy]] = {
    kind.name: kind for kind in (Uniform, Linear, Weighted, ShallowDeep, AdaLoss, DynExit, Boosted, Distilled)
}


def strategy(name: str, model: DecisionGraph, **options: object) -> Strategy:
    """The strategy of a name around a model.

    Raises:
        UsageError: no such name, or options that do not fit the strategy or the model.
    """
    if name not in STRATEGIES:
        raise UsageError(
            f"no training strategy is called '{name}'.",
            todo=f"{did_you_mean(name, STRATEGIES)}There are: {', '.join(STRATEGIES)}.",
        )
    kind = STRATEGIES[name]
    hints = get_type_hints(kind.__init__)
    known = {option: hints[option] for option in sorted(hints.keys() - {"model", "return"})}
    try:
        checked = {k: TypeAdapter(known[k]).validate_python(v) if k in known else v for k, v in options.items()}
        return kind(model, **checked)
    except (TypeError, ValidationError) as error:
        raise UsageError(
            f"the strategy '{name}' cannot be built from {options or 'no options'}.",
            why=str(error),
            todo=f"Its options: {', '.join(known) or 'none'}.",
        ) from error
