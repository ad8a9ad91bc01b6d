"""Torch's operators in three lists: counted by a formula, free by convention, or unknown and so named when they run.

Every operator of the torch in use that is not taken apart at the dispatcher stands in one of them; a test goes through
torch's own tables. Free are data movement, reductions, pooling, normalisation, activations, losses, random numbers and
bookkeeping, and what torch tags as pointwise or as a view. An operator of a later torch, in no list, is named, too.
"""

from __future__ import annotations

from functools import cache

import torch
from torch._ops import OpOverload

_FREE_NAMES = """
    __irshift__ _adaptive_avg_pool2d _adaptive_avg_pool2d_backward _adaptive_avg_pool3d _add_relu _aminmax
    _amp_foreach_non_finite_check_and_unscale _amp_update_scale _assert_async _assert_scalar _assert_tensor_metadata
    _batch_norm_no_update _batch_norm_with_update _chunk_cat _coalesce _coalesced _conj_physical
    _convert_indices_from_coo_to_csr _convert_indices_from_csr_to_coo _convert_weight_to_int4pack
    _convert_weight_to_int4pack_for_cpu _copy_from _copy_from_and_resize _ctc_loss _cudnn_ctc_loss
    _cudnn_init_dropout_state _cudnn_rnn_flatten_weight _cummax_helper _cummin_helper _dimI _dimV _dirichlet_grad
    _dyn_quant_pack_4bit_weight _efficientzerotensor _empty_affine_quantized _empty_per_channel_affine_quantized
    _fake_quantize_learnable_per_channel_affine _fake_quantize_learnable_per_tensor_affine
    _fake_quantize_per_tensor_affine_cachemask_tensor_qparams _fill_mem_eff_dropout_mask_ _foreach_powsum
    _functional_assert_async _functional_assert_scalar _functional_sym_constrain_range
    _functional_sym_constrain_range_for_size _fused_adagrad _fused_adam _fused_adamw _fused_dropout
    _fused_moving_avg_obs_fq_helper _fused_rms_norm_backward _fused_sdp_choice _fused_sgd
    _grid_sampler_2d_cpu_fallback _has_same_storage_numel _histogramdd_bin_edges _histogramdd_from_bin_cts
    _histogramdd_from_bin_tensors _index_put_impl _is_all_true _is_any_true _lazy_clone _linalg_check_errors
    _local_scalar_dense _log_softmax _log_softmax_backward_data _logcumsumexp _make_dep_token
    _make_per_channel_quantized_tensor _make_per_tensor_quantized_tensor _masked_scale _masked_softmax
    _mkldnn_reshape _mkldnn_transpose _native_batch_norm_legit _native_batch_norm_legit_no_training
    _new_zeros_with_same_feature_meta _nnz _pack_padded_sequence _philox_key_fold_in _philox_key_split
    _philox_normal _philox_randint_ _philox_uniform _pin_memory _prelu_kernel _print _reshape_alias _reshape_copy
    _resize_output _safe_softmax _sample_dirichlet _segment_reduce_backward _softmax _softmax_backward_data
    _sparse_compressed_tensor_with_dims _sparse_coo_tensor_with_dims _sparse_coo_tensor_with_dims_and_tensors
    _sparse_log_softmax _sparse_log_softmax_backward_data _sparse_mask_projection _sparse_softmax
    _sparse_softmax_backward_data _sparse_sum _spdiags _stack _standard_gamma _standard_gamma_grad
    _thnn_fused_gru_cell_backward _thnn_fused_lstm_cell_backward_impl _to_copy _to_dense _to_sparse _to_sparse_bsc
    _to_sparse_bsr _to_sparse_csc _to_sparse_csr _to_sparse_semi_structured _transform_bias_rescale_qkv _unique
    _unique2 _unsafe_index _unsafe_index_put _unsafe_masked_index _unsafe_masked_index_put_accumulate _unsafe_view
    _upsample_bicubic2d_aa _upsample_bilinear2d_aa _upsample_lanczos2d_aa _upsample_nearest_exact1d
    _upsample_nearest_exact2d _upsample_nearest_exact3d _use_cudnn_ctc_loss _use_miopen_ctc_loss
    _weight_norm_interface adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool2d
    adaptive_max_pool3d alias all allclose amax amin aminmax any arange argmax argmin argsort as_strided
    as_strided_scatter avg_pool1d avg_pool2d avg_pool2d_backward avg_pool3d bartlett_window batch_norm_backward
    batch_norm_backward_elemt batch_norm_backward_reduce batch_norm_elemt batch_norm_gather_stats
    batch_norm_gather_stats_with_counts batch_norm_stats batch_norm_update_stats bernoulli binary_cross_entropy
    binary_cross_entropy_with_logits bincount binomial blackman_window block_diag bucketize cat cauchy celu
    channel_shuffle clone col2im complex constant_pad_nd contiguous copy copy_ copy_sparse_to_sparse count_nonzero
    cudnn_batch_norm cudnn_batch_norm_backward cudnn_grid_sampler cummax cummin cumprod cumsum dense_dim dequantize
    detach diag_embed diagonal diagonal_scatter dist elu embedding embedding_dense_backward embedding_renorm empty
    empty_like empty_permuted empty_quantized empty_strided eq equal expand exponential exponential_ eye
    fake_quantize_per_channel_affine_cachemask fake_quantize_per_tensor_affine_cachemask fft_fftfreq fft_rfftfreq
    fill fill_ flip floor_divide fractional_max_pool2d fractional_max_pool3d from_file full full_like gather gelu
    geometric glu grid_sampler_2d grid_sampler_3d hamming_window hann_window hardshrink hardsigmoid hardswish
    hardtanh hash_tensor histc histogram huber_loss im2col index index_add index_add_ index_copy index_copy_
    index_fill index_put index_put_ index_reduce index_select int_repr is_coalesced is_pinned is_same_size is_set_to
    isfinite isin isnan item kaiser_window kthvalue leaky_relu lift lift_fresh lift_fresh_copy linalg__powsum
    linalg_cross linalg_vector_norm linspace log_normal log_sigmoid_backward log_sigmoid_forward log_softmax
    logcumsumexp logspace logsumexp lu_unpack masked_fill masked_fill_ masked_scatter masked_select max
    max_pool2d_backward max_pool2d_with_indices max_pool2d_with_indices_backward max_pool3d_with_indices
    max_unpool2d max_unpool3d mean median min miopen_batch_norm miopen_ctc_loss mish mkldnn_adaptive_avg_pool2d
    mkldnn_max_pool2d mkldnn_max_pool3d mkldnn_reorder_conv2d_weight mkldnn_reorder_conv3d_weight mode mse_loss
    multi_margin_loss multilabel_margin_loss_backward multilabel_margin_loss_forward multinomial nanmedian nansum
    native_batch_norm native_batch_norm_backward native_channel_shuffle native_dropout native_group_norm
    native_layer_norm native_norm new_empty new_empty_strided new_full new_ones new_zeros nll_loss2d_backward
    nll_loss2d_forward nll_loss_backward nll_loss_forward nonzero nonzero_static norm normal normal_ one_hot ones
    ones_like permute pixel_shuffle pixel_unshuffle poisson polar prod put q_per_channel_axis q_per_channel_scales
    q_per_channel_zero_points q_scale q_zero_point qscheme quantize_per_channel quantize_per_tensor
    quantize_per_tensor_dynamic quantized_batch_norm quantized_max_pool1d quantized_max_pool2d quantized_max_pool3d
    rad2deg rand rand_like randint randint_like randn randn_like random random_ randperm range record_stream
    reflection_pad1d reflection_pad2d reflection_pad3d renorm repeat repeat_interleave replication_pad1d
    replication_pad2d replication_pad3d resize resize_ resize_as resize_as_sparse roll rot90 rrelu_with_noise
    scalar_tensor scatter scatter_ scatter_add scatter_add_ scatter_reduce searchsorted segment_reduce select
    select_scatter set set_ sigmoid_ silu size slice slice_scatter smooth_l1_loss soft_margin_loss softmax softplus
    softshrink sort sparse_compressed_tensor sparse_coo_tensor sparse_dim sparse_mask sparse_resize
    sparse_resize_and_clear split split_with_sizes squeeze stack std std_mean sum sym_constrain_range
    sym_constrain_range_for_size t take tanh_ threshold threshold_backward to_mkldnn topk trace transpose tril
    tril_indices triu triu_indices unbind unfold uniform uniform_ unique_consecutive unique_dim
    unique_dim_consecutive unsafe_split unsafe_split_with_sizes unsqueeze upsample_bicubic2d upsample_bilinear2d
    upsample_linear1d upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_trilinear3d var var_mean
    view view_as_real where zero zero_ zeros zeros_like
"""
_UNKNOWN_NAMES = """
    _cdist_backward _cholesky_solve_helper _compute_linear_combination _cslt_compress _cslt_sparse_mm
    _cslt_sparse_mm_search _cudnn_attention_backward _cudnn_attention_forward
    _cudnn_attention_forward_no_dropout_inplace _cudnn_rnn_backward _embedding_bag_backward
    _embedding_bag_dense_backward _embedding_bag_per_sample_weights_backward _fft_c2c _fft_c2r _fft_r2c
    _flash_attention_forward_no_dropout_inplace _foobar _jagged_to_padded_dense_forward _linalg_det _linalg_eigh
    _linalg_eigvals _linalg_slogdet _linalg_solve_ex _linalg_svd _lstm_mps
    _nested_compute_contiguous_strides_offsets _nested_from_padded _nested_from_padded_and_nested_example
    _nested_from_padded_tensor _nested_get_jagged_dummy _nested_get_lengths _nested_get_max_seqlen
    _nested_get_min_seqlen _nested_get_offsets _nested_get_ragged_idx _nested_get_values_copy
    _nested_select_backward _nested_sum_backward _nested_tensor_from_mask _nested_tensor_from_mask_left_aligned
    _nested_tensor_from_tensor_list _nested_tensor_size _nested_tensor_softmax_with_shape
    _nested_tensor_storage_offsets _nested_tensor_strides _nested_view_from_buffer_copy
    _nested_view_from_jagged_copy _padded_dense_to_jagged_forward _pdist_backward
    _scaled_dot_product_flash_attention_for_cpu_backward _scaled_dot_product_fused_attention_overrideable_backward
    _slow_conv2d_backward _sparse_addmm _sparse_csr_prod _sparse_csr_sum _sparse_mm_reduce_impl
    _sparse_mm_reduce_impl_backward _sparse_semi_structured_addmm _sparse_semi_structured_apply
    _sparse_semi_structured_apply_dense _sparse_semi_structured_linear _sparse_semi_structured_mm
    _sparse_semi_structured_tile _sparse_sparse_matmul _spsolve _triton_multi_head_attention
    _triton_scaled_dot_attention _validate_compressed_sparse_indices cholesky cholesky_inverse cholesky_solve
    convolution_backward_overrideable cudnn_affine_grid_generator_backward geqrf hspmm linalg_cholesky_ex linalg_eig
    linalg_eigvals linalg_householder_product linalg_inv_ex linalg_ldl_factor_ex linalg_ldl_solve linalg_lstsq
    linalg_lu linalg_lu_factor_ex linalg_lu_solve linalg_matrix_exp linalg_matrix_sqrth linalg_pinv linalg_polar
    linalg_qr linalg_solve_triangular linear_backward lstm_mps_backward matmul_backward miopen_rnn
    miopen_rnn_backward mkldnn_linear_backward mkldnn_linear_backward_input mkldnn_linear_backward_weights
    mkldnn_rnn_layer_backward mps_convolution_backward mps_convolution_transpose_backward ormqr quantized_gru
    quantized_lstm sparse_sampled_addmm sspaddmm to_padded_tensor triangular_solve
"""
_FREE = frozenset(_FREE_NAMES.split())
UNKNOWN = frozenset(_UNKNOWN_NAMES.split())
"""Operators of aten that compute and have no formula, or whose work nobody has looked at: named when they run."""

