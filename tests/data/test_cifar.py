import hashlib
import io
import pickle
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_files import labels, pictures, sha, write_cifar10_binary

from adaptbench.data import cifar, cifar_files, load_data
from adaptbench.errors import DataFormatError, DataMissingError
from adaptbench.testing.data import DataConformance


class TestCifar10(DataConformance):
    @pytest.fixture(autouse=True)
    def _files(self, cifar_root):
        self.root = cifar_root

    def make(self):
        return load_data("cifar10", root=self.root)


def write_npz(path, x, y, **more):
    np.savez(path, x_train=x, y_train=y, x_test=x[:20], y_test=y[:20], **more)


def test_binary_records(cifar_root):
    data = load_data("cifar10", root=cifar_root)
    assert [len(data.split(r)) for r in ("train", "calibration", "test")] == [180, 20, 40]
    x = np.concatenate([pictures(40, (3, 32, 32), seed) for seed in range(5)])
    split = data.split("calibration")
    assert np.array_equal(split.x.numpy(), x[split.ids.numpy()])
    assert np.array_equal(split.y.numpy(), np.tile(labels(40), 5)[split.ids.numpy()])
    assert data.split("test").ids.tolist() == list(range(50_000, 50_040))


def test_cifar100_takes_the_fine_label(tmp_path):
    folder = tmp_path / "cifar100" / "cifar-100-binary"
    folder.mkdir(parents=True)
    fine, coarse = labels(200, 100), labels(200, 20)
    for name in ("train", "test"):
        rows = np.concatenate([coarse[:, None], fine[:, None], pictures(200, (3072,), 0)], axis=1)
        (folder / f"{name}.bin").write_bytes(rows.tobytes())
    data = load_data("cifar100", root=tmp_path)
    assert np.array_equal(data.split("test").y.numpy(), fine)
    assert data.n_classes == 100
    assert list(data.class_names) == sorted(data.class_names)


@pytest.mark.parametrize("damage", ["cut", "empty", "shorter", "gone"])
def test_damaged_binary_files(cifar_root, damage):
    path = cifar_root / "cifar-10-batches-bin" / "data_batch_3.bin"
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes({"cut": data[:-1], "empty": b"", "shorter": data[: 3073 * 10]}[damage])
    with pytest.raises(DataFormatError, match="data_batch_3"):
        load_data("cifar10", root=cifar_root).split("train")


@pytest.mark.parametrize("channels_last", [True, False])
def test_npz_of_either_layout(tmp_path, channels_last):
    x, y = pictures(100, (3, 32, 32), 0), labels(100)
    write_npz(tmp_path / "cifar10.npz", x.transpose(0, 2, 3, 1) if channels_last else x, y[:, None])
    data = load_data("cifar10", root=tmp_path)
    assert np.array_equal(data.split("test").x.numpy(), x[:20])
    assert np.array_equal(data.split("test").y.numpy(), y[:20])


@pytest.mark.parametrize(
    ("x", "y", "told"),
    [
        (pictures(50, (3, 32, 32), 0).astype(np.float32), labels(50), "float32"),
        (pictures(50, (32, 32), 0), labels(50), "shape"),
        (pictures(50, (3, 32, 32), 0), labels(50).astype(float), "not integers"),
        (pictures(50, (3, 32, 32), 0), labels(49), "50 pictures and 49 labels"),
        (pictures(50, (3, 32, 32), 0), np.array([object()] * 50), "object, not integers"),
    ],
)
def test_npz_of_other_things(tmp_path, x, y, told):
    write_npz(tmp_path / "cifar10.npz", x, y)
    with pytest.raises(DataFormatError, match=told):
        load_data("cifar10", root=tmp_path).split("train")


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 no zip", b"\x80\x04K\x01."])
def test_npz_that_is_none(tmp_path, data):
    (tmp_path / "cifar10.npz").write_bytes(data)
    with pytest.raises(DataFormatError):
        load_data("cifar10", root=tmp_path).split("train")


class Bomb:
    def __reduce__(self):
        return (open, ("exploded", "w"))


def test_a_foreign_pickle_is_never_unpickled(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "test_batch").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DataFormatError, match="foreign pickle"):
        load_data("cifar10", root=tmp_path).split("test")
    assert not (tmp_path / "exploded").exists()


class Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2 wrote its str, as the published batches hold them."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_bytes(self, value):
        self.write(pickle.BINSTRING + struct.pack("<i", len(value)) + value)

    dispatch[bytes] = save_bytes


def with_md5(monkeypatch, data):
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    layout = replace(cifar_files.CIFAR10, python={"train": {}, "test": {"test_batch": md5}})
    monkeypatch.setattr(cifar.Cifar10, "files", layout)


def test_python_batches_of_the_published_md5_are_read(tmp_path, monkeypatch):
    x, y = pictures(20, (3072,), 0), labels(20)
    stream = io.BytesIO()
    Python2Pickler(stream, protocol=2).dump({"data": x, "labels": y.tolist(), "batch_label": "b"})
    data = stream.getvalue()
    with_md5(monkeypatch, data)
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(data)
    split = load_data("cifar10", root=tmp_path).split("test")
    assert np.array_equal(split.x.numpy().reshape(20, -1), x)
    assert np.array_equal(split.y.numpy(), y)


def test_even_behind_the_md5_no_other_name_is_allowed(tmp_path, monkeypatch):
    data = pickle.dumps(Bomb())
    with_md5(monkeypatch, data)
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(data)
    with pytest.raises(DataFormatError, match=r"UnpicklingError.*not allowed"):
        load_data("cifar10", root=tmp_path).split("test")
    assert not (tmp_path / "exploded").exists()


def test_the_forms_agree(tmp_path):
    write_cifar10_binary(tmp_path / "a" / "cifar-10-batches-bin")
    x = np.concatenate([pictures(40, (3, 32, 32), seed) for seed in range(6)])
    y = np.tile(labels(40), 6)
    (tmp_path / "b").mkdir()
    np.savez(tmp_path / "b" / "cifar10.npz", x_train=x[:200], y_train=y[:200], x_test=x[200:], y_test=y[200:])
    for role in ("train", "calibration", "test"):
        one, two = (load_data("cifar10", root=tmp_path / form).split(role) for form in "ab")
        assert one.sha256 == two.sha256
        assert sha(one) == sha(two)
        assert torch.equal(one.ids, two.ids)


def test_missing(tmp_path):
    with pytest.raises(DataMissingError, match=r"cifar-10-batches-bin, cifar10\.npz or cifar-10-batches-py"):
        load_data("cifar10", root=tmp_path).split("test")
