"""The controls of searches over words: edits drawn at random, and the dearest of many draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from adaptbench.attacks.word_edits import Edits, Thesaurus
from adaptbench.attacks.word_search import Text, WordJudge, WordSearch


@dataclass(frozen=True, slots=True)
class RandomWords(WordSearch):
    """As many edits as an attack may make, of the same kinds, drawn at random: the control of equal edits.

    Where costs may be asked, the dearest of as many draws as there are queries: the control of equal questions.
    """

    name: ClassVar[str] = "random-words"

    def hunt(self, texts: list[Text], judge: WordJudge) -> None:
        """One draw a text, or one a query that is left."""
        for i, text in enumerate(texts):
            draw = torch.Generator().manual_seed(judge.keys[i] & (2**63 - 1))
            if not judge.asks:
                text.beam.insert(0, ((0.0, 0.0), self._drawn(text, judge.words, draw)))
                continue
            made = [self._drawn(text, judge.words, draw) for _ in range(judge.asks - 1)]  # one is the clean text's
            scores = judge.score([i] * len(made), texts, made, len(made))
            text.beam += [(s, e) for s, e in zip(scores, made, strict=True) if s is not None]
            text.beam.sort(key=lambda kept: (-kept[0][0], len(kept[1])))
            judge.progress(i + 1, len(texts))
        judge.progress(len(texts), len(texts))

    @staticmethod
    def _drawn(text: Text, words: Thesaurus, draw: torch.Generator) -> Edits:
        edits: Edits = {}
        for place in torch.randperm(len(text.words), generator=draw).tolist():
            if len(edits) == text.budget:
                break
            swaps = [s for move in words.edits.moves for s in words.swaps(text.words[place], move)]
            if swaps:
                edits[place] = swaps[int(torch.randint(len(swaps), (), generator=draw))]
        return edits
