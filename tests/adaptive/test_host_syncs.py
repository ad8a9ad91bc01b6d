"""Waits of the host are counted where they are called, and the executor makes as many as it says."""

from collections import Counter

import pytest
import torch

import adaptbench as ab
from adaptbench.adaptive.host_syncs import HostSyncs, host_syncs

X, MASK = torch.arange(6.0), torch.tensor([True, False] * 3)


@pytest.mark.parametrize(
    ("run", "names"),
    [
        (lambda: X.sum().item(), ["item"]),
        (lambda: X.tolist(), ["tolist"]),
        (lambda: bool(MASK.any()), ["__bool__"]),
        (lambda: int(MASK.sum()), ["__int__"]),
        (lambda: float(X[0]), ["__float__"]),
        (lambda: X.cpu().numpy(), ["cpu", "numpy"]),
        (lambda: MASK.nonzero(), ["nonzero"]),
        (lambda: torch.nonzero(MASK), ["nonzero"]),
        (lambda: X[MASK], ["mask"]),
        (lambda: X.masked_select(MASK), ["masked_select"]),
        (lambda: torch.where(MASK), ["where"]),
        (lambda: torch.unique(X), ["unique"]),
        (lambda: MASK.int().bincount(), ["bincount"]),
        (lambda: X.repeat_interleave(MASK.int()), ["repeat_interleave"]),
        (lambda: X.clone().__setitem__(MASK, X[:3]), ["mask"]),
    ],
)
def test_what_hands_a_value_or_a_shape_to_python_is_counted(run, names) -> None:
    assert host_syncs(run) == Counter(names)


@pytest.mark.parametrize(
    "run",
    [
        lambda: X[torch.tensor([0, 2])],
        lambda: X[1:3],
        lambda: torch.where(MASK, X, -X),
        lambda: X.clone().__setitem__(MASK, 0.0),  # a fill
        lambda: X.index_select(0, torch.tensor([1])),
        lambda: X.argsort(stable=True),
        lambda: X.to(torch.float16).to("cpu"),  # it lies there
        lambda: X.repeat_interleave(2),
        lambda: (len(X), X.shape, X.dtype),
    ],
)
def test_what_stays_on_the_device_is_not_counted(run) -> None:
    assert not host_syncs(run)


def test_the_count_ends_with_its_block_and_a_failure_ends_it_too() -> None:
    counted = HostSyncs()

    def fails() -> None:
        with counted:
            X.sum().item()
            raise RuntimeError("told so")

    with pytest.raises(RuntimeError, match="told so"):
        fails()
    X.sum().item()
    assert counted.total == 1


@pytest.mark.parametrize(("name", "gates"), [("skipnet", 6)])
@pytest.mark.parametrize("size", [1, 5, 64])
def test_a_gated_pass_waits_once_a_gate_whoever_goes_on(name, gates, size) -> None:
    net, x = ab.load_model(name, "digits"), ab.load_data("digits").split("test").images(0, size)
    with net.serving():
        net.serve(x)
        assert host_syncs(lambda: net.serve(x)) == Counter({"item" if size == 1 else "nonzero": gates})


@pytest.mark.parametrize("name", ["softmax-threshold", "learned-cascade"])
def test_a_chain_waits_once_where_rows_part(name) -> None:
    net, x = ab.load_model(name, "digits"), ab.load_data("digits").split("test").images(0, 64)
    deciding = len(net.node_names) - 1
    with net.serving():
        net.serve(x)
        assert 0 < sum(host_syncs(lambda: net.serve(x)).values()) <= deciding
        assert sum(host_syncs(lambda: net.serve(x[:1])).values()) <= deciding


def test_a_batch_of_tokens_waits_as_often_however_its_rows_differ() -> None:
    net, x = ab.load_model("a-vit", "digits"), ab.load_data("digits").split("test").images(0, 64)
    with net.serving():
        net.serve(x)
        alone, many = (sum(host_syncs(lambda part=part: net.serve(part)).values()) for part in (x[:1], x))
    assert many == alone
