"""Folders of pictures as people really have them."""

import ast
import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

import adaptbench
from adaptbench.data import load_data
from adaptbench.data.base import ROLES
from adaptbench.data.pictures import read_picture
from adaptbench.errors import DataFormatError, UsageError


def pictures(folder, n, *, seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.RandomState(seed)
    for i in range(n):
        Image.fromarray(noise.randint(0, 256, (9, 9, 3), dtype=np.uint8)).save(folder / f"{i}.png")


def two_classes(folder, n=20):
    for seed, name in enumerate("ab"):
        pictures(folder / name, n, seed=seed)
    return folder


def sizes(folder):
    data = load_data(f"imagefolder:{folder}?size=8")
    return [len(data.split(role)) for role in ROLES], data.class_names, " ".join(data.notes)


@pytest.mark.case("https://github.com/pytorch/vision/issues/2831")
def test_hidden_folders_are_left_out_and_named(tmp_path, caplog):
    """Pictures in hidden folders were counted; they are left out, and one sentence says so."""
    two_classes(tmp_path)
    for name in "ab":
        pictures(tmp_path / name / ".ipynb_checkpoints", 20, seed=7)
        pictures(tmp_path / name / "deep" / "@eaDir", 1)
    (tmp_path / "b" / "._1.png").write_bytes(b"resource fork")
    counts, classes, notes = sizes(tmp_path)
    assert (sum(counts), classes) == (40, ("a", "b"))
    assert "5 hidden" in notes
    assert "a/.ipynb_checkpoints" in notes
    assert [r.getMessage() for r in caplog.records] == [notes]


@pytest.mark.case("https://github.com/huggingface/datasets/issues/6853")
@pytest.mark.parametrize("name", ["__MACOSX", ".git", "empty"])
def test_a_folder_without_pictures_is_no_class(tmp_path, name):
    """``__MACOSX`` and empty folders became classes and shifted every label; they are left out by name."""
    two_classes(tmp_path)
    (tmp_path / name / "inner").mkdir(parents=True)
    counts, classes, notes = sizes(tmp_path)
    assert (sum(counts), classes) == (40, ("a", "b"))
    assert name in notes


@pytest.mark.case("https://github.com/pytorch/vision/issues/2831")
def test_linked_folders_inside_a_class_are_followed(tmp_path):
    """Linked folders inside a class were skipped unsaid; a link is a folder like others."""
    two_classes(tmp_path / "photos", 12)
    for seed, name in enumerate("ab"):
        pictures(tmp_path / "store" / name, 30, seed=10 + seed)
        (tmp_path / "photos" / name / "more").symlink_to(tmp_path / "store" / name)
        (tmp_path / "photos" / name / "again").symlink_to(tmp_path / "store" / name)
    counts, _, notes = sizes(tmp_path / "photos")
    assert sum(counts) == 84
    assert "60 reached a second time by a link" in notes


@pytest.mark.case("own")
@pytest.mark.parametrize("link", ["a/loop", "a/deep/loop"])
def test_a_link_to_a_folder_above_is_refused(tmp_path, link):
    """A loop of links is told by its name instead of being walked for ever or skipped."""
    two_classes(tmp_path)
    (tmp_path / link).parent.mkdir(exist_ok=True)
    (tmp_path / link).symlink_to(tmp_path / "a")
    with pytest.raises(DataFormatError, match="loop is a link to a folder that it lies in"):
        sizes(tmp_path)


@pytest.mark.case("own")
@pytest.mark.parametrize(("first", "second"), [("train/a", "test/a"), ("train/a", "train/b"), ("train/a", "dev/a")])
def test_one_file_in_two_parts_or_classes_is_refused(tmp_path, first, second):
    """By way of links a test picture can be a training picture; the two places are named."""
    for part in ("train", "dev", "test"):
        two_classes(tmp_path / part, 5)
    (tmp_path / second / "x.png").symlink_to(tmp_path / first / "0.png")
    with pytest.raises(DataFormatError, match="are one file"):
        sizes(tmp_path)


@pytest.mark.case("https://github.com/huggingface/datasets/issues/4839")
@pytest.mark.parametrize("name", ["dev", "val", "valid", "validation", "Calibration"])
def test_every_name_of_the_calibration_folder_is_known(tmp_path, name):
    """``dev`` was ignored unsaid and calibration cut from train; it is the calibration split."""
    for part, n in {"train": 10, name: 9, "test": 8}.items():
        two_classes(tmp_path / part, n)
    assert sizes(tmp_path)[0] == [20, 18, 16]


@pytest.mark.case("own")
def test_two_folders_of_one_split_are_refused(tmp_path):
    """Of ``val`` and ``dev`` the later one won unsaid."""
    for part in ("train", "val", "dev", "test"):
        two_classes(tmp_path / part, 2)
    with pytest.raises(DataFormatError, match="name the same split"):
        sizes(tmp_path)


@pytest.mark.case("own")
def test_a_class_may_be_called_train(tmp_path):
    """Vehicles: bus, car, train; the third was taken for a part and the others ignored."""
    for name in ("bus", "car", "train"):
        pictures(tmp_path / name, 10)
    assert sizes(tmp_path)[1] == ("bus", "car", "train")
    pictures(tmp_path / "train" / "night", 3)
    with pytest.raises(DataFormatError, match="parts of a data set or its classes"):
        sizes(tmp_path)


@pytest.mark.case("own")
def test_a_path_one_level_too_high_is_refused(tmp_path):
    """The folder above the data set was a data set of one class, always right."""
    for part in ("train", "test"):
        two_classes(tmp_path / "photos" / part, 3)
    with pytest.raises(DataFormatError, match="holds one class, photos/, and that only folders"):
        sizes(tmp_path)
    assert sizes(tmp_path / "photos")[1] == ("a", "b")


@pytest.mark.case("own")
def test_folders_beside_the_parts_are_named(tmp_path):
    """``eval`` beside train and test was ignored unsaid."""
    for part in ("train", "test", "eval"):
        two_classes(tmp_path / part)
    assert "no part and no class (eval)" in sizes(tmp_path)[2]


@pytest.mark.case("own")
def test_a_class_empty_in_train_is_refused_and_in_test_is_named(tmp_path):
    """A class nobody can learn is refused; one that is not tested is named and keeps its label."""
    for part in ("train", "test"):
        two_classes(tmp_path / part)
    shutil.rmtree(tmp_path / "test" / "a")
    (tmp_path / "test" / "a").mkdir()
    _, classes, notes = sizes(tmp_path)
    assert classes == ("a", "b")
    assert "class folders without pictures (test/a)" in notes
    (tmp_path / "train" / "a").rename(tmp_path / "train" / "z")
    (tmp_path / "test" / "a").rename(tmp_path / "test" / "z")
    (tmp_path / "train" / "c").mkdir()
    pictures(tmp_path / "test" / "c", 3)
    with pytest.raises(DataFormatError, match="holds no pictures"):
        sizes(tmp_path)


@pytest.mark.case("own")
def test_what_is_no_picture_is_named_once(tmp_path):
    """Broken links, FIFOs, other formats and loose pictures were left out unsaid; ``.jfif`` is JPEG and is read."""
    two_classes(tmp_path)
    pictures(tmp_path / "jpeg", 1)
    Image.open(tmp_path / "jpeg" / "0.png", formats=["PNG"]).save(tmp_path / "a" / "x.jfif", format="JPEG")
    shutil.rmtree(tmp_path / "jpeg")
    (tmp_path / "a" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "a" / "self.png").symlink_to(tmp_path / "a" / "self.png")
    os.mkfifo(tmp_path / "b" / "pipe.png")
    for i in range(5):
        (tmp_path / "b" / f"{i}.heic").write_bytes(b"")
    shutil.copy(tmp_path / "a" / "0.png", tmp_path / "loose.png")
    counts, _, notes = sizes(tmp_path)
    assert sum(counts) == 41
    for words in (
        "2 broken links (a/gone.png, a/self.png)",
        "1 neither a file nor a folder (b/pipe.png)",
        "5 of another format (b/0.heic, b/1.heic, b/2.heic, …)",
        "1 pictures outside the class folders (loose.png)",
    ):
        assert notes.count(words) == 1


@pytest.mark.case("own")
def test_names_that_are_not_utf8(tmp_path):
    """Such a file is read like others; such a class could not be written into any record and is refused."""
    two_classes(tmp_path)
    shutil.copy(tmp_path / "a" / "0.png", os.fsencode(tmp_path / "a") + b"/\xff.png")
    assert sum(sizes(tmp_path)[0]) == 41
    os.rename(os.fsencode(tmp_path / "b"), os.fsencode(tmp_path) + b"/\xfe")
    with pytest.raises(DataFormatError, match=r"\\xfe.*cannot be printed"):
        sizes(tmp_path)


@pytest.mark.case("own")
def test_a_file_name_does_not_speak_to_the_terminal(tmp_path, caplog):
    """Escape sequences in a file's name reached the terminal by way of messages."""
    two_classes(tmp_path)
    (tmp_path / "a" / "\x1b[2J\n.heic").write_bytes(b"")
    notes = sizes(tmp_path)[2]
    assert r"(a/\x1b[2J\n.heic)" in notes
    assert "\x1b" not in caplog.text


RAMP = np.linspace(0, 255, 64).astype(np.uint8).reshape(8, 8)
DEEP = RAMP.astype(np.uint16) * 257


def saved(tmp_path, picture, name, **how):
    picture.save(tmp_path / name, **how)
    return tmp_path / name


def palette():
    picture = Image.fromarray(RAMP).convert("P")
    picture.info["transparency"] = 0
    return picture


GREY_ALPHA = Image.merge("LA", [Image.fromarray(RAMP), Image.new("L", (8, 8), 255)])


@pytest.mark.case("own")
@pytest.mark.parametrize(
    ("picture", "name"),
    [
        (Image.fromarray(RAMP), "l.png"),
        (Image.fromarray(RAMP).convert("P"), "p.gif"),
        (GREY_ALPHA, "la.png"),
        (Image.fromarray(RAMP).convert("RGBA"), "rgba.webp"),
        (Image.fromarray(RAMP).convert("CMYK"), "cmyk.tif"),
        (Image.fromarray(RAMP).convert("YCbCr"), "ycc.jpg"),
        (Image.fromarray(DEEP), "i16.png"),
        (Image.fromarray(DEEP), "i16.tif"),
        (Image.fromarray(DEEP.astype(">u2")), "i16b.tif"),
        (Image.fromarray(DEEP), "i16.pgm"),
    ],
)
def test_every_mode_keeps_its_full_range(tmp_path, picture, name):
    """16-bit pictures turned white; a ramp from black to white is one after reading, whatever the mode."""
    how = {"lossless": True} if name.endswith("webp") else {"quality": 100} if name.endswith("jpg") else {}
    read, _ = read_picture(saved(tmp_path, picture, name, **how), 8, "stretch")
    assert np.abs(read.astype(int) - RAMP).max() <= (6 if name.endswith("jpg") else 1)


def tiff(tags, data):
    """A little-endian TIFF of one strip, 8 × 8."""
    entries = {256: 8, 257: 8, 259: 1, 277: 1, 278: 8, 279: len(data), 273: 8, **tags}
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(entries.items()))
    return struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + struct.pack("<H", len(entries)) + body + b"\0" * 4


