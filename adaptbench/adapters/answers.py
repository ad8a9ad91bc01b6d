"""Where in what a forward returns the logits of its exits stand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from adaptbench.errors import GraphError

Key = int | str
Sides = tuple[int, int] | None


class _Field(str):
    """A key that is an attribute."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Place:
    """One exit's logits: a way into what is returned, and a row of a stack where several exits share a tensor.

    Args:
        keys: positions, dictionary keys or field names, outermost first.
        dim, index: of the stack; None for a tensor of its own.
    """

    keys: tuple[Key, ...]
    dim: int | None = None
    index: int = 0

    def of(self, returned: Any) -> Any:
        """(n, C), or (n, C, H, W), there."""
        for key in self.keys:
            returned = _part(returned, key)
        return returned if self.dim is None else torch.select(returned, self.dim, self.index)

    def __str__(self) -> str:
        inside = "".join(f".{key}" if isinstance(key, _Field) else f"[{key!r}]" for key in self.keys)
        return f"out{inside}" + ("" if self.dim is None else f", {self.index} of its dimension {self.dim}")


@dataclass(frozen=True, slots=True)
class Reading:
    """The exits in order.

    Args:
        places: one an exit. is_ordered: their order is the forward's own; else it goes by cost.
        among: forward's answer is this part of what it returns.
    """

    places: tuple[Place, ...]
    is_ordered: bool
    among: Callable[[Any], Any]

    def in_order(self, order: Sequence[int]) -> Reading:
        """The same places in another order."""
        return replace(self, places=tuple(self.places[k] for k in order))

    def of(self, returned: Any) -> list[Any]:
        """Logits (n, C), or (n, C, H, W), of each exit."""
        part = self.among(returned)
        return [place.of(part) for place in self.places]


def reading_of(
    returned: Sequence[Any],
    sizes: Sequence[int],
    among: Callable[[Any], Any] | None,
    name: str,
    sides: Sides = None,
) -> Reading:
    """Find the logits.

    Args:
        returned: what forward gave for two batches. sizes: of them. sides: (H, W) of the pictures, None of others.
        among: part of it that holds the logits only; None: not known.
        name: of the module, for messages.

    Raises:
        GraphError: there are none, not alike, or in more places than one; what was found is named.
    """
    pick = among if among is not None else _itself
    picked = [_picked(pick, r, name) for r in returned]
    tensors = _tensors(picked[0])
    others = dict(_tensors(picked[1]))
    shapes = {keys: (t, others[keys]) for keys, t in tensors if keys in others}
    stacked = [keys for keys, pair in shapes.items() if _stack_dim(pair, sizes) is not None]
    if len(shapes) == 1 and stacked:
        ((keys, pair),) = shapes.items()
        dim = _stack_dim(pair, sizes)
        assert dim is not None
        return Reading(tuple(Place(keys, dim, k) for k in range(pair[0].shape[dim])), True, pick)
    flat = isinstance(picked[0], (list, tuple)) and all(isinstance(part, Tensor) for part in picked[0])
    if flat and len(tensors) > 1:
        check_alike([t for _, t in tensors], None, name, sizes[0], sides)
        _check_scores([t for _, t in tensors], name)
        return Reading(tuple(Place(keys) for keys, _ in tensors), not hasattr(picked[0], "_fields"), pick)
    ndim = 4 if sides is not None and all(pair[0].ndim == 4 for pair in shapes.values()) else 2
    logits = [keys for keys, pair in shapes.items() if _is_logits(pair, sizes, ndim)]
    lists = {keys[:-1] for keys in logits if len(keys) > 1}
    classes = {shapes[keys][0].shape[1:] for keys in logits}
    if ndim == 4 and len(logits) == len(shapes) > 1 and len(lists) < 2:
        check_alike([shapes[keys][0] for keys in logits], None, name, sizes[0], sides)
    if len(logits) < 2 or len(logits) < len(shapes) or len(lists) > 1 or len(classes) > 1:
        raise GraphError(
            f"{name}.forward does not return a list of logits: {_shown(picked[0], tensors, sizes[0])}.",
            why="One tensor of logits has no exits; of several things, which are the exits cannot be told."
            if len(logits) < 2
            else "Which of them are the exits cannot be told.",
            todo=_offer(picked[0], logits),
        )
    _check_scores([shapes[keys][0] for keys in logits], name)
    return Reading(tuple(Place(keys) for keys in logits), False, pick)


