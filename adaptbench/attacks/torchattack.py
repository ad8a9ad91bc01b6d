"""Any class of torchattacks as a condition: found by name, seeded, silenced, timed, and its result rounded and audited.

They are made to break accuracy. What they do to energy is what this package wants to know; nothing is selected by cost.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import inspect
import io
import re
import warnings
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adaptbench.adaptive import AdaptiveModel
from adaptbench.attacks import torchattack_limits as limits
from adaptbench.attacks.base import Access, Attack, Task, Unaudited, to_bytes
from adaptbench.attacks.constraints import L2, Constraint, Linf
from adaptbench.attacks.engine import chunks
from adaptbench.attacks.randomness import sample_keys
from adaptbench.attacks.ranges import shown
from adaptbench.errors import AdaptBenchError, CapabilityError, MissingExtraError, RecipeError, UnknownNameError
from adaptbench.registry import did_you_mean

DEADLINE_S = 600.0
CHUNK = 128
_QUERIES_ONLY = {"OnePixel", "Pixle", "Square", "SPSA"}
_AIMLESS = {"GN", "VANILA"}
_WRAPPERS = {"LGV", "MultiAttack"}


class _DeadlineReachedError(Exception):
    """Leaves the loop of a class that has no time limit of its own."""


class _Timed(nn.Module):
    """The target as torchattacks sees it: logits, until the time is up."""

    def __init__(self, model: AdaptiveModel, clock: Any, deadline: float) -> None:
        super().__init__()
        self.target, self.clock, self.deadline = model, clock, deadline
        self.passes = 0

    def forward(self, x: Tensor) -> Tensor:
        if self.clock() > self.deadline:
            raise _DeadlineReachedError
        self.passes += len(x)
        return self.target(x.clamp(0.0, 1.0))  # type: ignore[no-any-return]


class TorchAttack(Attack):
    """torchattacks.NAME(model, **settings)(x, y).

    Args:
        name: of the class, "PGD".
        deadline_s: wall-clock seconds a craft may take; inputs that were not finished by then stay clean.
        settings: keywords of the class; "8/255" is understood.

    Raises:
        MissingExtraError: torchattacks is not installed.
        UnknownNameError: no such class.
        RecipeError: a keyword that the class does not take, or a value out of its range.
    """

    couples_samples = True

    def __init__(self, name: str, /, *, deadline_s: Any = DEADLINE_S, **settings: Any) -> None:
        super().__init__()
        self.class_name, self.factory = name, _find(name)
        defaults = _keywords(self.factory)
        takes = [*defaults, "deadline_s"]
        if wrong := [key for key in settings if key not in defaults]:
            raise RecipeError(
                f"torchattacks.{name} takes no '{wrong[0]}'.",
                todo=f"{did_you_mean(wrong[0], takes)}It takes: {', '.join(takes)}.",
            )
        try:
            self.deadline_s = limits.deadline(deadline_s)
            self.given = limits.checked(name, defaults, settings)
        except ValueError as error:
            key, may_be = error.args
            seen = deadline_s if key == "deadline_s" else settings[key]
            raise RecipeError(
                f"torchattacks/{name}, {key}: {may_be}; seen: {shown(seen)}.", todo="Mend this setting."
            ) from None
        self.name = f"torchattacks/{name}"
        self.title = f"{name} (torchattacks)"
        self.cite = _citation(self.factory)
        self.kind = "control" if name in _AIMLESS else "attack"
        self.access: Access = "none" if name in _AIMLESS else "black-box" if name in _QUERIES_ONLY else "white-box"
        self.requires = frozenset({"gradients"} if self.access == "white-box" else {"queries"})
        self.keywords = {**defaults, **self.given}
        self.ball = _ball(self.factory, self.keywords)

    @property
    def settings(self) -> dict[str, Any]:
        """The class's keywords, defaults included; seed and number of classes are the run's and the model's."""
        plain = {
            k: v if isinstance(v, (int, float, str, bool, type(None))) else list(v)
            for k, v in self.keywords.items()
            if k not in ("seed", "n_classes") or k in self.given
        }
        return {"access": self.access, **plain, "deadline_s": float(self.deadline_s)}

    @property
    def versions(self) -> dict[str, str]:
        """With that of torchattacks."""
        return {"torchattacks": importlib.metadata.version("torchattacks"), **super().versions}

    def _why_not(self, model: AdaptiveModel) -> str | None:
        shape, classes = model.domain.shape, model.n_classes
        return limits.why_not(self.class_name, shape, classes, self.keywords, self.given) or None

    def _outside(self, change: Tensor) -> Tensor:
        return super()._outside(change) if self.ball is None else self.ball.outside(change)

    def ours(self, model: AdaptiveModel, seed: int) -> dict[str, int]:
        """Keywords of the class that the run and the model set, unless the user did."""
        known = {"seed": seed, "n_classes": model.n_classes}
        return {k: v for k, v in known.items() if k in self.keywords and k not in self.given}

    def _craft(self, task: Task) -> Unaudited:
        timed = _Timed(task.model, self.clock, self.clock() + self.deadline_s)
        result = to_bytes(task.x)
        done = beyond = 0
        notes: list[str] = []
        for part in chunks(len(task.x), CHUNK):
            try:
                adversarial = self._run(timed, task, part)
            except _DeadlineReachedError:
                notes.append(f"stopped by its deadline of {self.deadline_s:g} s; inputs not finished by then are clean")
                break
            except (AdaptBenchError, MemoryError, torch.OutOfMemoryError):
                raise
            except Exception as error:  # whatever a foreign class says of a model that it was not made for
                raise self._broke_off(error) from error
            result[part], out = self._round(adversarial, task.x[part])
            beyond += out
            done = part.stop
            task.progress(done, len(task.x))
        details: dict[str, Any] = {
            "forward_passes": timed.passes,
            "unfinished": len(task.x) - done,
            "projected": beyond,
        }
        if notes:
            details["notes"] = notes
        return Unaudited(result, details=details)

    def _broke_off(self, error: Exception) -> CapabilityError:
        said = next(iter(str(error).splitlines()), "")[:200].rstrip(".")
        return CapabilityError(
            f"'{self.name}' broke off on this model: {type(error).__name__}{': ' if said else ''}{said}.",
            why="Classes of torchattacks are made for certain pictures and nets, and do not say which.",
            todo="Leave the pair out, or take another attack: `adaptbench list attacks`.",
        )

    def _run(self, timed: _Timed, task: Task, part: slice) -> Tensor:
        seed = int(sample_keys(task.ids[part][:1], task.seed)[0]) & 0xFFFFFFFF
        torch.manual_seed(seed)
        np.random.seed(seed)  # some classes draw from NumPy's global state
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            attack = self.factory(timed, **self.given, **self.ours(task.model, seed))
            attack.set_device(task.x.device)
            out: Tensor = attack(task.x[part], task.y[part])
        return out.detach()

    def _round(self, x: Tensor, clean: Tensor) -> tuple[Tensor, int]:
        """8-bit pictures, in the class's own ball where it has one; and how many were outside it before."""
        x = x.to(clean).nan_to_num(0.0).clamp(0.0, 1.0)
        if self.ball is None:
            return to_bytes(x), 0
        beyond = self.ball.outside(x - clean, slack=1e-5)
        return self.ball.quantise(x, clean), int(beyond.sum())


