"""One net in a foreign style and its audit, for all tests of this folder."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

import adaptbench as ab

HERE = Path(__file__).parent
QUICK = str(HERE / "quick.yaml")


@pytest.fixture(scope="session")
def foreign() -> ModuleType:
    spec = importlib.util.spec_from_file_location("foreign_nets", HERE / "foreign_nets.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["foreign_nets"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def two_heads(foreign: ModuleType) -> ab.MultiExit:
    return foreign.build()


@pytest.fixture(scope="session")
def audited(two_heads: ab.MultiExit, tmp_path_factory: pytest.TempPathFactory) -> ab.Audit:
    place = tmp_path_factory.mktemp("audits") / "two-heads"
    test = ab.load_data("digits").split("test")
    return ab.audit(two_heads, test, attacks=QUICK, eps="16/255", limit=60, out=place)
