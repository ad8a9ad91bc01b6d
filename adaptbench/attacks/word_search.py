"""Greedy and beam search over edits of words: what is tried next, how it is judged, what is kept.

All texts of a craft move together, so that a pass holds the tries of all of them; a text's tries hang on nothing but
that text. A try is first judged by a pass over every node, which tells the loss; only the best of them are run as
deployed, and what is kept is the dearest by executed MACs.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor

from adaptbench.adaptive import TokenDomain
from adaptbench.adaptive.tokens import followed
from adaptbench.attacks.objectives import Context, Goal, GradientObjective
from adaptbench.attacks.randomness import sample_keys
from adaptbench.attacks.ranges import UNSAID, count
from adaptbench.attacks.searches import Search
from adaptbench.attacks.word_edits import Edits, Swap, Thesaurus
from adaptbench.attacks.word_prices import WordPrices
from adaptbench.data.wordpiece import UNKNOWN

POOL = 64
Try = tuple[int, Swap]
"""A place, and what is to stand there."""
Seen = set[tuple[int, tuple[Try, ...]]]
"""Texts, by number, and the edits of them that were tried."""


@dataclass(slots=True)
class Text:
    """One text under attack.

    Args:
        words: of the clean one. budget: words that may be edited. beam: (score, edits), the best first; a score is
            executed MACs, then the attacker's own measure, more is better.
    """

    words: list[str]
    budget: int
    beam: list[tuple[tuple[float, float], Edits]] = field(default_factory=list)

    @property
    def best(self) -> tuple[tuple[float, float], Edits]:
        """The dearest so far."""
        return self.beam[0]


class WordSearch(Search):
    """Moves texts by edits of their words."""

    @abstractmethod
    def hunt(self, texts: list[Text], judge: WordJudge) -> None:
        """Leave the best edits of each text at the head of its beam."""


class WordJudge:
    """What a search may ask of the target: nothing; subclasses say what else the attacker sees.

    Args:
        words: the edits that there are. ids: (N,) sample ids. seed: of the run.

    Attributes:
        asks: questions a text, where they are counted.
    """

    asks = 0

    def __init__(self, words: Thesaurus, ids: Tensor, seed: int, progress: Callable[[int, int], None]) -> None:
        self.words, self.keys, self.progress = words, sample_keys(ids, seed).tolist(), progress
        self.prices = WordPrices(words.model)

    def begin(self, texts: list[Text]) -> list[tuple[float, float]]:
        """The score of each clean text."""
        return [(0.0, 0.0)] * len(texts)

    def order(self, rows: list[int], texts: list[Text], tries: int) -> list[list[Try]]:
        """For each of some texts the tries that look best from the head of its beam, at most `tries`."""
        return [[] for _ in rows]

    def score(
        self, rows: list[int], texts: list[Text], edits: list[Edits], keep: int
    ) -> list[tuple[float, float] | None]:
        """The score of each edited text; None where it was not run. rows: whose each is. keep: run, a text, at most."""
        return [None] * len(rows)

    def used(self) -> Tensor | None:
        """(N,) int64 queries; None where nothing was asked."""
        return None

    def told(self, texts: list[Text]) -> dict[str, Any]:
        """For the details."""
        return {}


@dataclass(frozen=True, slots=True)
class WordBeam(WordSearch):
    """One more word a step, the best `beam` of a step kept; 1 is greedy. The best of all steps is returned.

    Args:
        beam: texts kept a step. tries: edits looked at a step, of each text kept.
        by: what a white box goes by: "loss", words by the gradient and tries by the objective; "cost", words by what
            leaving them out does, and both by the MACs that the same pass shows, then by the objective.
        again: rounds once the budget is spent: each edit of the dearest text so far is taken back in turn, and others
            are tried in its place.
    """

    name: ClassVar[str] = "word-beam"
    beam: Annotated[int, count(1, 100)] = 3
    tries: Annotated[int, count(1, 10_000)] = 60
    by: Literal["loss", "cost"] = field(default="loss", metadata=UNSAID)
    again: Annotated[int, count(0, 1000)] = field(default=0, metadata=UNSAID)

    def hunt(self, texts: list[Text], judge: WordJudge) -> None:
        """As many steps as the largest budget; a text at the ceiling, or whose budget is spent, rests.

        Then the rounds of `again`: the tries of a head grow by `tries` from round to round, until one of them is kept.
        """
        steps = max((text.budget for text in texts), default=0)
        seen: Seen = set()
        for step in range(steps):
            live = [i for i, text in enumerate(texts) if step < text.budget and not judge_done(judge, text)]
            heads: list[tuple[int, Edits]] = []
            for i in live:
                fresh = [e for _, e in texts[i].beam if len(e) == step]
                heads += [(i, e) for e in fresh[: self.beam]]
            if not heads:
                break
            self._step(heads, texts, judge, seen, {})
            judge.progress(len(texts) * (step + 1) // (steps + self.again), len(texts))
        depths: dict[int, int] = {}
        for again in range(self.again):
            heads = [(i, e) for i, t in enumerate(texts) if not judge_done(judge, t) for e in taken_back(t)]
            if not heads:
                break
            before = {i: texts[i].best for i, _ in heads}
            self._step(heads, texts, judge, seen, depths)
            for i, best in before.items():
                depths[i] = depths.get(i, 1) + 1 if texts[i].best == best else 1
            judge.progress(len(texts) * (steps + again + 1) // (steps + self.again), len(texts))

    def _step(
        self, heads: list[tuple[int, Edits]], texts: list[Text], judge: WordJudge, seen: Seen, depths: dict[int, int]
    ) -> None:
        """One more edit on each head; what was tried before is not tried again.

        Args:
            depths: a text's tries are that often `tries`; once where it says nothing.
        """
        rows: list[int] = []
        made: list[Edits] = []
        for depth in sorted({depths.get(i, 1) for i, _ in heads}):
            some = [(i, e) for i, e in heads if depths.get(i, 1) == depth]
            at = [Text(texts[i].words, texts[i].budget, [((0.0, 0.0), e)]) for i, e in some]
            orders = judge.order([i for i, _ in some], at, depth * self.tries)
            for (i, e), order in zip(some, orders, strict=True):
                for place, swap in order:
                    child = {**e, place: swap}
                    key = (i, tuple(sorted(child.items())))
                    if key not in seen:
                        seen.add(key)
                        rows.append(i)
                        made.append(child)
        scores = judge.score(rows, texts, made, self.beam)
        for i, child, score in zip(rows, made, scores, strict=True):
            if score is not None:
                texts[i].beam.append((score, child))
        for i in {i for i, _ in heads}:
            texts[i].beam.sort(key=lambda kept: (-kept[0][0], -kept[0][1], len(kept[1])))


def taken_back(text: Text) -> list[Edits]:
    """The best edits of a text with one of them taken back, each in turn; as they are, where a word is left to edit."""
    best = text.best[1]
    if len(best) < text.budget:
        return [best]
    return [{place: swap for place, swap in best.items() if place != one} for one in best]


def judge_done(judge: WordJudge, text: Text) -> bool:
    """The text is as dear as can be."""
    return text.best[0][0] >= judge.words.model.max_macs


class WhiteJudge(WordJudge):
    """Sees the gradient at the embeddings, the loss of every try and the executed MACs of the best.

    Args:
        objective: whose loss it is. clean: (N, L) ids. y: (N,) labels. by_cost: as of `WordBeam`.
    """

    def __init__(
        self,
        words: Thesaurus,
        ids: Tensor,
        seed: int,
        progress: Callable[[int, int], None],
        *,
        objective: GradientObjective,
        clean: Tensor,
        y: Tensor,
        by_cost: bool = False,
    ) -> None:
        super().__init__(words, ids, seed, progress)
        self.model, self.objective, self.clean, self.y = words.model, objective, clean, y
        self.by_cost = by_cost
        self.weighed: dict[int, list[int]] = {}
        self.contexts: Context = {}
        for part in range(0, len(clean), POOL):
            found = objective.prepare(self.model, clean[part : part + POOL])
            for key, value in found.items():
                self.contexts[key] = torch.cat([self.contexts[key], value]) if key in self.contexts else value

    def begin(self, texts: list[Text]) -> list[tuple[float, float]]:
        """Executed MACs and loss of the clean rows."""
        scores: list[tuple[float, float]] = []
        for start in range(0, len(texts), POOL):
            x, rows = self.clean[start : start + POOL], list(range(start, min(start + POOL, len(texts))))
            with torch.no_grad():
                losses = self._goal(self._trimmed(x), rows).loss
            scores += list(zip(self.prices(x)[0].double().tolist(), (-losses).double().tolist(), strict=True))
        return scores

    def order(self, rows: list[int], texts: list[Text], tries: int) -> list[list[Try]]:
        """Substitutes by the first-order fall of the loss, other edits by the weight of their word.

        That is the fall where it gives way to an unknown one; by cost, what the text without it costs, looked up once.
        """
        if self.by_cost:
            self._weigh({i: t for i, t in zip(rows, texts, strict=True) if i not in self.weighed})
        ordered: list[list[Try]] = []
        for start in range(0, len(rows), POOL):
            part, some = rows[start : start + POOL], texts[start : start + POOL]
            x = self._rows(some, [t.best[1] for t in some])
            with torch.enable_grad(), followed(self._trimmed(x)) as (given, leaf):
                loss = self._goal(given, part).loss
                (slope,) = torch.autograd.grad(loss.sum(), leaf())
            ordered += [self._ranked(i, t, g, tries) for i, t, g in zip(part, some, slope, strict=True)]
        return ordered

    def _weigh(self, texts: dict[int, Text]) -> None:
        """Places by MACs, then by loss, of the text without the word, heaviest first."""
        asked: list[tuple[int, int]] = []
        made: list[list[int]] = []
        for i, text in texts.items():
            self.weighed[i] = []
            for p in (p for p, word in enumerate(text.words) if self.words.may_edit(word)):
                asked.append((i, p))
                made.append(self.words.row([w for k, w in enumerate(text.words) if k != p], {}))
        weights: dict[tuple[int, int], tuple[float, float]] = {}
        for start in range(0, len(asked), POOL):
            some = asked[start : start + POOL]
            x = torch.tensor(made[start : start + POOL], device=self.clean.device)
            with torch.no_grad():
                goal = self._goal(self._trimmed(x), [i for i, _ in some])
            found = zip((-v for v in self._macs_shown(goal)), goal.loss.tolist(), strict=True)
            weights |= dict(zip(some, found, strict=True))
        for i, p in sorted(weights, key=weights.__getitem__):
            self.weighed[i].append(p)

    def _ranked(self, row: int, text: Text, slope: Tensor, tries: int) -> list[Try]:
        edits, places = text.best[1], {}
        at = 1
        for i, word in enumerate(text.words):  # where each word's first piece stands
            pieces = [p for w in edits.get(i, (word,)) for p in self.words.tokenizer.pieces(w)]
            if at + len(pieces) >= len(slope):
                break
            if i not in edits:
                places[i] = (at, len(pieces))
            at += len(pieces)
        if self.by_cost:
            heavy = [p for p in self.weighed[row] if p in places]
        else:
            heavy = sorted(places, key=lambda i: -self._fall(text.words[i], slope, *places[i]))
        moves = self.words.edits.moves
        share = -(-tries // len(moves))
        found: list[Try] = []
        for move in moves:
            if move == "substitute":
                found += self._substitutes(text, slope, places)[:share]
            else:
                found += round_robin(heavy, lambda i, m=move: self.words.swaps(text.words[i], m), share)  # type: ignore[misc]
        return found[:tries]

    def _fall(self, word: str, slope: Tensor, at: int, size: int) -> float:
        """First-order fall of the loss where a word gives way to an unknown one."""
        table, tokenizer = self.words.table, self.words.tokenizer
        assert table is not None  # else no gradient would have come
        change = table[tokenizer.ids[UNKNOWN]] - table[list(tokenizer.pieces(word))]
        return -float((change.to(slope) * slope[at : at + size]).sum())

    def _substitutes(self, text: Text, slope: Tensor, places: dict[int, tuple[int, int]]) -> list[Try]:
        table, ids = self.words.table, self.words.tokenizer.ids
        assert table is not None
        gains: list[tuple[float, Try]] = []
        for i, (at, size) in places.items():
            swaps = self.words.swaps(text.words[i], "substitute") if size == 1 else []
            if swaps:
                change = table[[ids[w] for (w,) in swaps]] - table[ids[text.words[i]]]
                falls = -(change.to(slope) @ slope[at])
                gains += [(g, (i, swap)) for g, swap in zip(falls.tolist(), swaps, strict=True)]
        return [found for _, found in sorted(gains, key=lambda gain: -gain[0])]

    def score(
        self, rows: list[int], texts: list[Text], edits: list[Edits], keep: int
    ) -> list[tuple[float, float] | None]:
        """The loss of all; executed MACs of the `keep` that look best of each text."""
        some = [texts[i] for i in rows]
        losses: list[float] = []
        dear: list[float] = []
        for start in range(0, len(rows), POOL):
            x = self._rows(some[start : start + POOL], edits[start : start + POOL])
            with torch.no_grad():
                goal = self._goal(self._trimmed(x), rows[start : start + POOL])
            losses += goal.loss.tolist()
            dear += self._macs_shown(goal)
        chosen: list[int] = []
        by_text: dict[int, list[int]] = {}
        for k, i in enumerate(rows):
            by_text.setdefault(i, []).append(k)
        for ks in by_text.values():
            chosen += sorted(ks, key=lambda k: (-dear[k], losses[k]))[:keep]
        scores: list[tuple[float, float] | None] = [None] * len(rows)
        for start in range(0, len(chosen), POOL):
            ks = chosen[start : start + POOL]
            macs, _ = self.prices(self._rows([some[k] for k in ks], [edits[k] for k in ks]))
            for k, cost in zip(ks, macs.tolist(), strict=True):
                scores[k] = (float(cost), -losses[k])
        return scores

    def told(self, texts: list[Text]) -> dict[str, Any]:
        """How many are as dear as can be."""
        return {"at_max_macs": sum(judge_done(self, text) for text in texts)}

    def _goal(self, x: Tensor, rows: list[int]) -> Goal:
        places = torch.tensor(rows, device=x.device)
        context = {key: value[places] for key, value in self.contexts.items()}
        return self.objective.measure(self.model, x, self.clean[places], context, self.y[places])

    def _macs_shown(self, goal: Goal) -> list[float]:
        macs = self.model.macs_of(goal.on) if self.by_cost and goal.on is not None else None
        return [0.0] * len(goal.loss) if macs is None else macs.double().tolist()

    def _rows(self, texts: list[Text], edits: list[Edits]) -> Tensor:
        rows = [self.words.row(t.words, e) for t, e in zip(texts, edits, strict=True)]
        return torch.tensor(rows, device=self.clean.device)

    def _trimmed(self, x: Tensor) -> Tensor:
        assert isinstance(self.model.domain, TokenDomain)
        return self.model.domain.trimmed(x)


def round_robin(places: list[int], swaps: Callable[[int], list[Swap]], tries: int) -> list[Try]:
    """Tries over the heaviest places first, no place more than twice as often as the next."""
    lists: Iterator[tuple[int, list[Swap]]] = ((i, swaps(i)) for i in places)
    held: list[tuple[int, list[Swap]]] = []
    total = 0
    for i, found in lists:
        if found:
            held.append((i, found))
            total += len(found)
        if total >= 4 * tries:
            break
    order: list[Try] = []
    depth, size = 0, max(1, tries // 4)
    while len(order) < tries and any(len(found) > depth for _, found in held):
        for i, found in held:
            order += [(i, swap) for swap in found[depth : depth + size]]
        depth, size = depth + size, max(1, size // 2)
    return order[:tries]
