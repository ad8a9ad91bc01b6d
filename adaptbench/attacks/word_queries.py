"""What an attacker learns who may only ask: the cost of a text, and the answer's logits where those come back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from adaptbench.attacks.access import BlackBox
from adaptbench.attacks.word_edits import Edits, Thesaurus
from adaptbench.attacks.word_search import POOL, Text, Try, WordJudge, judge_done, round_robin


class QueryJudge(WordJudge):
    """Counts every text that is asked. Words are ranked once, by what the answer says when they are left out.

    Args:
        via: queries a text, the clean one included, and what they return.
    """

    def __init__(
        self, words: Thesaurus, ids: Tensor, seed: int, progress: Callable[[int, int], None], *, via: BlackBox
    ) -> None:
        super().__init__(words, ids, seed, progress)
        self.via, self.asks = via, via.queries
        self.asked = torch.zeros(len(ids), dtype=torch.int64)
        self.ranked: dict[int, list[int]] = {}

    def begin(self, texts: list[Text]) -> list[tuple[float, float]]:
        """The clean texts, one query each."""
        return self._ask(list(range(len(texts))), [self.words.row(t.words, {}) for t in texts])

    def order(self, rows: list[int], texts: list[Text], tries: int) -> list[list[Try]]:
        """Every kind of edit in turn, of the weightiest words first, within what may still be asked."""
        self._rank(rows, texts)
        heads = {i: rows.count(i) for i in set(rows)}
        ordered = []
        for i, text in zip(rows, texts, strict=True):
            left = int(self.via.queries - self.asked[i]) // heads[i]
            steps = max(1, text.budget - len(text.best[1]))
            places = [p for p in self.ranked[i] if p not in text.best[1]]
            amount = min(tries, max(1, left // steps)) if left > 0 else 0
            moves = self.words.edits.moves
            share = -(-amount // len(moves)) if amount else 0
            found = [
                one
                for move in moves
                for one in round_robin(places, lambda p, t=text, m=move: self.words.swaps(t.words[p], m), share)  # type: ignore[misc]
            ]
            ordered.append(found[:amount])
        return ordered

    def _rank(self, rows: list[int], texts: list[Text]) -> None:
        """Places by the score of the text without the word; a third of the budget at most goes into it."""
        asked: list[tuple[int, int]] = []
        made: list[list[int]] = []
        for i, text in {i: t for i, t in zip(rows, texts, strict=True) if i not in self.ranked}.items():
            able = [p for p, word in enumerate(text.words) if self.words.may_edit(word)]
            for p in able[: self.via.queries // 3]:
                asked.append((i, p))
                made.append(self.words.row([w for k, w in enumerate(text.words) if k != p], {}))
            self.ranked[i] = able[self.via.queries // 3 :]
        weight: dict[int, list[tuple[tuple[float, float], int]]] = {}
        for (i, p), score in zip(asked, self._ask([i for i, _ in asked], made), strict=True):
            weight.setdefault(i, []).append((score, p))
        for i, found in weight.items():
            self.ranked[i] = [p for _, p in sorted(found, key=lambda one: (-one[0][0], -one[0][1]))] + self.ranked[i]

    def score(
        self, rows: list[int], texts: list[Text], edits: list[Edits], keep: int
    ) -> list[tuple[float, float] | None]:
        """Every try is asked, as long as its text's budget lasts."""
        used = self.asked.clone()
        able = []
        for k, i in enumerate(rows):
            if used[i] < self.via.queries:
                used[i] += 1
                able.append(k)
        scores: list[tuple[float, float] | None] = [None] * len(rows)
        made = [self.words.row(texts[rows[k]].words, edits[k]) for k in able]
        for k, found in zip(able, self._ask([rows[k] for k in able], made), strict=True):
            scores[k] = found
        return scores

    def _ask(self, rows: list[int], made: list[list[int]]) -> list[tuple[float, float]]:
        model = self.words.model
        self.asked += torch.bincount(torch.tensor(rows, dtype=torch.int64), minlength=len(self.asked))
        scores: list[tuple[float, float]] = []
        device = next(model.parameters(), torch.zeros(())).device
        for start in range(0, len(rows), POOL):
            macs, logits = self.prices(torch.tensor(made[start : start + POOL], device=device))
            unsure = -logits.softmax(1).amax(1)
            if self.via.returns == "cost":
                unsure = torch.zeros_like(unsure)
            scores += list(zip(macs.double().tolist(), unsure.double().tolist(), strict=True))
        return scores

    def used(self) -> Tensor | None:
        """(N,) int64 queries."""
        return self.asked.clone()

    def told(self, texts: list[Text]) -> dict[str, Any]:
        """How many are as dear as can be, and the queries."""
        told: dict[str, Any] = {
            "at_max_macs": sum(judge_done(self, text) for text in texts),
            "queries_total": int(self.asked.sum()),
        }
        if bool((self.asked < self.via.queries).any()):
            told["notes"] = [
                f"some texts were asked less often than {self.via.queries} times: nothing dearer was left to find, or "
                "the search had made all the tries that its settings allow"
            ]
        return told
