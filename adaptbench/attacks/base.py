"""What every attack is: declared, applied to a model, and audited after the fact."""

from __future__ import annotations

import hashlib
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from adaptbench.adaptive import AdaptiveModel, ImageDomain, SeriesDomain, Split
from adaptbench.attacks.identity import foreign_sources
from adaptbench.attacks.purity import in_train_mode, untouched
from adaptbench.attacks.slopes import closed_clamp
from adaptbench.errors import CapabilityError, DomainError

Access = Literal["white-box", "black-box", "transfer", "none"]
Kind = Literal["control", "attack"]
OnProgress = Callable[[int, int], None]
Surrogates = Callable[[str], AdaptiveModel]
Crafting = Split | tuple[Tensor, Tensor] | Callable[[], Split]
"""Pictures that an attack may learn from and is not judged on; a pair is x float in [0, 1] and y."""

Metering = Callable[[AdaptiveModel, Tensor, int], Tensor]
"""(model, (n, C, H, W) pictures, k) → (n, k) float64: what one inference of each took, read k times."""

TRAINING = "layers of the model came in train mode; it was attacked in eval mode, as it is deployed"
PER_PIXEL = (
    "it looks at the class of an input, and the model says one for every pixel; made for such nets are noise, and "
    "white-box attacks on cost alone (expected MACs, margins or confidence as objective, label: free)"
)
MASKED_SHARE = 0.1
"""Above this share of samples without a gradient the attack says so: the gradient may be missing, not the weakness."""


@dataclass(frozen=True, slots=True)
class Crafted:
    """Attacked inputs and what they cost the attacker; all tensors on the CPU.

    Args:
        x_adv: (N, C, H, W) uint8, inside box and ball; of texts (N, L) int64 ids, of series (N, C, T) floats.
        linf, l2: (N,) float64 distances to the (8-bit) clean pictures, in [0, 1] pixel units; of series in their own
            unit; NaN of texts.
        queries: (N,) int64 for attacks that query, else None.
        seconds: crafting time, without what is learnt before and what is checked after it.
        details: JSON; counts add up over chunks, see `join`.
    """

    x_adv: Tensor
    linf: Tensor
    l2: Tensor
    queries: Tensor | None
    seconds: float
    details: dict[str, Any]

    def images(self) -> Tensor:
        """What the model takes: (N, C, H, W) float32 in [0, 1], or the ids."""
        return self.x_adv.float().div_(255.0) if self.x_adv.dtype == torch.uint8 else self.x_adv

    @staticmethod
    def join(parts: list[Crafted]) -> Crafted:
        """Chunks as one, in order. Integers in details add up, floats average by size, lists keep each entry once."""
        sizes = [len(p.x_adv) for p in parts]
        queries = [p.queries for p in parts if p.queries is not None]
        return Crafted(
            torch.cat([p.x_adv for p in parts]),
            torch.cat([p.linf for p in parts]),
            torch.cat([p.l2 for p in parts]),
            torch.cat(queries) if len(queries) == len(parts) else None,
            sum(p.seconds for p in parts),
            join_details([p.details for p in parts], sizes),
        )


def join_details(parts: list[dict[str, Any]], sizes: list[int]) -> dict[str, Any]:
    """Details of chunks as one. Integers add up, floats average by size, lists keep each entry once, else the first."""
    joined: dict[str, Any] = {}
    for key in dict.fromkeys(k for part in parts for k in part):
        weighted = [(part[key], size) for part, size in zip(parts, sizes, strict=True) if part.get(key) is not None]
        values = [value for value, _ in weighted]
        if not values:
            joined[key] = None
        elif all(isinstance(v, int) and not isinstance(v, bool) for v in values):
            joined[key] = sum(values)
        elif all(isinstance(v, float) for v in values):
            joined[key] = sum(v * size for v, size in weighted) / sum(size for _, size in weighted)
        elif all(isinstance(v, list) for v in values):
            joined[key] = list(dict.fromkeys(entry for value in values for entry in value))
        else:
            joined[key] = values[0]
    return joined