def check_alike(answers: Sequence[Any], exits: Sequence[str] | None, name: str, n: int, sides: Sides = None) -> None:
    """Refuse answers that are not logits (n, C) alike, nor logits (n, C, H, W) of every pixel.

    Args:
        sides: (H, W) of the pictures; None of other inputs.

    Raises:
        GraphError: they are not; the first that is none is named.
    """
    shapes = [tuple(a.shape) if isinstance(a, Tensor) else type(a).__name__ for a in answers]
    for k, (answer, shape) in enumerate(zip(answers, shapes, strict=True)):
        is_map = isinstance(answer, Tensor) and answer.ndim == 4 and sides is not None
        of_pixels = is_map and tuple(answer.shape[2:]) == tuple(sides or ())
        if (
            not isinstance(answer, Tensor)
            or not (answer.ndim == 2 or of_pixels)
            or len(answer) != n
            or shape != shapes[0]
        ):
            what = f"exit '{exits[k]}'" if exits else f"output {k} of {name}.forward"
            if isinstance(answer, Tensor) and answer.ndim == 1:
                why = "One number a sample may be the cost that the module reports of itself."
                todo = (
                    "Name the sub-modules that give logits: exits=['head1', …]. A module that answers once and tells "
                    "its cost is a black box: ab.BlackBox(module, example=…, macs_full=…)."
                )
            elif is_map and not of_pixels:
                assert sides is not None
                why = f"Where every pixel is answered, logits have the picture's own sides, {sides[0]} × {sides[1]}."
                todo = (
                    f"Bring them there: logits=lambda out: [F.interpolate(z, size=({sides[0]}, {sides[1]})) for z in "
                    "…]; of features, say which outputs are logits, or name the sub-modules that give them: "
                    "exits=['head1', …]."
                )
            else:
                why = "Each exit answers over the same classes."
                todo = (
                    "Say which are logits: logits=lambda out: [out[0], …]; or name the sub-modules that give them: "
                    "exits=['head1', …]."
                )
            first = exits[0] if exits else "output 0"
            raise GraphError(
                f"{what} has the shape {_size(answer, n)}, {first} {_size(answers[0], n)}: not logits (n, C) alike.",
                why=why,
                todo=todo,
            )


def _check_scores(answers: Sequence[Tensor], name: str) -> None:
    """Probabilities in the place of logits would be put through a softmax once more."""
    are = [bool((a >= 0).all()) and bool(((a.float().sum(1) - 1).abs() < 1e-3).all()) for a in answers]
    if any(are) and answers[0].shape[1] > 1:
        raise GraphError(
            f"output {are.index(True)} of {name}.forward holds probabilities, not logits: its rows add up to 1.",
            why="Confidence, thresholds and attacks take the softmax themselves; taken twice, it means nothing.",
            todo="Leave the softmax out, or undo it: logits=lambda out: [p.clamp_min(1e-12).log() for p in out]."
            if all(are)
            else "Say which outputs are logits: logits=lambda out: [out[0], …].",
        )


def part_of(returned: Any, output: Key | None, name: str) -> Any:
    """What a forward returns at an index or key; all of it for None.

    Raises:
        GraphError: there is nothing.
    """
    if output is None:
        return returned
    try:
        return returned[output]
    except (KeyError, IndexError, TypeError) as error:
        logits = [keys for keys, t in _tensors(returned) if t.ndim == 2]
        raise GraphError(f"{name}.forward returns nothing at {output!r}.", todo=_offer(returned, logits)) from error


