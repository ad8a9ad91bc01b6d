from __future__ import annotations

import pytest
from nvml_fake import FakeNvml, compile_library


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory):
    return compile_library(tmp_path_factory.mktemp("driver"))


@pytest.fixture(scope="session")
def nvml_loaded(nvml_library):
    return FakeNvml(nvml_library)


@pytest.fixture
def fake(nvml_loaded, monkeypatch):
    nvml_loaded.reset()
    nvml_loaded.install(monkeypatch)
    return nvml_loaded
