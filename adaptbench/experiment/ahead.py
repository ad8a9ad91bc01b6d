"""How far a whole run is, and how long it still takes: guesses at first, corrected by every cell that is done."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from adaptbench.experiment.progress import Progress

_KNOWN_S = 1.0  # of work: before that nothing is said of the time
_ALL = ""  # kinds together


@dataclass(frozen=True, slots=True)
class Stage:
    """A stretch of work that is told as one.

    Args:
        name: of it. cells: that it leaves. guess_s: seconds, good to a factor where nothing like it was done yet.
        kinds: what it is alike, the closest first: what one of a kind really took corrects the others. Where none of
            its kinds was done yet, the guess stands.
    """

    name: str
    cells: int
    guess_s: float
    kinds: tuple[str, ...]


@dataclass(slots=True)
class _Done:
    """Seconds of finished stages of a kind, and what was guessed of them."""

    took_s: float = 0.0
    guess_s: float = 0.0

    def add(self, took_s: float, guess_s: float) -> None:
        self.took_s, self.guess_s = self.took_s + took_s, self.guess_s + guess_s


@dataclass(slots=True)
class Ahead:
    """Passes on what it is told of each stage, with words about the whole: "cell 7 of 52, about 1:20 left".

    Args:
        progress: who watches. stages: all there are, in order; what is kept passes without time. clock: seconds.
    """

    progress: Progress
    stages: Sequence[Stage]
    clock: Callable[[], float] = time.monotonic
    _at: int = -1
    _began: float = 0.0
    _from: float = 0.0
    _share: float = 0.0
    _total: int = 0
    _done: dict[str, _Done] = field(default_factory=dict)

    def enter(self, name: str) -> None:
        """The stage of this name is next; those before it are over."""
        self._at = next((i for i, stage in enumerate(self.stages) if stage.name == name), self._at)
        self._total, self._from, self._share = 0, 0.0, 0.0
        self._began = self.clock()

    def leave(self) -> None:
        """The stage is over. What was kept, or broke off, teaches nothing."""
        if self._total and self._share >= 1.0 and 0 <= self._at < len(self.stages):
            stage, part = self.stages[self._at], 1.0 - self._from
            for kind in (*stage.kinds, _ALL):
                self._done.setdefault(kind, _Done()).add(self.clock() - self._began, part * stage.guess_s)
        self._total = 0

    def begin(self, stage: str, total: int) -> None:
        """A stage starts."""
        self._total, self._began = max(total, 1), self.clock()
        self.progress.begin(stage, total)
        self.progress.advance(0, self.words())

    def advance(self, done: int, words: str = "") -> None:
        """So far; words about a part give way to those about the whole."""
        share = min(done / max(self._total, 1), 1.0)
        if self._share == 0.0 and self._at >= 0 and self.stages[self._at].cells > 1:
            self._from = max(share - 1 / self.stages[self._at].cells, 0.0)  # blocks before the first one were kept
        self._share = max(share, self._share)
        self.progress.advance(done, self.words())

    def end(self) -> None:
        """The stage is over."""
        self.progress.end()

    def words(self) -> str:
        """Which cell of how many, and about how long the rest takes, once that can be told."""
        of = sum(stage.cells for stage in self.stages)
        before = sum(stage.cells for stage in self.stages[: max(self._at, 0)])
        now = self.stages[self._at].cells if self._at >= 0 else 0
        cell = min(before + min(int(self._share * now) + 1, max(now, 1)), of)
        left = self.left_s()
        return f"cell {cell} of {of}" + (f", about {rounded(left)} left" if left is not None else "")

    def left_s(self) -> float | None:
        """Seconds that the rest takes, never below 0; None while too little was done to tell."""
        if self._at < 0:
            return None
        spent = self.clock() - self._began if self._total else 0.0
        own = self._done.get(_ALL, _Done())
        if own.took_s + (spent if self._share > 0 else 0.0) < _KNOWN_S:
            return None
        return self._rest_of(self.stages[self._at], spent) + sum(
            stage.guess_s * self._rate(stage) for stage in self.stages[self._at + 1 :]
        )

    def _rest_of(self, stage: Stage, spent: float) -> float:
        """Of the stage that is on: the guess counts less, the more of it is done."""
        todo, did = 1.0 - self._share, self._share - self._from
        guess = stage.guess_s * self._rate(stage)
        if did <= 0:
            return max(guess * todo - spent, guess * todo / 10)
        seen = spent / did
        return todo * (guess * (1 - did) + seen * did)

    def _rate(self, stage: Stage) -> float:
        """What a guessed second really takes, from the closest kind of which some is done."""
        for kind in stage.kinds:
            known = self._done.get(kind)
            if known is not None and known.guess_s > 0:
                return known.took_s / known.guess_s
        return 1.0


def rounded(seconds: float) -> str:
    """Minutes and seconds, as roughly as they are known: 0:05, 1:20, 12 min, 2 h 30 min."""
    if seconds < 60:
        step = 5 if seconds < 30 else 10
        total = max(math.ceil(seconds / step) * step, step)
    else:
        total = round(seconds / 10) * 10
    if total < 600:
        return f"{total // 60}:{total % 60:02d}"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    halves = round(minutes / 30)
    return f"{halves // 2} h" + (" 30 min" if halves % 2 else "")
