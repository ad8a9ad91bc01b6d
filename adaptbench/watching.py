"""Progress on the terminal: bars where somebody looks, lines in pipes and logs."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from adaptbench.report import words as units

EVERY_S = 9.0
"""Seconds without a line, at most: who reads a log waits ten before wondering."""


def watcher(console: Console) -> Bars | Lines:
    """Bars on a terminal, lines elsewhere."""
    return Bars(console) if console.is_terminal else Lines(console)


class Bars:
    """Draws what the runner tells; one bar at a time, finished ones are wiped."""

    def __init__(self, console: Console) -> None:
        self._bars = Progress(
            TextColumn("{task.description}", style="bold", markup=False, table_column=Column(ratio=1, no_wrap=True)),
            BarColumn(bar_width=12),
            TextColumn("{task.percentage:>3.0f} %"),
            _Words(table_column=Column(no_wrap=True)),
            console=console,
            transient=True,
            expand=True,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars.live.is_started:
            self._bars.stop()

    def begin(self, stage: str, total: int) -> None:
        """A new bar."""
        self.end()
        self._bars.start()  # only now: a mistake before the first bar leaves no empty line
        self._task = self._bars.add_task(stage, total=total, words="")

    def advance(self, done: int, words: str = "") -> None:
        """Move it."""
        if self._task is not None:
            self._bars.update(self._task, completed=done, words=words)

    def end(self) -> None:
        """Take it away."""
        if self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None


class _Words(ProgressColumn):
    """What is said of the work; where nobody says how long it takes, the bar's own guess."""

    def render(self, task: Task) -> Text:
        """One line."""
        words = units.printable(str(task.fields["words"]))
        left = task.time_remaining
        if "cell" not in words and left is not None:
            words = f"{words}, {units.seconds(max(left, 1.0))} left".removeprefix(", ")
        return Text(words)


class Lines:
    """A line at the end of each stage, and one whenever `every_s` went by without any.

    Args:
        console: where to.
        every_s: seconds. clock: monotonic seconds.
    """

    def __init__(self, console: Console, every_s: float = EVERY_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._every_s, self._clock = console, every_s, clock
        self._lock, self._over = threading.Lock(), threading.Event()
        self._stage, self._total, self._done, self._words = "preparing", 1, 0, ""
        self._began = self._spoke = clock()
        self._named = False
        self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def begin(self, stage: str, total: int) -> None:
        """A new stage; the one before is over."""
        self.end()
        with self._lock:
            self._stage, self._total, self._done, self._words = stage, max(total, 1), 0, ""
            self._began, self._named = self._clock(), True

    def advance(self, done: int, words: str = "") -> None:
        """So far."""
        with self._lock:
            self._done, self._words = done, words

    def end(self) -> None:
        """The stage is over."""
        with self._lock:
            if not self._named:
                return
            words = f", {self._words}" if self._words else ""
            self._say(f"{self._stage}  took {units.seconds(self._clock() - self._began)}{words}")
            self._stage, self._total, self._done, self._words = "preparing what comes next", 1, 0, ""
            self._began, self._named = self._clock(), False

    def beat(self) -> None:
        """Say where things stand, if nothing was said for long."""
        with self._lock:
            now = self._clock()
            if now - self._spoke < self._every_s:
                return
            share = f"  {units.percent(min(self._done / self._total, 1.0), 0)}" if self._named else ""
            words = f", {self._words}" if self._words else ""
            self._say(f"{self._stage}{share}{words}, {units.seconds(now - self._began)} so far")

    def _say(self, line: str) -> None:
        self._spoke = self._clock()
        with contextlib.suppress(OSError, ValueError):  # nobody reads any more: the work goes on
            self._console.print(line, soft_wrap=True)

    def _watch(self) -> None:
        while not self._over.wait(max(self._spoke + self._every_s - self._clock(), 0.05)):
            self.beat()
