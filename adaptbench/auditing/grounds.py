"""What an audit is of: pictures, texts or series; what an attacker may do to each, and how far the audit's own goes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from adaptbench.adaptive import AdaptiveModel, TokenDomain
from adaptbench.adaptive.series import SeriesDomain
from adaptbench.attacks.fractions import parse_fraction
from adaptbench.errors import UsageError
from adaptbench.report import words


@dataclass(frozen=True, slots=True)
class Ground:
    """One kind of input.

    Args:
        kind: "pictures", "text" or "series", as a summary has it. one, many: of the inputs, in sentences.
        attacks: recipes, unless others are named. controls: that run beside every attack.
        constraint: of the recipes that keep the audit's own bound. never: what no attack on such inputs tries.
    """

    kind: str
    one: str
    many: str
    attacks: tuple[str, ...]
    controls: tuple[str, ...]
    constraint: str
    never: tuple[str, ...]

    def bounds(self, settings: Mapping[str, Any]) -> bool:
        """Whether an attack with these settings keeps the audit's own bound."""
        return str(settings.get("constraint", settings.get("norm", "linf"))).lower() == self.constraint


PICTURES = Ground(
    "pictures",
    "picture",
    "pictures",
    ("standard",),
    ("noise", "noise-sign"),
    "linf",
    ("other sizes of the ball than the one stated, and pictures that are printed, filmed or otherwise physical",),
)
TEXT = Ground(
    "text",
    "text",
    "texts",
    ("words", "words-black-box"),
    ("words-random",),
    "words",
    (
        "other shares of words than the one stated, sentences written anew, and text added at the end",
        "whether an edited text still means what it did: the bound is on edits alone",
    ),
)
SERIES = Ground(
    "series",
    "series",
    "series",
    ("series",),
    ("series-noise",),
    "series-linf",
    (
        "other sizes of the ball than the one stated, shifts and stretches of time, and sensors that are shaken, "
        "heated or otherwise moved",
        "attackers who cannot see the net: no recipe for series asks by queries",
    ),
)
GROUNDS = {ground.kind: ground for ground in (PICTURES, TEXT, SERIES)}


def ground_of(x: Tensor) -> Ground:
    """By stored inputs: 8-bit pictures, int64 ids (N, L), float series (N, C, T)."""
    if x.is_floating_point():
        return SERIES
    return TEXT if x.ndim == 2 else PICTURES


def ground_of_model(model: AdaptiveModel) -> Ground:
    """By the domain of a net."""
    if isinstance(model.domain, TokenDomain):
        return TEXT
    return SERIES if isinstance(model.domain, SeriesDomain) else PICTURES


def ground_told(summary: Mapping[str, Any]) -> Ground:
    """That of a summary; those written before there were others are of pictures."""
    return GROUNDS[summary.get("ground", PICTURES.kind)]


def reach_of(ground: Ground, eps: float | str | None, share: float | str | None) -> dict[str, float]:
    """What an attacker may do, by the one setting that says it: ``{"eps": …}`` or ``{"share": …}``.

    Args:
        eps: of pictures in [0, 1] pixel units, of series in their own. share: of a text's words, of a sensor's range.

    Raises:
        UsageError: both, one that such inputs have none of, or no size.
    """
    if eps is not None and share is not None:
        raise UsageError("eps and share were both given.", todo="Give one of them: either says how far attacks go.")
    if ground is TEXT and eps is not None:
        raise UsageError(
            f"eps {eps!r} was given for texts.",
            why="Token ids are names and have no distance; an attacker edits words.",
            todo="Say what share of a text's words may be edited: share=0.1, --share 0.1.",
        )
    if ground is PICTURES and share is not None:
        raise UsageError(
            f"share {share!r} was given for pictures.",
            why="What an attacker may do to a picture is told by the size of a ball.",
            todo="Give eps=8/255, --eps 8/255.",
        )
    if ground is PICTURES:
        return {"eps": eps_of(8 / 255 if eps is None else eps)}
    if eps is not None:
        value = parse_fraction(eps)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise UsageError(
                f"eps {eps!r} is no size.", todo="Give a number above 0 in the unit of the series, such as 0.1."
            )
        return {"eps": float(value)}
    value = parse_fraction((0.1 if ground is TEXT else 0.02) if share is None else share)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise UsageError(f"share {share!r} is no share.", todo="Give a number above 0 and up to 1, such as 0.1.")
    return {"share": float(value)}


def eps_of(given: float | str) -> float:
    """The size of the ball in [0, 1] pixel units.

    Raises:
        UsageError: it is no number in (0, 1].
    """
    value = parse_fraction(given)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise UsageError(f"eps {given!r} is no size in (0, 1].", todo="Write 8/255, or 0.03.")
    return float(value)


def told_reach(model: AdaptiveModel, reach: Mapping[str, float]) -> dict[str, Any]:
    """What a summary says of it: ``eps`` (series: in their unit; texts: None), ``share``, ``unit`` and ``range``."""
    domain = model.domain
    if not isinstance(domain, SeriesDomain):
        return {"eps": reach.get("eps"), "share": reach.get("share"), "unit": None, "range": None}
    wide = domain.high - domain.low
    eps = reach.get("eps", reach.get("share", 0.0) * wide)
    return {"eps": eps, "share": eps / wide, "unit": domain.unit, "range": [domain.low, domain.high]}


def size(summary: Mapping[str, Any], eps: float | None, share: float | None = None) -> str:
    """A bound in words: "8/255", "0.08 g", "10 % of the words"; nothing where there is none."""
    ground = ground_told(summary)
    if ground is TEXT:
        return "" if share is None else f"{words.percent(share, 0)} of the words"
    if eps is None:
        return ""
    return words.eps(eps) if ground is PICTURES else f"{eps:.3g} {summary['unit']}".rstrip()


def threat(summary: Mapping[str, Any]) -> str:
    """Who attacks, in a sentence or two."""
    ground, eps, share = ground_told(summary), summary["eps"], summary.get("share")
    if ground is PICTURES:
        return (
            f"The attacker changes each value of a picture by at most {words.eps(eps)}, in 8 bits, and wants it to "
            "cost more. Attacks with a bound of their own keep it."
        )
    if ground is TEXT:
        return (
            f"The attacker edits at most {words.percent(share, 0)} of the words of a text, one at least, each once, "
            "and wants it to cost more. An edit is a near word in a word's place, a misspelling, or a function word "
            "before it; negations, numbers and punctuation stay. Nobody checks what an edited text means."
        )
    low, high = summary["range"]
    unit = f" {summary['unit']}" if summary["unit"] else ""
    ends = f"{low:g} to {high:g}{unit}".replace("-", "−")
    return (
        f"The attacker moves each value of a series by at most {size(summary, eps)}, {words.percent(share, 1)} of the "
        f"range from {ends}, never leaves that range, and wants the series to cost more. Values are "
        "floats; a device that digitises them more coarsely would round part of the change away."
    )
