import hashlib
import shutil
import tarfile
from dataclasses import replace

import pooch
import pytest
from small_files import write_cifar10_binary, write_fashion

from adaptbench.data import cifar, fashion_mnist, load_data
from adaptbench.data.places import Remote
from adaptbench.errors import DataFormatError, DataMissingError, UnknownNameError, UsageError


def test_a_wrong_name_offers_the_nearest():
    with pytest.raises(UnknownNameError, match="Did you mean 'fashion-mnist'"):
        load_data("fasion-mnist")


def test_an_argument_where_none_is_taken():
    with pytest.raises(UsageError, match="takes no argument"):
        load_data("digits:8")


def test_an_unknown_role():
    with pytest.raises(UsageError, match="train, calibration, test"):
        load_data("digits").split("validation")


def test_nothing_is_fetched_unasked(tmp_path, monkeypatch):
    monkeypatch.setattr(Remote, "fetch", lambda *_: pytest.fail("fetched"))
    with pytest.raises(DataMissingError):
        load_data("fashion-mnist", root=tmp_path).split("test")


def test_download_fetches_into_the_root_and_reads(tmp_path, monkeypatch):
    asked = []

    def fetch(remote, root):
        asked.append(remote.url.rsplit("/", 1)[1])
        write_fashion(root / remote.folder)

    monkeypatch.setattr(Remote, "fetch", fetch)
    assert len(load_data("fashion-mnist", root=tmp_path / "r", download=True).split("test")) == 60
    assert len(asked) == 4
    load_data("fashion-mnist", root=tmp_path / "r", download=True).split("test")
    assert len(asked) == 4, "what is there is not fetched again"


def test_download_without_a_root_goes_to_the_cache_even_when_data_exists(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    monkeypatch.setattr(Remote, "fetch", lambda remote, root: write_fashion(root / remote.folder))
    folder = load_data("fashion-mnist", download=True).folder
    assert folder == tmp_path / "home/.cache/adaptbench/FashionMNIST/raw"


REMOTE = Remote("http://127.0.0.1:9/x.gz", "0" * 32, "there")


def test_a_failed_download_says_so(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr(pooch, "retrieve", refuse)
    with pytest.raises(DataMissingError, match="no route"):
        REMOTE.fetch(tmp_path)


def serve(monkeypatch, data):
    """Every download gives these bytes."""

    def downloader(url, output_file, pooch):
        del url, pooch
        with open(output_file, "wb") as file:
            file.write(data)

    real = pooch.retrieve
    monkeypatch.setattr(pooch, "retrieve", lambda *a, **k: real(*a, **{**k, "downloader": downloader}))


def test_an_archive_is_checked_unpacked_and_read(tmp_path, monkeypatch):
    write_cifar10_binary(tmp_path / "made" / "cifar-10-batches-bin")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "made" / "cifar-10-batches-bin", "cifar-10-batches-bin")
    data = (tmp_path / "a.tar.gz").read_bytes()
    remote = replace(cifar.Cifar10.remote, md5=hashlib.md5(data, usedforsecurity=False).hexdigest())
    monkeypatch.setattr(cifar.Cifar10, "remote", remote)
    serve(monkeypatch, data)
    for _ in range(2):
        assert len(load_data("cifar10", root=tmp_path / "r", download=True).split("test")) == 40
        # The second time the archive is still there, and what it held is not.
        shutil.rmtree(tmp_path / "r/cifar10/cifar-10-batches-bin")


def test_a_changed_file_is_refused(tmp_path, monkeypatch):
    serve(monkeypatch, b"other bytes")
    with pytest.raises(DataFormatError, match="not the published"):
        REMOTE.fetch(tmp_path)
    assert not list((tmp_path / "there").glob("*.gz"))


def test_published_hashes_are_md5s():
    for remote in fashion_mnist.REMOTES:
        assert len(bytes.fromhex(remote.md5)) == 16
