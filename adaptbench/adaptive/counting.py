"""Executed MACs at the dispatcher: what really ran, and the compute that nobody counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from adaptbench.adaptive.contraction import Contractions
from adaptbench.adaptive.formulas import is_covered, macs_of
from adaptbench.adaptive.operators import is_composite


class MacCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the MACs of everything run inside it.

    >>> with MacCounter() as counter:
    ...     _ = torch.randn(2, 3) @ torch.randn(3, 4)
    >>> counter.macs
    24

    Attributes:
        macs: multiply–accumulates so far.
        by_operator: MACs by operator name.
        uncounted: calls by operator name that no formula covers; "aten::mul + aten::sum" is a product spelled out.
    """

    _depth: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._depth_here = MacCounter._depth
        self.macs = 0
        self.by_operator: Counter[str] = Counter()
        self.uncounted: Counter[str] = Counter()
        self._contractions = Contractions()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._depth_here < MacCounter._depth:
            return func(*args, **kwargs)
        if is_composite(func) and not is_covered(func):
            # inference_mode hands over composites whole: take them apart, so that their parts are seen
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        out = func(*args, **kwargs)
        macs = macs_of(func, args, kwargs, out)
        name = func._schema.name
        if macs is None:
            self.uncounted[name] += 1
        elif macs:
            self.macs += macs
            self.by_operator[name] += macs
        elif product := self._contractions.see(func, args, kwargs, out):
            self.uncounted[product] += 1
        return out

    @staticmethod
    @contextmanager
    def apart() -> Iterator[None]:
        """What runs inside is not seen by counters made outside: counting a model's nodes is not part of its pass."""
        MacCounter._depth += 1
        try:
            yield
        finally:
            MacCounter._depth -= 1


@contextmanager
def counting() -> Iterator[MacCounter]:
    """A counter with gradients off: counting is a pass of its own."""
    with torch.no_grad(), MacCounter() as counter:
        yield counter
