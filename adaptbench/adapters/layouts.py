"""Which dimension of a feature map holds its channels: followed through a forward, from what torch's layers say.

Shapes do not tell (n, C, H, W) from (n, H, W, C), nor (n, T, C) from (n, C, T). Convolutions, norms, linear layers and
tables of words do, and their outputs are followed through everything that moves values about.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

_SECOND = frozenset({
    "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
    "batch_norm", "instance_norm", "group_norm",
    "max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "lp_pool2d",
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_max_pool1d", "adaptive_max_pool2d", "boolean_dispatch",
    "interpolate", "pixel_shuffle", "pixel_unshuffle",
})  # fmt: skip
"""Their outputs have channels in dimension 1, unless their input is known to have them where they are left alone."""
_LAST = frozenset({
    "linear", "matmul", "__matmul__", "layer_norm", "rms_norm", "embedding", "multi_head_attention_forward",
    "lstm", "gru", "rnn_tanh", "rnn_relu",
})  # fmt: skip
"""… in the last one, likewise."""
_MOVES = frozenset({
    "permute", "transpose", "transpose_", "swapaxes", "swapdims", "movedim", "moveaxis", "reshape", "view", "flatten",
    "unflatten", "squeeze", "unsqueeze", "__getitem__", "narrow", "select", "index_select", "chunk", "split",
    "split_with_sizes", "tensor_split", "unbind", "roll", "flip", "expand", "expand_as", "view_as", "reshape_as",
    "repeat", "squeeze_", "unsqueeze_", "t",
})  # fmt: skip
"""They move values and compute nothing: what they do to a dimension is seen by giving them its numbers."""
_JOINS = frozenset({"cat", "concat", "concatenate"})
_MIXES = frozenset({"einsum", "bmm", "baddbmm", "tensordot", "scaled_dot_product_attention", "__get__", "outer"})
"""Of their outputs nothing is said."""


Dims = tuple[int, ...]
"""Dimensions that number channels: one, or, where groups of channels are taken apart, several."""


class Layouts(TorchFunctionMode):
    """Follows channels while a forward runs.

    Args:
        given: an input whose channels stand in dimension 1; None where it has none, as ids have.
    """

    def __init__(self, given: Tensor | None = None) -> None:
        super().__init__()
        self._dims: MutableMapping[Tensor, Dims] = WeakIdKeyDictionary()
        if given is not None:
            self._dims[given] = (1,)

    def dim_of(self, value: Tensor) -> int | None:
        """The dimension of its channels; None where it cannot be told."""
        dims: Dims = self._dims.get(value) or ()
        return dims[0] if len(dims) == 1 else None

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run it, and note what is now known of what it gives."""
        named = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        known = [(t, dims) for t in _tensors((args, named)) if (dims := self._dims.get(t))]
        moved = self._moved(func, args, named) if name in _MOVES else None
        out = func(*args, **named)
        for k, result in enumerate(_tensors(out)):
            dims = (moved[k] if moved else None) if name in _MOVES else _computed(name, args, known, result)
            if dims:
                self._dims[result] = dims
            else:
                self._dims.pop(result, None)
        return out

    def _moved(
        self, func: Callable[..., Any], args: tuple[Any, ...], named: Mapping[str, Any]
    ) -> list[Dims | None] | None:
        """Where the channels of the one tensor that is moved come to stand, for each result."""
        source = args[0] if args else None
        dims = self._dims.get(source) if isinstance(source, Tensor) else None
        if not isinstance(source, Tensor) or not dims:
            return None
        rest = tuple(d for d in range(source.ndim) if d not in dims)
        try:
            channels, places = (_tensors(func(_numbers(source, along), *args[1:], **named)) for along in (dims, rest))
        except RuntimeError:  # a view that only the strides of the tensor itself allow
            return None
        return [_apart(c, p) for c, p in zip(channels, places, strict=True)]


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def _numbers(source: Tensor, along: Dims) -> Tensor:
    """As `source` in shape: each value is the number of its place along some dimensions."""
    sizes = [size if d in along else 1 for d, size in enumerate(source.shape)]
    numbers = torch.arange(math.prod(sizes), device=source.device).view(sizes)
    return numbers.expand(source.shape).clone(memory_format=torch.contiguous_format)


def _varies(numbers: Tensor) -> set[int]:
    return {d for d in range(numbers.ndim) if numbers.numel() and bool((numbers != numbers.narrow(d, 0, 1)).any())}


def _apart(channels: Tensor, places: Tensor) -> Dims | None:
    """The dimensions that number channels, where they number no places as well."""
    dims = _varies(channels)
    return None if dims & _varies(places) else tuple(sorted(dims))


def _computed(name: str, args: tuple[Any, ...], known: Sequence[tuple[Tensor, Dims]], result: Tensor) -> Dims | None:
    """What is known of a result that was not only moved."""
    told = {
        dims
        for t, dims in known
        if t.ndim == result.ndim and (name in _JOINS or all(t.shape[d] == result.shape[d] for d in dims))
    }
    only = next(iter(told)) if len(told) == 1 else None
    if name in _MIXES or result.ndim < 3:
        return None
    if name == "layer_norm" and len(args[1]) > 1:
        return only
    if name in ("matmul", "__matmul__") and not (isinstance(args[1], Tensor) and args[1].ndim == 2):
        return None
    if name in _SECOND or name in _LAST:
        own = (1,) if name in _SECOND else (result.ndim - 1,)
        first = next((dims for t, dims in known if args and t is args[0]), own)
        # along a dimension that is known to hold places, places are mixed: channels stay where they are
        return first if first != own and first in told else own
    return only
