"""What a defence is: settings, and a net made of another net that shares its weights."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self, TypeVar

from torch import Tensor, nn

from adaptbench.adaptive import AdaptiveModel, CalibrationLog
from adaptbench.adaptive.domain import pictures_of
from adaptbench.errors import UsageError
from adaptbench.registry import did_you_mean

Model = TypeVar("Model", bound=AdaptiveModel)


class Defence(ABC):
    """Makes a defended net of a net. Its constructor takes the settings by keyword, each with a default.

    A defended net is another net: with a hash, a calibration log and crafted pictures of its own. Attacks run on it, so
    they know the defence; pictures that were crafted on the undefended net say nothing of it.
    """

    name: ClassVar[str] = "defence"
    needs_log: ClassVar[bool] = False
    """It is fitted, on a calibration log of the net that it is given."""

    @classmethod
    def settings(cls) -> dict[str, Any]:
        """Name → default of what the constructor takes."""
        return {name: p.default for name, p in inspect.signature(cls).parameters.items()}

    @classmethod
    def made(cls, name: str, given: Mapping[str, Any]) -> Self:
        """The defence with some of its settings.

        Args:
            name: as the registry has it, for messages.

        Raises:
            UsageError: a setting that it does not take, or a value that it cannot take.
        """
        takes = cls.settings()
        for key in given:
            if key not in takes:
                raise UsageError(
                    f"the defence '{name}' has no setting '{key}'.",
                    todo=f"{did_you_mean(key, takes)}Settings: {', '.join(takes) or 'none'}.",
                )
        return cls(**given)

    def suits(self, model: AdaptiveModel) -> bool:
        """Whether it means something for a net; where it does not, `applied` says why."""
        return True

    @abstractmethod
    def applied(self, model: Model, *, log: CalibrationLog | None = None, seed: int = 0) -> Model:
        """The defended net; the weights are shared and the net given stays as it is.

        Args:
            log: of the net given, where `needs_log`. seed: of the fit.

        Raises:
            CapabilityError: it means nothing for this kind of net. CalibrationError: it needs a log.
        """

    def describe(self) -> dict[str, Any]:
        """For the card: settings with their defaults, JSON types only."""
        return {name: getattr(self, name) for name in self.settings()}


class InFront(Defence, nn.Module):
    """A transformation that every picture goes through before the net sees it.

    Subclasses give `forward`: (n, C, H, W) in the domain → the same shape and type, each sample on its own, nothing
    written into what is given. Where it has no useful derivative, its backward pass stands in for one (BPDA: Athalye,
    Carlini, Wagner, "Obfuscated Gradients Give a False Sense of Security", ICML 2018); the forward pass of `infer` and
    of `relax` is one and the same, so the laws hold without a tie rule of its own. Its MACs are counted with the first
    node's.
    """

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """(n, C, H, W) → (n, C, H, W)."""

    def fit_into(self, model: AdaptiveModel) -> InFront:
        """The transformation for a net's domain: itself, where bounds and sizes do not matter.

        Raises:
            UsageError: the net's pictures are too small for it.
        """
        return self

    def applied(self, model: Model, *, log: CalibrationLog | None = None, seed: int = 0) -> Model:
        """The net behind it; a policy keeps its thresholds."""
        pictures_of(model.domain, f"the defence '{self.name}'")
        return model.behind(self.fit_into(model))
