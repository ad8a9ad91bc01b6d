"""One pass through a forward with every call of a sub-module seen: answered for, or left at."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

Key = tuple[tuple[str, int], ...]
"""One call: path and number of each sub-module that it is inside of, and its own, outermost first."""

_ONE_AT_A_TIME = threading.RLock()


class _Left(BaseException):
    """Leaves a forward; no `except Exception` of its own holds it up."""


class Watched:
    """A pass.

    Args:
        module: whose forward it is. exits: paths of the sub-modules that give logits.
        given: call → what it answers without running.
        until: the call to leave at; None: to the end. after: leave when it has answered, not before it runs.
        copied: calls whose answers are written into later: they are kept, and given, as a copy.

    Attributes:
        answers: of the calls that are done and inside no other that is.
        asked, said: inputs and answers of the exits' calls. exit_keys: of those calls.
        versions: of every tensor answered, as it was then.
        is_left: forward came to the call to leave at.
    """

    def __init__(
        self,
        module: nn.Module,
        exits: Sequence[str],
        *,
        given: Mapping[Key, Any] | None = None,
        until: Key | None = None,
        after: bool = False,
        copied: frozenset[Key] = frozenset(),
    ) -> None:
        self.paths = {m: path for path, m in module.named_modules() if path}
        self.exits, self.given, self.until, self.after, self.copied = set(exits), given or {}, until, after, copied
        self.answers: dict[Key, Any] = {}
        self.asked: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self.said: list[Any] = []
        self.exit_keys: list[Key] = []
        self.versions: list[tuple[Key, Tensor, int]] = []
        self.on_exit: Callable[[str], None] = lambda when: None
        self.is_left = False
        self._inside: Key = ()
        self._calls: Counter[Key] = Counter()

    def run(self, asked: nn.Module, x: Tensor) -> None:
        """Forward, up to where it is left."""
        with self._watching(), suppress(_Left):
            asked(x)

    @contextmanager
    def _watching(self) -> Iterator[None]:
        with _ONE_AT_A_TIME, torch.compiler.set_stance("force_eager"):
            original, watched = nn.Module.__call__, self

            def called(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
                path = watched.paths.get(module)
                if path is None:
                    return original(module, *args, **kwargs)
                return watched._called(path, lambda: original(module, *args, **kwargs), args, kwargs)

            nn.Module.__call__ = called  # type: ignore[method-assign]
            try:
                yield
            finally:
                nn.Module.__call__ = original  # type: ignore[method-assign]

    def _called(self, path: str, run: Callable[[], Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.is_left:
            raise _Left
        here = (*self._inside, (path, 0))
        key: Key = (*self._inside, (path, self._calls[here]))
        self._calls[here] += 1
        is_exit = path in self.exits
        if is_exit:
            self.exit_keys.append(key)
            self.asked.append((args, kwargs))
            self.on_exit("asked")
        if key == self.until and not self.after:
            self._leave()
        answer = self.given[key] if key in self.given else self._ran(key, run)
        kept = copied(answer) if key in self.copied else answer
        for inner in [k for k in self.answers if k[: len(key)] == key]:
            del self.answers[inner]
        self.answers[key] = kept
        self.versions += [(key, t, t._version) for t in tree_leaves(answer) if isinstance(t, Tensor)]
        if is_exit:
            self.said.append(kept)
            self.on_exit("said")
        if key == self.until:
            self._leave()
        return answer

    def _ran(self, key: Key, run: Callable[[], Any]) -> Any:
        before, self._inside = self._inside, key
        answer = run()
        self._inside = before
        return answer

    def _leave(self) -> None:
        self.is_left = True
        raise _Left


def copied(value: Any) -> Any:
    """The same with tensors of its own."""
    return tree_map(lambda t: t.clone() if isinstance(t, Tensor) else t, value)