@pytest.mark.case("own")
def test_tiffs_of_12_bits_and_of_white_that_is_zero(tmp_path):
    """Their values mean something else than PIL's mode says: the top is 4 095, or black."""
    wide = (RAMP.astype(np.uint32) * 4095 + 127) // 255
    packed = bytes(
        b for one, two in wide.reshape(-1, 2).tolist() for b in (one >> 4, (one & 15) << 4 | two >> 8, two & 255)
    )
    (tmp_path / "12.tif").write_bytes(tiff({258: 12, 262: 1}, packed))
    (tmp_path / "inverse.tif").write_bytes(tiff({258: 16, 262: 0}, (65535 - DEEP).astype("<u2").tobytes()))
    for name in ("12.tif", "inverse.tif"):
        read, _ = read_picture(tmp_path / name, 8, "stretch")
        assert np.abs(read.astype(int) - RAMP).max() <= 1, name


@pytest.mark.case("own")
@pytest.mark.parametrize(
    ("picture", "name", "told"),
    [
        (Image.fromarray(DEEP.astype(np.int32)), "x.tif", "mode I"),
        (Image.fromarray(RAMP.astype(np.float32)), "x.tif", "mode F"),
        (
            ImageCms.profileToProfile(
                Image.new("RGB", (8, 8)),
                ImageCms.createProfile("sRGB"),
                ImageCms.createProfile("LAB"),
                outputMode="LAB",
            ),
            "x.tif",
            "mode LAB",
        ),
        (Image.new("RGBA", (8, 8)), "x.png", "wholly transparent"),
    ],
)
def test_a_mode_of_unknown_range_is_refused(tmp_path, picture, name, told):
    """Integers and floats of 32 bits were clipped to white."""
    with pytest.raises(DataFormatError, match=told):
        read_picture(saved(tmp_path, picture, name), 8, "stretch")


