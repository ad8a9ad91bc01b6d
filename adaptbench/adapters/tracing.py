"""A forward as a graph of operations: what it asks of shapes is answered from probes, the batch stays open.

Each step is run on two batches of different sizes while it is recorded. What is the same in both is a plain number to
the forward (channels, sides, layers); what differs hangs on the number of samples and stays a step of the graph. Values
of tensors answer nothing: control flow on them cannot be cut.
"""

from __future__ import annotations

import dis
import inspect
import operator
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn

from adaptbench.adaptive.model import frozen
from adaptbench.adaptive.tokens import WordEmbedding

_PLAIN = (bool, int, float, str, type(None))
_ALWAYS = ("zeros", "ones", "full", "empty")
"""Factories whose result may be written into: recorded whatever they are given."""
_SIZED = ("arange", "tensor", "as_tensor", "eye", "linspace", "rand", "randn", "randint", "randperm")
_META = frozenset({
    "size", "dim", "ndimension", "numel", "nelement", "stride", "element_size", "is_floating_point", "is_complex",
    "is_contiguous", "get_device", "storage_offset",
})  # fmt: skip
_COMPARED = (operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge)
_MOST_TRIED = 64


class UntraceableError(Exception):
    """A forward does what no graph can hold."""


def assigned(into: Tensor, place: Any, value: Any) -> Tensor:
    """`into[place] = value` on a copy, which is returned."""
    written = into.clone()
    written[place] = value
    return written


class Tap:
    """A forward hook that reads what a sub-module gives; under trace it is called for torch's own modules too.

    Args:
        read: of the output.
    """

    def __init__(self, read: Callable[[Any], Any]) -> None:
        self.read = read

    def __call__(self, module: nn.Module, given: Any, out: Any) -> None:
        """As torch calls hooks."""
        self.read(out)


class _Sizes(tuple[Any, ...]):
    """A shape: plain numbers, and steps of the graph where a dimension hangs on the batch."""

    __slots__ = ()

    def __getitem__(self, key: Any) -> Any:
        got = super().__getitem__(key)
        return _Sizes(got) if isinstance(key, slice) else got

    def numel(self) -> Any:
        """The product."""
        total: Any = 1
        for size in self:
            total = total * size
        return total


class Probed(fx.Proxy):
    """A value of the forward under trace, with what it is on two probes."""

    tracer: Tracer

    @property  # type: ignore[misc]
    def __class__(self) -> type:  # forwards ask isinstance(x, Tensor)
        return Tensor if isinstance(self._first, Tensor) else Probed

    @property
    def _first(self) -> Any:
        return self.tracer.values[self.node][0]

    def __getattr__(self, name: str) -> Any:
        first = self._first  # names that it lacks raise AttributeError, as they would on it
        if callable(found := getattr(first, name)) and not isinstance(found, Tensor):
            return lambda *args, **kwargs: self.tracer.create_proxy("call_method", name, (self, *args), kwargs)
        if isinstance(found, torch.Size):
            return self.tracer.sizes(self)
        return self.tracer.create_proxy("call_function", getattr, (self, name), {})

    def __setitem__(self, place: Any, value: Any) -> None:
        written = self.tracer.create_proxy("call_function", assigned, (self, place, value), {})
        self.node = written.node

    def __iter__(self) -> Iterator[Any]:
        for i in range(self._count()):
            yield self.tracer.create_proxy("call_function", operator.getitem, (self, i), {})

    def __len__(self) -> int:
        return self._count()

    def _count(self) -> int:
        counts = {len(value) for value in self.tracer.values[self.node]}
        if len(counts) > 1:
            raise UntraceableError("it goes through the samples of a batch one by one")
        return counts.pop()

    def __bool__(self) -> bool:
        if _is_assertion():
            return True  # what an assertion would have said of the values is no part of the answer
        if self.node in self.tracer.sized:
            raise UntraceableError("it takes another way for another number of samples")
        raise UntraceableError("it takes another way for other values (control flow on a tensor)")

    def __index__(self) -> int:
        what = "number of samples" if self.node in self.tracer.sized else "value of a tensor"
        raise UntraceableError(f"the {what} is used as a plain number")

    __int__ = __float__ = __index__


