"""Compact forms and archives in a data root: what was found, and the command that expands it."""

import io
import json
import shlex
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image
from small_files import write_cifar10_binary, write_folder

from adaptbench.data import load_data
from adaptbench.errors import DataMissingError

TOOL = """import shutil, sys
word, source, target = sys.argv[1:]
assert word == "expand"
shutil.copytree(source + "/kept", target + "/cifar-10-batches-bin")
"""


def write_strips(folder, names=("train_000", "test_000")):
    (folder / "pixels").mkdir(parents=True)
    for name in names:
        Image.fromarray(np.zeros((4 * 32, 32, 3), np.uint8)).save(folder / "pixels" / f"{name}.webp", lossless=True)


def write_compact(folder, expands_to="cifar-10-batches-py"):
    write_strips(folder)
    (folder / "MANIFEST.json").write_text(json.dumps({"folder": expands_to, "files": []}))
    with tarfile.open(folder / "frames.tar.xz", "w:xz") as archive:
        archive.addfile(tarfile.TarInfo("data_batch_1.head"), io.BytesIO())


def refused(name, root):
    with pytest.raises(DataMissingError) as caught:
        load_data(name, root=root).split("test")
    return caught.value


@pytest.mark.parametrize("below", ["cifar10-compact", "anything"])
def test_a_compact_form_says_how_to_expand_it(tmp_path, below):
    write_compact(tmp_path / below)
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "cifar_compact.py").write_text(TOOL)
    error = refused("cifar10", tmp_path)
    assert f"{tmp_path / below} is there, a compact form of it" in error.seen
    assert "cifar-10-batches-bin" in error.seen
    assert (
        f"python {tmp_path}/tools/cifar_compact.py expand {tmp_path / below} DST` writes DST/cifar-10-b" in error.todo
    )
    assert "--download" not in error.todo


def test_the_command_that_is_told_mends_it(tmp_path):
    write_compact(tmp_path / "in root" / "cifar10-compact")
    write_cifar10_binary(tmp_path / "in root" / "cifar10-compact" / "kept")
    (tmp_path / "in root" / "cifar_compact.py").write_text(TOOL)
    command = refused("cifar10", tmp_path / "in root").todo.split("`")[1]
    _, *words = shlex.split(command.replace("DST", shlex.quote(str(tmp_path / "out"))))
    subprocess.run([sys.executable, *words], check=True)
    assert len(load_data("cifar10", root=tmp_path / "out").split("test")) == 40


def test_the_root_may_be_the_form_itself_and_the_tool_may_lack(tmp_path):
    write_compact(tmp_path)
    error = refused("cifar10", tmp_path)
    assert f"{tmp_path} is there" in error.seen
    assert "`python TOOL expand" in error.todo
    assert "none lies beside it" in error.todo


@pytest.mark.parametrize("manifest", ['{"folder": "cifar-100-python"}', "[1]", "{", None])
def test_the_form_of_another_set_is_not_taken_for_this_one(tmp_path, manifest):
    write_compact(tmp_path / "cifar100-compact")
    place = tmp_path / "cifar100-compact" / "MANIFEST.json"
    place.unlink() if manifest is None else place.write_text(manifest)
    error = refused("cifar10", tmp_path)
    assert "compact" not in str(error).replace(str(tmp_path), "")
    assert "--download" in error.todo


def test_a_subset_belongs_to_the_set_of_its_name(tmp_path):
    write_strips(tmp_path / "cifar10-small")
    np.savez(tmp_path / "cifar10-small" / "labels.npz", y_train=np.zeros(4), y_test=np.zeros(4))
    assert f"npz {tmp_path / 'cifar10-small'} DST/cifar10.npz` writes that archive" in refused("cifar10", tmp_path).todo
    assert "is there" not in refused("cifar100", tmp_path).seen


def test_files_that_are_there_are_read_beside_a_compact_form(tmp_path):
    write_compact(tmp_path / "cifar10-compact")
    write_cifar10_binary(tmp_path / "cifar-10-batches-bin")
    assert len(load_data("cifar10", root=tmp_path).split("test")) == 40


@pytest.mark.parametrize(
    ("data", "file"), [("cifar10", "cifar-10-binary.tar.gz"), ("sst2", "SST-2.zip"), ("ag-news", "ag_news_csv.tgz")]
)
def test_a_published_archive_is_told_to_be_unpacked(tmp_path, data, file):
    if file.endswith("zip"):
        zipfile.ZipFile(tmp_path / file, "w").close()
    else:
        tarfile.open(tmp_path / file, "w:gz").close()
    error = refused(data, tmp_path)
    assert f"{tmp_path / file} is there, an archive" in error.seen
    assert str(tmp_path / file) in error.todo
    assert error.todo.startswith("Unpack it: ")


def test_a_folder_that_holds_an_archive_of_pictures(tmp_path):
    write_folder(tmp_path / "made")
    (tmp_path / "root").mkdir()
    with tarfile.open(tmp_path / "root" / "photos.tar", "w") as archive:
        archive.add(tmp_path / "made", ".")
    with pytest.raises(DataMissingError, match=r"photos\.tar is there, an archive") as caught:
        load_data(f"imagefolder:{tmp_path / 'root'}?size=8")
    subprocess.run(caught.value.todo.split("`")[1], shell=True, check=True)
    assert load_data(f"imagefolder:{tmp_path / 'root'}?size=8").class_names == ("cat", "dog")
