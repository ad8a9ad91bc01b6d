"""The condition `shift`: inputs that nobody crafted and no net was fitted on, whose cost is paid all the same.

``shift: {data: cifar100}`` puts test pictures of another data set in the place of the suite's own, one for each.
``shift: {corruption: blur, severity: 3}`` is the control `corruption-blur` under this name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from adaptbench.adaptive import Split
from adaptbench.attacks import Attack, load_attack
from adaptbench.attacks.base import Task, Unaudited, to_bytes
from adaptbench.data.base import DataSet
from adaptbench.errors import SuiteError
from adaptbench.registry import DATA, did_you_mean

SHIFT = "shift"
CORRUPTIONS = ("blur", "contrast", "brightness", "jpeg")
_FORMS = "Write `shift: {data: cifar100}`, or `shift: {corruption: blur, severity: 3}`."


class ForeignPictures(Attack):
    """The i-th test picture of another data set stands in the place of the i-th of the suite's.

    Args:
        spec: the data set as the suite names it. judged: whose places are taken. foreign: as many pictures of the same
            shape, from `stretched`.
    """

    access = "none"
    kind = "control"
    cite = "after Hendrycks, Gimpel, ICLR 2017"
    replaces = True

    def __init__(self, spec: str, judged: Split, foreign: Split) -> None:
        super().__init__()
        self.name, self.title = f"{SHIFT}:{spec}", f"test pictures of {spec} in the place of its own (control)"
        self.deviates = ("the pictures are brought to the net's size; a deployed camera would not do that for it",)
        self._spec, self._foreign = spec, foreign
        self._row = {int(i): row for row, i in enumerate(judged.ids)}

    @property
    def settings(self) -> dict[str, Any]:
        """The data set, and the hash of the pictures as they are shown."""
        return {"data": self._spec, "data_sha256": self._foreign.sha256}

    def _craft(self, task: Task) -> Unaudited:
        rows = torch.tensor([self._row[int(i)] for i in task.ids])
        task.progress(len(rows), len(rows))
        return Unaudited(self._foreign.x[rows])


def check_shift(settings: dict[str, Any]) -> None:
    """Refuse what names neither a data set nor a corruption, when the suite is read.

    Raises:
        SuiteError: another key, none or both of the two, or a name that is none.
        UnknownNameError: no such data set.
    """
    corrupts = "corruption" in settings
    known = ("corruption", "severity") if corrupts else ("data",)
    for key in settings:
        if key not in known:
            raise SuiteError(f"a shift to {'a corruption' if corrupts else 'other data'} has no '{key}'.", todo=_FORMS)
    if corrupts == ("data" in settings):
        raise SuiteError("a shift has to say what to: nothing is named.", todo=_FORMS)
    if corrupts:
        if settings["corruption"] not in CORRUPTIONS:
            raise SuiteError(
                f"no corruption is called {settings['corruption']!r}.",
                todo=f"{did_you_mean(str(settings['corruption']), CORRUPTIONS)}There are: {', '.join(CORRUPTIONS)}.",
            )
        _corruption(settings)
        return
    if not isinstance(settings["data"], str) or not settings["data"].strip():
        raise SuiteError(f"{settings['data']!r} is no name of a data set.", todo=_FORMS)
    DATA.entry(settings["data"].partition(":")[0].strip())


def shifted(settings: dict[str, Any], data: DataSet, judged: Split, load: Callable[[str], DataSet]) -> Attack:
    """The control that a checked condition names.

    Args:
        settings: of the condition. data: the suite's. judged: the pictures whose places are taken. load: by name.

    Raises:
        SuiteError: the same data set, other channels, or fewer pictures than places.
        DataMissingError: the other data set is not there.
    """
    if "corruption" in settings:
        return _corruption(settings)
    spec = settings["data"].strip()
    other = load(spec)
    foreign = other.split("test")
    if other.name == data.name or foreign.sha256 == data.split("test").sha256:
        raise SuiteError(
            f"'{spec}' is the data set of this suite.",
            why="Its pictures are what the net was fitted for: that is no shift.",
            todo="Name another, or a corruption: `shift: {corruption: blur}`.",
        )
    if foreign.shape[0] != judged.shape[0]:
        raise SuiteError(
            f"'{spec}' has pictures of {foreign.shape[0]} channels, and '{data.name}' of {judged.shape[0]}.",
            why="Colours would have to be made up or thrown away; the size alone is changed.",
            todo="Name a data set with as many channels.",
        )
    if len(foreign) < len(judged):
        raise SuiteError(
            f"'{spec}' has {len(foreign)} test pictures for {len(judged)} places.",
            why="Each stands in one place; none stands twice.",
            todo=f"Ask for fewer: `shift: {{data: {spec}, limit: {len(foreign)}}}`.",
        )
    return ForeignPictures(spec, judged, stretched(foreign.first(len(judged)), judged.picture_shape))


def stretched(split: Split, shape: tuple[int, int, int]) -> Split:
    """A split's pictures at another height and width: bilinear, smoothed where they shrink, 8-bit.

    Args:
        shape: (C, H, W) wanted, of as many channels.
    """
    if split.shape == shape:
        return split
    x = F.interpolate(split.images(), size=shape[1:], mode="bilinear", antialias=True, align_corners=False)
    return Split(split.name, split.role, to_bytes(x), split.y, split.ids, split.class_names)


def _corruption(settings: dict[str, Any]) -> Attack:
    return load_attack(f"corruption-{settings['corruption']}", {k: v for k, v in settings.items() if k != "corruption"})