def _is_assertion() -> bool:
    """The caller's caller is at `assert …`."""
    frame = inspect.currentframe()
    frame = frame.f_back.f_back if frame and frame.f_back else None
    if frame is None:
        return False
    steps = [step for step in dis.get_instructions(frame.f_code) if step.opname != "CACHE"]
    at = next((i for i, step in enumerate(steps) if step.offset == frame.f_lasti), len(steps))
    ahead = [step.opname for step in steps[at : at + 5]]
    jumps = [i for i, name in enumerate(ahead) if "JUMP" in name and "IF_TRUE" in name]
    return bool(jumps) and "LOAD_ASSERTION_ERROR" in ahead[jumps[0] + 1 : jumps[0] + 3]


class Tracer(fx.Tracer):
    """Records a forward; named sub-modules are taken whole, containers too.

    Attributes:
        values: node → what it is on each probe.
        sized: nodes that hang on shapes and types only.
        sizes_asked: batch sizes at which a comparison with the number of samples turns.
        left: path and result of each call of a named module.
        inside: path of the sub-modules that an error came from, outermost first.
    """

    record_stack_traces = True
    proxy_buffer_attributes = True

    def __init__(self, probes: Sequence[Tensor], whole: Collection[str]) -> None:
        super().__init__()
        self.probes, self.whole = [p.clone() for p in probes], set(whole)
        self.values: dict[fx.Node, tuple[Any, ...]] = {}
        self.sized: set[fx.Node] = set()
        self.sizes_asked: set[int] = set()
        self.left: list[tuple[str, Any]] = []
        self.inside: list[str] = []
        self._evaluating = False

    def traced(self, root: nn.Module) -> fx.GraphModule:
        """The graph of a root module that takes pictures, in eval mode; nothing of it is left changed.

        Raises:
            UntraceableError, or whatever the forward's own code raises.
        """
        devices = [p.device for p in self.probes if p.device.type == "cuda"][:1]
        with (
            frozen(root),
            torch.no_grad(),
            torch.random.fork_rng(devices=devices),
            _as_it_was(root),
            self._patched(root),
        ):
            graph = self.trace(root)
            return fx.GraphModule(root, graph)

    # ------------------------------------------------------------------ what fx asks

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """A value with its probes."""
        return Probed(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Torch's own modules, and those that are named."""
        own = module_qualified_name in self.whole or isinstance(m, WordEmbedding)
        return own or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """As fx does; compiled modules are entered as they were written."""
        if m._compiled_call_impl is not None:
            forward = m._call_impl
        if self._evaluating:
            with _untapped(m):
                return forward(*args, **kwargs)
        if isinstance(inner := m._modules.get("_orig_mod"), nn.Module):
            return inner(*args, **kwargs)
        self.inside.append(self.path_of_module(m))
        result = super().call_module(m, forward, args, kwargs)
        if (path := self.inside.pop()) in self.whole:
            self.left.append((path, result))
        if self.is_leaf_module(m, path):
            for hook in m._forward_hooks.values():
                if isinstance(hook, Tap):
                    hook.read(result)
        return result

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """Parameters and buffers are steps of the graph, but not while a step is evaluated."""
        return attr_val if self._evaluating else super().getattr(attr, attr_val, parameter_proxy_cache)

    def create_arg(self, a: Any) -> Any:
        """Values first: they say that they are tensors."""
        if type(a) is Probed:
            return a.node
        return super().create_arg(tuple(a) if type(a) is _Sizes else a)

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *more: Any, **named: Any) -> Any:
        """A step, run on the probes; plain numbers that are the same on both are given as such."""
        proxy = super().create_proxy(kind, target, args, kwargs, *more, **named)
        node = proxy.node
        self.values[node] = values = self._evaluated(node)
        if kind in ("call_method", "call_function") and self._is_sized(node):
            self.sized.add(node)
            if isinstance(values[0], torch.Size):
                return self.sizes(Probed(node.all_input_nodes[0], self))
            if all(isinstance(v, _PLAIN) for v in values) and values[0] == values[-1]:
                self._note_comparison(node)
                return values[0]
        return proxy

    # ------------------------------------------------------------------ values

    def sizes(self, of: Probed) -> _Sizes:
        """The shape of a tensor."""
        shapes = [value.shape for value in self.values[of.node]]
        return _Sizes(
            a if a == b else self.create_proxy("call_method", "size", (of, i), {})
            for i, (a, b) in enumerate(zip(shapes[0], shapes[-1], strict=True))
        )

    def _evaluated(self, node: fx.Node) -> tuple[Any, ...]:
        if node.op == "placeholder":
            return tuple(self.probes)
        self._evaluating = True
        try:
            return tuple(self._evaluate(node, i) for i in range(len(self.probes)))
        finally:
            self._evaluating = False

    def _evaluate(self, node: fx.Node, i: int) -> Any:
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: self.values[n][i])
        if node.op == "get_attr":
            return operator.attrgetter(str(node.target))(self.root)
        if node.op == "call_module":
            return self.root.get_submodule(str(node.target))(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        return node.target(*args, **kwargs)  # type: ignore[operator]

    def _is_sized(self, node: fx.Node) -> bool:
        given = node.all_input_nodes
        if node.op == "call_method" and node.target in _META:
            return True
        if node.target is getattr or node.target is len:
            return not isinstance(self.values[node][0], Tensor)
        return bool(given) and all(n in self.sized for n in given)

    def _note_comparison(self, node: fx.Node) -> None:
        if node.target in _COMPARED:
            turns = [a for a in node.args if type(a) is int and 0 <= a <= _MOST_TRIED]
            self.sizes_asked |= {n for a in turns for n in (a - 1, a, a + 1) if n > 0}

    # ------------------------------------------------------------------ what is patched meanwhile

    @contextmanager
    def _patched(self, root: nn.Module) -> Iterator[None]:
        kept = {name: getattr(torch, name) for name in (*_ALWAYS, *_SIZED, "finfo", "iinfo")}
        spaces = {id(space): space for m in root.modules() if (space := _globals_of(m)) is not None}
        lens = {key: space.get("len") for key, space in spaces.items()}
        for name, original in kept.items():
            setattr(torch, name, self._recorded(original, name))
        for space in spaces.values():
            space["len"] = self._len
        try:
            yield
        finally:
            for name, original in kept.items():
                setattr(torch, name, original)
            for key, space in spaces.items():
                if lens[key] is None:
                    del space["len"]
                else:
                    space["len"] = lens[key]

    def _recorded(self, original: Callable[..., Any], name: str) -> Callable[..., Any]:
        def made(*args: Any, **kwargs: Any) -> Any:
            if self._evaluating or not (name in _ALWAYS or _holds_values((args, kwargs))):
                return original(*args, **kwargs)
            if name in ("finfo", "iinfo"):
                return original(args[0]._first)
            return self.create_proxy("call_function", original, args, kwargs)

        return made

    def _len(self, of: Any) -> Any:
        if type(of) is not Probed:
            return len(of)
        first = of._first
        return self.sizes(of)[0] if isinstance(first, Tensor) and first.ndim else len(of)


def _globals_of(module: nn.Module) -> dict[str, Any] | None:
    """Of the file that a forward stands in; torch's own are left alone."""
    space: dict[str, Any] | None = getattr(type(module).forward, "__globals__", None)
    return None if space is None or str(space.get("__name__")).partition(".")[0] == "torch" else space


def _holds_values(given: Any) -> bool:
    if isinstance(given, dict):
        return _holds_values(list(given.values()))
    if type(given) is not Probed and isinstance(given, (tuple, list)):
        return any(map(_holds_values, given))
    return type(given) is Probed


@contextmanager
def _untapped(module: nn.Module) -> Iterator[None]:
    """While a step is evaluated, taps would read values in the place of steps."""
    hooks = module._forward_hooks
    taps = {key: hook for key, hook in hooks.items() if isinstance(hook, Tap)}
    for key in taps:
        del hooks[key]
    try:
        yield
    finally:
        hooks.update(taps)


@contextmanager
def _as_it_was(root: nn.Module) -> Iterator[None]:
    """What a forward keeps in its modules (`self.features = h`) would be steps of a graph afterwards."""
    kept = [(m, dict(vars(m))) for m in root.modules() if m is not root]
    try:
        yield
    finally:
        for module, attributes in kept:
            now = vars(module)
            now.clear()
            now.update(attributes)
