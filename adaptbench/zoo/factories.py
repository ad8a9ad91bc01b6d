"""Nets by the function that makes them, ``./file.py:build``, ``package.nets:skipnet(depth=38)``, run if allowed."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, Self

from adaptbench.errors import AdaptBenchError, UsageError

if TYPE_CHECKING:
    from adaptbench.adaptive import AdaptiveModel
    from adaptbench.zoo.loading import Loaded


class Wanted(Protocol):
    """What of a run's options nets are loaded by."""

    @property
    def allow_imports(self) -> bool:
        """Files of factories may be run."""

    @property
    def zoo(self) -> Path | None:
        """Where checkpoints are looked for first."""

    @property
    def device(self) -> str:
        """Where the net goes."""


_FORM = re.compile(r"(?P<place>[^:()]+):(?P<attribute>[A-Za-z_]\w*)(?:\((?P<given>.*)\))?", re.DOTALL)
_WRITE = "Write package.module:factory, ./file.py:factory or ./file.py:factory(depth=38)."


def is_factory(name: str) -> bool:
    """Whether a model's name is that of a function; no registered name has a colon."""
    return ":" in name


@dataclass(frozen=True, slots=True)
class Factory:
    """A function that makes a net.

    Args:
        spec: as it was written. place: a file, or the dotted name of a module. attribute: of it.
        args, kwargs: that it is called with, plain values.
    """

    spec: str
    place: str
    attribute: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @classmethod
    def read(cls, spec: str) -> Self:
        """Its parts; nothing is imported.

        Raises:
            UsageError: it has none of the forms, or arguments that are no plain values.
        """
        found = _FORM.fullmatch(spec.strip())
        if found is None:
            raise UsageError(f"'{spec}' names no factory.", todo=_WRITE)
        try:
            call = ast.parse(f"f({found['given'] or ''})", mode="eval").body
            assert isinstance(call, ast.Call)
            args = tuple(ast.literal_eval(a) for a in call.args)
            kwargs = {k.arg: ast.literal_eval(k.value) for k in call.keywords if k.arg is not None}
            if len(kwargs) < len(call.keywords):
                raise ValueError("**")
        except (SyntaxError, ValueError, AssertionError, RecursionError, MemoryError) as error:
            raise UsageError(
                f"'{spec}' has arguments that are no plain values.",
                why="They are read, not run: numbers, texts, lists, True, False, None.",
                todo=_WRITE,
            ) from error
        return cls(spec, found["place"].strip(), found["attribute"], args, kwargs)

    @property
    def name(self) -> str:
        """Short, for cases: the file's name or the module's, and the call."""
        place = Path(self.place).name if self.place.endswith(".py") else self.place
        given = [*map(repr, self.args), *(f"{k}={v!r}" for k, v in self.kwargs.items())]
        return f"{place}:{self.attribute}" + (f"({','.join(given)})" if given else "")

    def must_be_allowed(self, allowed: bool) -> None:
        """Refuse to run somebody's file unasked.

        Raises:
            UsageError: it is not allowed.
        """
        if not allowed:
            raise UsageError(
                f"'{self.spec}' is a factory: its file would be run here.",
                why="It is somebody's code, and running it lets it do whatever you may do.",
                todo="Read it first; then add --allow-imports (in Python: allow_imports=True).",
            )

    def found(self, folder: Path | None = None) -> Callable[[str], AdaptiveModel]:
        """The function itself: name of a data set → net. Its file is run.

        Args:
            folder: where a file is looked for that does not lie here.

        Raises:
            UsageError: there is no such file, module or function, or its first lines raise.
        """
        try:
            module = _from_file(self.place, folder) if self.place.endswith(".py") else _from_package(self.place)
        except UsageError:
            raise
        except Exception as error:  # whatever its first lines do
            raise UsageError(
                f"'{self.place}' could not be imported: {_said(error)}",
                why="Its own code raised it, or there is no such module.",
                todo=_WRITE,
            ) from error
        function = getattr(module, self.attribute, None)
        if not callable(function):
            raise UsageError(
                f"'{self.place}' has no function '{self.attribute}'.",
                todo="Name one that returns an adaptive net: ./file.py:factory.",
            )
        return lambda data: self._made(function, data)

    def _made(self, function: Callable[..., Any], data: str) -> AdaptiveModel:
        from adaptbench.adaptive import AdaptiveModel

        needed = _needed(function)[len(self.args) :]
        needed = [name for name in needed if name not in self.kwargs]
        if len(needed) > 1:
            raise UsageError(
                f"'{self.spec}' takes {len(needed)} arguments: {', '.join(needed)}.",
                todo="A factory takes nothing, or the name of the data set; write the others out: factory(depth=38).",
            )
        try:
            model = function(*self.args, **self.kwargs, **dict.fromkeys(needed, data))
        except AdaptBenchError as error:
            raise UsageError(f"'{self.spec}': {error.seen}", why=error.why, todo=error.todo) from error
        except Exception as error:
            raise UsageError(
                f"'{self.spec}' raised {_said(error)}",
                why="It is the factory's own code that did.",
                todo="Mend it; what is run is the net that it returns.",
            ) from error
        if not isinstance(model, AdaptiveModel):
            raise UsageError(
                f"'{self.spec}' returned a {type(model).__name__}, not an adaptive net.",
                why="It must be known what may be skipped.",
                todo="Return ab.wrap(module, example=…), ab.MultiExit, ab.Cascade or ab.GatedNetwork of it.",
            )
        return model


def load_factory(spec: str, data: str, *, allowed: bool, folder: Path | None = None, device: str = "cpu") -> Loaded:
    """The net that a factory makes, ready to run.

    Args:
        spec: of the factory. data: name of the data set. allowed: its file may be run.
        folder: where its file is looked for beside here. device: where the net goes.

    Raises:
        UsageError: it is not allowed, is not there, or gives no net.
    """
    from adaptbench.zoo.loading import Loaded

    factory = Factory.read(spec)
    factory.must_be_allowed(allowed)
    model = factory.found(folder)(data)
    ready = model.eval().requires_grad_(False).to(device)
    return Loaded(factory.name, f"{model.shape} net, {spec}", "", ready, {})


def load_net(name: str, data: str, options: Wanted, folder: Path | None = None) -> Loaded:
    """A registered net, or the one that a factory makes.

    Args:
        name: in the registry, or of a factory. data: name of the data set. options: of the run.
        folder: of the suite or study.

    Raises:
        AdaptBenchError: as `load_factory` and `load_system`.
    """
    from adaptbench.zoo.loading import load_system

    if is_factory(name):
        return load_factory(name, data, allowed=options.allow_imports, folder=folder, device=options.device)
    return load_system(name, data, zoo=options.zoo, device=options.device)


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _needed(function: Callable[..., Any]) -> list[str]:
    """Parameters without a default, by name."""
    try:
        given = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    return [p.name for p in given if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


def _from_file(named: str, folder: Path | None) -> ModuleType:
    place = Path(named)
    if not place.is_file() and folder is not None:
        place = folder / named
    if not place.is_file():
        raise UsageError(f"there is no file {named}.", todo=_WRITE)
    name = f"_made_by_{place.stem}"
    spec = importlib.util.spec_from_file_location(name, place.resolve())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # its classes are asked for their source
    with _found_from(place.resolve().parent):
        spec.loader.exec_module(module)
    return module


def _from_package(name: str) -> ModuleType:
    with _found_from(Path.cwd()):
        return importlib.import_module(name)


@contextmanager
def _found_from(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