@pytest.mark.case("own")
def test_transparent_pictures_are_laid_on_white(tmp_path):
    """What lies under transparent pixels is invisible and was shown; a note counts the pictures."""
    hidden = Image.new("RGBA", (8, 8), (9, 200, 9, 0))
    hidden.paste((0, 0, 0, 255), (0, 0, 4, 8))
    for picture, name in ((hidden, "a.png"), (hidden, "a.gif"), (palette(), "b.png")):
        read, remarks = read_picture(saved(tmp_path, picture, name), 8, "stretch")
        assert read.max() == 255, name
        assert remarks == ["partly transparent, laid on white"]
        assert (read[0] == read[1]).all()


@pytest.mark.case("own")
def test_only_the_listed_formats_are_opened(tmp_path, monkeypatch):
    """EPS text named x.png made PIL start Ghostscript; it is no picture here."""
    two_classes(tmp_path / "photos")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (tmp_path / "bin" / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    eps = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n0 0 moveto\n%%EOF\n"
    (tmp_path / "photos" / "a" / "0.png").write_text(eps)
    with pytest.raises(DataFormatError, match=r"a/0\.png is not a readable picture: it is none of JPEG"):
        sizes(tmp_path / "photos")
    assert not (tmp_path / "started").exists()


@pytest.mark.case("own")
def test_every_call_of_pil_names_its_formats():
    """The law behind the case above, over the whole package."""
    unnamed = [
        f"{file.name}:{call.lineno}"
        for file in Path(adaptbench.__file__).parent.rglob("*.py")
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call)
        and ast.unparse(call.func).endswith("Image.open")
        and "formats" not in [keyword.arg for keyword in call.keywords]
    ]
    assert not unnamed


