"""What the values in a file of one's own are: pictures, token ids or series. What may be two of them is refused."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl

import numpy as np
import torch
from numpy.typing import NDArray

from adaptbench.adaptive.tokens import TokenDomain
from adaptbench.data.encoders import MINILM
from adaptbench.data.partition import Indices, Pixels
from adaptbench.data.places import at_home
from adaptbench.data.text import LENGTH, english
from adaptbench.data.wordpiece import WordPiece
from adaptbench.errors import DataFormatError, DomainError, UsageError

Array = np.ndarray[Any, Any]
Inputs = Pixels | Indices | NDArray[np.float32]
Bad = Callable[[str], DataFormatError]

PICTURES, SERIES, IDS = ("NHW", "NCHW", "NHWC"), ("NCT", "NTC"), ("NL",)
LAYOUTS = (*PICTURES, *SERIES, *IDS)
_LONGEST = 4096


@dataclass(frozen=True, slots=True)
class Asked:
    """What stands after the "?" of a file's name.

    Args:
        label: name of the labels. shape: of an input that lies flat, (C, H, W) or (C, T). layout: of the axes, one of
            `LAYOUTS`. text: the column of texts. encoder: whose tokenizer makes ids of them. length: most pieces.
            given: names of the options that were.
    """

    label: str
    shape: tuple[int, ...] | None = None
    layout: str | None = None
    text: str | None = None
    encoder: str | None = None
    length: int = LENGTH
    given: frozenset[str] = frozenset()

    @classmethod
    def of(cls, kind: str, text: str, takes: Sequence[str], label: str) -> Self:
        """Read "shape=3x32x32&label=digit".

        Args:
            kind: of the file. text: after the "?". takes: the options that this kind has. label: name of the labels
                where none is given.

        Raises:
            UsageError: an option that it does not have, or one that says nothing.
        """
        given = dict(parse_qsl(text, keep_blank_values=True))
        for key in given:
            if key not in takes:
                raise UsageError(f"data '{kind}' has no option '{key}'.", todo=f"Options: {', '.join(takes)}.")
        shape, layout, length = given.get("shape"), given.get("layout"), given.get("length", str(LENGTH))
        if shape and not re.fullmatch(r"[1-9]\d*(x[1-9]\d*){1,2}", shape):
            raise UsageError(
                f"the shape '{shape}' of data '{kind}' is none.",
                todo="Write channels x rows x columns, 3x32x32, or of series channels x steps, 3x128.",
            )
        if layout is not None and layout not in LAYOUTS:
            raise UsageError(
                f"the layout '{layout}' of data '{kind}' is none.", todo=f"Say one of {', '.join(LAYOUTS)}."
            )
        if not length.isdecimal() or not 2 <= int(length) <= _LONGEST:
            raise UsageError(
                f"the length '{length}' of data '{kind}' is none.",
                todo=f"Give 2 … {_LONGEST} pieces, the most of a text.",
            )
        sizes = tuple(map(int, shape.split("x"))) if shape else None
        words = given.get("text"), given.get("encoder"), int(length)
        return cls(given.get("label", label), sizes, layout, *words, frozenset(given))

    def tokenizer(self, root: Path | None) -> WordPiece:
        """The encoder's: a folder, or the name of the one that heads ship for; without one the house's.

        Raises:
            DataMissingError: it is not here. DataFormatError: it is of another kind than WordPiece.
        """
        if self.encoder is None:
            return english()
        return WordPiece.read(MINILM.folder(root) if self.encoder == MINILM.name else at_home(self.encoder))


def inputs_of(
    x: Array, mask: Array | None, asked: Asked, words: WordPiece | None, bad: Bad, *, flat: bool = False
) -> Inputs:
    """Arrays as they lie in a file, as splits hold them.

    Args:
        x: (N, …). mask: of token ids, (N, L). words: of the encoder that ids belong to. bad: makes the error.
        flat: rows (N, D) are pictures, as the columns of a table are, if nothing else is asked.

    Returns:
        (N, C, H, W) uint8 pictures, (N, L) int64 ids or (N, C, T) float32 series.
    """
    if not np.issubdtype(x.dtype, np.number) or np.issubdtype(x.dtype, np.complexfloating) or not x.size:
        raise bad(f"its inputs are {x.dtype} of shape {x.shape}, not finite numbers")
    if mask is not None or asked.layout in IDS:
        return _ids(x, mask, words, bad)
    if asked.layout in SERIES or (asked.shape is not None and len(asked.shape) == 2):
        return _series(x, asked, bad)
    if asked.layout is None and asked.shape is None and not flat:
        _refuse_two_meanings(x, bad)
    return _pictures(x, asked, bad)


def token_domain(ids: Sequence[Indices], words: WordPiece | None) -> TokenDomain:
    """The domain of all rows: the encoder's vocabulary, or as many nameless pieces as there are ids."""
    if words is not None:
        return TokenDomain(ids[0].shape[1], words.vocabulary, words.pad)
    most = max(int(rows.max()) for rows in ids)
    return TokenDomain(ids[0].shape[1], tuple(f"#{i}" for i in range(most + 1)))


