"""Attacks and controls as cards: what one knows, what it may change, how often it may ask, where it deviates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from adaptbench.report import words
from adaptbench.report.sections import made_with, settings
from adaptbench.report.view import View

_KNOWS = {
    "white-box": "everything: weights, gradients and every decision (white box)",
    "black-box": "nothing inside: it asks, and is told {returns} (black box)",
    "transfer": "another net{surrogate}; this one it never sees (transfer)",
    "none": "nothing",
}
_BALLS = {
    "linf": "each value of the picture by at most {eps} of its range (L∞)",
    "l2": "the picture by at most {eps} in Euclidean length (L2)",
    "l1": "the picture by at most {eps} in sum over all values (L1)",
    "series-linf": "each value of the series by at most {eps}, in the series' own unit",
    "patch": "one patch of the picture, any values",
}
_TOLD = ("access", "constraint", "eps", "queries", "search", "objective", "deadline_s")


@dataclass(frozen=True, slots=True)
class Card:
    """One condition that is not clean."""

    title: str
    kind: str
    what: str
    """Its summary, a line."""
    facts: tuple[tuple[str, str], ...]
    deviates: tuple[str, ...]
    settings: str
    cite: str


def cards(view: View) -> list[Card]:
    """Attacks first, then controls, as the suite orders them."""
    made = [
        _card(view, name, about)
        for name, about in (view.manifest.get("conditions") or {}).items()
        if about.get("kind") != "clean"
    ]
    return sorted(made, key=lambda card: card.kind != "attack")


def _card(view: View, name: str, about: Mapping[str, Any]) -> Card:
    held = about.get("settings") or {}
    title = view.condition_names.get(name, name)
    summary = str(about.get("summary") or "")
    rest = {key: value for key, value in held.items() if key not in _TOLD} if isinstance(held, Mapping) else {}
    return Card(
        title,
        str(about.get("kind") or "attack"),
        _rest(summary, title),
        tuple(_facts(view, about, held if isinstance(held, Mapping) else {})),
        tuple(str(line) for line in about.get("deviates") or []),
        "; ".join(filter(None, [_search(held), settings(_in_levels(rest)), made_with(about)])),
        str(about.get("cite") or ""),
    )


def _rest(summary: str, title: str) -> str:
    """A summary without the name that it opens with."""
    if not summary.lower().startswith(title.lower()):
        return summary
    return summary[len(title) :].removeprefix(",").strip().removeprefix("(").removesuffix(")")


def _facts(view: View, about: Mapping[str, Any], held: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    access = str(about.get("access") or "none")
    surrogate = held.get("surrogate")
    returns = str(held.get("returns") or held.get("cost") or "the executed MACs").replace("+", " and ")
    known = _KNOWS.get(access, access).format(
        returns="the executed MACs" if returns in ("cost", "macs") else returns,
        surrogate=f", {view.surrogate_title(str(surrogate))}" if surrogate else "",
    )
    yield "knows", known
    yield "may change", _change(held)
    queries = held.get("queries")
    if words.exists(queries):
        yield "queries", f"{words.count(queries)} an input"
    elif access == "black-box":
        yield "queries", "no budget is recorded"
    else:
        yield "queries", "none"
    if held.get("precision") == "bf16":
        yield "steps", "in bf16; what is kept was executed in the net's own type"


def _change(held: Mapping[str, Any]) -> str:
    ball, size = held.get("constraint"), held.get("eps")
    if isinstance(ball, Mapping):  # {"linf": {"eps": "8/255"}}
        ball, inner = next(iter(ball.items()), (None, {}))
        size = inner.get("eps") if isinstance(inner, Mapping) else None
    if held.get("data"):
        return "the picture itself: another one stands in its place"
    if held.get("corruption") or held.get("severity"):
        return f"the whole picture, at severity {held.get('severity', 'as set')}"
    if ball is None and size is not None:
        ball = "linf"  # torchattacks name no ball where it is the usual one
    if ball == "none" or (ball is None and size is None):
        return "not stated" if ball is None else "the whole picture"
    if ball == "series-linf" and size is None:
        size = f"{words.percent(held.get('share'), 0)} of its range"
    return _BALLS.get(str(ball), f"what {ball} allows").format(eps=_size(str(ball), size))


def _size(ball: str, size: Any) -> str:
    if not words.exists(size):
        return str(size or "what is set")
    return words.eps(size) if ball == "linf" else f"{size:g}"


def _search(held: Any) -> str:
    if not isinstance(held, Mapping):
        return ""
    return ", ".join(f"{key} {settings(held[key])}" for key in ("objective", "search") if held.get(key))


def _in_levels(held: Mapping[str, Any]) -> dict[str, Any]:
    """Step sizes that are whole grey levels as such: 4/255, not 0.0157."""
    told: dict[str, Any] = {}
    for key, value in held.items():
        levels = 255 * value if isinstance(value, float) else 0.5
        told[key] = words.eps(value) if 0.5 < levels < 255 and abs(levels - round(levels)) < 1e-6 else value
    return told
