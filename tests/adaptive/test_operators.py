"""Every operator of the torch in use is counted, free or known to be unknown."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from adaptbench.adaptive.formulas import is_covered
from adaptbench.adaptive.operators import _FREE, UNKNOWN, is_composite, is_elementwise, is_free

HERE = Path(__file__).parent


def overloads():
    """Every overload of aten that a dispatcher can see."""
    for full in torch._C._dispatch_get_all_op_names():
        if full.startswith("aten::"):
            name, _, overload = full.removeprefix("aten::").partition(".")
            yield name, getattr(getattr(torch.ops.aten, name), overload or "default")


def lists_of(name, func):
    return [
        *(["counted"] if is_covered(func) else []),
        *(["free"] if is_free(func) else []),
        *(["unknown"] if name in UNKNOWN else []),
    ]


def test_every_operator_of_aten_stands_in_one_list():
    """Composites are taken apart; a new operator of a newer torch shows up here, and is named until it is looked at."""
    lost, torn = [], []
    for name, func in overloads():
        lists = lists_of(name, func)
        if not lists and not is_composite(func):
            lost.append(str(func))
        if "unknown" in lists and len(lists) > 1:
            torn.append((str(func), lists))
    assert not lost
    assert not torn


def test_no_list_holds_what_another_holds():
    assert not _FREE & UNKNOWN
    for name, func in overloads():
        if is_covered(func):
            assert name not in UNKNOWN
            assert name.removesuffix("_") not in _FREE


@pytest.mark.slow
def test_torchs_own_samples_leave_nothing_unlisted():
    """Torch's database of operators: some 700 operators on its sample inputs, each call counted, free or named."""
    done = subprocess.run(
        [sys.executable, str(HERE / "every_operator.py")], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["ran"] > 1000
    beyond = {
        name: by
        for name, by in told["uncounted"].items()
        if name.startswith("aten::") and name.removeprefix("aten::") not in UNKNOWN
    }
    assert not beyond, "free, or a formula is lacking"
    assert "aten::linalg_inv_ex" in told["uncounted"], "what is unknown is named"


@pytest.mark.parametrize("name", ["abs_", "mul", "relu_", "gt_"])
def test_elementwise_in_place_too(name):
    """Torch tags abs and not abs_."""
    packet = getattr(torch.ops.aten, name)
    assert all(is_elementwise(getattr(packet, one)) for one in packet.overloads() if one in ("default", "Tensor"))


def test_products_are_not_elementwise():
    assert not is_elementwise(torch.ops.aten.mm.default)
    assert not is_free(torch.ops.aten.mm.default)
    assert not is_free(torch.ops.aten._linalg_svd.default)
