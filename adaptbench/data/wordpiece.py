"""WordPiece, the tokenizer of BERT's family (Wu et al. 2016, arXiv:1609.08144; Devlin et al. 2019), in plain Python.

An attack edits words and must know each word's pieces, so the two steps stand apart: text to words, word to pieces.
Both are BERT's as the library `tokenizers` has them.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from adaptbench.data.partition import Indices
from adaptbench.errors import DataFormatError, DataMissingError

PAD, UNKNOWN, FIRST, LAST = "[PAD]", "[UNK]", "[CLS]", "[SEP]"
_LONGEST = 100  # letters of a word; longer ones are unknown, as in BERT
_INSIDE = "##"


@dataclass(frozen=True, slots=True)
class WordPiece:
    """Words to pieces of a vocabulary, the longest first.

    Args:
        vocabulary: the piece of each id; one inside a word begins with "##".
        lower: letters are made small and lose their accents.

    Raises:
        DataFormatError: a special piece is missing, or a piece stands twice.
    """

    vocabulary: tuple[str, ...]
    lower: bool = True
    ids: dict[str, int] = field(init=False, repr=False, compare=False)
    _known: dict[str, tuple[int, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", {piece: i for i, piece in enumerate(self.vocabulary)})
        object.__setattr__(self, "_known", {})
        if missing := [piece for piece in (PAD, UNKNOWN, FIRST, LAST) if piece not in self.ids]:
            raise DataFormatError(
                f"the vocabulary of {len(self.vocabulary)} pieces has no {', '.join(missing)}.",
                why="Texts are framed and padded with them.",
                todo="Give the vocabulary of a BERT encoder.",
            )
        if len(self.ids) < len(self.vocabulary):
            raise DataFormatError("a piece stands twice in the vocabulary.", todo="Give the encoder's own file.")

    def __deepcopy__(self, memo: object) -> Self:
        return self  # nothing in it changes what it gives

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The tokenizer of an encoder's folder: tokenizer.json, or vocab.txt.

        Raises:
            DataMissingError: neither is there. DataFormatError: it is of another kind than WordPiece.
        """
        file, plain = folder / "tokenizer.json", folder / "vocab.txt"
        if file.is_file():
            return cls._from_json(file)
        if not plain.is_file():
            raise DataMissingError(
                f"{folder} has neither tokenizer.json nor vocab.txt.",
                why="Weights mean nothing without the tokenizer that they were trained with.",
                todo="Put the encoder's own tokenizer.json beside its weights.",
            )
        return cls(tuple(plain.read_text(encoding="utf-8").splitlines()))

    @classmethod
    def _from_json(cls, file: Path) -> Self:
        try:
            told: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            model, normalizer = told["model"], told.get("normalizer") or {}
            kind, pieces = model.get("type", "WordPiece"), model["vocab"]
            if kind == "WordPiece" and model.get("continuing_subword_prefix", _INSIDE) == _INSIDE:
                return cls(tuple(sorted(pieces, key=pieces.__getitem__)), lower=bool(normalizer.get("lowercase", True)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataFormatError(
                f"{file} is no tokenizer: {type(error).__name__}: {error}.", todo="Fetch the file again."
            ) from error
        raise DataFormatError(
            f"{file} holds a tokenizer of kind {kind}.",
            why="Encoders of BERT's architecture come with WordPiece, and attacks edit words by its pieces.",
            todo="Name an encoder of BERT's family, such as all-MiniLM-L6-v2.",
        )

    @property
    def pad(self) -> int:
        """Id of the padding."""
        return self.ids[PAD]

    def words(self, text: str) -> list[str]:
        """The words and punctuation marks of a text, cleaned as BERT cleans them."""
        if text.isascii():  # most of English, ten times as fast
            clean = text.translate(_ASCII)
            return _ASCII_WORDS.findall(clean.lower() if self.lower else clean)
        return self._words(text)

    def _words(self, text: str) -> list[str]:
        """The same of any text, character by character."""
        kept = []
        for c in text:
            if c in "\t\n\r" or unicodedata.category(c) == "Zs":
                kept.append(" ")
            elif c != "\ufffd" and not unicodedata.category(c).startswith("C"):
                kept.append(f" {c} " if _is_chinese(ord(c)) else c)
        clean = "".join(kept)
        if self.lower:
            clean = "".join(c for c in unicodedata.normalize("NFD", clean) if unicodedata.category(c) != "Mn").lower()
        return "".join(f" {c} " if _is_punctuation(c) else c for c in clean).split()

    def pieces(self, word: str) -> tuple[int, ...]:
        """The ids of one word's pieces; [UNK] where some part of it is in no piece."""
        if (known := self._known.get(word)) is None:
            known = self._known[word] = self._cut(word)
        return known

    def _cut(self, word: str) -> tuple[int, ...]:
        unknown = (self.ids[UNKNOWN],)
        if len(word) > _LONGEST:
            return unknown
        found: list[int] = []
        start = 0
        while start < len(word):
            for end in range(len(word), start, -1):
                piece = word[start:end] if not start else _INSIDE + word[start:end]
                if piece in self.ids:
                    found.append(self.ids[piece])
                    start = end
                    break
            else:
                return unknown
        return tuple(found)

    def row(self, words: Iterable[str], length: int) -> list[int]:
        """[CLS] pieces [SEP] and padding, `length` ids; pieces beyond are cut off."""
        inside = [piece for word in words for piece in self.pieces(word)][: length - 2]
        ids = [self.ids[FIRST], *inside, self.ids[LAST]]
        return ids + [self.pad] * (length - len(ids))

    def rows(self, texts: Sequence[str], length: int) -> Indices:
        """(N, length) int64 ids."""
        return np.array([self.row(self.words(text), length) for text in texts], dtype=np.int64).reshape(-1, length)

    def unwound(self, row: Sequence[int]) -> list[str]:
        """The words of a row of ids, special pieces left out; an unknown word comes back as [UNK]."""
        words: list[str] = []
        for piece in (self.vocabulary[i] for i in row):
            if piece in (PAD, FIRST, LAST):
                continue
            if piece.startswith(_INSIDE) and words:
                words[-1] += piece.removeprefix(_INSIDE)
            else:
                words.append(piece)
        return words


_ASCII = {code: " " if chr(code) in "\t\n\r" else None for code in (*range(0x20), 0x7F)}
_ASCII_WORDS = re.compile(r"[0-9A-Za-z]+|[!-/:-@\[-`{-~]")


def _is_punctuation(c: str) -> bool:
    return (c.isascii() and c.isprintable() and not c.isalnum() and c != " ") or unicodedata.category(c).startswith("P")


_CHINESE = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


def _is_chinese(code: int) -> bool:
    """A character that is a word of its own."""
    return any(low <= code <= high for low, high in _CHINESE)