def png(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


@pytest.mark.case("own")
@pytest.mark.parametrize("side", [13_400, 100_000])
def test_a_decompression_bomb_is_refused_in_our_words(tmp_path, side):
    """A header of 10 000 megapixels is answered before anything is unpacked, without PIL's own warning."""
    (tmp_path / "bomb.png").write_bytes(png(side, side))
    with pytest.raises(DataFormatError, match="more than 178 956 970 pixels"):
        read_picture(tmp_path / "bomb.png", 8, "crop")


@pytest.mark.case("own")
@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.bmp", "x.gif", "x.tif", "x.webp", "x.ppm"])
def test_truncated_pictures_are_named(tmp_path, name):
    """A picture cut in the middle is refused in every format."""
    noise = np.random.RandomState(0).randint(0, 256, (40, 40, 3), dtype=np.uint8)
    file = saved(tmp_path, Image.fromarray(noise), name)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(DataFormatError, match="not a readable picture"):
        read_picture(file, 8, "crop")


@pytest.mark.case("own")
def test_a_path_with_a_question_mark(tmp_path):
    """Options follow the last "?", and a folder whose own name holds one is found."""
    two_classes(tmp_path / "what?")
    two_classes(tmp_path / "a?size=9")
    assert load_data(f"imagefolder:{tmp_path}/what??size=8").shape == (3, 8, 8)
    assert load_data(f"imagefolder:{tmp_path}/what?").shape == (3, 224, 224)
    assert load_data(f"imagefolder:{tmp_path}/a?size=9?size=8").shape == (3, 8, 8)


@pytest.mark.case("own")
@pytest.mark.parametrize(
    "spec", ["imagefolder:~no-such-user/x", "imagefolder:x?size=8&size=9", f"imagefolder:x?size={'9' * 5000}"]
)
def test_arguments_that_are_refused(spec):
    """An unknown home, an option given twice and 5 000 digits gave tracebacks, or the last one."""
    with pytest.raises(UsageError):
        load_data(spec)