def _refuse_two_meanings(x: Array, bad: Bad) -> None:
    if x.ndim == 2 and np.issubdtype(x.dtype, np.integer) and x.dtype != np.uint8:
        raise bad(
            f"its inputs are {x.dtype} {x.shape}, flat pictures or token ids: say ?shape=1x{_side(x)} of pictures, or "
            "?layout=NL of ids, or call them input_ids"
        )
    if x.ndim == 3 and np.issubdtype(x.dtype, np.floating) and x.min() >= 0 and x.max() <= 1:
        raise bad(
            f"its inputs are {x.dtype} {x.shape}, grey pictures or series: say ?layout=NHW of pictures, or "
            "?layout=NCT or ?layout=NTC of series"
        )


def _side(x: Array) -> str:
    side = math.isqrt(x.shape[1])
    return f"{side}x{side}" if side * side == x.shape[1] else "HxW"


def _ids(x: Array, mask: Array | None, words: WordPiece | None, bad: Bad) -> Indices:
    """(N, L) int64, padded on the right by the padding's id."""
    if x.ndim != 2 or not np.issubdtype(x.dtype, np.integer):
        raise bad(f"its token ids are {x.dtype} of shape {x.shape}, not whole numbers (N, L)")
    ids, pad = x.astype(np.int64), 0 if words is None else words.pad
    if mask is not None:
        if mask.shape != x.shape or not np.isin(mask, (0, 1)).all():
            raise bad(f"the mask is {mask.dtype} of shape {mask.shape}, not 0 and 1 for each of {x.shape} ids")
        real = mask.astype(bool)
        if (ids[real] == pad).any():
            raise bad(
                f"the mask keeps ids that are {pad}, which stands for the padding: lengths could not be read off it"
            )
        ids = np.where(real, ids, pad)
    if ids.min() < 0:
        raise bad(f"its token ids begin at {ids.min()}")
    try:
        token_domain([ids], words).check(torch.from_numpy(ids))
    except DomainError as error:
        raise bad(error.seen.rstrip(".")) from error
    return ids


def _series(x: Array, asked: Asked, bad: Bad) -> NDArray[np.float32]:
    """(N, C, T) float32, in the unit that the file has."""
    if asked.shape is not None:
        if len(asked.shape) != 2 or asked.layout == "NTC":
            raise bad(
                f"shape={'x'.join(map(str, asked.shape))} with layout={asked.layout} says two things of its series"
            )
        x = _folded(x, asked.shape, bad)
    elif asked.layout == "NTC" and x.ndim == 3:
        x = x.transpose(0, 2, 1)
    if x.ndim != 3:
        raise bad(f"its series are {x.dtype} of shape {x.shape}, not three axes {asked.layout}")
    if not np.isfinite(x).all():
        raise bad("its series hold values that are no numbers")
    return np.ascontiguousarray(x.astype(np.float32))


def _folded(x: Array, shape: tuple[int, ...], bad: Bad) -> Array:
    if math.prod(x.shape[1:]) != math.prod(shape):
        told = "x".join(map(str, shape))
        raise bad(f"an input has {math.prod(x.shape[1:])} values, shape={told} asks for {math.prod(shape)}")
    return x.reshape(len(x), *shape)


def _arranged(x: Array, asked: Asked, bad: Bad) -> Array:
    """(N, C, H, W), of whatever type."""
    if asked.shape is not None:
        x = _folded(x, asked.shape, bad)
    elif asked.layout is not None:
        if x.ndim != len(asked.layout):
            raise bad(f"its pictures are {x.dtype} of shape {x.shape}, not the axes {asked.layout}")
        x = x[:, None] if asked.layout == "NHW" else x.transpose(0, 3, 1, 2) if asked.layout == "NHWC" else x
    elif x.ndim == 2:
        side = math.isqrt(x.shape[1])
        if side * side != x.shape[1]:
            raise bad(f"an input has {x.shape[1]} values, which are no square: say ?shape=3x32x32, or of series 3x128")
        x = x.reshape(len(x), 1, side, side)
    elif x.ndim == 3:
        x = x[:, None]
    elif x.ndim == 4 and x.shape[1] not in (1, 3) and x.shape[3] in (1, 3):
        x = x.transpose(0, 3, 1, 2)
    if x.ndim != 4 or not len(x):
        raise bad(f"its pictures are {x.dtype} of shape {x.shape}")
    return x


def _pictures(x: Array, asked: Asked, bad: Bad) -> Pixels:
    """(N, C, H, W) uint8."""
    x = _arranged(x, asked, bad)
    if x.dtype == np.uint8:
        return np.ascontiguousarray(x)
    if not np.isfinite(x).all():
        raise bad(f"its pictures are {x.dtype}, not finite numbers")
    low, high = float(x.min()), float(x.max())
    whole = np.issubdtype(x.dtype, np.integer) or bool((x == np.round(x)).all())
    if whole and low >= 0 and high <= 255:
        if high <= 1:
            raise bad("its values are 0 and 1 only: 8-bit black, or full scale? Store uint8, 0 … 255")
        return np.ascontiguousarray(x.astype(np.uint8))
    if low >= 0 and high <= 1:
        return np.ascontiguousarray(np.round(x * 255.0).astype(np.uint8))
    raise bad(
        f"its values span [{low:.4g}, {high:.4g}], neither 0 … 255 nor [0, 1]; the normaliser belongs in the net, and "
        "series are named by ?layout=NCT or ?shape=3x128"
    )
