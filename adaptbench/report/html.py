"""Templates, style and script: what makes a page out of data, with nothing fetched from anywhere."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from adaptbench.report import words
from adaptbench.results.files import write_text
from adaptbench.version import __version__

PALETTE = {
    # name: (light, dark); hues after Okabe & Ito, told apart with every common colour blindness
    "paper": ("#fdfcfa", "#15181b"),
    "panel": ("#f4f2ed", "#1d2125"),
    "ink": ("#1b1f24", "#e8e6e1"),
    "muted": ("#5a626b", "#a3abb3"),
    "rule": ("#e3e0d9", "#30363c"),
    "clean": ("#0b67a8", "#6bb7ec"),
    "attack": ("#c04a07", "#f49a62"),
    "control": ("#858d95", "#868e96"),
    "promise": ("#087a5e", "#4cc9a7"),
    "oracle": ("#9a52a8", "#cf9fe0"),
    "energy": ("#c08a00", "#e6bb4d"),
    "s0": ("#0b67a8", "#6bb7ec"),
    "s1": ("#087a5e", "#4cc9a7"),
    "s2": ("#8c4fa0", "#cf9fe0"),
    "s3": ("#a06c00", "#e6bb4d"),
    "s4": ("#b3396b", "#f08bb0"),
    "s5": ("#4d5f73", "#a9b8c9"),
}
_VALUE = re.compile(r"(?<=[\d)\]]) (?=(?:%|[GMkmµnp]?[JWs]|[GMk]|points|min|h|MACs)(?!\w))")


def render(template: str, **values: Any) -> str:
    """Fill a template; every value is escaped unless it is markup made here."""
    environment = Environment(
        loader=PackageLoader("adaptbench.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    environment.filters |= {"nb": unbroken, "cardinal": words.cardinal, "plain": plain}
    environment.globals["dash"] = words.DASH
    script = _asset("report.js")
    return environment.get_template(template).render(
        policy=policy(script),
        script=Markup(script),
        style=Markup(_asset("report.css")),
        palette={theme: _palette(place) for place, theme in enumerate(("light", "dark"))},
        version=__version__,
        **values,
    )


def _printable(value: object) -> object:
    return words.printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def policy(script: str) -> str:
    """The content security policy: no network at all, and of scripts only this page's own, by its hash."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def unbroken(text: str) -> Markup:
    """Keep a figure and its unit on one line."""
    return escape(_VALUE.sub("\u00a0", words.printable(text)))


def plain(value: float) -> str:
    """A figure for the CSV: ten digits, no unit."""
    return f"{value:.10g}"


def write(text: str, out: Path) -> Path:
    """Write the page, all or nothing.

    Raises:
        OutputError: the place cannot be written to.
    """
    return write_text(out, text)


def facts(pairs: Mapping[str, object]) -> list[tuple[str, str]]:
    """Terms and descriptions, without those that say nothing."""
    return [(term, str(value)) for term, value in pairs.items() if value not in (None, "", [], {})]


def _asset(name: str) -> str:
    return (resources.files("adaptbench.report") / "assets" / name).read_text("utf-8")


def _palette(place: int) -> Markup:
    return Markup(" ").join(Markup(f"--{name}: {colours[place]};") for name, colours in PALETTE.items())
