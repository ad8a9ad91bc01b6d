"""Texts as rows of character ids: printable ASCII, one id for whatever else there is, one for the end of a text."""

from __future__ import annotations

from collections.abc import Sequence

END, OTHER = 0, 1
FIRST, LAST = " ", "~"
VOCABULARY = ("⏎", "�", *map(chr, range(ord(FIRST), ord(LAST) + 1)))
"""How each id is shown; the end of a text and unknown characters have signs of their own."""


def encode(text: str) -> list[int]:
    """The ids of a text's characters, without an end.

    >>> encode("Oil!")
    [49, 75, 78, 3]
    """
    return [ord(c) - ord(FIRST) + 2 if FIRST <= c <= LAST else OTHER for c in text]


def decode(ids: Sequence[int]) -> str:
    """The text of some ids.

    >>> decode([49, 75, 78, 3, 0])
    'Oil!⏎'
    """
    return "".join(VOCABULARY[i] for i in ids)
