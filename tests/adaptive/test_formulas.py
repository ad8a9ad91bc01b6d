"""MACs against closed forms, through whichever kernel torch chooses: with gradients, without, and in inference mode."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch._ops import OpOverload

from adaptbench.adaptive import MacCounter
from adaptbench.adaptive.counting import counting
from adaptbench.adaptive.formulas import _OURS, macs_of

N, L, E, H, FF = 2, 5, 8, 2, 16  # batch, tokens, width, heads, feed-forward width
ENCODER = N * L * (4 * E * E + 2 * E * FF) + N * L * L * 2 * E
ATTENTION = N * L * 4 * E * E + N * L * L * 2 * E

r = torch.randn


def self_attention(weights: bool):
    mha = nn.MultiheadAttention(E, H, batch_first=True).eval()
    return lambda: mha(*[r(N, L, E)] * 3, need_weights=weights)


def cross_attention():
    mha = nn.MultiheadAttention(E, H, batch_first=True).eval()
    keys = r(N, L, E)
    return mha(r(N, 3, E), keys, keys, need_weights=False)


def encoder_layer(**how):
    layer = nn.TransformerEncoderLayer(E, H, FF, batch_first=True).eval()
    return lambda: layer(r(N, L, E), **how)


def packed_lstm():
    packed = nn.utils.rnn.pack_padded_sequence(r(N, 6, 3), [6, 3], batch_first=True)
    return nn.LSTM(3, 4, batch_first=True).eval()(packed)


CASES = {
    "linear": (lambda: nn.Linear(5, 7)(r(3, 5)), 3 * 35),
    "linear on tokens": (lambda: nn.Linear(5, 7, bias=False)(r(3, 4, 5)), 12 * 35),
    "conv1d": (lambda: nn.Conv1d(3, 5, 4)(r(2, 3, 10)), 2 * 5 * 7 * 3 * 4),
    "conv2d, stride and groups": (lambda: nn.Conv2d(4, 6, 3, 2, 1, groups=2)(r(2, 4, 9, 9)), 2 * 6 * 25 * 2 * 9),
    "conv2d, dilation": (lambda: nn.Conv2d(4, 6, 3, dilation=2)(r(2, 4, 9, 9)), 2 * 6 * 25 * 4 * 9),
    "conv2d, depthwise": (lambda: nn.Conv2d(4, 4, 3, groups=4)(r(2, 4, 9, 9)), 2 * 4 * 49 * 9),
    "conv3d": (lambda: nn.Conv3d(2, 3, 2)(r(1, 2, 4, 4, 4)), 3 * 27 * 2 * 8),
    "transposed conv2d": (lambda: nn.ConvTranspose2d(4, 6, 3, 2)(r(2, 4, 5, 5)), 2 * 25 * 4 * 6 * 9),
    "transposed conv2d, groups": (lambda: nn.ConvTranspose2d(4, 6, 3, 2, groups=2)(r(2, 4, 5, 5)), 2 * 25 * 4 * 3 * 9),
    "bmm": (lambda: torch.bmm(r(2, 3, 4), r(2, 4, 5)), 2 * 3 * 4 * 5),
    "baddbmm": (lambda: torch.baddbmm(r(2, 3, 5), r(2, 3, 4), r(2, 4, 5)), 120),
    "addbmm": (lambda: torch.addbmm(r(3, 5), r(2, 3, 4), r(2, 4, 5)), 120),
    "matmul, broadcast": (lambda: r(2, 1, 3, 4) @ r(5, 4, 6), 2 * 5 * 3 * 4 * 6),
    "einsum": (lambda: torch.einsum("bij,bjk->bik", r(2, 3, 4), r(2, 4, 5)), 120),
    "tensordot": (lambda: torch.tensordot(r(3, 4), r(4, 5), 1), 60),
    "multi_dot": (lambda: torch.linalg.multi_dot([r(2, 3), r(3, 4), r(4, 5)]), 24 + 40),
    "mv": (lambda: torch.mv(r(3, 4), r(4)), 12),
    "addmv": (lambda: torch.addmv(r(3), r(3, 4), r(4)), 12),
    "dot": (lambda: torch.dot(r(4), r(4)), 4),
    "vdot": (lambda: torch.vdot(r(4), r(4)), 4),
    "inner": (lambda: torch.inner(r(3, 4), r(5, 4)), 60),
    "addr": (lambda: torch.addr(r(3, 4), r(3), r(4)), 12),
    "bilinear": (lambda: nn.Bilinear(3, 4, 5)(r(2, 3), r(2, 4)), 2 * 5 * (3 * 4 + 4)),
    "cdist": (lambda: torch.cdist(r(2, 3), r(4, 3)), 24),
    "cdist, L1": (lambda: torch.cdist(r(2, 3), r(4, 3), p=1), 24),
    "cdist, many rows": (lambda: torch.cdist(r(30, 3), r(40, 3)), 30 * 40 * 3),
    "attention": (
        lambda: F.scaled_dot_product_attention(r(N, H, 3, 4), r(N, H, 5, 4), r(N, H, 5, 4)),
        N * H * 3 * 5 * 8,
    ),
    "attention, mask": (
        lambda: F.scaled_dot_product_attention(*[r(N, H, 3, 4)] * 3, attn_mask=torch.zeros(3, 3)),
        N * H * 9 * 8,
    ),
    "attention, causal": (lambda: F.scaled_dot_product_attention(*[r(N, H, 3, 4)] * 3, is_causal=True), N * H * 9 * 8),
    "multi-head attention": (self_attention(False), ATTENTION),
    "multi-head attention, weights": (self_attention(True), ATTENTION),
    "multi-head attention, across": (cross_attention, N * E * E * (2 * 3 + 2 * L) + N * 3 * L * 2 * E),
    "transformer layer": (encoder_layer(), ENCODER),
    "transformer layer, padding": (encoder_layer(src_key_padding_mask=torch.zeros(N, L, dtype=torch.bool)), ENCODER),
    "LSTM, two layers, both ways": (
        lambda: nn.LSTM(3, 4, num_layers=2, batch_first=True, bidirectional=True).eval()(r(N, 6, 3)),
        N * 6 * 2 * (16 * (3 + 4) + 16 * (8 + 4)),
    ),
    "LSTM, packed": (packed_lstm, (6 + 3) * 16 * (3 + 4)),
    "GRU": (lambda: nn.GRU(3, 4, batch_first=True).eval()(r(N, 6, 3)), N * 6 * 12 * (3 + 4)),
    "RNN": (lambda: nn.RNN(3, 4, batch_first=True).eval()(r(N, 6, 3)), N * 6 * 4 * (3 + 4)),
    "LSTM cell": (lambda: nn.LSTMCell(3, 4)(r(N, 3)), N * 16 * 7),
    "GRU cell": (lambda: nn.GRUCell(3, 4)(r(N, 3)), N * 12 * 7),
    "RNN cell": (lambda: nn.RNNCell(3, 4)(r(N, 3)), N * 4 * 7),
    "embedding bag": (lambda: nn.EmbeddingBag(10, 4)(torch.randint(10, (2, 3))), 2 * 3 * 4),
    "embedding": (lambda: nn.Embedding(10, 4)(torch.randint(10, (2, 3))), 0),
    "unfold and multiply": (lambda: r(3, 12) @ F.unfold(r(1, 3, 4, 4), 2), 3 * 12 * 9),
    "addmm, in place": (lambda: r(3, 5).addmm_(r(3, 4), r(4, 5)), 60),
    "addmv, in place": (lambda: r(3).addmv_(r(3, 4), r(4)), 12),
    "addr, in place": (lambda: r(3, 4).addr_(r(3), r(4)), 12),
    "addbmm, in place": (lambda: r(3, 5).addbmm_(r(2, 3, 4), r(2, 4, 5)), 120),
    "baddbmm, in place": (lambda: r(2, 3, 5).baddbmm_(r(2, 3, 4), r(2, 4, 5)), 120),
    "mm, into": (lambda: torch.mm(r(3, 4), r(4, 5), out=torch.empty(3, 5)), 60),
    "linear and activation in one": (lambda: torch._addmm_activation(r(5), r(3, 4), r(4, 5)), 60),
    "pdist": (lambda: F.pdist(r(5, 3)), 10 * 3),
    "affine grid": (lambda: F.affine_grid(r(2, 2, 3), [2, 1, 4, 5], align_corners=False), 2 * 4 * 5 * 2 * 3),
    "conv_tbc": (lambda: torch.conv_tbc(r(7, 2, 3), r(2, 3, 5), r(5)), 6 * 2 * 5 * 2 * 3),
    "dilated kernel itself": (
        lambda: torch.ops.aten.slow_conv_dilated2d(r(1, 4, 9, 9), r(6, 4, 3, 3), [3, 3], None, [1, 1], [0, 0], [2, 2]),
        6 * 25 * 4 * 9,
    ),
    "transposed kernel itself": (
        lambda: torch.ops.aten.slow_conv_transpose2d(r(1, 4, 5, 5), r(4, 6, 3, 3), [3, 3]),
        25 * 4 * 6 * 9,
    ),
    "oneDNN's kernel itself": (
        lambda: torch.ops.aten.mkldnn_convolution(r(1, 4, 9, 9), r(6, 2, 3, 3), None, [1, 1], [2, 2], [1, 1], 2),
        6 * 25 * 2 * 9,
    ),
    "einsum, outer": (lambda: torch.einsum("nd,od->no", r(3, 8), r(5, 8)), 3 * 5 * 8),
}


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad], ids=lambda m: m.__name__)
@pytest.mark.parametrize("case", CASES)
def test_closed_form(case, mode):
    run, want = CASES[case]
    with mode(), MacCounter() as counter:
        run()
    assert counter.macs == want
    assert not counter.uncounted


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3),
    st.integers(0, 2), st.integers(1, 2), st.booleans(),
)  # fmt: skip
def test_any_convolution(n, groups, ins, outs, kernel, padding, stride, transposed):
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    layer = kind(groups * ins, groups * outs, kernel, stride, padding if 2 * padding < kernel else 0, groups=groups)
    x = r(n, groups * ins, 6, 7)
    with counting() as counter:
        out = layer(x)
    positions = math.prod((x if transposed else out).shape[2:])
    assert counter.macs == n * positions * groups * ins * outs * kernel**2


def test_the_fast_path_counts_what_the_slow_one_does():
    """Torch's fused encoder layer counts zero FLOPs in its own counter; ours gives the composite's figure."""
    run, _ = CASES["transformer layer"]
    with counting() as fast:
        run()
    with torch.enable_grad(), MacCounter() as slow:
        run()
    assert fast.by_operator.keys() != slow.by_operator.keys()
    assert fast.macs == slow.macs


def test_grouped_and_small_integer_products():
    """Products of the parts that newer layers are made of: per expert, in 8 bits, many at a time."""
    half, eight = torch.bfloat16, torch.int8
    ops = torch.ops.aten
    cases = {
        "_int_mm": (lambda: ops._int_mm(torch.ones(32, 16, dtype=eight), torch.ones(16, 8, dtype=eight)), 32 * 16 * 8),
        "_foreach_mm": (lambda: ops._foreach_mm([r(2, 3), r(3, 4)], [r(3, 4), r(4, 5)]), 24 + 60),
        "_grouped_mm": (
            lambda: ops._grouped_mm(r(6, 16).to(half), r(2, 16, 8).to(half), torch.tensor([2, 6], dtype=torch.int32)),
            6 * 16 * 8,
        ),
    }
    for name, (run, want) in cases.items():
        if hasattr(ops, name):  # newer than the oldest torch that is supported
            with counting() as counter:
                run()
            assert counter.by_operator == {f"aten::{name}": want}
            assert not counter.uncounted


@pytest.mark.filterwarnings("ignore:.*quantize_per_tensor.*deprecated.*:UserWarning")
def test_quantised_layers():
    """Static and dynamic int8 kernels, called as the quantised modules call them."""
    weight = torch.quantize_per_tensor(r(5, 4), 0.1, 0, torch.qint8)
    kernel = torch.quantize_per_tensor(r(6, 2, 3, 3), 0.1, 0, torch.qint8)
    x = torch.quantize_per_tensor(r(3, 4), 0.1, 0, torch.quint8)
    picture = torch.quantize_per_tensor(r(1, 4, 5, 5), 0.1, 0, torch.quint8)
    ops = torch.ops.quantized
    linear, conv = ops.linear_prepack(weight, None), ops.conv2d_prepack(kernel, None, [1, 1], [0, 0], [1, 1], 2)
    with counting() as counter:
        ops.linear(x, linear, 0.1, 0)
        ops.linear_relu(x, linear, 0.1, 0)
        ops.linear_dynamic(r(3, 4), linear)
        ops.conv2d(picture, conv, 0.1, 0)
    assert counter.by_operator == {
        "quantized::linear": 60,
        "quantized::linear_relu": 60,
        "quantized::linear_dynamic": 60,
        "quantized::conv2d": 9 * 6 * 2 * 9,
    }
    assert not counter.uncounted


def test_cudnn_rnn_by_its_arguments():
    """No such kernel here: the formula is fed what cuDNN is fed, two layers both ways."""
    module = nn.LSTM(3, 4, num_layers=2, bidirectional=True)
    weights = [p.detach() for p in module.parameters()]
    want = 6 * N * 2 * (16 * (3 + 4) + 16 * (8 + 4))
    assert _OURS["aten::_cudnn_rnn"]((r(6, N, 3), weights), {}, None) == want
    assert _OURS["aten::_cudnn_rnn"]((r(9, 3), weights), {}, None) == want * 9 // (6 * N)  # packed: rows of all steps


ACTIVATIONS = [
    nn.ReLU(), nn.ReLU6(), nn.ELU(), nn.SELU(), nn.CELU(), nn.GELU(), nn.SiLU(), nn.Mish(), nn.Hardswish(),
    nn.Hardsigmoid(), nn.Hardtanh(), nn.Softplus(), nn.Sigmoid(), nn.LogSigmoid(), nn.Tanh(), nn.PReLU(),
    nn.GLU(1), nn.LeakyReLU(), nn.Softmax(1), nn.LogSoftmax(1), nn.Dropout(), nn.MaxPool2d(2),
    nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(2), nn.AdaptiveMaxPool2d(2), nn.BatchNorm2d(4), nn.GroupNorm(2, 4),
    nn.InstanceNorm2d(4), nn.LayerNorm(8), nn.RMSNorm(8), nn.PixelShuffle(2), nn.ZeroPad2d(1),
    nn.ReflectionPad2d(1), nn.Upsample(scale_factor=2), nn.Upsample(scale_factor=2, mode="bilinear"),
    nn.Flatten(), nn.ReplicationPad2d(1), nn.CircularPad2d(1), nn.Softmin(1), nn.Softmax2d(), nn.Threshold(0.1, 0.0),
    nn.Softshrink(), nn.Hardshrink(), nn.Tanhshrink(), nn.Softsign(), nn.RReLU(), nn.AlphaDropout(), nn.Dropout2d(),
    nn.LPPool2d(2, 2), nn.FractionalMaxPool2d(2, output_size=4), nn.LocalResponseNorm(2), nn.CrossMapLRN2d(2),
    nn.Upsample(scale_factor=2, mode="bicubic"), nn.Upsample(scale_factor=2, mode="nearest-exact"),
    nn.ChannelShuffle(2), nn.PixelUnshuffle(2), nn.Unfold(2), nn.Identity(),
]  # fmt: skip


@pytest.mark.parametrize("layer", ACTIVATIONS, ids=lambda layer: type(layer).__name__)
def test_what_is_free_by_convention_is_known_to_be_free(layer):
    """A usual layer must not fill the list of uncounted operators: nobody would read it then."""
    for training in (True, False):
        layer.train(training)
        with counting() as counter:
            layer(r(2, 4, 8, 8))
        assert counter.macs == 0
        assert not counter.uncounted


@pytest.mark.parametrize(
    ("run", "name"),
    [
        (lambda: torch.fft.fft(r(4)), "aten::_fft_r2c"),
        (lambda: torch.linalg.inv(torch.eye(3)), "aten::linalg_inv_ex"),
        (lambda: torch.linalg.eigvalsh(torch.eye(3)), "aten::_linalg_eigh"),
    ],
)
def test_compute_without_a_formula_is_named(run, name):
    with counting() as counter:
        run()
    assert list(counter.uncounted) == [name]


def test_a_planted_custom_operator_is_named():
    """Somebody's own kernel that multiplies matrices inside."""

    @torch.library.custom_op("adaptbench_tests::hidden_matmul", mutates_args=())
    def hidden_matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(a.numpy() @ b.numpy())

    with counting() as counter:
        hidden_matmul(r(2, 3), r(3, 4))
    assert counter.macs == 0
    assert list(counter.uncounted) == ["adaptbench_tests::hidden_matmul"]


