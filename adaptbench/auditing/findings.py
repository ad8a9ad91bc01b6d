"""What a check found: fine, a doubt, or a reason not to trust the figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import nn

from adaptbench.errors import AdaptBenchError

Level = Literal["ok", "doubt", "cannot be trusted"]


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Args:
        name: what was looked at. level: how it went. seen: what was seen, in a sentence.
    """

    name: str
    level: Level
    seen: str

    def as_dict(self) -> dict[str, Any]:
        """As it stands in the summary."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.name}: {self.seen}"


def looked_at(name: str, look: Callable[[], Check]) -> Check:
    """What a check found; where it could not be carried out, the figures cannot be trusted either."""
    try:
        return look()
    except AdaptBenchError as error:
        return Check(name, "cannot be trusted", f"the check could not be carried out: {error.seen}")
    except Exception as error:  # whatever somebody's forward raises
        said = " ".join(str(error).split())[:300]
        return Check(name, "cannot be trusted", f"the check could not be carried out: {type(error).__name__}: {said}")


@contextmanager
def at_rest(model: nn.Module) -> Iterator[None]:
    """Eval mode and no weight gradients; every flag is as it was afterwards."""
    modules = [(module, module.training) for module in model.modules()]
    weights = [(weight, weight.requires_grad) for weight in model.parameters()]
    try:
        for module, _ in modules:
            module.training = False
        for weight, _ in weights:
            weight.requires_grad_(False)
        yield
    finally:
        for module, training in modules:
            module.training = training
        for weight, wanted in weights:
            weight.requires_grad_(wanted)
