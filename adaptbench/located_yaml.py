"""YAML with the line of every value kept, so that an error can say where."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from adaptbench.errors import SuiteError

Place = tuple[str | int, ...]

MOST_CHARACTERS, MOST_VALUES, DEEPEST = 100_000, 10_000, 64
"""Of one file; ours have 5 000 characters, 300 values and 6 levels at most."""
_LONGEST_INTEGER = 100
"""Characters of one; 64 bits take 67, sign and `0b` included, and a few for `_`."""
_TAG = "tag:yaml.org,2002:"


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
    """Read YAML safely, and in bounded time: aliases are counted as often as they stand for something.

    Keys are taken as they are written. Merge keys (``<<``) work.

    Raises:
        SuiteError: not YAML, a key twice, a tag that builds objects, a value that does not exist, or too much of it.
    """
    if len(text) > MOST_CHARACTERS:
        raise SuiteError(
            f"{file}: {len(text)} characters; a suite or recipe has at most {MOST_CHARACTERS}.",
            todo="Name the right file.",
        )
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise SuiteError(
            f"{file}{f', line {mark.line + 1}' if mark else ''}: {error.problem or 'not YAML'}.",
            todo="Mend the YAML: indentation by spaces, a colon and a space after each key.",
        ) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise SuiteError(
            f"{file}, line {line}: there is a character that YAML does not take (code {error.character}).",
            todo="Name a text file in YAML.",
        ) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # such as "\UFFFFFFFF"
        line = loader.line + 1 if loader is not None else 1
        raise SuiteError(f"{file}, line {line}: not YAML ({error}).", todo="Mend that line.") from None
    builder = _Builder(file)
    value = builder.build(root, ()) if root is not None else None
    return Located(value, builder.lines, file, text)


class _Loader(yaml.SafeLoader):
    """Composes nodes up to a depth that plain recursion bears."""

    depth = count = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        self.count += parent is None or index is not None  # keys are nodes, too, and no values
        if self.depth > DEEPEST:
            raise self._too(f"nested more than {DEEPEST} levels deep")
        if self.count > MOST_VALUES:
            raise self._too(f"more than {MOST_VALUES} values")
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def fetch_flow_collection_start(self, kind: type[yaml.Token]) -> None:
        """The scanner looks a thousand characters ahead, and takes their square where all are brackets."""
        if self.flow_level >= DEEPEST:
            raise self._too(f"nested more than {DEEPEST} levels deep")
        super().fetch_flow_collection_start(kind)

    def _too(self, what: str) -> yaml.MarkedYAMLError:
        mark = yaml.Mark("", self.index, self.line, self.column, None, 0)
        return yaml.composer.ComposerError(None, None, what, mark)


class _Builder:
    """Plain Python from nodes, with the line of each value."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.lines: dict[Place, int] = {}
        self._scalars = yaml.constructor.SafeConstructor()
        self._count = 0
        self._open: set[int] = set()

    def build(self, node: yaml.Node, place: Place) -> Any:
        """The value of a node.

        Raises:
            SuiteError: it has none, holds itself, or is too large once aliases are written out.
        """
        self._count += 1
        if self._count > MOST_VALUES:
            raise self._fault(node, f"more than {MOST_VALUES} values, aliases written out")
        self.lines[place] = node.start_mark.line + 1
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if id(node) in self._open:
            raise self._fault(node, "this value holds itself")
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
                return self._mapping(node, place)
            if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
                return [self.build(value, (*place, i)) for i, value in enumerate(node.value)]
        finally:
            self._open.discard(id(node))
        raise self._fault(node, f"the tag {node.tag.replace(_TAG, '!!')} is not taken")

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key, value in node.value:
            if key.tag == _TAG + "merge":
                merged = {**self._merged(value, place), **merged}
        for key, value in node.value:
            if key.tag == _TAG + "merge":
                continue
            if not isinstance(key, yaml.ScalarNode):
                raise self._fault(key, "a key is one word")
            if key.value in own:
                raise self._fault(key, f"'{key.value}' stands twice", todo="Keep one of them.")
            self._writable(key)
            own[key.value] = self.build(value, (*place, key.value))
            self.lines[(*place, key.value)] = key.start_mark.line + 1
        return {**merged, **own}

    def _merged(self, node: yaml.Node, place: Place) -> dict[str, Any]:
        parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[str, Any] = {}
        for part in reversed(parts):  # the first named wins
            value = self.build(part, place)
            if not isinstance(value, dict):
                raise self._fault(part, "only keys can be merged by <<")
            merged |= value
        return merged

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        self._writable(node)
        if node.tag == _TAG + "timestamp":
            raise self._fault(node, f"{_short(node)} reads as a date", todo="Put it in quotes, if a text is meant.")
        if node.tag == _TAG + "int" and len(node.value) > _LONGEST_INTEGER:  # of base 60, reading it takes their square
            raise self._fault(node, f"{_short(node)} is an integer of more than 64 bits")
        try:
            value = self._scalars.construct_object(node)
        except yaml.MarkedYAMLError:
            raise self._fault(node, f"the tag {node.tag.replace(_TAG, '!!')} is not taken") from None
        except (ValueError, TypeError, LookupError, OverflowError):
            kind = node.tag.removeprefix(_TAG)
            raise self._fault(node, f"{_short(node)} is no {kind}") from None
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise self._fault(node, f"{_short(node)} is an integer of more than 64 bits")
        if not isinstance(value, str | int | float | None):
            raise self._fault(node, f"the tag {node.tag.replace(_TAG, '!!')} is not taken")
        return value

    def _writable(self, node: yaml.ScalarNode) -> None:
        try:
            node.value.encode()
        except UnicodeEncodeError:
            raise self._fault(node, "half a surrogate pair, which no text can hold") from None

    def _fault(self, node: yaml.Node, what: str, *, todo: str = "Mend that line.") -> SuiteError:
        return SuiteError(f"{self.file}, line {node.start_mark.line + 1}: {what}.", todo=todo)


def _short(node: yaml.ScalarNode) -> str:
    return node.value if len(node.value) <= 40 else f"{node.value[:40]}…"


def read(path: Path) -> Located:
    """Read a YAML file.

    Raises:
        SuiteError: it cannot be read, or is not YAML.
    """
    try:
        with path.open("rb") as file:
            content = file.read(4 * MOST_CHARACTERS + 1)
        text = content.decode("utf-8").replace("\r\n", "\n")
    except OSError as error:
        raise SuiteError(
            f"{path} cannot be read: {error.strerror or error}.", todo="Name a YAML file that you may read."
        ) from None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SuiteError(f"{path}, line {line}: not UTF-8 text.", todo="Save the file as UTF-8.") from None
    return parse(text, str(path))
