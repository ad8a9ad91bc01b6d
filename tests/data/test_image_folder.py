import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from small_files import write_folder

from adaptbench.data import load_data
from adaptbench.data.base import ROLES
from adaptbench.errors import DataFormatError, DataMissingError, UsageError
from adaptbench.testing.data import DataConformance


class TestImageFolder(DataConformance):
    @pytest.fixture(autouse=True)
    def _files(self, tmp_path):
        self.path = tmp_path / "photos"
        write_folder(self.path)

    def make(self):
        return load_data(f"imagefolder:{self.path}?size=16")


def sizes(data):
    return [len(data.split(role)) for role in ROLES]


def test_one_folder_is_cut_by_the_bytes_of_its_files(tmp_path):
    write_folder(tmp_path / "a", per_class=100)
    one = load_data(f"imagefolder:{tmp_path / 'a'}?size=8")
    assert sum(sizes(one)) == 200
    assert abs(sizes(one)[0] - 120) < 25
    # Renaming every file moves nothing over a border.
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for file in (tmp_path / "b").rglob("*.png"):
        file.rename(file.with_name(f"x{999 - int(file.stem)}.png"))
    two = load_data(f"imagefolder:{tmp_path / 'b'}?size=8")
    for role in ROLES:
        pixels = [{p.numpy().tobytes() for p in data.split(role).x} for data in (one, two)]
        assert pixels[0] == pixels[1]


def test_copies_of_a_picture_stay_on_one_side(tmp_path):
    write_folder(tmp_path / "a", per_class=40)
    for file in list((tmp_path / "a").rglob("*.png")):
        shutil.copy(file, file.with_name(f"copy-{file.name}"))
    data = load_data(f"imagefolder:{tmp_path / 'a'}?size=8")
    pixels = [{p.numpy().tobytes() for p in data.split(role).x} for role in ROLES]
    assert not pixels[0] & pixels[1]
    assert not pixels[0] & pixels[2]
    assert not pixels[1] & pixels[2]


def test_three_folders_are_the_three_splits(tmp_path):
    for seed, (name, n) in enumerate({"train": 9, "val": 4, "test": 5}.items()):
        write_folder(tmp_path / name, per_class=n, seed=100 * seed)
    assert sizes(load_data(f"imagefolder:{tmp_path}?size=8")) == [18, 8, 10]


def test_of_two_folders_the_later_one_is_the_test(tmp_path):
    write_folder(tmp_path / "train", per_class=50)
    write_folder(tmp_path / "val", per_class=7, seed=500)
    train, calibration, test = sizes(load_data(f"imagefolder:{tmp_path}?size=8"))
    assert test == 14
    assert train + calibration == 100
    assert 5 <= calibration <= 35


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    write_folder(tmp_path / "a", mode=mode)
    assert load_data(f"imagefolder:{tmp_path / 'a'}?size=8").split("train").shape == (3, 8, 8)


def test_crop_cuts_the_centre_and_stretch_keeps_all(tmp_path):
    wide = np.zeros((10, 30, 3), dtype=np.uint8)
    wide[:, 10:20] = 200
    for name in ("train", "val", "test"):
        (tmp_path / name / "only").mkdir(parents=True)
        Image.fromarray(wide).save(tmp_path / name / "only" / "a.png")
    crop, stretch = (
        load_data(f"imagefolder:{tmp_path}?size=10&fit={fit}").split("test") for fit in ("crop", "stretch")
    )
    assert bool((crop.x == 200).all())
    assert float(stretch.x.float().mean()) == pytest.approx(200 / 3, rel=0.1)


def test_labels_follow_the_sorted_class_folders(tmp_path):
    write_folder(tmp_path / "a", classes=("zebra", "ant"))
    data = load_data(f"imagefolder:{tmp_path / 'a'}?size=8")
    assert data.class_names == ("ant", "zebra")
    split = data.split("train")
    assert torch.equal(split.y, (split.ids >= 30).long())


def test_a_damaged_picture_is_named(tmp_path):
    write_folder(tmp_path / "a")
    for file in (tmp_path / "a" / "dog").iterdir():
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(DataFormatError, match=r"dog.*not a readable picture"):
        load_data(f"imagefolder:{tmp_path / 'a'}?size=8").split("train")


def test_splits_with_different_classes_are_refused(tmp_path):
    write_folder(tmp_path / "train")
    write_folder(tmp_path / "test", classes=("cat", "cow"))
    with pytest.raises(DataFormatError, match="class folders"):
        load_data(f"imagefolder:{tmp_path}")


def test_a_folder_without_pictures(tmp_path):
    (tmp_path / "a" / "cat").mkdir(parents=True)
    with pytest.raises(DataFormatError, match="no pictures"):
        load_data(f"imagefolder:{tmp_path / 'a'}").split("train")
    with pytest.raises(DataFormatError, match="0 class folders"):
        load_data(f"imagefolder:{tmp_path / 'a' / 'cat'}")


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("imagefolder", "names no folder"),
        ("imagefolder:x?sise=3", "Did you mean 'size'"),
        ("imagefolder:x?size=big", "size=big"),
        ("imagefolder:x?size=0", "size=0"),
        ("imagefolder:x?fit=squeeze", "fit=squeeze"),
    ],
)
def test_wrong_words(spec, told):
    with pytest.raises(UsageError, match=told):
        load_data(spec)


def test_no_such_folder(tmp_path):
    with pytest.raises(DataMissingError, match="nowhere"):
        load_data("imagefolder:nowhere", root=tmp_path)


def test_a_relative_path_may_lie_in_the_root(tmp_path):
    write_folder(tmp_path / "root" / "photos")
    assert load_data("imagefolder:photos?size=8", root=tmp_path / "root").n_classes == 2
