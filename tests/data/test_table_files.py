"""One file of pictures and labels: npz, csv, parquet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import adaptbench as ab
from adaptbench.data import load_data
from adaptbench.data.table_files import Csv, Npz, Parquet
from adaptbench.errors import AdaptBenchError
from adaptbench.testing.data import DataConformance


def some(n: int = 60, shape: tuple[int, ...] = (8, 8), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, *shape), dtype=np.uint8), np.arange(n) % 4


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    x, y = some()
    np.savez(folder / "whole.npz", x=x, y=y)
    a, b = some(40, (8, 8, 3)), some(20, (8, 8, 3), 1)
    np.savez_compressed(folder / "parts.npz", x_train=a[0] / 255.0, y_train=a[1], x_test=b[0] / 255.0, y_test=b[1])
    frame = pd.DataFrame(x.reshape(60, -1), columns=[f"pixel{i}" for i in range(64)])
    frame.insert(0, "label", np.array(["cat", "dog", "hen", "owl"])[y])
    frame.to_csv(folder / "pets.csv", index=False)
    roles = frame.assign(role=np.repeat(["train", "calibration", "test"], 20)).rename(columns={"label": "kind"})
    roles.to_parquet(folder / "roles.parquet")
    return folder


class TestWholeNpz(DataConformance):
    @pytest.fixture(autouse=True)
    def _place(self, files):
        self.files = files

    def make(self):
        return Npz(str(self.files / "whole.npz"))


class TestPartsNpz(TestWholeNpz):
    def make(self):
        return Npz(str(self.files / "parts.npz"))


class TestCsv(TestWholeNpz):
    def make(self):
        return Csv(str(self.files / "pets.csv"))


class TestParquet(TestWholeNpz):
    def make(self):
        return Parquet(f"{self.files / 'roles.parquet'}?shape=1x8x8&label=kind")


def test_what_was_written_is_what_is_read(files: Path) -> None:
    x, y = some()
    data = load_data(f"npz:{files / 'whole.npz'}")
    assert [len(data.split(role)) for role in ("train", "calibration", "test")] == [36, 12, 12]
    for role in ("train", "calibration", "test"):
        part = data.split(role)
        assert torch.equal(part.x[:, 0], torch.from_numpy(x[part.ids.numpy()]))
        assert torch.equal(part.y, torch.from_numpy(y[part.ids.numpy()]))
    pets = load_data(f"csv:{files / 'pets.csv'}")
    assert pets.class_names == ("cat", "dog", "hen", "owl")
    test = pets.split("test")
    assert torch.equal(test.x[:, 0], torch.from_numpy(x[test.ids.numpy()]))
    parts = load_data(f"npz:{files / 'parts.npz'}")
    assert parts.shape == (3, 8, 8)
    got = parts.split("test")
    assert torch.equal(got.x, torch.from_numpy(some(20, (8, 8, 3), 1)[0].transpose(0, 3, 1, 2)))
    assert got.ids.min() == 40
    assert (len(parts.split("train")), len(parts.split("calibration"))) == (32, 8)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((8, 4, 4), np.uint8)}, "not x and y"),
        ({"x": np.ones((8, 4, 4)) * 3.5, "y": np.arange(8)}, r"values span \[3.5, 3.5\]"),
        ({"x": np.ones((8, 4, 4)) * np.nan, "y": np.arange(8)}, "not finite"),
        ({"x": np.ones((8, 4, 4), np.int64), "y": np.arange(8)}, "0 and 1 only"),
        ({"x": np.zeros((8, 15), np.uint8), "y": np.arange(8)}, "no square"),
        ({"x": np.zeros((8, 4, 4), np.uint8), "y": np.eye(8)}, "one-hot"),
        ({"x": np.zeros((8, 4, 4), np.uint8), "y": np.arange(8) / 3}, "fractions"),
        ({"x": np.zeros((8, 4, 4), np.uint8), "y": np.arange(8) - 1}, "span -1 to 6"),
        ({"x": np.zeros((2, 4, 4), np.uint8), "y": np.arange(2)}, "cannot be cut"),
        ({"x_train": np.zeros((2, 4, 4), np.uint8), "y_train": np.arange(2)}, "not x and y"),
        ({"x": np.array([object()]), "y": np.arange(1)}, "no npz that can be read"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(AdaptBenchError, match=message):
        load_data(f"npz:{tmp_path / 'bad.npz'}")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("npz", "names no file"),
        ("csv:nowhere.csv", "there is no file nowhere.csv"),
        ("csv:{}/pets.csv?shape=3x5x5", "has 64 values, shape=3x5x5 asks for 75"),
        ("csv:{}/pets.csv?shap=1x8x8", "no option 'shap'"),
        ("csv:{}/pets.csv?shape=8", "the shape '8'"),
        ("csv:{}/pets.csv?label=lable", "no column 'lable' .Did you mean 'label'"),
        ("parquet:{}/pets.csv", "no parquet that can be read"),
        ("npz:{}/pets.csv", "no npz that can be read"),
    ],
)
def test_words_that_name_no_data_are_refused(files: Path, spec: str, message: str) -> None:
    with pytest.raises(AdaptBenchError, match=message):
        load_data(spec.format(files))


def test_a_header_that_claims_too_much_is_not_believed(tmp_path: Path) -> None:
    np.savez(tmp_path / "big.npz", x=np.zeros((4, 4, 4), np.uint8), y=np.arange(4))
    raw = (tmp_path / "big.npz").read_bytes().replace(b"(4, 4, 4), }", b"(9**9,8,8)}")
    assert raw != (tmp_path / "big.npz").read_bytes()
    (tmp_path / "big.npz").write_bytes(raw)
    with pytest.raises(AdaptBenchError, match=r"no npz that can be read|more than 8 GB"):
        load_data(f"npz:{tmp_path / 'big.npz'}")


class Pictures(torch.utils.data.Dataset):
    def __init__(self, form: str) -> None:
        self.x, self.y = some(12, (8, 8, 3))
        self.form = form

    def __len__(self) -> int:
        return 12

    def __getitem__(self, i: int):
        if self.form == "tensor":
            return torch.from_numpy(self.x[i]).permute(2, 0, 1).float() / 255, int(self.y[i])
        if self.form == "broken" and i == 7:
            raise OSError("no such picture")
        return self.x[i], self.y[i]


@pytest.mark.parametrize("form", ["tensor", "array"])
def test_torch_data_sets_and_loaders_are_taken_in_their_own_order(form: str) -> None:
    data = Pictures(form)
    for given in (data, torch.utils.data.DataLoader(data, batch_size=5, shuffle=True)):
        part = ab.split(given, role="test", name="mine")
        assert torch.equal(part.x, torch.from_numpy(data.x.transpose(0, 3, 1, 2)))
        assert part.y.tolist() == list(data.y)
    ids = [set(ab.split(data, role=role).ids.tolist()) for role in ("train", "calibration", "test")]
    assert not ids[0] & ids[1] | ids[1] & ids[2] | ids[0] & ids[2]


def test_token_ids_stay_what_they_are() -> None:
    part = ab.split(
        np.array([[2, 5, 1], [2, 7, 1]], np.int32), np.array([0, 1]), role="train", class_names=["no", "yes"]
    )
    assert part.x.dtype == torch.int64
    assert part.class_names == ("no", "yes")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((Pictures("broken"), None, "test"), "sample 7 of Pictures could not be taken: OSError"),
        (([1, 2], None, "test"), "a list was given as the data"),
        ((["a", "b"], [0, 1], "test"), "no tensors"),
        ((torch.rand(2, 1, 4, 4) * 3, [0, 1], "test"), "the pictures span"),
        ((torch.rand(2, 1, 4, 4), torch.eye(2), "test"), "the labels are torch.float32"),
        ((torch.rand(2, 1, 4, 4), [0, 1], "validation"), "no role 'validation'"),
    ],
)
def test_what_makes_no_split_is_refused(given, message: str) -> None:
    x, y, role = given
    with pytest.raises(AdaptBenchError, match=message):
        ab.split(x, y, role=role)
