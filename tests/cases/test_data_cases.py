"""Data sets of others, and files whose headers promise too much."""

import gzip
import os
import struct
import zipfile

import numpy as np
import pytest
import torch

from adaptbench.adaptive.splits import Split
from adaptbench.data import load_data
from adaptbench.errors import AdaptBenchError, DataFormatError, UsageError
from adaptbench.registry import DATA

N = 12


class Foreign:
    """A plug-in's data set, sound unless told otherwise."""

    takes_argument = True
    name, class_names, n_classes, shape = "foreign", tuple("0123456789"), 10, (1, 4, 4)

    def __init__(self, argument="", *, root=None, download=False):
        self.fields = {}

    def split(self, role):
        start = {"train": 0, "calibration": N, "test": 2 * N}[role]
        fields = {
            "name": self.name,
            "role": role,
            "x": torch.randint(0, 256, (N, *self.shape), generator=torch.manual_seed(0)).byte(),
            "y": torch.arange(N) % 10,
            "ids": torch.arange(start, start + N),
            "class_names": self.class_names,
            "sha256": "",
        }
        return Split(**fields | {key: change(fields[key]) for key, change in self.fields.items()})


@pytest.fixture
def foreign(monkeypatch):
    """Registers `Foreign` with some fields of its splits changed."""

    def register(make=Foreign, **fields):
        def factory(argument, *, root, download):
            data = make(argument, root=root, download=download)
            if fields:
                data.fields = fields
            return data

        monkeypatch.setattr(DATA, "load", lambda name: factory)
        return load_data("foreign")

    return register


@pytest.mark.case("own")
@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"y": lambda y: torch.linspace(-3, 158, N).long()}, "labels from -3 to 158; its classes are 0 … 9"),
        ({"y": lambda y: torch.nn.functional.one_hot(y, 10)}, r"int64 of shape \(12, 10\) as labels"),
        ({"y": lambda y: y.int()}, "int32"),
        ({"y": lambda y: y.float()}, "float32"),
        ({"y": lambda y: y.numpy()}, "ndarray"),
        ({"x": lambda x: x.float() * float("nan")}, "float32 of shape .* as inputs"),
        ({"x": lambda x: x.float() * 3}, "float32"),
        ({"x": lambda x: x[:, 0]}, r"\(12, 4, 4\)"),
        ({"x": lambda x: x[:0], "y": lambda y: y[:0], "ids": lambda i: i[:0]}, "no samples in its test split"),
        ({"x": lambda x: x[:, :, :2]}, r"shape is \(1, 2, 4\)"),
        ({"ids": lambda i: i * 0}, "one id to several"),
        ({"role": lambda r: "train"}, "role is 'train'"),
        ({"name": lambda n: "other"}, "name is 'other'"),
        ({"class_names": lambda c: tuple("abcdefghijk")}, "classes is"),
        ({"sha256": lambda _: "0" * 64}, "hash is '0000"),
    ],
)
def test_a_plug_in_whose_samples_do_not_fit_is_refused(foreign, fields, told):
    """Labels −3 … 158 gave accuracy 0, one-hot ones a traceback in an attack; one check refuses them when loaded."""
    with pytest.raises(AdaptBenchError, match=told):
        foreign(**fields).split("test")


@pytest.mark.case("own")
def test_ids_that_two_splits_share_are_refused(foreign):
    """Samples are paired by id; calibration and test with the same ids were taken."""
    data = foreign(ids=lambda ids: ids % N)
    data.split("calibration")
    with pytest.raises(DataFormatError, match="12 of the test split's ids to its calibration split"):
        data.split("test")


@pytest.mark.case("own")
@pytest.mark.parametrize(
    ("attributes", "told"),
    [
        ({"n_classes": 9}, "9 classes and 10 different names"),
        ({"name": " "}, "has the name"),
        ({"shape": (4, 4, 4, 4)}, r"shape \(4, 4, 4, 4\)"),
        ({"class_names": ()}, "no plain names for its classes"),
        ({"class_names": (1, 2), "n_classes": 2}, "no plain names for its classes"),
        ({"class_names": ("a", "\ud800"), "n_classes": 2}, "no plain names for its classes"),
        ({"class_names": ("a", "\x1b[2J"), "n_classes": 2}, "no plain names for its classes"),
    ],
)
def test_a_plug_in_that_does_not_describe_itself_is_refused(foreign, attributes, told):
    """What models and pages rely on is checked before any sample is read."""
    with pytest.raises(DataFormatError, match=told):
        foreign(type("Strange", (Foreign,), attributes))


