"""What is audited, and on what: a name, a factory or an object as a net; a name, a split or tensors as data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from adaptbench.adapters import Adapted
from adaptbench.adaptive import AdaptiveModel, Split
from adaptbench.adaptive.splits import Role
from adaptbench.auditing.grounds import ground_of
from adaptbench.data.base import DataSet
from adaptbench.data.checked import CheckedData
from adaptbench.data.own import split as split_of
from adaptbench.errors import UsageError
from adaptbench.registry import MODELS
from adaptbench.zoo.factories import Factory, is_factory
from adaptbench.zoo.loading import Loaded


@dataclass(frozen=True, slots=True)
class Target:
    """What is audited.

    Args:
        name: what its cases are called. spec: as it was named. source: "registry", "factory" or "object".
        model: as it was handed over, in whatever mode; None for the registry's, which the plan loads.
        again: makes the net once more; None for an object.
    """

    name: str
    spec: str
    source: str
    model: AdaptiveModel | None = None
    again: Callable[[], AdaptiveModel] | None = None

    @property
    def given(self) -> dict[str, Loaded]:
        """For the plan: the net by its name, where no registry has it."""
        if self.model is None:
            return {}
        return {self.name: Loaded(self.name, f"{self.model.shape} net, {self.spec}", "", self.model, {})}


def target_of(model: str | AdaptiveModel, data: str, *, allow_imports: bool = False) -> Target:
    """The net that is meant.

    Args:
        model: a registered name; ``package.module:factory`` or ``./file.py:factory``, a function that takes nothing or
            the name of the data set; or a net.
        data: the data set's name. allow_imports: a factory's file may be run.

    Raises:
        UnknownNameError: no such model. UsageError: a factory without `allow_imports`, or one that gives no net.
    """
    if isinstance(model, AdaptiveModel):
        kind = model.explain().name if isinstance(model, Adapted) else type(model).__qualname__
        return Target(_plain(kind.rpartition(".")[2]), f"an object of {kind}", "object", model)
    if not isinstance(model, str):
        raise UsageError(
            f"a {type(model).__name__} was given as the model.",
            why="An audit needs to know what may be skipped.",
            todo="Give it the form of an adaptive net: ab.wrap(module, example=…), ab.MultiExit or another of them.",
        )
    if not is_factory(model):
        MODELS.entry(model)
        return Target(model, model, "registry")
    factory = Factory.read(model)
    factory.must_be_allowed(allow_imports)
    made = factory.found()

    def make() -> AdaptiveModel:
        return made(data)

    return Target(_plain(factory.name), model, "factory", make(), make)


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() or c in "._:-" else "_" for c in name)


# ---------------------------------------------------------------------- data

Pictures = tuple[Tensor, Tensor] | Dataset[Any] | DataLoader[Any]
"""Images (N, C, H, W), uint8 or float in [0, 1], and labels (N,); or a torch data set or loader of (picture, label)."""


class OwnData:
    """A data set of test pictures alone, as they were handed over."""

    def __init__(self, split: Split) -> None:
        self.test = split
        self.name, self.class_names, self.shape = split.name, split.class_names, split.shape
        self.n_classes = len(split.class_names)

    def split(self, role: Role) -> Split:
        """The pictures, as the test split."""
        if role != "test":
            raise UsageError(
                f"'{self.name}' was handed over as test pictures: it has no {role} split.",
                why="Policies are fitted, and changes for all pictures crafted, on pictures that are not judged.",
                todo="Fit the policy yourself (net.under(policy)), leave such attacks out, or name a data set.",
            )
        return self.test


def own_data(given: Split | Pictures, n_classes: int) -> DataSet:
    """Pictures that were handed over as a data set.

    Raises:
        LeakageError: a split of another role than test.
        DomainError: floating pictures outside [0, 1]. UsageError: tensors that are no pictures and labels.
    """
    if isinstance(given, Split):
        split = given
    else:
        x, y = given if isinstance(given, tuple | list) and len(given) == 2 else (given, None)
        split = split_of(x, y, role="test", name="pictures", class_names=n_classes)
        split = replace(split, name=ground_of(split.x).many)
    split.require("test", purpose="the figures of an audit")
    return CheckedData(OwnData(split), split.name)
