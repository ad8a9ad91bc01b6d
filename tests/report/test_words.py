import math
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptbench.report import words


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (words.macs(410_000), "0.41 M"),
        (words.macs(1_020_000), "1.02 M"),
        (words.macs(85_300), "85.3 k"),
        (words.macs(4_100_000_000), "4.10 G"),
        (words.macs(412), "412"),
        (words.macs(0), "0"),
        (words.joules(1.2e-4), "0.12 mJ"),
        (words.joules(0.0), "0 J"),
        (words.seconds(3.1e-4), "0.31 ms"),
        (words.seconds(271), "4 min 31 s"),
        (words.seconds(12_000), "3 h 20 min"),
        (words.seconds(100), "100 s"),
        (words.seconds(105.2), "105 s"),
        (words.seconds(119.6), "2 min 00 s"),
        (words.seconds(-130), "−2 min 10 s"),
        (words.joules(2e-15), "2.0e−15 J"),
        (words.watts(41.5), "41.5 W"),
        (words.percent(0.978), "97.8 %"),
        (words.percent(-0.002), "−0.2 %"),
        (words.percent(-0.0001), "0.0 %"),
        (words.percent(0.38, 0), "38 %"),
        (words.points(0.006), "+0.6 points"),
        (words.interval([0.903, 0.938]), "[90.3, 93.8]"),
        (words.interval([None, 0.2]), ""),
        (words.interval(None), ""),
        (words.eps(8 / 255), "8/255"),
        (words.count(12345), "12\u2009345"),
        (words.listing(["a", "b", "c"]), "a, b and c"),
        (words.plural(1, "model"), "1 model"),
        (words.cardinal(3), "Three"),
        (words.clip("abcdef", 4), "abc…"),
    ],
)
def test_numbers_carry_their_unit_and_sign(made, expected):
    assert made == expected


@pytest.mark.parametrize("write", [words.macs, words.joules, words.seconds, words.watts, words.percent, words.eps])
@pytest.mark.parametrize("nothing", [None, math.nan, math.inf])
def test_what_does_not_exist_is_a_dash_and_never_zero(write, nothing):
    assert write(nothing) == words.DASH
    assert words.one_scale([1.0], "J")(nothing) == words.DASH


@given(st.floats(1e-11, 1e11))
def test_a_scaled_figure_reads_back_within_its_rounding(value):
    text = words.joules(value)
    number, unit = text.split(" ")
    factor = {"GJ": 1e9, "MJ": 1e6, "kJ": 1e3, "J": 1, "mJ": 1e-3, "µJ": 1e-6, "nJ": 1e-9, "pJ": 1e-12}[unit]
    assert float(number.replace("\u2009", "")) * factor == pytest.approx(value, rel=0.06)


_FACTORS = {"G": 1e9, "M": 1e6, "k": 1e3, "": 1, "m": 1e-3, "µ": 1e-6, "n": 1e-9, "p": 1e-12}
_CLOCK = re.compile(r"(?:(?P<h>[\d\u2009]+) h )?(?P<min>\d+) min(?: (?P<s>\d\d) s)?")


def read_back(text, unit):
    """(value, how many significant digits it shows)."""
    if told := _CLOCK.fullmatch(text):
        h, minutes, s = (float((told[part] or "0").replace("\u2009", "")) for part in ("h", "min", "s"))
        assert h or minutes >= 2
        return 3600 * h + 60 * minutes + s, 3
    number, _, scaled = text.partition(" ")
    shown = number.partition("e")[0].replace("\u2009", "").replace(".", "").lstrip("0")
    prefix = scaled.removesuffix(unit)
    assert unit != "s" or prefix not in ("k", "M", "G")
    return float(number.replace("\u2009", "").replace("−", "-")) * _FACTORS[prefix], len(shown)


SIZES = st.floats(-20, 12).map(lambda power: 10**power) | st.floats(90, 130) | st.floats(7000, 7400)


@pytest.mark.parametrize(("write", "unit"), [(words.seconds, "s"), (words.joules, "J"), (words.watts, "W")])
@given(SIZES, SIZES)
def test_more_never_reads_as_less_and_two_digits_are_shown(write, unit, one, other):
    less, more = sorted((one, other))
    (low, digits), (high, _) = read_back(write(less), unit), read_back(write(more), unit)
    assert low <= high * (1 + 1e-12)
    assert digits >= 2
    assert low == pytest.approx(less, rel=0.06)


@given(st.floats(-3, 12).map(lambda power: 10**power) | st.integers(1, 10**12), st.integers(1, 10**12))
def test_macs_grow_in_words_as_they_do(one, other):
    less, more = sorted((one, other))
    (low, digits), (high, _) = read_back(words.macs(less), ""), read_back(words.macs(more), "")
    assert low <= high * (1 + 1e-12)
    assert digits >= 2 or low == less
    assert low == pytest.approx(less, rel=0.06)


@given(SIZES)
def test_a_loss_of_time_reads_as_the_gain_with_a_minus(value):
    assert words.seconds(-value) == "−" + words.seconds(value)


def test_a_column_of_seconds_has_no_kiloseconds():
    assert words.one_scale([105.0, 3.2], "s")(105.0) == "105.0 s"


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=8))
def test_a_column_has_one_unit_and_one_number_of_decimals(values):
    write = words.one_scale(values, "J")
    made = [write(value).split(" ") for value in values]
    assert len({unit for _, unit in made}) == 1
    assert len({len(number.partition(".")[2]) for number, _ in made}) == 1


def test_provenance_is_told_by_its_first_word():
    assert words.provenance_kind("measured: NVML total-energy counter") == "measured"
    assert words.provenance_kind("modelled: 0.29 nJ a MAC") == "modelled"
    assert words.provenance_kind("") == words.provenance_kind(None) == words.provenance_kind("guessed") == ""


def test_words_load_nothing_heavy():
    heavy = ("pandas", "matplotlib", "numpy", "torch")
    code = f"import sys, adaptbench.report.words; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
