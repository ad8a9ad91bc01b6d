"""MAC tables, counted once and forgotten as soon as what was counted has changed."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import fields, is_dataclass
from operator import attrgetter
from types import SimpleNamespace
from typing import Any, Generic, Self, TypeVar

import torch
from torch import Tensor, nn

from adaptbench.adaptive.counting import MacCounter

Table = TypeVar("Table")
Kept = TypeVar("Kept")

_DEPTH = 4
_LONGEST = 1000
_MISSING = object()
_TORCHS = frozenset(vars(nn.Module()))  # what torch keeps in every module; of it, what matters is looked at by name
_LOOKED_INTO = ("_modules", "_parameters", "_buffers", "_forward_hooks", "_forward_pre_hooks")


class CostTables(Generic[Table]):
    """The tables of one model, by kind of input.

    What a pass costs is taken to hang on sub-modules, shapes of parameters and buffers, forward hooks and plain
    attributes, inside lists, tuples, dictionaries, sets, dataclasses and namespaces too. What counting itself writes (a
    counter, kept features) is state and not looked at. What no attribute shows (a global, a closure, the inside of a
    scripted module) is not seen: `clear` then.
    """

    def __init__(self) -> None:
        self._tables: dict[Hashable, Table] = {}
        self._counted: _Anatomy | None = None
        self._kept: dict[Hashable, Any] | None = None

    @property
    def is_holding(self) -> bool:
        """Somebody vouches for the model now."""
        return self._kept is not None

    @contextmanager
    def holding(self, model: nn.Module) -> Iterator[None]:
        """One look at the model now and none inside: nobody changes it there."""
        if self.is_holding:
            yield
            return
        self.check(model)
        self._kept = {}
        try:
            yield
        finally:
            self._kept = None

    def kept(self, name: Hashable, make: Callable[[], Kept]) -> Kept:
        """What follows from the tables; made once inside `holding`, every time outside."""
        if self._kept is None:
            return make()
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]  # type: ignore[no-any-return]

    def noted(self, model: nn.Module, count: Callable[[], Table]) -> Table:
        """The table of an input of the model's own kind, `count` behind a look at the model."""

        def looked_up() -> Table:
            self.check(model)
            return count()

        return self.kept("table", looked_up)

    def clear(self) -> None:
        """Count anew at the next call."""
        self._tables.clear()

    def check(self, model: nn.Module) -> None:
        """Forget everything where the model is no longer what was counted. It looks at each module: once a pass."""
        if self._kept is None and self._tables and self._counted is not None and not self._counted.still_holds():
            self._tables.clear()

    def of(self, key: Hashable, model: nn.Module, count: Callable[[], Table]) -> Table:
        """The table, counted where it is missing."""
        if key not in self._tables:
            self.check(model)
            before = _Anatomy(model, self._counted)
            with MacCounter.apart(), torch.inference_mode(False):  # versions of tensors are looked at
                table = count()
            self._counted = _Anatomy(model, before, counted=True)
            self._tables[key] = table
        return self._tables[key]

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return type(self)()  # the modules of a copy are others

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()


class _Anatomy:
    """What a model's modules were like.

    Args:
        earlier: a look before; what was state then is state now.
        counted: the model ran in between, so that what differs from `earlier` is state too.
    """

    def __init__(self, model: nn.Module, earlier: _Anatomy | None = None, *, counted: bool = False) -> None:
        self.parts: dict[nn.Module, _Part] = {}
        todo = [model]
        while todo:
            module = todo.pop()
            if module not in self.parts:
                was = earlier.parts.get(module) if earlier is not None else None
                part = self.parts[module] = _Part(module, was, counted=counted, public_only=module is model)
                todo.extend(part.inner)
        self._keep()

    def still_holds(self) -> bool:
        """Lists of dictionaries are compared as wholes, in C; only where they differ is each module looked into."""
        if self._is_alike() and all(part.is_unchanged() for part in self._closely):
            return True
        if all(part.is_unchanged() for part in self.parts.values()):
            self._keep()
            return True
        return False

    def _is_alike(self) -> bool:
        try:
            return (
                self._now == self._kept
                and [*map(type, self.parts)] == self._kinds
                and [*map(attrgetter("shape"), self._tensors)] == self._shapes
            )
        except RuntimeError:  # a parameter was replaced: tensors do not compare to a truth value
            return False

    def _keep(self) -> None:
        self._closely = [part for part in self.parts.values() if part.state or part.nested]
        self._now: list[Any] = []
        self._tensors: list[Tensor] = []
        for module, part in self.parts.items():
            if not part.is_opaque:
                inside = vars(module)
                self._now += [inside[name] for name in _LOOKED_INTO]
                if not part.state:
                    self._now += [inside, *part.flat]
                self._tensors += [t for t in (*module._parameters.values(), *module._buffers.values()) if t is not None]
        self._kept = [*map(copy, self._now)]
        self._kinds = [*map(type, self.parts)]
        self._shapes = [*map(_shape, self._tensors)]