LATER = """
_dyn_quant_matmul_4bit _foreach_mm _grouped_mm _scaled_addmm _scaled_grouped_mm _scaled_grouped_mm_v2 _scaled_mm_v2
_weight_int4pack_mm_for_cpu _weight_int4pack_mm_with_scales_and_zeros
"""
"""Operators that came after torch 2.5, the oldest that is supported."""


def test_every_formula_belongs_to_an_operator_of_this_torch():
    """A renamed operator would silently leave its formula behind."""
    from torch.utils.flop_counter import flop_registry

    names = {name for name in _OURS if name.startswith("aten::")}
    known = {op.name for op in torch._C._jit_get_all_schemas()}
    assert names - {f"aten::{name}" for name in LATER.split()} <= known
    ours_and_torchs = {f"aten::{packet.__name__}" for packet in flop_registry} & names
    assert not ours_and_torchs, "torch counts these itself now: two formulas for one operator"


def test_macs_add_up_over_samples():
    """Per-sample MACs are counted once and multiplied: counting must be linear in the batch."""
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 36, 5))
    counts = []
    for n in (1, 2, 7):
        with counting() as counter:
            net(r(n, 1, 8, 8))
        counts.append(counter.macs)
    assert counts == [counts[0], 2 * counts[0], 7 * counts[0]]


def test_macs_of_says_none_for_the_unknown():
    unknown = torch.ops.aten._fft_r2c.default
    assert isinstance(unknown, OpOverload)
    assert macs_of(unknown, (), {}, None) is None
