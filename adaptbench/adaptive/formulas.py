"""MACs of single operators: closed forms for what torch's flop counter leaves at zero; `operators` lists what is free.

Convention: one multiply–accumulate is one MAC; bias, activation, normalisation, pooling, softmax and data movement are
not counted (the convention of the CIFAR ResNet sheets in the literature). Torch's own formulas count FLOPs = 2·MACs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import prod
from typing import Any

import torch
from torch._ops import OpOverload, OpOverloadPacket
from torch.utils.flop_counter import flop_registry

from adaptbench.adaptive.operators import is_free

Formula = Callable[[tuple[Any, ...], dict[str, Any], Any], int]


def _attention(batch_heads: int, queries: int, keys: int, width: int, value_width: int) -> int:
    """QKᵀ and the weighted sum: B·H·L·S·(E + Eᵥ)."""
    return batch_heads * queries * keys * (width + value_width)


def _sdpa(args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
    q, k, v = args[:3]
    return _attention(prod(q.shape[:-2]), q.shape[-2], k.shape[-2], q.shape[-1], v.shape[-1])


def _encoder_layer(args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
    """The transformer fast path: QKV 3E², attention 2LE, projection E², feed-forward 2EF, for each of N·L tokens."""
    src, embed, hidden = args[0], args[1], args[14]  # hidden: the first feed-forward weight, (F, E)
    n, length, _ = src.shape
    tokens = n * length * (4 * embed * embed + 2 * embed * hidden.shape[0])
    return int(tokens + _attention(n, length, length, embed, embed))


def _native_mha(args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
    q, k, v, embed = args[:4]
    n, length, _ = q.shape
    keys = k.shape[1]
    projections = n * embed * embed * (2 * length + keys + v.shape[1])
    return int(projections + _attention(n, length, keys, embed, embed))


def _mkldnn_rnn(args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
    """One layer, one direction: T·N·gates·H·(I + H); the weights are (gates·H, I) and (gates·H, H)."""
    steps, n, _ = args[0].shape
    return int(steps * n * (args[1].numel() + args[2].numel()))


def _cudnn_rnn(args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
    """All layers and directions: every weight matrix is used once a step and sample."""
    steps_by_n = prod(args[0].shape[:2]) if args[0].ndim == 3 else args[0].shape[0]
    return int(steps_by_n * sum(w.numel() for w in args[1] if w.ndim == 2))


def _embedding_bag(args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
    """One accumulate an index and column."""
    return int(args[1].numel() * args[0].shape[1])


def _rows(args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
    """A matrix product whose left factor comes first: every output sums over its columns."""
    return int(out.numel() * args[0].shape[-1])


def _grouped(args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
    """Groups of rows, or of columns where both factors are matrices: then the groups share the sum out."""
    left, right = args[:2]
    return int(left.numel() * right.shape[-1]) if left.ndim == right.ndim == 2 else int(out.numel() * left.shape[-1])


def _convolved(args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
    """Kernels by which torch runs a convolution, called by themselves: the weight comes second."""
    return int(out.numel() * prod(args[1].shape[1:]))


def _transposed(args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
    return int(args[0].numel() * prod(args[1].shape[1:]))


def _cdist(args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
    return int(out.numel() * args[0].shape[-1])


def _trilinear(args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
    """Y = x₁ᵀ A x₂ as ``nn.Bilinear`` sends it: N·O·(I₁·I₂ + I₂)."""
    x1, weight, _ = args[:3]
    outputs, left, right = weight.shape
    return int(x1.shape[0] * outputs * (left * right + right))


def _quantised_linear(args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
    return int(out.numel() * args[0].shape[-1])


def _quantised_conv(args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
    weight, _ = args[1].unpack()
    return int(out.numel() * prod(weight.shape[1:]))


def _named(names: str) -> list[str]:
    return [f"aten::{name}" for name in names.split()]


_ROWS = """
    _dyn_quant_matmul_4bit _int_mm _mixed_dtypes_linear _scaled_mm_v2 _weight_int4pack_mm
    _weight_int4pack_mm_for_cpu _weight_int4pack_mm_with_scales_and_zeros _weight_int8pack_mm linear mkldnn_linear
"""
_CONVOLUTIONS = """
    _conv_depthwise2d _mps_convolution _nnpack_spatial_convolution conv_depthwise3d cudnn_convolution_add_relu
    cudnn_convolution_relu miopen_convolution miopen_convolution_add_relu miopen_convolution_relu
    miopen_depthwise_convolution mkldnn_convolution slow_conv3d_forward slow_conv_dilated2d slow_conv_dilated3d