def torchattacks() -> ModuleType:
    """The module.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module("torchattacks")
    except ImportError as error:
        raise MissingExtraError(
            f"torchattacks cannot be imported: {error}",
            why="Its classes are an optional part; the package pins an old 'requests', so it may need --no-deps.",
            todo="pip install 'adaptbench[attacks]', or pip install --no-deps torchattacks.",
        ) from error


def class_names() -> list[str]:
    """Names that ``torchattacks/NAME`` takes."""
    return sorted(name for name in torchattacks().__all__ if name not in _WRAPPERS)


def _find(name: str) -> Any:
    known = class_names()
    if name not in known:
        lower = {k.lower(): k for k in known}
        near = did_you_mean(name, lower)
        for low, true in lower.items():
            near = near.replace(f"'{low}'", f"'torchattacks/{true}'")
        raise UnknownNameError(
            f"torchattacks has no class '{name}' that can be run.", todo=f"{near}It has: {', '.join(known)}."
        )
    return getattr(torchattacks(), name)


def _keywords(factory: Any) -> dict[str, Any]:
    """Keyword → default."""
    parameters = list(inspect.signature(factory.__init__).parameters.values())[2:]
    return {p.name: p.default for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD}


def _citation(factory: Any) -> str:
    match = re.search(r"in the paper '+([^']+)'", factory.__doc__ or "")
    return " ".join(match[1].split()) if match else ""


def _ball(factory: Any, keywords: dict[str, Any]) -> Constraint | None:
    """The constraint that a class promises: its documented distance with its eps."""
    match = re.search(r"Distance Measure\s*:\s*([^\n]+)", factory.__doc__ or "")
    norm = str(keywords.get("norm", match[1].strip() if match else ""))
    eps = keywords.get("eps", keywords.get("max_epsilon"))
    if not isinstance(eps, (int, float)) or eps <= 0:
        return None
    return Linf(float(eps)) if norm == "Linf" else L2(float(eps)) if norm == "L2" else None
