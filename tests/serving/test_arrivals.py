"""Arrival processes: rates, burstiness, records; and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from adaptbench.errors import UsageError
from adaptbench.serving.arrivals import bursts, poisson, recorded, replayed


def dispersion(times: np.ndarray, window_s: float) -> float:
    """Variance over mean of the number that comes in a window; 1 of a Poisson process."""
    counts = np.bincount((times / window_s).astype(int))[:-1]
    return float(counts.var() / counts.mean())


def test_a_poisson_process_has_its_rate_and_no_bursts() -> None:
    times = poisson(20.0, 20_000, np.random.default_rng(0))
    assert len(times) / times[-1] == pytest.approx(20, rel=0.03)
    assert (np.diff(times) > 0).all()
    assert dispersion(times, 1.0) == pytest.approx(1, abs=0.1)


def test_bursts_keep_the_mean_rate_and_clump() -> None:
    rates, clumped = [], []
    for seed in range(6):
        times = bursts(20.0, 20_000, np.random.default_rng(seed), peak=3, share=0.2, length=60)
        assert (np.diff(times) >= 0).all()
        rates.append(len(times) / times[-1])
        clumped.append(dispersion(times, 1.0))
    assert np.mean(rates) == pytest.approx(20, rel=0.05)
    assert min(clumped) > 5


def test_all_may_come_in_bursts() -> None:
    times = bursts(10.0, 5000, np.random.default_rng(1), peak=4, share=0.25, length=20)
    gaps = np.diff(times)
    assert np.median(gaps) < 1 / 30
    assert gaps.max() > 1


@pytest.mark.parametrize(
    ("peak", "share", "length"), [(1, 0.2, 10), (6, 0.2, 10), (2, 0, 10), (2, 0.2, 0.5), (float("nan"), 0.2, 10)]
)
def test_bursts_that_cannot_be_are_refused(peak: float, share: float, length: float) -> None:
    with pytest.raises(UsageError, match="bursts of peak"):
        bursts(10.0, 10, np.random.default_rng(0), peak=peak, share=share, length=length)


def test_a_record_is_played_at_its_own_rate_or_another(tmp_path: Path) -> None:
    place = tmp_path / "seen.csv"
    place.write_text("arrival_s\n5\n6\n6.5\n9\n", encoding="utf-8")
    times = recorded(place)
    assert times.tolist() == [0, 1, 1.5, 4]
    rng = np.random.default_rng(0)
    own = replayed(times, 4000, None, rng)
    assert 4000 / own[-1] == pytest.approx(3 / 4, rel=0.01)
    fast = replayed(times, 4000, 30.0, np.random.default_rng(0))
    assert 4000 / fast[-1] == pytest.approx(30, rel=0.01)
    assert np.allclose(fast * 40, own), "the same record, forty times as fast"


@pytest.mark.parametrize("text", ["", "1\n", "a\nb\n", "1\nx\n", "2\n1\n", "1\n1\n", "1\nnan\n", "1\ninf\n"])
def test_what_is_no_record_is_refused(text: str, tmp_path: Path) -> None:
    place = tmp_path / "bad.txt"
    place.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError):
        recorded(place)


def test_a_record_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        recorded(tmp_path / "none.txt")