_SUFFIXES = ("_", "_copy", "_functional", "_backward", "_jvp")
"""What torch adds to the name of an operator that does the same in place, into a copy, or for its gradient."""


@cache
def is_free(func: OpOverload) -> bool:
    """Whether an operator has no MACs by the convention.

    Args:
        func: the overload as the dispatcher sees it.
    """
    if func.is_view or torch.Tag.pointwise in func.tags:
        return True
    namespace, _, name = func._schema.name.partition("::")
    return namespace == "aten" and _free_name(name)


@cache
def is_composite(func: OpOverload) -> bool:
    """Whether an operator is made of others, which the dispatcher shows one by one."""
    schema = func._schema
    full = f"{schema.name}.{schema.overload_name}" if schema.overload_name else schema.name
    return torch._C._dispatch_has_kernel_for_dispatch_key(full, "CompositeImplicitAutograd")


@cache
def is_elementwise(func: OpOverload) -> bool:
    """Whether each output hangs on the inputs of its own place alone; torch's tag lacks on some, as on ``abs_``."""
    namespace, _, name = func._schema.name.partition("::")
    return torch.Tag.pointwise in func.tags or (
        namespace == "aten" and any(torch.Tag.pointwise in one.tags for one in _overloads(name.removesuffix("_")))
    )


@cache
def _free_name(name: str) -> bool:
    if name in UNKNOWN:
        return False
    if name in _FREE or _tagged(name) or name.startswith("_test_"):
        return True
    if name.startswith("_foreach_") and _free_name(name.removeprefix("_foreach_")):
        return True
    return any(name.endswith(end) and _free_name(name.removesuffix(end)) for end in _SUFFIXES)


def _tagged(name: str) -> bool:
    """Some overloads lack the tag that the others have."""
    return any(one.is_view or torch.Tag.pointwise in one.tags for one in _overloads(name))


def _overloads(name: str) -> list[OpOverload]:
    packet = getattr(torch.ops.aten, name, None)
    if packet is None:
        return []
    overloads = [getattr(packet, one, None) for one in packet.overloads() if _runs(name, one)]
    return [one for one in overloads if one is not None]


def _runs(name: str, overload: str) -> bool:
    """False for TorchScript's own overloads on numbers, which no dispatcher sees."""
    return torch._C._dispatch_has_kernel(f"aten::{name}" + ("" if overload == "default" else f".{overload}"))
