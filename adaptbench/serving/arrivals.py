"""When requests come: Poisson, bursts, or as somebody recorded them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adaptbench.errors import UsageError

Seconds = NDArray[np.float64]


def poisson(rate_rps: float, n: int, rng: np.random.Generator) -> Seconds:
    """(n,) arrival times, rising: independent exponential gaps of mean 1 / rate.

    >>> import numpy as np
    >>> times = poisson(50.0, 5000, np.random.default_rng(0))
    >>> bool(abs(5000 / times[-1] - 50) < 3)
    True
    """
    return np.cumsum(rng.exponential(1 / rate_rps, n))


def bursts(rate_rps: float, n: int, rng: np.random.Generator, *, peak: float, share: float, length: float) -> Seconds:
    """(n,) arrival times of a process that switches between two rates (a Markov-modulated Poisson process).

    Fischer & Meier-Hellstern, "The Markov-modulated Poisson process cookbook", Performance Evaluation 18, 1993.

    Args:
        rate_rps: mean over both states. peak: rate in a burst, in mean rates, > 1.
        share: of the time that is burst; ``peak · share`` ≤ 1, and what is left comes between bursts.
        length: requests of a burst, mean.

    Raises:
        UsageError: more would come in bursts than comes at all.
    """
    if not (peak > 1 and 0 < share < 1 and peak * share <= 1 and length >= 1):
        raise UsageError(
            f"bursts of peak {peak:g} for a share {share:g} of the time, {length:g} requests long, are none.",
            why="More would come in bursts than comes at all, or the peak is no peak.",
            todo="Give a peak above 1, a share below 1 / peak, and a length of at least 1.",
        )
    rates = (rate_rps * (1 - peak * share) / (1 - share), peak * rate_rps)
    stays = (length / rates[1] * (1 - share) / share, length / rates[1])  # mean seconds between bursts, and of one
    state, now, times = int(rng.random() < share), 0.0, np.empty(0)
    while len(times) < n:
        stay = rng.exponential(stays[state])
        came = np.sort(now + stay * rng.random(rng.poisson(rates[state] * stay)))  # a Poisson process, its number given
        times, now, state = np.concatenate([times, came]), now + stay, 1 - state
    return times[:n]


def recorded(place: Path) -> Seconds:
    """(n,) arrival times of a file, in seconds from the first on: one number a line, the first line may be a title.

    Raises:
        UsageError: no such file, lines that are no numbers, or times that fall.
    """
    try:
        lines = [line.strip() for line in place.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the trace {place} cannot be read: {error}.", todo="Name a text file.") from None
    body = lines[1:] if lines and not _is_number(lines[0]) else lines
    wrong = next((line for line in body if not _is_number(line)), None)
    if wrong is not None or len(body) < 2:
        said = f"'{wrong}' is no number" if wrong is not None else f"it holds {len(body)} of them"
        raise UsageError(
            f"the trace {place} is no list of arrival times: {said}.",
            todo="Write seconds, one number a line, two or more.",
        )
    times: Seconds = np.array([float(line) for line in body])
    if not np.isfinite(times).all() or (np.diff(times) < 0).any() or times[-1] == times[0]:
        raise UsageError(f"the times in {place} fall, or never pass.", todo="Sort them; they are seconds.")
    since_first: Seconds = times - times[0]
    return since_first


def replayed(times: Seconds, n: int, rate_rps: float | None, rng: np.random.Generator) -> Seconds:
    """(n,) arrivals of a record that begins anywhere and goes round, played faster or slower to meet a rate.

    Args:
        times: of `recorded`. rate_rps: the mean rate; None: as recorded.
    """
    gaps = np.diff(times)
    gaps = np.append(gaps, gaps.mean())  # from the last request to the first one, once round
    if rate_rps is not None:
        gaps = gaps / (rate_rps * gaps.mean())
    start = int(rng.integers(len(gaps)))
    played: Seconds = np.cumsum(gaps[(start + np.arange(n)) % len(gaps)])
    return played


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
