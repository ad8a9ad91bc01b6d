import pytest
from small_files import write_cifar10_binary, write_fashion


@pytest.fixture(autouse=True)
def _no_data_of_this_machine(request, tmp_path, monkeypatch):
    """Only what a test writes is found; the real-data tests take the variable that was set."""
    if "real_root" not in request.fixturenames:
        monkeypatch.delenv("ADAPTBENCH_DATA", raising=False)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.chdir(tmp_path)


@pytest.fixture
def fashion_root(tmp_path):
    write_fashion(tmp_path / "FashionMNIST" / "raw")
    return tmp_path


@pytest.fixture
def cifar_root(tmp_path):
    write_cifar10_binary(tmp_path / "cifar-10-batches-bin")
    return tmp_path
