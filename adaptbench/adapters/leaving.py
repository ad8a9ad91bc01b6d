"""Where no graph can be had: a forward that is left at its exits as it stands.

Forward is run until it calls an exit, and left there by an exception: what comes after does not run. For those who go
on it is entered again, and every sub-module that has already answered gives its answer back instead of running. What
stands between the sub-modules as plain functions runs again, and is counted again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from adaptbench.adapters.asking import Asked
from adaptbench.adapters.ports import Packed
from adaptbench.adapters.watched import Key, Watched, copied
from adaptbench.adapters.whole import Whole
from adaptbench.adaptive.counting import MacCounter
from adaptbench.adaptive.foreign import runs
from adaptbench.adaptive.model import frozen
from adaptbench.errors import GraphError


class Plan:
    """What is handed over at each exit of a forward that is left there.

    Args:
        whole: the module. xs: two batches of different sizes.

    Attributes:
        exits: path of the sub-module of each exit. keys: of its call.
        is_used: what comes after the exit reads its answer, or it answers otherwise by itself (under `autocast`, say):
            it runs with the stage.
        macs_as_written: what has run when each exit has answered, of one sample. macs_full: of the whole forward.

    Raises:
        GraphError: exits are not listed in the order of their calls, or what one needs cannot be handed over.
    """

    def __init__(self, whole: Whole, xs: Sequence[Tensor]) -> None:
        asked, sizes = Asked(whole.module, whole.feed, _itself), [len(x) for x in xs]
        named = list(whole.exits or ())
        cuda = [xs[0].device] if xs[0].is_cuda else []
        with frozen(asked), torch.no_grad(), torch.random.fork_rng(devices=cuda), runs(f"{whole.name}.forward"):
            seen = [_Seen(asked, named, x) for x in xs]
            first = seen[0].watched
            self.keys = list(first.exit_keys)
            self.exits = [key[-1][0] for key in self.keys]
            _check_order(named, self.exits, whole.name)
            last = len(self.keys) - 1
            self.is_used = [
                not _says_so_alone(asked, seen[0], k) or (k < last and _used(asked, named, xs[0], seen[0], k))
                for k in range(last + 1)
            ]
            self.macs_as_written, self.macs_full = _counted(asked, named, xs[0][:1])
        self.copied = frozenset(key for s in seen for key in s.written)
        self.blanks = [_packed([s.watched.said[k] for s in seen], sizes, e) for k, e in enumerate(self.exits)]
        self.heads = [
            self.blanks[k] if used else _packed([s.watched.asked[k] for s in seen], sizes, e)
            for k, (used, e) in enumerate(zip(self.is_used, self.exits, strict=True))
        ]
        skipped = {key for key, used in zip(self.keys, self.is_used, strict=True) if not used}
        self.handed: list[dict[Key, Packed]] = []
        for k, used in enumerate(self.is_used):
            done = [(s.after if used else s.before)[k] for s in seen]
            both = {key: Packed.of([d[key] for d in done], sizes) for key in done[0] if all(key in d for d in done)}
            self.handed.append({key: p for key, p in both.items() if p is not None and key not in skipped})

    def stretch(self, asked: Asked, x: Tensor, given: Mapping[Key, Any], k: int) -> tuple[Tensor, ...]:
        """From the start, with what is known, up to exit k.

        Returns:
            what is handed over there: what its head needs, the pictures, the answers so far.

        Raises:
            GraphError: forward does not come to the exit.
        """
        used = self.is_used[k]
        blank = {key: self.blanks[j].blank(x) for j, key in enumerate(self.keys[:k]) if not self.is_used[j]}
        watched = Watched(
            asked.module,
            (self.exits[k],),
            given={**given, **blank},
            until=self.keys[k],
            after=used,
            copied=self.copied,
        )
        watched.run(asked, x)
        if not watched.is_left:
            raise GraphError(
                f"forward did not come to its exit '{self.exits[k]}'.",
                why="It takes another way for these pictures than for those that it was looked at with.",
                todo="Switch off what leaves by itself (kwargs={…}): where to leave is the policy's to say.",
            )
        head = self.heads[k].out(watched.said[-1] if used else watched.asked[-1])
        if k == len(self.keys) - 1:
            return tuple(head)
        kept = [t for key, packed in self.handed[k].items() for t in packed.out(watched.answers[key])]
        return (*head, x, *kept)

    def known(self, values: Sequence[Tensor], k: int) -> tuple[Tensor, dict[Key, Any]]:
        """The pictures, and the answers that were handed over at exit k."""
        x, *rest = values[len(self.heads[k].ports) :]
        given: dict[Key, Any] = {}
        for key, packed in self.handed[k].items():
            given[key] = packed.back(rest[: len(packed.ports)])
            rest = rest[len(packed.ports) :]
        return x, given


class Stretch(nn.Module):
    """The part of a forward between two exits, as a stage."""

    def __init__(self, asked: Asked, plan: Plan, k: int) -> None:
        super().__init__()
        self.asked, self.plan, self.k = asked, plan, k

    def forward(self, values: Any) -> tuple[Tensor, ...]:
        """Pictures, or what the stage before handed over → what this one does."""
        x, given = self.plan.known(values, self.k - 1) if self.k else (values, {})
        return self.plan.stretch(self.asked, x, given, self.k)


class Ramp(nn.Module):
    """An exit's own sub-module, as a head; it is run on what forward gave it."""

    def __init__(self, exit_module: nn.Module, plan: Plan, k: int, pick: Callable[[Any], Any]) -> None:
        super().__init__()
        self.exit_module, self.plan, self.k, self.pick = exit_module, plan, k, pick

    def forward(self, values: Sequence[Tensor]) -> Any:
        """(n, C)."""
        packed = self.plan.heads[self.k]
        given = packed.back(values[: len(packed.ports)])
        if self.plan.is_used[self.k]:
            return self.pick(given)
        args, kwargs = copied(given)
        with torch.compiler.set_stance("force_eager"):
            return self.pick(self.exit_module(*args, **kwargs))