@dataclass(frozen=True, slots=True)
class Learned:
    """What an attack has made of its crafting pictures once, for every craft on the same model under the same seed.

    Args:
        tensors: weights, on the CPU. told: JSON, for the details of each craft; its numbers are floats, so that chunks
            joined have each once.
    """

    tensors: dict[str, Tensor]
    told: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Task:
    """One craft, checked: pictures on the 8-bit grid, or token ids; one sample id each."""

    model: AdaptiveModel
    x: Tensor
    y: Tensor
    ids: Tensor
    seed: int
    surrogate: Surrogates | None
    progress: OnProgress
    crafting: Crafting | None = None
    metering: Metering | None = None
    learned: Learned | None = None


@dataclass(slots=True)
class Unaudited:
    """What an algorithm hands to the audit, which makes `Crafted` of it: fields as there, on any device."""

    x_adv: Tensor
    queries: Tensor | None = None
    details: dict[str, Any] = field(default_factory=dict)


class Attack(ABC):
    """An attack as torchattacks has it, plus what a benchmark must know about it.

    Attributes:
        name: as suites write it. title, cite: for reports.
        access: what the attacker sees of the target.
        kind: "control" for anything that does not try.
        deviates: where it differs from its source, a sentence each.
        requires: capabilities of the target that it uses.
        couples_samples: samples of one craft influence each other; cut chunks at fixed places.
        surrogate: name of the model that it works on in the target's place.
        needs_crafting: it is crafted on other pictures than those that it is judged on.
        learns: it trains something on its crafting pictures first, see `learn`; that is no crafting time.
        replaces: what it returns are other pictures; labels of the clean ones and distances to them mean nothing.
        per_pixel: it is made for nets that answer every pixel, too.
        deterministic: the same seed gives the same pictures; not where a meter is asked.
    """

    name: str = ""
    title: str = ""
    cite: str = ""
    access: Access = "white-box"
    kind: Kind = "attack"
    deviates: tuple[str, ...] = ()
    requires: frozenset[str] = frozenset()
    couples_samples: bool = False
    surrogate: str | None = None
    needs_crafting: bool = False
    learns: bool = False
    replaces: bool = False
    per_pixel: bool = False
    deterministic: bool = True
    hashed_as: ClassVar[str] = ""
    """What the algorithm was called when hashes of it were first published; another name of its class changes none."""

    def __init__(self) -> None:
        self.clock: Callable[[], float] = time.monotonic

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Flat, JSON types only."""

    @property
    def versions(self) -> dict[str, str]:
        """Packages whose version decides what comes out, beside this one."""
        return {"torch": torch.__version__}

    @property
    def sha256(self) -> str:
        """Hash of what it does, whatever it is called: kind, settings, and the code of classes that are not ours."""
        kind = type(self)
        name = self.hashed_as or f"{kind.__module__}.{kind.__qualname__}"
        content = [name, self.kind, self.settings, foreign_sources([kind, *self._code()])]
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()

    @property
    def learns_as(self) -> str:
        """Hash of what `learn` hangs on beside model, pictures and seed; settings of what comes later are not in it."""
        return self.sha256

    def _code(self) -> Iterable[type]:
        """Classes beside its own whose code decides what comes out."""
        return ()

    @abstractmethod
    def _craft(self, task: Task) -> Unaudited:
        """The algorithm; runs under `untouched`, with gradients enabled."""

    def _learn(self, task: Task) -> Learned:
        """What a task hands over, checked against its pictures; or what its crafting pictures teach."""
        raise NotImplementedError

    def _against_itself(self, task: Task) -> dict[str, Any]:
        """What speaks against the attack's own result, for the details; runs under `untouched`, after `_craft`."""
        return {}

    def _why_not(self, model: AdaptiveModel) -> str | None:
        """A reason beyond capabilities why the attack means nothing on this model."""
        return None

    def _wrong_inputs(self, model: AdaptiveModel) -> str | None:
        """A reason why the attack cannot change what the model takes; one of pixels wants pictures in [0, 1]."""
        domain = model.domain
        if isinstance(domain, SeriesDomain):
            return "it changes the values of pixels, and the model takes series, which have a unit of their own"
        if not isinstance(domain, ImageDomain):
            return "it changes the values of pixels, and the model takes text, whose token ids are names"
        if (domain.low, domain.high) != (0.0, 1.0):
            return f"its inputs span [{domain.low:g}, {domain.high:g}], and attacks work in [0, 1]"
        return None

    def _outside(self, change: Tensor) -> Tensor:
        """(N,) bool: results that break the attack's own constraint; change: (N, C, H, W) in pixel range."""
        return torch.zeros(len(change), dtype=torch.bool)

    def _readings(self, change: Tensor) -> dict[str, float]:
        """More about the change, for the details."""
        return {}

    def applies_to(self, model: AdaptiveModel) -> str | None:
        """None, or the reason why this attack cannot be run on a model."""
        if reason := self._wrong_inputs(model):
            return reason
        if model.per_pixel and not self.per_pixel:
            return PER_PIXEL
        if self.requires and model.needs_labels:
            return f"the policy '{model.policy_name}' looks at the label: it is a bound, not a deployed model"
        return lacking(self.requires, model) or self._why_not(model)

    def craft(
        self,
        model: AdaptiveModel,
        x: Tensor,
        y: Tensor,
        *,
        ids: Tensor | None = None,
        seed: int = 0,
        surrogate: Surrogates | None = None,
        crafting: Crafting | None = None,
        metering: Metering | None = None,
        learned: Learned | None = None,
        on_progress: OnProgress | None = None,
    ) -> Crafted:
        """Attack a batch of any size; the model is left as it was.

        Args:
            x: (N, C, H, W) float in [0, 1] on the model's device, rounded to 8 bits first; (N, L) token ids;
                or (N, C, T) series.
            y: (N,) int64 labels; (N, H, W) uint8 where the model answers every pixel.
            ids: (N,) int64, what each sample's random numbers are drawn from (default 0 … N−1).
            seed: of the run.
            surrogate: registry name → model, for transfer attacks.
            crafting: pictures for attacks that share one change, see `needs_crafting`; never those of x.
            metering: reads seconds or joules, for attackers who are told these.
            learned: of `learn` on this model under this seed; without it an attack that learns does so first.
            on_progress: told (samples done, N).

        Raises:
            CapabilityError: the attack does not apply to this model.
            DomainError: inputs outside the domain, or labels or ids that do not fit them.
            LeakageError: crafting pictures that are among those attacked, or of a test split.
        """
        if reason := self.applies_to(model):
            raise CapabilityError(
                f"'{self.name}' cannot attack this {model.shape} model: {reason}.",
                todo="Leave the pair out, or take another attack: `adaptbench list attacks`.",
            )
        model.domain.check(x)
        ids = torch.arange(len(x)) if ids is None else ids
        if not len(x) == len(y) == len(ids):
            raise DomainError(
                f"{len(x)} pictures were given with {len(y)} labels and {len(ids)} ids.", todo="Give one of each."
            )
        if not model.per_pixel:
            self._check_labels(model, y)
        training = in_train_mode(model)
        with untouched(model), torch.inference_mode(False), torch.enable_grad(), closed_clamp():
            pictures = isinstance(model.domain, ImageDomain)
            clean = to_bytes(x) if pictures else x.detach().clone()
            task = Task(
                model,
                clean.float() / 255.0 if pictures else clean,
                y.detach().clone().to(x.device),
                ids.detach().clone().to(x.device, torch.int64),
                int(seed),
                surrogate,
                on_progress or (lambda done, total: None),
                crafting,
                metering,
                learned,
            )
            if self.learns:
                task = replace(task, learned=self._learn(task))
            started = self.clock()
            unaudited = self._craft(task)
            x_adv = unaudited.x_adv.cpu()  # waits for a device
            seconds = self.clock() - started  # what the attack takes; the checks of it are the benchmark's
            doubts = self._against_itself(task)
            linf, l2, outside, readings = self._measured(clean, x_adv, model)
        details = {"n": len(x), **unaudited.details, **readings, **doubts}
        if training:
            details["notes"] = [*details.get("notes", []), TRAINING]
        if beyond := int(outside.sum()):
            details["outside_constraint"] = beyond
        queries = None if unaudited.queries is None else unaudited.queries.cpu()
        return Crafted(x_adv, linf, l2, queries, seconds, details)

    def learn(
        self, model: AdaptiveModel, crafting: Crafting, *, seed: int = 0, on_progress: OnProgress | None = None
    ) -> Learned:
        """What `learns` needs beforehand, for `craft(…, learned=…)` of any number of pictures.

        Args:
            crafting: pictures of a calibration or training split. seed: of the run. on_progress: told (steps done, of).

        Raises:
            CapabilityError: the attack does not apply to this model, or learns nothing.
            LeakageError: a test split.
        """
        reason = self.applies_to(model) or (None if self.learns else "it learns nothing beforehand")
        if reason:
            raise CapabilityError(
                f"'{self.name}' cannot learn from this {model.shape} model: {reason}.",
                todo="Craft with it as it is, or take another attack: `adaptbench list attacks`.",
            )
        nothing = torch.zeros((0, *model.domain.shape))
        none = torch.zeros(0, dtype=torch.int64)
        told = on_progress or (lambda done, total: None)
        weights = next(model.parameters(), none)
        with untouched(model), torch.inference_mode(False), torch.enable_grad(), closed_clamp():
            here = nothing.to(weights.device), none.to(weights.device), none.to(weights.device)
            return self._learn(Task(model, *here, int(seed), None, told, crafting))

    def _measured(
        self, clean: Tensor, x_adv: Tensor, model: AdaptiveModel
    ) -> tuple[Tensor, Tensor, Tensor, dict[str, float]]:
        """(N,) L∞ and L2 distances, (N,) bool what breaks the attack's constraint, and more about the change."""
        change = (x_adv.cpu().double() - clean.cpu().double()) / 255.0
        flat = change.flatten(1)
        return flat.abs().amax(1), flat.norm(dim=1), self._outside(change), self._readings(change)

    @staticmethod
    def _check_labels(model: AdaptiveModel, y: Tensor) -> None:
        if y.ndim != 1 or y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
            raise DomainError(
                f"labels are {str(y.dtype).removeprefix('torch.')} of shape {tuple(y.shape)}.",
                why="One-hot, soft or fractional labels are none of the classes.",
                todo="Give int64 labels of shape (N,), such as y.argmax(1).",
            )
        if len(y) and not (int(y.min()) >= 0 and int(y.max()) < model.n_classes):
            raise DomainError(
                f"labels go from {int(y.min())} to {int(y.max())}; the model's classes are 0 … {model.n_classes - 1}.",
                todo="Give labels of the data that the model was trained for.",
            )

    def __call__(self, model: AdaptiveModel) -> Callable[..., Tensor]:
        """As torchattacks has it: ``attack(model)(x, y)`` → attacked pictures, float in [0, 1] on x's device."""

        def bound(x: Tensor, y: Tensor, **more: Any) -> Tensor:
            return self.craft(model, x, y, **more).images().to(x.device)

        return bound

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.settings.items())})"


def lacking(requires: frozenset[str], model: AdaptiveModel) -> str | None:
    """None, or what a model does not offer."""
    missing = sorted(requires - model.capabilities)
    return f"the model offers no {missing[0].replace('_', ' ')}" if missing else None


def to_bytes(x: Tensor) -> Tensor:
    """(N, C, H, W) uint8, nearest."""
    return (x.detach() * 255.0).round().clamp(0, 255).to(torch.uint8)


def one_path(model: AdaptiveModel) -> str | None:
    """The reason why no attack on energy can do anything to a model with one path; of a metered one nobody knows."""
    if model.meter is not None:
        return None
    return "it has one path, so there is no saving to take" if model.min_macs == model.max_macs else None
