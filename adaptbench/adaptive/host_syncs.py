"""How often a pass makes the host wait for the device: every read of a value on which Python, or a shape, hangs.

On a card each of them drains its queue of kernels. They are counted where they are called, so that the count is the
same on a CPU, where nothing waits, and tells beforehand what a card would pay for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

VALUES = frozenset(
    {"item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__", "__contains__", "is_nonzero"}
)
"""Methods that hand a value to Python."""
SHAPES = frozenset(
    {"nonzero", "argwhere", "masked_select", "unique", "unique_consecutive", "bincount", "equal", "allclose"}
)
"""Functions whose result has a shape, or is an answer, that hangs on values."""
_INDEXED = frozenset({"__getitem__", "__setitem__", "index_put", "index_put_"})


class HostSyncs(TorchFunctionMode):
    """Counts while it is entered.

    Attributes:
        by_name: what was called → how often.
    """

    def __init__(self) -> None:
        super().__init__()
        self.by_name: Counter[str] = Counter()

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.by_name.values())

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        given: Mapping[str, Any] = kwargs or {}
        if name := _sync(func, args, given):
            self.by_name[name] += 1
        return func(*args, **given)


def host_syncs(run: Callable[[], object]) -> Counter[str]:
    """What a call makes the host wait for: name of what was called → how often.

    >>> host_syncs(lambda: torch.ones(3).sum().item())
    Counter({'item': 1})
    """
    counted = HostSyncs()
    with counted:
        run()
    return counted.by_name


def _sync(func: Callable[..., Any], args: tuple[Any, ...], given: Mapping[str, Any]) -> str:
    """The name of a call that waits; "" of one that does not."""
    name = getattr(func, "__name__", "")
    if name in VALUES or name in SHAPES:
        return name
    if name in _INDEXED:
        mask = _is_mask(args[1]) if len(args) > 1 else False
        filled = name == "__setitem__" and not isinstance(args[2], Tensor)  # a masked fill knows its shape
        return "mask" if mask and not filled else ""
    if name == "where" and len(args) + len(given) == 1:
        return name
    if name == "repeat_interleave":
        counts = args[1] if len(args) > 1 else given.get("repeats")
        return name if isinstance(counts, Tensor) and "output_size" not in given else ""
    if name == "to" and args and isinstance(args[0], Tensor):
        aim = next((a for a in (*args[1:], given.get("device")) if isinstance(a, str | torch.device)), None)
        leaves = aim is not None and torch.device(aim).type == "cpu" and args[0].device.type != "cpu"
        return name if leaves else ""
    return ""


def _is_mask(index: Any) -> bool:
    parts = index if isinstance(index, tuple | list) else (index,)
    return any(isinstance(part, Tensor) and part.dtype in (torch.bool, torch.uint8) for part in parts)
