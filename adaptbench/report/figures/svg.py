"""Matplotlib's drawing turned into inline SVG that follows the page: its colours, its fonts, its theme.

A figure is drawn in *role* colours, hex values that mean nothing by themselves; on the way out each becomes a CSS
variable. Metadata, name spaces, global styles and unused ids are dropped, so that many figures can share a page.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from markupsafe import Markup

from adaptbench.report import words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 350
"""The width of a panel in CSS pixels; it scales with the column it stands in."""

INK, MUTED, RULE, PAPER = "#000001", "#000002", "#000003", "#000004"
CLEAN, ATTACK, CONTROL, PROMISE, ORACLE, ENERGY = "#000005", "#000006", "#000007", "#000008", "#000009", "#00000a"

SERIES = ("#00000b", "#00000c", "#00000d", "#00000e", "#00000f", "#000010")
"""Colours that tell models apart; whoever needs more changes the mark too."""

ROLES = {
    INK: "ink", MUTED: "muted", RULE: "rule", PAPER: "paper",
    CLEAN: "clean", ATTACK: "attack", CONTROL: "control", PROMISE: "promise", ORACLE: "oracle", ENERGY: "energy",
    **{code: f"s{place}" for place, code in enumerate(SERIES)},
}  # fmt: skip
"""Hex value of a role → the CSS variable that paints it."""

_RC: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # "$" in a name is a dollar
    "font.family": "DejaVu Sans",  # wide: what fits in it fits in the reader's font
    "font.size": 10.5,
    "axes.titlesize": 11,
    "axes.labelsize": 10.5,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}
_NUMBER = re.compile(r"-?\d+\.\d+")
_HEX = re.compile(r"#0000[01][0-9a-f]")
_SHRINK = re.compile(r"\s+")
_DROPPED_STYLE = re.compile(r"(font-family|stroke-miterlimit): [^;]+;? ?")


class Canvas:
    """One panel while it is drawn; ``svg`` afterwards."""

    def __init__(self, figure: Figure, axes: Axes) -> None:
        self.figure, self.axes = figure, axes
        self.svg = Markup("")


@contextmanager
def canvas(key: str, alt: str, *, height: float, width: float = WIDTH) -> Iterator[Canvas]:
    """Draw one panel.

    Args:
        key: unique on the page; prefixes every id in the drawing.
        alt: what a reader who cannot see the panel should know.
        height: CSS pixels.
        width: CSS pixels.

    Yields:
        The canvas; its ``svg`` is there once the block is left.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    settings: Any = _RC | {"svg.hashsalt": key}
    with mpl.rc_context(settings):
        figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
        FigureCanvasSVG(figure)
        made = Canvas(figure, figure.subplots())
        yield made
        for text in figure.findobj(Text):
            text.set_text(words.printable(" ".join(text.get_text().split())))
        sink = io.StringIO()
        with warnings.catch_warnings():
            # The reader's font draws the text: it may well know what ours lacks.
            warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
            figure.savefig(sink, format="svg", metadata={"Date": None}, transparent=True)
    made.svg = inline(sink.getvalue(), key=key, alt=alt)


def inline(text: str, *, key: str, alt: str) -> Markup:
    """Matplotlib's SVG file as an element for the page.

    Args:
        text: the file.
        key: prefix of the ids that are kept.
        alt: the text alternative.
    """
    root = ElementTree.fromstring(text)  # our own output, not a stranger's
    used = dict.fromkeys(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    names = {old: f"{key}-{place}" for place, old in enumerate(used)}
    for node in root.iter():
        _clean(node, names)
    _flatten(root)
    root.attrib = {
        "viewBox": root.get("viewBox", ""),
        "role": "img",
        "aria-label": words.printable(alt),
        "class": "plot",
    }
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _clean(node: ElementTree.Element, names: Mapping[str, str]) -> None:
    node.tag = node.tag.rsplit("}", 1)[-1]
    node.tail = None
    if node.tag != "text":
        node.text = None
    attributes = {}
    for raw, value in node.attrib.items():
        name = raw.rsplit("}", 1)[-1]
        if name == "id":
            attributes["id"] = names.get(value, "")
        elif name == "href":
            attributes["href"] = f"#{names[value[1:]]}"
        elif not value.startswith(("rotate(-0 ", "rotate(0 ")):
            attributes[name] = _value(name, value, names)
    node.attrib = {name: value for name, value in attributes.items() if value}


def _value(name: str, value: str, names: Mapping[str, str]) -> str:
    if value.startswith("url(#"):
        return f"url(#{names[value[5:-1]]})"
    if name == "style":
        value = _DROPPED_STYLE.sub("", value).replace(": ", ":").replace("; ", ";").rstrip("; ")
        value = _HEX.sub(lambda match: f"var(--{ROLES[match[0]]})" if match[0] in ROLES else match[0], value)
    return _SHRINK.sub(" ", _NUMBER.sub(lambda match: f"{float(match[0]):.1f}".removesuffix(".0"), value)).strip()


def _flatten(node: ElementTree.Element) -> None:
    """Drop metadata and empty groups; lift the children of groups that say nothing."""
    kept: list[ElementTree.Element] = []
    for child in node:
        if child.tag in ("metadata", "style"):
            continue
        _flatten(child)
        if child.tag in ("g", "defs") and not len(child):
            continue
        if child.tag == "g" and not child.attrib:
            kept.extend(child)
        elif child.tag == "path" and (not child.get("d") or child.get("style") == "fill:none"):
            continue
        else:
            kept.append(child)
    node[:] = kept
