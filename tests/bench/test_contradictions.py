"""Cases that cannot all be true of a search that works are named, and only those."""

from __future__ import annotations

import pytest

from adaptbench.bench.contradictions import contradictions

LINF = {"constraint": "linf", "eps": 8 / 255}
CONDITIONS = {
    "noise": {"kind": "control", "access": "none", "settings": LINF, "summary": "noise"},
    "ilfo": {"kind": "attack", "access": "white-box", "settings": LINF, "summary": "ILFO"},
    "ilfo-16": {"kind": "attack", "access": "white-box", "settings": LINF | {"eps": 16 / 255}, "summary": "ILFO"},
    "square": {"kind": "attack", "access": "black-box", "settings": LINF | {"queries": 100}, "summary": "square"},
    "worst": {
        "kind": "attack", "access": "white-box", "settings": LINF | {"members": ["a", "b"]}, "summary": "several",
    },
    "kept": {"kind": "attack", "access": "white-box", "settings": LINF | {"label": "keep"}, "summary": "kept"},
    "early": {
        "kind": "attack", "access": "white-box", "settings": LINF | {"aim": "cheap-and-wrong"}, "summary": "early",
    },
    "torchattacks/PGD": {"kind": "attack", "access": "white-box", "settings": LINF, "summary": "PGD"},
}  # fmt: skip


def case(condition, recovery, *, half=0.02, model="sdn", n=100, at_ceiling=0.0):
    return {
        "condition": condition, "kind": CONDITIONS[condition]["kind"], "model": model, "data": "d", "seed": 0, "n": n,
        "recovery": recovery, "recovery_ci": [recovery - half, recovery + half], "at_ceiling": at_ceiling,
    }  # fmt: skip


def test_a_search_that_works_has_none():
    cases = [case("noise", 0.04), case("ilfo", 0.8), case("ilfo-16", 0.97), case("square", 0.5), case("kept", 0.01)]
    assert contradictions([*cases, case("early", -0.9), case("torchattacks/PGD", 0.01)], CONDITIONS) == []


@pytest.mark.parametrize(
    ("cases", "said"),
    [
        ([case("ilfo", 0.4), case("square", 0.5)], "square takes back more on sdn without gradients"),
        ([case("ilfo", 0.8), case("ilfo-16", 0.81)], "ilfo-16 takes back no more on sdn"),
        ([case("worst", 0.6), case("ilfo", 0.7)], "ilfo takes back more on sdn (70.0 % [68.0, 72.0]) than worst"),
        ([case("noise", 0.3), case("ilfo", 0.2)], "noise takes back more on sdn by chance"),
        ([case("ilfo", 0.8, at_ceiling=0.12)], "inputs that cost the maximum before any attack: sdn 12.0 %"),
    ],
)
def test_each_is_named(cases, said):
    (note,) = contradictions(cases, CONDITIONS)
    assert said in note


@pytest.mark.parametrize(
    "cases",
    [
        [case("ilfo", 0.45, half=0.1), case("square", 0.5, half=0.1)],
        [case("worst", 0.7), case("ilfo", 0.6)],
        [case("worst", 0.6), case("kept", 0.7)],
        [case("worst", 0.6), case("ilfo-16", 0.7)],
        [case("ilfo", 0.2), case("square", 0.5, model="skipnet")],
        [case("ilfo-16", 0.2), case("square", 0.5)],
        [case("kept", 0.2), case("square", 0.5)],
        [case("ilfo", 0.995), case("ilfo-16", 0.995)],
        [case("noise", 0.21, half=0.05), case("ilfo", 0.2)],
        [case("ilfo", 0.45, half=0.1), case("square", 0.55, half=0.05, n=50)],
    ],
    ids=[
        "noise of it", "the worst case", "worst, answers kept", "worst, another ball", "another model", "another ball",
        "answers kept", "saturated", "chance", "other inputs",
    ],
)  # fmt: skip
def test_what_is_within_noise_or_not_comparable_is_not(cases):
    assert contradictions(cases, CONDITIONS) == []
