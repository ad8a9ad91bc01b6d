"""One picture file as RGB: only the listed formats are opened, every mode with its full range or not at all."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING
from unicodedata import category

import numpy as np

from adaptbench.data.partition import Pixels
from adaptbench.errors import DataFormatError

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
)
# Told by a file's first bytes, whatever its name: PIL would hand EPS text to Ghostscript.
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM")
MAX_PIXELS = 178_956_970  # as PIL's own limit: half a gigabyte of RGB
TRANSPARENT = "partly transparent, laid on white"
FRAMES = "of several frames, the first one taken"
DARK = "of 16 bits with nothing above a sixteenth of the range, so nearly black"

_OPAQUE = frozenset({"1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr"})
_ALPHA = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
_BITS, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0


def shown(path: str | os.PathLike[str]) -> str:
    """A path that can be printed: bytes that are not UTF-8 and control characters become escapes."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c.encode("unicode_escape").decode() if category(c) == "Cc" else c for c in text)


def read_picture(file: Path, size: int, fit: str) -> tuple[Pixels, list[str]]:
    """A picture, upright, as RGB of one size.

    Args:
        file: in one of `FORMATS`; of several frames the first counts.
        size: of both sides, in pixels.
        fit: "crop" (shorter side to `size`, centre cut out) or "stretch".

    Returns:
        (3, size, size) uint8, and what was done to it that a reader should know.

    Raises:
        DataFormatError: of no listed format, damaged, too large, wholly transparent, or of a mode whose range is
            not known (32-bit integers, floats, LAB).
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PIL's, about what is refused below in our own words
            with Image.open(file, formats=FORMATS) as raw:
                _check_size(file, raw.size)
                remarks = [FRAMES] if getattr(raw, "is_animated", False) and raw.format != "MPO" else []
                upright = ImageOps.exif_transpose(raw)
                picture = _rgb(file, raw, upright, remarks)
        if fit == "crop":
            picture = ImageOps.fit(picture, (size, size), method=Image.Resampling.BILINEAR)
        else:
            picture = picture.resize((size, size), resample=Image.Resampling.BILINEAR)
    except DataFormatError:
        raise
    except Image.DecompressionBombError as error:
        raise _too_large(file) from error
    except UnidentifiedImageError as error:
        raise _unreadable(file, f"it is none of {', '.join(FORMATS)}") from error
    except Exception as error:  # a decoder that is fed foreign bytes raises whatever it likes
        raise _unreadable(file, str(error) or type(error).__name__) from error
    return np.asarray(picture, dtype=np.uint8).transpose(2, 0, 1), remarks


def _rgb(file: Path, raw: Image.Image, picture: Image.Image, remarks: list[str]) -> Image.Image:
    """The picture in RGB; `raw` has the tags of the file."""
    mode = picture.mode
    if mode in _ALPHA or (mode in _OPAQUE and "transparency" in picture.info):
        return _on_white(file, picture, remarks)
    if mode in _OPAQUE:
        return picture.convert("RGB")
    # Before Pillow 11.3 a PNG of 16 bits came as "I", as a PGM does today, scaled to 65 535.
    if mode.startswith("I;16") or (mode == "I" and raw.format in ("PNG", "PPM")):
        return _from_16_bits(raw, picture, remarks)
    raise DataFormatError(
        f"{shown(file)} is of mode {mode}.",
        why="How its values map to 0 … 255 is not in the file; a guess would turn it black or white.",
        todo="Convert it to 8 bits a channel, grey or RGB.",
    )


def _on_white(file: Path, picture: Image.Image, remarks: list[str]) -> Image.Image:
    from PIL import Image

    whole = picture.convert("RGBA")
    low, high = whole.getchannel("A").getextrema()
    if high == 0:
        raise DataFormatError(
            f"{shown(file)} is wholly transparent.", why="There is nothing to see.", todo="Remove it from the folder."
        )
    if low == 255:
        return whole.convert("RGB")
    remarks.append(TRANSPARENT)
    return Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole).convert("RGB")


def _from_16_bits(raw: Image.Image, picture: Image.Image, remarks: list[str]) -> Image.Image:
    from PIL import Image

    values = np.asarray(picture).astype(np.uint32)
    tags = getattr(raw, "tag_v2", {})
    top = 2 ** int(tags.get(_BITS, (16,))[0]) - 1
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # PIL turns these round for 8 bits only
        values = top - values
    if 0 < int(values.max()) <= top // 16:
        remarks.append(DARK)
    return Image.fromarray(((values * 255 + top // 2) // top).astype(np.uint8)).convert("RGB")


def _check_size(file: Path, size: tuple[int, int]) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise _too_large(file)


def _too_large(file: Path) -> DataFormatError:
    return DataFormatError(
        f"{shown(file)} says that it has more than {MAX_PIXELS:,} pixels.".replace(",", " "),
        why="A small file can unpack to more than the memory holds.",
        todo="Scale it down, or remove it from the folder.",
    )


def _unreadable(file: Path, what: str) -> DataFormatError:
    return DataFormatError(
        f"{shown(file)} is not a readable picture: {what.rstrip('.')}.",
        why="Leaving it out silently would change the data set.",
        todo="Mend it, or remove it from the folder.",
    )