class _Part:
    """One module: what of it a pass's cost may hang on."""

    def __init__(self, module: nn.Module, was: _Part | None, *, counted: bool, public_only: bool) -> None:
        self.module, self.kind, self.public_only = module, type(module), public_only
        self.is_opaque = isinstance(module, torch.jit.ScriptModule)
        self.inner: list[nn.Module] = []
        self.own: tuple[Any, ...] = ()
        self.values: dict[str, Any] = {}
        self.frozen: dict[str, Any] = {}
        self.flat: list[Any] = []  # lists and dictionaries of plain values
        self.nested = False  # anything else that may change and stay the same object
        self.state: set[str] = set(was.state) if was is not None else set()
        if self.is_opaque:
            return
        self.own = _own(module)
        self.inner.extend(m for m in module._modules.values() if m is not None)
        for name, value in self._attributes():
            self.frozen[name] = _frozen(value, self.inner)
            if _is_mutable(value):
                if type(value) in (list, dict, set) and not any(map(_is_mutable, _contents(value) or ())):
                    self.flat.append(value)
                else:
                    self.nested = True
        now = dict(self._attributes())
        self.values = {} if counted else now
        if counted and was is not None:
            self.state |= {n for n in now if now[n] is not was.values.get(n, _MISSING)}
            self.state |= {n for n in was.frozen if was.frozen[n] != self.frozen.get(n, _MISSING)}

    def _attributes(self) -> list[tuple[str, Any]]:
        given = [(name, value) for name, value in vars(self.module).items() if name not in _TORCHS]
        return [(name, value) for name, value in given if not (self.public_only and name.startswith("_"))]

    def is_unchanged(self) -> bool:
        if self.is_opaque:
            return True
        if type(self.module) is not self.kind or _own(self.module) != self.own:
            return False
        now = {name: _frozen(value, []) for name, value in self._attributes() if name not in self.state}
        return now == {name: value for name, value in self.frozen.items() if name not in self.state}


def _own(module: nn.Module) -> tuple[Any, ...]:
    """Sub-modules, shapes and hooks."""
    inside = vars(module)
    shapes = [None if p is None else _shape(p) for p in inside["_parameters"].values()]
    shapes += [None if b is None else _shape(b) for b in inside["_buffers"].values()]
    return (
        shapes,
        [*inside["_modules"].items()],
        [*inside["_forward_hooks"]],
        [*inside["_forward_pre_hooks"]],
    )


def _shape(tensor: Tensor) -> tuple[int, ...] | None:
    try:
        return tensor.shape
    except RuntimeError:  # of a lazy module that nothing has called
        return None


class _Same:
    """An object of a kind that is not looked into: equal to itself only."""

    def __init__(self, it: object) -> None:
        self.it = it

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.it is self.it

    __hash__ = None  # type: ignore[assignment]


_SCALARS = (int, float, complex, str, bytes, type(None), torch.dtype, torch.device)


def _frozen(value: Any, modules: list[nn.Module], depth: int = 0) -> Any:
    """A copy that later changes of the value leave alone; modules on the way are collected."""
    if isinstance(value, _SCALARS):
        return (type(value), value)
    if isinstance(value, nn.Module):
        modules.append(value)
        return _Same(value)
    if isinstance(value, Tensor):
        return (Tensor, _shape(value))
    if (inside := _contents(value)) is not None and depth < _DEPTH and len(inside) <= _LONGEST:
        return (type(value), [_frozen(v, modules, depth + 1) for v in inside])
    return _Same(value)


def _contents(value: Any) -> list[Any] | None:
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    if isinstance(value, (list, tuple, set, frozenset)):
        return list(value)
    if isinstance(value, (SimpleNamespace, Namespace)):
        return _contents(vars(value))
    if is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, f.name, None) for f in fields(value)]
    return None


def _is_mutable(value: Any, depth: int = 0) -> bool:
    """It, or something in it, can change and stay the same object."""
    if isinstance(value, Tensor):
        return True
    inside = _contents(value)
    if inside is None or depth >= _DEPTH or len(inside) > _LONGEST:
        return False
    recipe: Any = getattr(value, "__dataclass_params__", None)
    if isinstance(value, (tuple, frozenset)) or (recipe is not None and recipe.frozen):
        return any(_is_mutable(v, depth + 1) for v in inside)
    return True