def left_at(whole: Whole, xs: Sequence[Tensor]) -> tuple[list[nn.Module], list[nn.Module], Plan]:
    """Stages and heads of a module that is left at its exits.

    Raises:
        GraphError: as `Plan`.
    """
    plan = Plan(whole, xs)
    asked = Asked(whole.module, whole.feed, _itself)
    stages: list[nn.Module] = [Stretch(asked, plan, k) for k in range(len(plan.keys))]
    heads: list[nn.Module] = [
        Ramp(whole.module.get_submodule(path), plan, k, whole.of_exit) for k, path in enumerate(plan.exits)
    ]
    return stages, heads, plan


class _Seen:
    """One whole pass: what had answered at each exit, and what was written into afterwards."""

    def __init__(self, asked: Asked, exits: Sequence[str], x: Tensor) -> None:
        self.watched = Watched(asked.module, exits)
        self.before: list[dict[Key, Any]] = []
        self.after: list[dict[Key, Any]] = []
        self.said: list[Any] = []
        self.watched.on_exit = self._note
        self.watched.run(asked, x.clone())
        self.written = {key for key, t, version in self.watched.versions if t._version != version}

    def _note(self, when: str) -> None:
        (self.before if when == "asked" else self.after).append(dict(self.watched.answers))
        if when == "said":
            self.said.append(copied(self.watched.said[-1]))


def _says_so_alone(asked: Asked, seen: _Seen, k: int) -> bool:
    """Whether an exit's sub-module answers the same outside the forward that calls it."""
    args, kwargs = copied(seen.watched.asked[k])
    try:
        said = asked.module.get_submodule(seen.watched.exit_keys[k][-1][0])(*args, **kwargs)
    except Exception:  # it needs what forward puts around it
        return False
    return _equal(said, seen.said[k])


def _used(asked: Asked, exits: Sequence[str], x: Tensor, seen: _Seen, k: int) -> bool:
    """Whether what comes after an exit reads its answer, or what it writes."""
    for factor in (7.0, float("nan")):
        other = Watched(asked.module, exits, given={seen.watched.exit_keys[k]: _noise(seen.said[k], factor)})
        said: list[Any] = []
        other.on_exit = lambda when, said=said, other=other: (  # type: ignore[misc]
            said.append(copied(other.said[-1])) if when == "said" else None
        )
        try:
            other.run(asked, x.clone())
        except Exception:  # it looks at the values
            return True
        if len(said) != len(seen.said) or not all(map(_equal, seen.said[k + 1 :], said[k + 1 :])):
            return True
    return False


def _noise(value: Any, factor: float) -> Any:
    def other(t: Any) -> Any:
        return torch.randn_like(t) * factor if isinstance(t, Tensor) and t.is_floating_point() else t

    return tree_map(other, value)


def _equal(a: Any, b: Any) -> bool:
    pairs = zip(tree_leaves(a), tree_leaves(b), strict=True)
    return all(s.dtype == t.dtype and torch.equal(s, t) if isinstance(s, Tensor) else s == t for s, t in pairs)


def _counted(asked: Asked, exits: Sequence[str], x: Tensor) -> tuple[list[int], int]:
    """MACs when each exit has answered, and of the whole forward."""
    watched, at = Watched(asked.module, exits), []
    with MacCounter() as counter:
        watched.on_exit = lambda when: at.append(counter.macs) if when == "said" else None
        watched.run(asked, x.clone())
    return at, counter.macs


def _packed(values: Sequence[Any], sizes: Sequence[int], exit_name: str) -> Packed:
    packed = Packed.of(values, sizes)
    if packed is None:
        raise GraphError(
            f"what exit '{exit_name}' is given, or says, cannot be taken apart by samples.",
            why="Those who leave take their rows out of everything that is needed at the exit.",
            todo="Let the exit take and give tensors with one row a sample.",
        )
    return packed


def _check_order(named: Sequence[str], called: Sequence[str], name: str) -> None:
    if [path for e in named for path in called if path == e] != list(called):
        raise GraphError(
            f"{name}.forward calls its exits in the order {', '.join(called)}.",
            why="It is left at each of them in turn.",
            todo=f"List them so: exits={list(dict.fromkeys(called))!r}.",
        )


def _itself(returned: Any) -> Any:
    return returned
