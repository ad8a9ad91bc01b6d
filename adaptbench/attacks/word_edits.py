"""What an attacker may do to a text: a few of its words exchanged, misspelt or joined by another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from adaptbench.adaptive import AdaptiveModel, TokenDomain
from adaptbench.adaptive.tokens import WordEmbedding
from adaptbench.attacks.ranges import count, real
from adaptbench.data.wordpiece import WordPiece
from adaptbench.errors import CapabilityError

Move = Literal["substitute", "insert", "characters"]
Swap = tuple[str, ...]
"""What stands in a word's place: another word, or a word and itself."""
Edits = dict[int, Swap]
"""Place → what stands there now; each place is edited once."""

NEGATIONS = frozenset({"not", "no", "never", "nor", "none", "nothing", "neither", "without", "t", "n"})
FILLERS = ("the", "a", "an", "and", "of", "to", "it", "is", "that", "just", "so", "then", "also", "well", "quite")
_SHORT = 4  # a misspelling of a shorter word is another word
_LOOKALIKE = {"o": "0", "l": "1", "i": "1", "e": "3"}  # digits: a sign would cut the word in three


@dataclass(frozen=True, slots=True)
class WordEdits:
    """At most `share` of a text's words are edited, each once; negations and punctuation never are.

    A substitute is a near word by the model's own embeddings; near words may be opposites, and nothing here asks what a
    text means. A misspelling is one letter left out, doubled, swapped with the next or replaced by a digit that looks
    like it, the first letter aside, in words of four letters or more. An insertion is one of fifteen function words.

    Args:
        share: of the words of the (cut) text, rounded down. least: words that may be edited however short the text is.
        moves: what may be done. similar: least cosine of a substitute's embedding. near: substitutes a word, at most.
    """

    name: ClassVar[str] = "words"
    share: Annotated[float, real(0, 1, open_low=True)] = 0.1
    least: Annotated[int, count(0, 100)] = 1
    moves: tuple[Move, ...] = ("substitute", "insert", "characters")
    similar: Annotated[float, real(-1, 1)] = 0.5
    near: Annotated[int, count(1, 1000)] = 20

    def applies_to(self, shape: tuple[int, ...]) -> str | None:
        """To rows of any length."""
        return None

    def budget(self, words: Sequence[str]) -> int:
        """Words of a text that may be edited."""
        return min(max(self.least, math.floor(self.share * len(words) + 1e-9)), len(words))


@dataclass(slots=True)
class Thesaurus:
    """Words to each word: what the edits of a model's texts are made of.

    Args:
        model: of text. edits: what may be done.

    Raises:
        CapabilityError: the model has no `WordEmbedding`, and substitutes are asked for.
    """

    model: AdaptiveModel
    edits: WordEdits
    tokenizer: WordPiece = field(init=False)
    length: int = field(init=False)
    table: Tensor | None = field(init=False, default=None)
    _whole: list[int] = field(init=False, default_factory=list)
    _units: Tensor | None = field(init=False, default=None)
    _near: dict[str, list[str]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        domain = self.model.domain
        assert isinstance(domain, TokenDomain)
        self.tokenizer, self.length = tokenizer_of(domain.vocabulary), domain.length
        found = next((m for m in self.model.modules() if isinstance(m, WordEmbedding)), None)
        if found is not None:
            self.table = found.weight.detach().float()
            self._whole = [i for i, p in enumerate(domain.vocabulary) if len(p) > 1 and p.isascii() and p.isalpha()]
            self._units = torch.nn.functional.normalize(self.table[self._whole], dim=1)
        elif "substitute" in self.edits.moves:
            raise CapabilityError(
                "substitutes were asked of a model that embeds no words.",
                todo="Embed by adaptbench.adaptive.tokens.WordEmbedding, or leave substitute out of moves.",
            )

    def words(self, row: Tensor) -> list[str]:
        """The words of a row of ids."""
        return self.tokenizer.unwound(row.tolist())

    def row(self, words: Sequence[str], edits: Edits) -> list[int]:
        """The ids of a text with edits in it."""
        return self.tokenizer.row((w for i, word in enumerate(words) for w in edits.get(i, (word,))), self.length)

    def may_edit(self, word: str) -> bool:
        """Not punctuation, numbers, unknown words or negations."""
        return word.isascii() and word.isalpha() and word not in NEGATIONS

    def swaps(self, word: str, move: Move) -> list[Swap]:
        """What may stand in a word's place, the nearest substitute first."""
        if not self.may_edit(word):
            return []
        if move == "insert":
            return [(filler, word) for filler in FILLERS]
        return [(other,) for other in (self.near(word) if move == "substitute" else misspelt(word))]

    def near(self, word: str) -> list[str]:
        """Whole words by the cosine of their embeddings, no negation among them."""
        if word not in self._near:
            self._near[word] = self._look_up(word)
        return self._near[word]

    def _look_up(self, word: str) -> list[str]:
        own = self.tokenizer.ids.get(word)
        if own is None or self.table is None or self._units is None:
            return []
        cosines = self._units @ torch.nn.functional.normalize(self.table[own], dim=0)
        best = cosines.topk(min(self.edits.near + 8, len(self._whole)))
        found = [
            self.tokenizer.vocabulary[self._whole[i]]
            for i, cosine in zip(best.indices.tolist(), best.values.tolist(), strict=True)
            if cosine >= self.edits.similar
        ]
        return [other for other in found if other != word and self.may_edit(other)][: self.edits.near]


@cache
def tokenizer_of(vocabulary: tuple[str, ...]) -> WordPiece:
    """One tokenizer a vocabulary: it remembers the pieces of words."""
    return WordPiece(vocabulary)


@cache
def misspelt(word: str) -> tuple[str, ...]:
    """Misspellings of a word, one letter each; the first letter stays."""
    if len(word) < _SHORT:
        return ()
    found = []
    for i in range(1, len(word)):
        found.append(word[:i] + word[i + 1 :])
        found.append(word[:i] + word[i] + word[i:])
        if i + 1 < len(word):
            found.append(word[:i] + word[i + 1] + word[i] + word[i + 2 :])
        if word[i] in _LOOKALIKE:
            found.append(word[:i] + _LOOKALIKE[word[i]] + word[i + 1 :])
    return tuple(dict.fromkeys(other for other in found if other != word))


def words_apart(before: Sequence[str], after: Sequence[str], *, cut: bool) -> int:
    """Words exchanged, added or left out between two texts (Levenshtein's distance).

    Args:
        cut: the row of `after` is full, so that its last word may be a part of one and words may have been pushed out:
            the end of `before` is free then.
    """
    if cut:
        after = after[:-1]
    above = list(range(len(after) + 1))
    least = above[-1]
    for i, word in enumerate(before, start=1):
        row = [i]
        for j, other in enumerate(after, start=1):
            row.append(min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (word != other)))
        above = row
        least = min(least, above[-1])
    return least if cut else above[-1]