def _itself(returned: Any) -> Any:
    return returned


def _part(returned: Any, key: Key) -> Any:
    return getattr(returned, key) if isinstance(key, _Field) else returned[key]


def _picked(pick: Callable[[Any], Any], returned: Any, name: str) -> Any:
    try:
        return pick(returned)
    except GraphError:
        raise
    except Exception as error:  # whatever a user's function raises
        raise GraphError(
            f"logits= could not be taken from what {name}.forward returned: {type(error).__name__}: {error}",
            why=f"It returned {_shown(returned, _tensors(returned), None)}.",
            todo="Give a function of that: logits=lambda out: [out[0], out[1]].",
        ) from error


def _tensors(returned: Any, keys: tuple[Key, ...] = ()) -> list[tuple[tuple[Key, ...], Tensor]]:
    """Every tensor in lists, tuples, dictionaries, dataclasses and model outputs, with the way to it."""
    if isinstance(returned, Tensor):
        return [(keys, returned)]
    parts: list[tuple[Key, Any]] = []
    if isinstance(returned, Mapping):
        parts = [(key, value) for key, value in returned.items() if isinstance(key, (int, str))]
    elif isinstance(returned, (list, tuple)):
        parts = list(enumerate(returned))
    elif is_dataclass(returned) and not isinstance(returned, type):
        parts = [(_Field(field.name), getattr(returned, field.name)) for field in fields(returned)]
    return [found for key, value in parts for found in _tensors(value, (*keys, key))]


def _is_logits(pair: tuple[Tensor, Tensor], sizes: Sequence[int], ndim: int) -> bool:
    return all(t.ndim == ndim and len(t) == n for t, n in zip(pair, sizes, strict=True)) and pair[0].is_floating_point()


def _stack_dim(pair: tuple[Tensor, Tensor], sizes: Sequence[int]) -> int | None:
    """Of exits stacked into one tensor, (n, K, C, …) or (K, n, C, …); None where it is none."""
    if pair[0].ndim not in (3, 5) or pair[1].ndim != pair[0].ndim or not pair[0].is_floating_point():
        return None
    batch = [d for d in range(2) if [t.shape[d] for t in pair] == list(sizes)]
    return {0: 1, 1: 0}.get(batch[0]) if batch else None


def _size(answer: Any, n: int | None) -> str:
    if not isinstance(answer, Tensor):
        return type(answer).__name__
    sizes = ["n" if i == 0 and d == n else str(d) for i, d in enumerate(answer.shape)]
    return f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"


def _shown(returned: Any, tensors: Sequence[tuple[tuple[Key, ...], Tensor]], n: int | None) -> str:
    if isinstance(returned, Tensor):
        return f"one tensor {_size(returned, n)}"
    inside = [f"{Place(keys)} {_size(t, n)}" for keys, t in tensors[:8]]
    return f"{type(returned).__name__} with {'; '.join(inside) or 'no tensors'}{' …' if len(tensors) > 8 else ''}"


def _offer(returned: Any, logits: Sequence[tuple[Key, ...]]) -> str:
    """The way out, with what was found."""
    by_list: dict[tuple[Key, ...], int] = {}
    for keys in logits:
        by_list[keys[:-1]] = by_list.get(keys[:-1], 0) + 1
    lists = [f"{Place(keys)} has {n} tensors" for keys, n in by_list.items() if n > 1 and keys]
    named = "name the sub-modules whose outputs are the exits: exits=['head1', …]"
    if isinstance(returned, Tensor):
        return f"N{named[1:]}; or put exits on it: ab.attach_exits(module, after=[…])."
    if lists:
        return f"Say which list holds the logits, logits=lambda out: out[…] ({'; '.join(lists)}); or {named}."
    return f"Say which they are, logits=lambda out: [out[…], …]; or {named}."