@pytest.mark.case("own")
def test_what_a_plug_in_raises_is_told_as_its_fault(foreign):
    """A plug-in's own KeyError came as a traceback."""

    class Broken(Foreign):
        def split(self, role):
            raise KeyError("no such column")

    with pytest.raises(DataFormatError, match=r"KeyError.*no such column"):
        foreign(Broken).split("test")
    with pytest.raises(DataFormatError, match="is a object"):
        foreign(lambda *_, **__: object())


def idx(shape, body=b""):
    return struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape) + body


def fashion(folder, shape, n, *, filler):
    """The four files; the train pictures' header says `shape`, and `filler` stands for them."""
    for part in ("train", "t10k"):
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx((n,), bytes(n)))
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(shape) + filler, 1))
    return load_data("fashion-mnist", root=folder)


@pytest.mark.case("own")
@pytest.mark.parametrize("shape", [(2**16, 2**8, 2**8), (60_001, 28, 28), (10, 28, 29), (2**32 - 1, 28, 28)])
def test_an_idx_header_is_bounded_before_anything_is_unpacked(tmp_path, monkeypatch, shape):
    """A gzip of 2 MB that unpacks to gigabytes was unpacked, header first; the header may say what was published."""
    read = []
    real = gzip.GzipFile.read
    monkeypatch.setattr(gzip.GzipFile, "read", lambda self, size=-1: read.append(size) or real(self, size))
    with pytest.raises(DataFormatError, match="header"):
        fashion(tmp_path, shape, 10, filler=bytes(1000)).split("train")
    assert sum(read) < 100


@pytest.mark.case("own")
def test_zero_records_are_refused(tmp_path):
    """An IDX or npz of no records gave accuracy 0 or a traceback."""
    with pytest.raises(DataFormatError, match="no samples"):
        fashion(tmp_path, (0, 28, 28), 0, filler=b"").split("test")
    x, y = np.zeros((0, 32, 32, 3), np.uint8), np.zeros(0, np.int64)
    np.savez(tmp_path / "cifar10.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    for role in ("train", "calibration", "test"):
        with pytest.raises(DataFormatError, match="no samples"):
            load_data("cifar10", root=tmp_path).split(role)


def npy(shape, descr="|u1", *, length=None):
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", length or len(header)) + header


@pytest.mark.case("own")
@pytest.mark.parametrize(
    ("x", "told"),
    [
        (npy((3_000_000, 32, 32, 3)), r"uint8 of shape \(3000000, 32, 32, 3\)"),
        (npy((10**12,)), "shape"),
        (npy((-5, 32, 32, 3)), "shape"),
        (npy((10, 32, 32, 3), "|O"), "object"),
        (npy((10, 32, 32, 3), "|S999999999"), "not uint8"),
        (npy((10, 32, 32, 3), length=2**32 - 1), "cannot be read"),
        (npy((10, 32, 32, 3)) + bytes(99), "cannot be read"),
        (b"\x93NUMPY\x01\x00", "cannot be read"),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_an_npz_header_is_bounded_before_anything_is_allocated(tmp_path, x, told, zipped):
    """A header of 9 GB ended in a MemoryError; shape and type are looked at first."""
    if zipped:
        with zipfile.ZipFile(tmp_path / "cifar10.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x_test.npy", x)
            archive.writestr("y_test.npy", npy((10,), "<i8") + bytes(80))
    else:
        (tmp_path / "cifar10.npz").write_bytes(x)
        told = "cannot be read"
    with pytest.raises(DataFormatError, match=told):
        load_data("cifar10", root=tmp_path).split("test")


@pytest.mark.case("own")
@pytest.mark.parametrize("name", ["cifar-10-batches-bin/test_batch.bin", "cifar-10-batches-py/test_batch"])
def test_cifar_files_that_are_too_long_or_no_files(tmp_path, name):
    """A sparse file of 1 TB was read whole, and a FIFO waited for ever."""

    (tmp_path / name).parent.mkdir()
    with (tmp_path / name).open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(DataFormatError, match="more than"):
        load_data("cifar10", root=tmp_path).split("test")
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataFormatError, match="not a file"):
        load_data("cifar10", root=tmp_path).split("test")


@pytest.mark.case("own")
def test_a_root_of_an_unknown_user(monkeypatch):
    """``--data-root ~nobody-here`` was a RuntimeError."""
    with pytest.raises(UsageError, match="no-such-user"):
        load_data("cifar10", root="~no-such-user/x")
    monkeypatch.setenv("ADAPTBENCH_DATA", "~no-such-user/x")
    with pytest.raises(UsageError, match="no-such-user"):
        load_data("cifar10").split("test")
