"""Data with a label for every pixel: the made set, and a tiny made tree in the form of Cityscapes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from adaptbench.adaptive.splits import IGNORED
from adaptbench.data import load_data
from adaptbench.data.base import ROLES
from adaptbench.data.cityscapes import TRAIN_IDS
from adaptbench.errors import DataFormatError, DataMissingError, UsageError
from adaptbench.testing.data import DataConformance

HIGH, WIDE = 8, 12
CITIES = {"train": ("aaa", "bbb", "ccc"), "val": ("ddd",)}


def write_tree(root: Path, each: int = 4) -> Path:
    """Noise in the folders of Cityscapes, every train id and some ignored ones among the labels."""
    draw = np.random.default_rng(0)
    codes = np.array([*TRAIN_IDS, 0, 4, 29])
    for part, cities in CITIES.items():
        for city in cities:
            for folder in ("leftImg8bit", "gtFine"):
                (root / folder / part / city).mkdir(parents=True)
            for i in range(each):
                stem = f"{city}_{i:06d}_000019"
                picture = draw.integers(0, 256, (HIGH, WIDE, 3), dtype=np.uint8)
                labels = draw.permutation(np.resize(codes, HIGH * WIDE)).reshape(HIGH, WIDE).astype(np.uint8)
                Image.fromarray(picture).save(root / "leftImg8bit" / part / city / f"{stem}_leftImg8bit.png")
                Image.fromarray(labels).save(root / "gtFine" / part / city / f"{stem}_gtFine_labelIds.png")
    return root


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("streets"))


class TestCityscapesForm(DataConformance):
    @pytest.fixture(autouse=True)
    def _at(self, tree: Path) -> None:
        self.place = tree

    def make(self):
        return load_data(f"cityscapes:{self.place}")


class TestPastedDigits(DataConformance):
    def make(self):
        return load_data("pasted-digits")


def first(root: Path, folder: str, part: str = "train") -> Path:
    return sorted((root / folder / part).rglob("*.png"))[0]


def test_cities_are_kept_apart_and_val_is_the_test_split(tree: Path) -> None:
    data = load_data(f"cityscapes:{tree}")
    assert [data.split(role).ids.tolist() for role in ROLES] == [
        list(range(8)),
        list(range(8, 12)),
        list(range(12, 16)),
    ]
    assert (data.n_classes, data.class_names[0], data.class_names[-1]) == (19, "road", "bicycle")
    assert data.shape == (3, HIGH, WIDE)


def test_label_ids_become_train_ids_and_the_rest_is_ignored(tree: Path) -> None:
    split = load_data(f"cityscapes:{tree}").split("train")
    codes = np.asarray(Image.open(first(tree, "gtFine")))
    wanted = {code: place for place, code in enumerate(TRAIN_IDS)}
    assert split.y[0].tolist() == [[wanted.get(int(code), IGNORED) for code in row] for row in codes]
    assert (split.y == IGNORED).any()
    assert np.array_equal(split.x[0].permute(1, 2, 0).numpy(), np.asarray(Image.open(first(tree, "leftImg8bit"))))


def test_at_a_scale_squares_are_averaged_and_one_label_is_taken(tree: Path) -> None:
    whole, half = (load_data(f"cityscapes:{tree}{option}").split("test") for option in ("", "?scale=2"))
    assert half.shape == (3, HIGH // 2, WIDE // 2)
    mean = whole.x.float().view(-1, 3, HIGH // 2, 2, WIDE // 2, 2).mean((3, 5))
    assert (half.x.float() - mean).abs().max() <= 0.5
    assert torch.equal(half.y, whole.y[:, 1::2, 1::2])
    assert half.name != whole.name


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda root: first(root, "gtFine").unlink(), "1 of the 12 pictures of train have no labels, the first gtFine"),
        (lambda root: first(root, "gtFine").write_bytes(b"no"), "is not a readable PNG"),
        (
            lambda root: Image.fromarray(np.full((HIGH, WIDE), 34, dtype=np.uint8)).save(first(root, "gtFine")),
            "holds the label id 34; ids run from 0 to 33",
        ),
        (
            lambda root: Image.fromarray(np.zeros((HIGH, WIDE), dtype=np.uint8)).save(first(root, "leftImg8bit")),
            "is of mode L, not RGB",
        ),
        (
            lambda root: Image.fromarray(np.zeros((4, WIDE), dtype=np.uint8)).save(first(root, "gtFine")),
            "is of 4 × 12 pixels, not 8 × 12",
        ),
        (lambda root: (root / "leftImg8bit" / "val").rename(root / "elsewhere"), "there is no leftImg8bit/val/CITY"),
    ],
    ids=["no labels", "damaged", "unknown id", "grey", "another size", "no val"],
)
def test_a_tree_that_is_not_of_that_form_is_refused_in_words(tmp_path: Path, damage, said: str) -> None:
    damage(write_tree(tmp_path / "streets"))
    with pytest.raises(DataFormatError, match=said.replace("(", r"\(")):
        load_data(f"cityscapes:{tmp_path / 'streets'}").split("train")


def test_a_wrong_path_or_scale_is_a_usage_error(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(DataMissingError, match="there is no folder"):
        load_data(f"cityscapes:{tmp_path / 'nowhere'}")
    for argument, said in (
        ("", "names no folder"),
        (f"{tree}?scale=0", "option 'scale=0'"),
        (f"{tree}?size=4", "option"),
    ):
        with pytest.raises(UsageError, match=said):
            load_data(f"cityscapes:{argument}")
    with pytest.raises(UsageError, match="scale=5 does not divide pictures of 8 × 12"):
        load_data(f"cityscapes:{tree}?scale=5")


def test_the_made_set_is_frozen() -> None:
    """The shipped net was trained on these very bytes."""
    data = load_data("pasted-digits")
    assert data.split("train").sha256[:12] == "b9db0eb00f59"
    assert [len(data.split(role)) for role in ROLES] == [3200, 1000, 1000]
    assert "made" in data.notes[0]


def test_a_made_label_lies_where_the_picture_changes() -> None:
    """Digits differ from the texture around them: a label that lay beside its digit would not."""
    split = load_data("pasted-digits").split("test")
    x = split.images().mean(1)
    inside, outside = (split.y > 0) & (split.y != IGNORED), split.y == 0
    gap = [abs(float(p[i].mean() - p[o].mean())) for p, i, o in zip(x, inside, outside, strict=True) if i.any()]
    rolled = inside.roll(SHIFT := 12, 1) & outside
    beside = [abs(float(p[i].mean() - p[o].mean())) for p, i, o in zip(x, rolled, outside, strict=True) if i.any()]
    assert np.mean(gap) > 3 * np.mean(beside), SHIFT
