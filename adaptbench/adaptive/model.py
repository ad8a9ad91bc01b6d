"""The protocol that every adaptive model keeps: two views of one computation."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn

from adaptbench.adaptive.cost_tables import CostTables
from adaptbench.adaptive.domain import Domain, pictures_like, pictures_of
from adaptbench.adaptive.log import CalibrationLog, check_labels
from adaptbench.adaptive.metered import CostMeter
from adaptbench.adaptive.outcome import Inference, Relaxation
from adaptbench.adaptive.parts import FULL, NODES, Lap, Mode, alone, no_lap
from adaptbench.adaptive.splits import Split
from adaptbench.errors import CapabilityError, DomainError, NonFiniteError
from adaptbench.registry import DEFENCES

_ALL = frozenset({"gradients", "exit_logits", "queries"})


class AdaptiveModel(nn.Module):
    """A network that spends less on easy inputs.

    Attributes:
        domain: shape and bounds of the inputs it takes; the normaliser is inside. n_classes: C.
        node_names: V names of compute that may be skipped or run. exit_names: K places to return a prediction at.
        shape: "static", "multi-exit", "cascade", "dag", "mixed", "looped", "gated" or "tokens".
        capabilities: what attacks and suites may ask for: "gradients", "exit_logits", "queries"; set, it is kept.
        per_pixel: answers are logits (N, C, H, W), a class for each pixel. meter: of a black box that tells no MACs.
        batch_semantics: "regroup": survivors of a batch are compacted, samples do not touch each other.
    """

    domain: Domain
    n_classes: int
    node_names: tuple[str, ...]
    exit_names: tuple[str, ...]
    shape: str
    per_pixel: bool = False
    batch_semantics: str = "regroup"
    meter: CostMeter | None = None

    def __init__(self) -> None:
        super().__init__()
        self._costs: CostTables[Any] = CostTables()
        self._slopes: CostTables[bool] = CostTables()
        self._declared = _ALL

    @abstractmethod
    def _run(self, x: Tensor, *, seeds: Tensor | None, labels: Tensor | None, force: Tensor | None) -> Inference:
        """The hard pass; gradients follow the caller's mode."""

    @abstractmethod
    def _relax(self, x: Tensor, *, temperature: float, seeds: Tensor | None) -> Relaxation:
        """The differentiable pass."""

    @property
    def modes(self) -> tuple[Mode, ...]:
        """Ways of executing a batch that this kind of model has."""
        return ("compacted", "per-sample")

    def _run_queued(
        self, x: Tensor, full: int, *, seeds: Tensor | None, labels: Tensor | None, force: Tensor | None
    ) -> Inference:
        """The hard pass through stage queues, where a kind of model has them."""
        raise NotImplementedError

    def _relax_decisions(self, x: Tensor, *, temperature: float, seeds: Tensor | None) -> Relaxation:
        """The same; where a kind of model can, without the work that only the last exit's answer needs."""
        return self._relax(x, temperature=temperature, seeds=seeds)

    @abstractmethod
    def dense_logits(self, x: Tensor) -> Tensor:
        """(N, V or K, C): every exit on every sample, in the caller's train or eval mode, for training and logging."""

    @abstractmethod
    def run_reference(self, x: Tensor) -> Tensor:
        """(N, C) logits of the static reference: the backbone without exits, gates or policy; a ladder's best."""

    def serve(self, x: Tensor, *, seeds: Tensor | None = None, lap: Lap = no_lap, full: int | None = None) -> Tensor:
        """(N, C) logits of the hard pass as a service runs it: no checks, no records; for timing, inside `serving`.

        Args:
            x: inside the domain, in any floating type, as for `infer`. seeds: as for `infer`.
            lap: told which part of the work each stretch was; a kind of model that does not tell never calls it.
            full: through stage queues, so many samples on a node at once; x is everything that will come.

        Raises:
            CapabilityError: queues, of a model that has none.
        """
        if full is None:
            return self._run(self.taken(x), seeds=seeds, labels=None, force=None).logits
        self._check_mode("queues", full)
        return self._run_queued(self.taken(x), full, seeds=seeds, labels=None, force=None).logits

    def _check_mode(self, mode: str, full: int) -> None:
        if mode not in self.modes or full < 1:
            raise CapabilityError(
                f"mode='{mode}' with full={full} was asked of a {self.shape} model.",
                todo=f"It has {', '.join(self.modes)}; full is at least 1.",
            )

    def serve_reference(self, x: Tensor) -> Tensor:
        """`run_reference` as a service runs it, inside `serving`."""
        return self.run_reference(x)

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Ready to serve: `steady` and no gradients, once for any number of calls of `serve` or `infer`."""
        with self.steady(), torch.no_grad():
            yield

    @contextmanager
    def steady(self) -> Iterator[None]:
        """Eval mode, and nobody changes the model inside: each pass is spared the look whether somebody has."""
        with frozen(self), self._costs.holding(self), self._slopes.holding(self):
            yield

    @abstractmethod
    def paths(self) -> list[Tensor]:
        """(V,) bool masks for `infer(force=…)`: the cheapest path, the dearest, others until all nodes are on one."""

    @property
    @abstractmethod
    def dearest_decisions(self) -> Tensor:
        """(D,) bool: the margins that must be > 0 on the dearest path; what an attacker pushes."""

    def macs_of(self, on: Tensor) -> Tensor | None:
        """(N,) int64 of the paths that decisions make, (N, D) bool as of margins > 0; None: this kind cannot tell."""

    @property
    @abstractmethod
    def node_macs(self) -> tuple[int, ...]:
        """V increments: stage and head, or block, of each node."""

    @property
    @abstractmethod
    def min_macs(self) -> int:
        """The cheapest path, everything included."""

    @property
    @abstractmethod
    def max_macs(self) -> int:
        """The dearest path, with all heads, gates and policies on it."""

    @property
    @abstractmethod
    def macs_full(self) -> int:
        """The static reference."""

    @property
    @abstractmethod
    def uncounted(self) -> tuple[str, ...]:
        """Operators that ran and that no MAC formula covers."""

    @property
    @abstractmethod
    def policy_name(self) -> str:
        """The policy in force."""

    # ------------------------------------------------------------------ a defence in front

    @property
    def front(self) -> nn.Module | None:
        """What pictures go through before the net sees them; its MACs are the first node's. None: nothing."""
        return self._modules.get("in_front")

    def entered(self, x: Tensor, lap: Lap = no_lap) -> Tensor:
        """(N, C, H, W) the pictures as the net gets to see them. lap: told of the stretch, where there is one."""
        if (front := self.front) is not None:
            x = front(x)
            lap(NODES)
        return x

    def behind(self, front: nn.Module) -> Self:
        """The same net, its weights shared, behind a copy of a transformation of the pictures; this one stays as it is.

        The static reference stays without it: there is no saving to defend, and savings keep one measure.

        Args:
            front: (N, C, H, W) in the domain → the same shape; it comes before one that is there already.

        Raises:
            GraphError: it gives another shape, or writes into what it is given. CapabilityError: a net of text.
        """
        pictures_of(self.domain, f"what stands in front of a net ({type(front).__name__})")
        twin = self._twin()
        already = twin._modules.pop("in_front", None)
        own = copy.deepcopy(front).to(self._blank()).eval().requires_grad_(False)
        twin.add_module("in_front", own if already is None else nn.Sequential(own, already))
        _ = twin.min_macs  # one that does not fit is refused here
        return twin

    def defended(self, name: str, *, log: CalibrationLog | None = None, seed: int = 0, **settings: Any) -> Self:
        """The same net, its weights shared, under a registered defence; this one stays as it is.

        Args:
            name: in the registry of defences; `adaptbench list defences`.
            log: of calibration samples through this net, for defences that are fitted. seed: of that fit.
            settings: of the defence.

        Raises:
            UnknownNameError: no such defence. UsageError: a setting that it does not take.
            CapabilityError: it does not apply to this kind of net. CalibrationError: it needs a log.

        >>> import adaptbench as ab
        >>> net = ab.load_model("softmax-threshold", "digits")
        >>> smooth = net.defended("smooth", size=3)
        >>> smooth.min_macs - net.min_macs, smooth.macs_full == net.macs_full
        (384, True)
        """
        return DEFENCES.load(name).made(name, settings).applied(self, log=log, seed=seed)  # type: ignore[no-any-return]

    def _twin(self, instead: dict[int, Any] | None = None) -> Self:
        """A copy that shares every tensor. instead: id of a part → what the copy has in its place."""
        shared = {id(t): t for t in (*self.parameters(), *self.buffers())}
        return copy.deepcopy(self, {**shared, **(instead or {})})

    def recount(self) -> None:
        """Count MACs anew, after a change that no attribute of a module shows (see `CostTables`)."""
        self._costs.clear()

    def taken(self, x: Tensor) -> Tensor:
        """The pictures in the type of the weights (float32 where there are none).

        Raises:
            DomainError: they are on another device.
        """
        some = self._costs.kept("weight", lambda: next(self.parameters(), None))
        if some is None:
            return x
        if x.device != some.device:
            raise DomainError(
                f"pictures on {x.device} were given to a model on {some.device}.",
                todo=f"Move one to the other: x.to('{some.device}').",
            )
        return x.to(some.dtype) if x.is_floating_point() else x

    def _blank(self) -> Tensor:
        """One input of noise, as the weights are: pictures in their type, on their device."""
        return pictures_like(next(self.parameters(), torch.zeros(())), self.domain)

    @property
    def capabilities(self) -> frozenset[str]:
        """What was declared, less the gradients where an oracle decides or none reach the pictures."""
        if "gradients" not in self._declared:
            return self._declared
        sloping = not self.needs_labels and self._slopes.noted(
            self, lambda: self._slopes.of(None, self, self._has_gradients)
        )
        return self._declared if sloping else self._declared - {"gradients"}

    @capabilities.setter
    def capabilities(self, offered: Iterable[str]) -> None:
        self._declared = frozenset(offered)

    @capabilities.deleter
    def capabilities(self) -> None:
        self._declared = _ALL

    def _has_gradients(self) -> bool:
        """Logits depend on the picture for autograd; quantised and detached parts cut them off."""
        return True

    @property
    def needs_labels(self) -> bool:
        """True for oracles: a bound, not a deployable model."""
        return False

    def forward(self, x: Tensor) -> Tensor:
        """(N, C) logits of the path really taken, differentiable, so that any torch tool can use the model."""
        return self._run(self.taken(x), seeds=None, labels=None, force=None).logits

    def infer(
        self,
        x: Tensor,
        *,
        seeds: Tensor | None = None,
        labels: Tensor | None = None,
        force: Tensor | None = None,
        mode: Mode = "compacted",
        full: int = FULL,
    ) -> Inference:
        """The hard pass, as deployed: what is skipped does not run.

        Args:
            x: (N, C, H, W) inside the domain. labels: (N,) int64, for oracles only.
            seeds: (N,) int64 for policies that draw; by default a function of each sample's content.
            force: (V,) or (N, V) bool, a path to take whatever the policy says (its cost is paid all the same).
            mode: "compacted", survivors of the batch together; "per-sample", one at a time, as a latency-bound service
                runs it; "queues", survivors of several batches wait at a node until it can run full.
            full: of the queues, samples that a node runs on at once.

        Raises:
            DomainError: an input outside the domain, or labels that are no classes.
            NonFiniteError: logits are NaN or infinite.
            CapabilityError: labels are needed and missing, or the path or the mode does not exist.
        """
        x = self.taken(x)
        self.domain.check(x)
        for name, given in (("seeds", seeds), ("labels", labels)):
            if given is not None and len(given) != len(x):
                raise DomainError(
                    f"{len(x)} samples were given with {len(given)} {name}.",
                    todo=f"Give one of {name} for each sample.",
                )
        self._check_mode(mode, full)
        if labels is not None:
            check_labels(labels, self.n_classes)
        if self.needs_labels and labels is None and force is None:
            raise CapabilityError(
                f"the policy '{self.policy_name}' looks at the label and got none.",
                why="An oracle is a bound on any policy, not a policy.",
                todo="Call infer(x, labels=y), or choose a policy that can be deployed.",
            )
        with frozen(self), torch.no_grad():
            self._costs.check(self)
            if mode == "queues":
                inference = self._run_queued(x, full, seeds=seeds, labels=labels, force=force)
            elif mode == "per-sample":
                each = alone(x, seeds, labels, force)
                inference = Inference.join([self._run(x, seeds=s, labels=y, force=f) for x, s, y, f in each])
            else:
                inference = self._run(x, seeds=seeds, labels=labels, force=force)
        if not torch.isfinite(inference.logits).all():
            raise NonFiniteError(
                "the model returned NaN or infinite logits.",
                why="Confidence, exits and cost mean nothing after that.",
                todo="Check the checkpoint's weights; `adaptbench train` stops at the first NaN loss.",
            )
        return inference

    def relax(
        self, x: Tensor, *, temperature: float = 0.1, seeds: Tensor | None = None, last: bool = True
    ) -> Relaxation:
        """The differentiable pass: every node on every sample, in eval mode.

        Args:
            x: (N, C, H, W) inside the domain. temperature: of the relaxation. seeds: (N,) for policies that draw.
            last: False leaves out what only the last exit's answer needs, where nobody decides any more; its logits are
                zero then. The rest is the same to the bit.

        Raises:
            CapabilityError: the model offers no gradients.
            DomainError: an input outside the domain.
        """
        if "gradients" not in self.capabilities:
            raise CapabilityError(
                f"the policy '{self.policy_name}' has no gradients."
                if self.needs_labels
                else "the model offers no gradients: none are declared, or none reach the pictures.",
                todo="Use an attack that only queries.",
            )
        x = self.taken(x)
        self.domain.check(x)
        with frozen(self):
            self._costs.check(self)
            return (self._relax if last else self._relax_decisions)(x, temperature=temperature, seeds=seeds)

    @abstractmethod
    def log(self, split: Split, *, chunk: int = 1000) -> CalibrationLog:
        """Logits of every node on a calibration split: what policies are fitted on.

        Raises:
            LeakageError: a split of another role.
        """


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Eval mode for every sub-module, each one's own flag restored after."""
    if isinstance(model, AdaptiveModel) and model._costs.is_holding:
        yield
        return
    training = _in_training(model)
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _in_training(model: nn.Module) -> list[nn.Module]:
    """Sub-modules in train mode; `Module.modules()` alone would take a third of a small net's time at batch 1."""
    training: list[nn.Module] = []
    stack: list[nn.Module | None] = [model]
    while stack:
        module = stack.pop()
        if module is not None:
            if getattr(module, "training", False):  # frozen TorchScript has no mode
                training.append(module)
            stack.extend(module._modules.values())
    return training
