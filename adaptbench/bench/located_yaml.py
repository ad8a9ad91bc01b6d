"""YAML with the line of every value kept, so that an error can say where."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from adaptbench.errors import SuiteError

Place = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Located:
    """A parsed document and where each value stands.

    Args:
        value: plain Python.
        lines: path of keys and indices → line, from 1.
        file: for messages. text: as read.
    """

    value: Any
    lines: dict[Place, int]
    file: str
    text: str

    def where(self, place: Place) -> str:
        """A place as users read it: suites/bench.yaml, line 4, models[0]."""
        known = place
        while known and known not in self.lines:
            known = known[:-1]
        line = f", line {self.lines[known]}" if known in self.lines and known else ""
        return f"{self.file}{line}{', ' + spell(place) if place else ''}"


def spell(place: Place) -> str:
    """("models", 0) → "models[0]"."""
    out = ""
    for part in place:
        out += f"[{part}]" if isinstance(part, int) else (f".{part}" if out else part)
    return out


def parse(text: str, file: str) -> Located:
    """Read YAML safely.

    Raises:
        SuiteError: not YAML, a key twice, or a tag that builds objects.
    """
    lines: dict[Place, int] = {}
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        value = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise SuiteError(
            f"{file}{f', line {mark.line + 1}' if mark else ''}: {error.problem or 'not YAML'}.",
            todo="Mend the YAML: indentation by spaces, a colon and a space after each key.",
        ) from None
    except yaml.YAMLError as error:
        raise SuiteError(f"{file}: not YAML ({error}).", todo="Name a text file in YAML.") from None
    if root is not None:
        _walk(root, (), lines, file)
    return Located(value, lines, file, text)


def read(path: Path) -> Located:
    """Read a YAML file.

    Raises:
        SuiteError: it cannot be read, or is not YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SuiteError(f"{path} cannot be read: {error}.", todo="Name a YAML file that you may read.") from None
    return parse(text, str(path))


def _walk(node: yaml.Node, place: Place, lines: dict[Place, int], file: str) -> None:
    lines[place] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*place, key.value)
            if here in lines:
                raise SuiteError(
                    f"{file}, line {key.start_mark.line + 1}: '{key.value}' stands twice.", todo="Keep one of them."
                )
            _walk(value, here, lines, file)
            lines[here] = key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            _walk(value, (*place, i), lines, file)
