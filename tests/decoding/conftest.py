"""A character model of a moment's training on made-up texts, and one run of a small suite with it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from small_decoding import DECODING, PHASE, SMALL, write_texts

from adaptbench.data import load_data
from adaptbench.decoding.costs import StepCosts, count_costs
from adaptbench.decoding.network import CharacterLm, Size
from adaptbench.decoding.training import train
from adaptbench.results.decoding import DecodingRun


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with texts under data, weights under zoo, and small.yaml."""
    root = tmp_path_factory.mktemp("decoding")
    write_texts(root / "data")
    train(load_data("ag-news", root=root / "data"), root / "zoo", phase=PHASE, size=SMALL)
    (root / "small.yaml").write_text(DECODING, encoding="utf-8")
    return root


@pytest.fixture(scope="session")
def run(place: Path) -> DecodingRun:
    """The small suite, run once."""
    from adaptbench.decoding.runner import run_decoding

    here = Path.cwd()
    os.chdir(place)
    try:
        return run_decoding("small.yaml", out=place / "done", data_root=place / "data", zoo=place / "zoo")
    finally:
        os.chdir(here)


@pytest.fixture(scope="session")
def untrained() -> tuple[CharacterLm, StepCosts]:
    """Four layers whose answers vary: weights drawn wide, in float64, where rounding turns nothing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        net = CharacterLm(Size(4, 32, 2, 64, 64))
        for parameter in net.parameters():
            if parameter.ndim == 2:
                torch.nn.init.normal_(parameter, std=0.35)
    net = net.double().eval().requires_grad_(False)
    return net, count_costs(net)