"""
_TRANSPOSED = """
    _mps_convolution_transpose cudnn_convolution_transpose miopen_convolution_transpose slow_conv_transpose2d
    slow_conv_transpose3d
"""

_OURS: dict[str, Formula] = {
    "aten::mv": lambda a, k, out: a[0].numel(),
    "aten::addmv": lambda a, k, out: a[1].numel(),
    "aten::dot": lambda a, k, out: a[0].numel(),
    "aten::vdot": lambda a, k, out: a[0].numel(),
    "aten::addr": lambda a, k, out: a[0].numel(),
    "aten::addbmm": lambda a, k, out: prod(a[1].shape) * a[2].shape[-1],
    "aten::_scaled_dot_product_flash_attention_for_cpu": _sdpa,
    "aten::_scaled_dot_product_fused_attention_overrideable": _sdpa,
    "aten::_transformer_encoder_layer_fwd": _encoder_layer,
    "aten::_native_multi_head_attention": _native_mha,
    "aten::mkldnn_rnn_layer": _mkldnn_rnn,
    "aten::_cudnn_rnn": _cudnn_rnn,
    "aten::_thnn_fused_lstm_cell": lambda a, k, out: 0,  # its two matrix products came before it, as addmm
    "aten::_thnn_fused_gru_cell": lambda a, k, out: 0,
    "aten::_embedding_bag": _embedding_bag,
    "aten::_embedding_bag_forward_only": _embedding_bag,
    "aten::_cdist_forward": _cdist,
    "aten::_euclidean_dist": _cdist,
    "aten::_trilinear": _trilinear,
    "aten::_pdist_forward": _rows,
    "aten::affine_grid_generator": lambda a, k, out: out.numel() * a[0].shape[-1],
    "aten::cudnn_affine_grid_generator": lambda a, k, out: out.numel() * a[0].shape[-1],
    "aten::_foreach_mm": lambda a, k, out: sum(x.numel() * y.shape[-1] for x, y in zip(*a[:2], strict=True)),
    "aten::_addmm_activation": lambda a, k, out: a[1].numel() * a[2].shape[-1],
    "aten::_scaled_addmm": lambda a, k, out: a[1].numel() * a[2].shape[-1],
    "aten::_scaled_dot_product_attention_math_for_mps": _sdpa,
    "aten::_grouped_mm": _grouped,
    "aten::_scaled_grouped_mm": _grouped,
    "aten::_scaled_grouped_mm_v2": _grouped,
    "aten::conv_tbc": lambda a, k, out: out.numel() * prod(a[1].shape[:2]),
    **dict.fromkeys(_named(_ROWS), _rows),
    **dict.fromkeys(_named(_CONVOLUTIONS), _convolved),
    **dict.fromkeys(_named(_TRANSPOSED), _transposed),
    "quantized::linear": _quantised_linear,
    "quantized::linear_relu": _quantised_linear,
    "quantized::linear_dynamic": _quantised_linear,
    "quantized::linear_relu_dynamic": _quantised_linear,
    "quantized::conv2d": _quantised_conv,
    "quantized::conv2d_relu": _quantised_conv,
}


def macs_of(func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int | None:
    """MACs of one dispatched operator; None when nothing covers it.

    Args:
        func: the operator overload as the dispatcher sees it.
        args, kwargs, out: its call.
    """
    packet, name = _plain(func)
    if packet in flop_registry:
        return int(flop_registry[packet](*args, **kwargs, out_val=out)) // 2
    if formula := _OURS.get(name):
        return int(formula(args, kwargs, out))
    return 0 if is_free(func) else None


def is_covered(func: OpOverload) -> bool:
    """True where a formula, ours or torch's, exists for the operator itself."""
    packet, name = _plain(func)
    return packet in flop_registry or name in _OURS


@cache
def _plain(func: OpOverload) -> tuple[OpOverloadPacket, str]:
    """(packet, name) by which formulas are found: those of ``addmm`` for ``addmm_``."""
    packet: OpOverloadPacket = func._overloadpacket
    name = func._schema.name
    base = name.removesuffix("_")
    if name == base or packet in flop_registry or name in _OURS:
        return packet, name
    namespace, _, short = base.partition("::")
    return getattr(getattr(torch.ops, namespace), short, packet), base
