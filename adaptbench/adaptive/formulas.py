"""MACs of single operators: closed forms for what torch's flop counter leaves at zero, and the list of what is free.

Convention: one multiply–accumulate is one MAC; bias, activation, normalisation, pooling, softmax and data movement are
not counted (the convention of the CIFAR ResNet sheets in the literature). Torch's own formulas count FLOPs = 2·MACs.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch._ops import OpOverload, OpOverloadPacket
from torch.utils.flop_counter import flop_registry

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
    "quantized::linear": _quantised_linear,
    "quantized::linear_relu": _quantised_linear,
    "quantized::linear_dynamic": _quantised_linear,
    "quantized::linear_relu_dynamic": _quantised_linear,
    "quantized::conv2d": _quantised_conv,
    "quantized::conv2d_relu": _quantised_conv,
}

# Data movement, reductions, pooling, normalisation and bookkeeping: no MACs by the convention above.
_FREE_NAMES = """
    _adaptive_avg_pool2d _adaptive_avg_pool2d_backward _adaptive_avg_pool3d _batch_norm_no_update
    _batch_norm_with_update
    _fused_moving_avg_obs_fq_helper _linalg_check_errors _local_scalar_dense _log_softmax
    _log_softmax_backward_data _softmax_backward_data avg_pool2d_backward cudnn_batch_norm_backward
    max_pool2d_with_indices_backward native_batch_norm_backward
    _native_batch_norm_legit _native_batch_norm_legit_no_training _pack_padded_sequence _prelu_kernel
    _reshape_alias _reshape_copy _softmax _to_copy _unique2 _unsafe_index _unsafe_view adaptive_max_pool2d alias
    all amax amin aminmax any arange argmax argmin argsort as_strided avg_pool1d avg_pool2d avg_pool3d
    batch_norm_backward bernoulli bincount bucketize cat channel_shuffle clone col2im constant_pad_nd contiguous
    copy copy_ cudnn_batch_norm cummax cummin cumsum dequantize detach diag_embed diagonal elu embedding empty
    empty_like empty_strided eq equal expand exponential_ eye fill fill_ flip fractional_max_pool2d full
    full_like gather gelu glu grid_sampler_2d hardsigmoid hardswish hardtanh im2col index index_add index_add_
    index_copy index_copy_ index_fill index_put index_put_ index_select isfinite isin isnan item kthvalue
    leaky_relu lift lift_fresh lift_fresh_copy linalg_vector_norm linspace log_sigmoid_forward logsumexp
    masked_fill masked_fill_ masked_scatter masked_select max max_pool2d_with_indices max_pool3d_with_indices
    mean median min miopen_batch_norm mish mkldnn_max_pool2d mode multinomial native_batch_norm
    native_channel_shuffle native_dropout native_group_norm native_layer_norm new_empty new_empty_strided
    new_full new_ones new_zeros nonzero norm normal_ one_hot ones ones_like permute pixel_shuffle
    pixel_unshuffle prod quantize_per_tensor quantize_per_tensor_dynamic rand rand_like randint randn randn_like
    random_ randperm reflection_pad1d reflection_pad2d repeat repeat_interleave replication_pad2d resize_ roll
    rrelu_with_noise scalar_tensor scatter scatter_ scatter_add scatter_add_ scatter_reduce searchsorted select
    select_scatter set_ sigmoid_ silu size slice slice_scatter sort split split_with_sizes squeeze stack std
    std_mean sum t tanh_ threshold topk transpose tril triu unbind unfold uniform_ unique_consecutive
    unsafe_split unsafe_split_with_sizes unsqueeze upsample_bicubic2d upsample_bilinear2d upsample_nearest1d
    upsample_nearest2d var var_mean view view_as_real where zero zero_ zeros zeros_like
"""
_FREE = frozenset(f"aten::{name}" for name in _FREE_NAMES.split())
_FREE_TAGS = {torch.Tag.pointwise}


def macs_of(func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int | None:
    """MACs of one dispatched operator; None when nothing covers it.

    Args:
        func: the operator overload as the dispatcher sees it.
        args, kwargs, out: its call.
    """
    packet: OpOverloadPacket = func._overloadpacket
    if packet in flop_registry:
        return int(flop_registry[packet](*args, **kwargs, out_val=out)) // 2
    name = func._schema.name
    if formula := _OURS.get(name):
        return int(formula(args, kwargs, out))
    if name in _FREE or name.removesuffix("_") in _FREE or func.is_view or _FREE_TAGS & set(func.tags):
        return 0
    return None


def is_covered(func: OpOverload) -> bool:
    """True where a formula, ours or torch's, exists for the operator itself."""
    return func._overloadpacket in flop_registry or func._schema.name in _OURS
