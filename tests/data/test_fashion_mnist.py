import gzip
import os
import time
from pathlib import Path

import pytest
import torch
from small_files import idx_bytes, labels, pictures, write_fashion

from adaptbench.data import load_data
from adaptbench.errors import DataFormatError, DataMissingError
from adaptbench.testing.data import DataConformance


class TestFashionMnist(DataConformance):
    @pytest.fixture(autouse=True)
    def _files(self, fashion_root):
        self.root = fashion_root

    def make(self):
        return load_data("fashion-mnist", root=self.root)


@pytest.mark.parametrize(
    "folder", ["FashionMNIST/raw", "fashion-mnist/FashionMNIST/raw", "FashionMNIST", "fashion-mnist", "."]
)
@pytest.mark.parametrize("packed", [True, False])
def test_layouts(tmp_path, folder, packed):
    write_fashion(tmp_path / "r" / folder, packed=packed)
    data = load_data("fashion-mnist", root=tmp_path / "r")
    assert [len(data.split(r)) for r in ("train", "calibration", "test")] == [220, 20, 60]


def test_pictures_keep_their_labels_and_ids(fashion_root):
    data = load_data("fashion-mnist", root=fashion_root)
    x, y = torch.from_numpy(pictures(240, (28, 28), 0)), torch.from_numpy(labels(240)).long()
    for role in ("train", "calibration"):
        split = data.split(role)
        assert torch.equal(split.x[:, 0], x[split.ids])
        assert torch.equal(split.y, y[split.ids])
    test = data.split("test")
    assert torch.equal(test.ids, 240 + torch.arange(60))
    assert torch.equal(test.x[:, 0], torch.from_numpy(pictures(60, (28, 28), 1)))


def test_roots_are_tried_in_order(tmp_path, monkeypatch):
    home = tmp_path / "home" / ".cache" / "adaptbench"
    for place in (home, tmp_path / "data", tmp_path / "named", tmp_path / "given"):
        with pytest.raises(DataMissingError):
            _ = load_data("fashion-mnist", root=tmp_path / "given").folder
        write_fashion(place)
        if place.name == "named":
            monkeypatch.setenv("ADAPTBENCH_DATA", str(place))
        root = place if place.name == "given" else None
        assert load_data("fashion-mnist", root=root).folder.resolve() == place


def test_missing_files_say_where_was_looked_and_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setenv("ADAPTBENCH_DATA", str(tmp_path / "mine"))
    with pytest.raises(DataMissingError) as caught:
        load_data("fashion-mnist").split("test")
    text = str(caught.value)
    for part in (
        str(tmp_path / "mine"),
        "data/FashionMNIST/raw",
        ".cache/adaptbench",
        "--download",
        "--data-root",
        "30 MB",
    ):
        assert part in text


def test_one_file_of_four_missing_is_missing(fashion_root):
    (fashion_root / "FashionMNIST/raw/t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataMissingError):
        load_data("fashion-mnist", root=fashion_root).split("train")


@pytest.mark.parametrize(
    ("name", "array", "told"),
    [
        ("t10k-labels-idx1-ubyte", labels(59), "60 pictures for 59 labels"),
        ("t10k-images-idx3-ubyte", pictures(60, (28, 27), 0), "shape"),
        ("t10k-labels-idx1-ubyte", labels(60, 11), "labels from 0 to 10"),
        ("t10k-images-idx3-ubyte", labels(60), "exchanged"),
    ],
)
def test_files_that_do_not_belong_together(fashion_root, name, array, told):
    (fashion_root / f"FashionMNIST/raw/{name}.gz").write_bytes(gzip.compress(idx_bytes(array)))
    with pytest.raises(DataFormatError, match=told):
        load_data("fashion-mnist", root=fashion_root).split("test")


@pytest.fixture
def real_root():
    root = os.environ.get("ADAPTBENCH_DATA")
    if root is None:
        pytest.skip("ADAPTBENCH_DATA is not set")
    return Path(root)


def test_the_real_set(real_root):
    data = load_data("fashion-mnist", root=real_root)
    started = time.process_time()
    train = data.split("train")
    assert time.process_time() - started < 4, "loading takes about half a second"
    calibration, test = data.split("calibration"), data.split("test")
    assert [s.sha256[:12] for s in (train, calibration, test)] == ["4196ad9f0b72", "1d1534ac0bb7", "3581bf52f521"]
    assert torch.equal(torch.bincount(train.y), torch.full((10,), 5500))
    assert torch.equal(torch.bincount(calibration.y), torch.full((10,), 500))
    assert sorted(torch.cat([train.ids, calibration.ids]).tolist()) == list(range(60_000))
    # Training mean and deviation as everybody quotes them: 0.2860, 0.3530.
    assert float(train.images().mean()) == pytest.approx(0.2860, abs=2e-3)
    assert float(train.images().std()) == pytest.approx(0.3530, abs=2e-3)
