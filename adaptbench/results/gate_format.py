"""A gate report as text for people, JSON for programs, JUnit XML for CI and annotations for GitHub."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from adaptbench.errors import UsageError
from adaptbench.registry import did_you_mean
from adaptbench.results.gate_rows import FAILED, UNKNOWN, GateReport, GateRow, RowVerdict, amount

_WORDS = {0: "pass", 1: "regression", 3: "cannot tell"}


def as_text(report: GateReport, verbose: bool = True) -> str:
    """Plain lines: the verdict, what is not a pass with its interval and reason, notes; passes where asked for."""
    lines = [headline(report), f"{report.run} against {report.baseline or 'its ceilings'}"]
    for verdict in (*FAILED, *UNKNOWN, RowVerdict.IMPROVEMENT):
        for row in report.rows:
            if row.verdict is verdict:
                lines.append(f"  {row.verdict.value:<14} {row.case}  {row.metric}: {figures(row)}")
                lines.append(f"                 {row.reason}")
    lines.extend(f"  note           {note}" for note in report.notes)
    passed = [row for row in report.rows if row.verdict is RowVerdict.PASS and row.can_fail]
    if verbose:
        width = max((len(row.case) for row in (*passed, *report.idle)), default=0)
        for word, rows in (("pass", passed), ("cannot fail", report.idle)):
            lines.extend(f"  {word:<14} {row.case:<{width}}  {row.metric}: {figures(row)}" for row in rows)
    elif passed:
        lines.append(f"  {RowVerdict.PASS.value:<14} {len(passed)} of them: -v names each")
    return "\n".join(map(_inert, lines))


def _inert(line: str) -> str:
    """A line without marks that a terminal obeys or that would make two of one: names come from files."""
    return "".join(mark if mark.isprintable() else repr(mark)[1:-1] for mark in line)


def headline(report: GateReport) -> str:
    """One line: the verdict, how many comparisons were made, how each went."""
    counts = ", ".join(f"{count} {name}" for name, count in report.counts.items())
    word = _WORDS[report.exit_code]
    if report.comparisons == 0:
        made = f"0 comparisons were made{f' ({counts})' if counts else ''}"
        return f"{word}: {made}: a gate that compared nothing is not green"
    plural = "comparison" if report.comparisons == 1 else "comparisons"
    idle = f"; {len(report.idle)} more cannot fail and are not counted" if report.idle else ""
    return f"{word}: {report.comparisons} {plural} ({counts}){idle}"


def figures(row: GateRow) -> str:
    """Value, baseline, change with interval, margin and detectable change, as far as they exist."""
    parts = []
    seen, baseline = _told_apart(row)
    if seen:
        parts.append(seen)
    if baseline:
        parts.append("as before" if row.seen == row.baseline and not row.change else f"was {baseline}")
    if row.change is not None and row.low is not None and row.high is not None:
        if row.low or row.high:
            ends = f"[{100 * row.low:+.3g}, {100 * row.high:+.3g}]"
            parts.append(f"{amount(row.change, row.relative)} {ends}")
    elif row.change:
        parts.append(amount(row.change, row.relative))
    if row.rule not in ("exact", "present"):
        parts.append(f"allowed: {row.rule}")
    told = row.verdict in (RowVerdict.INCONCLUSIVE, RowVerdict.PASS)
    if told and row.detectable is not None and row.detectable > (row.margin or 0.0) + 1e-9:
        parts.append(f"detectable from {amount(row.detectable, row.relative).removeprefix('+')}")
    return ", ".join(parts) if parts else row.rule


_ENOUGH, _ALL = 3, 15  # significant digits


def _told_apart(row: GateRow) -> tuple[str, str]:
    """Value and baseline in three significant digits, or in as many as tell one from the other; "" for none."""
    values = [row.seen, row.baseline]
    for digits in range(_ENOUGH, _ALL + 1):
        seen, baseline = ("" if v is None else _number(v, row.unit, digits) for v in values)
        if seen != baseline or row.seen == row.baseline:
            break
    return seen, baseline


def _number(value: float, unit: str, digits: int) -> str:
    if unit == "1":
        return f"{_digits(100 * value, digits)} %"
    factor, prefix = next(((f, p) for f, p in _PREFIXES if abs(value) >= f), (1.0, ""))
    if unit == "MACs" and factor < 1:
        factor, prefix = 1.0, ""
    return f"{_digits(value / factor, digits)} {prefix}{unit}".rstrip()


_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p"))


def _digits(value: float, digits: int) -> str:
    """A number in so many significant digits, never as a power of ten."""
    places = digits - 1 - math.floor(math.log10(abs(value))) if value else 0
    return f"{round(value, places):,.{max(places, 0)}f}".replace(",", "\u2009")


def document_of(report: GateReport) -> dict[str, Any]:
    """One object: exit code, comparisons, counts, notes and every row."""
    return {
        "schema": 1,
        "kind": "gate",
        "run": report.run,
        "baseline": report.baseline or None,
        "exit_code": report.exit_code,
        "verdict": _WORDS[report.exit_code],
        "comparisons": report.comparisons,
        "cannot_fail": len(report.idle),
        "counts": report.counts,
        "notes": list(report.notes),
        "rows": [
            asdict(row) | {"unit": row.unit, "relative": row.relative, "can_fail": row.can_fail} for row in report.rows
        ],
    }


def as_json(report: GateReport) -> str:
    """The same as text."""
    return json.dumps(document_of(report), indent=1, ensure_ascii=False, allow_nan=False)


def as_junit(report: GateReport) -> str:
    """JUnit XML: a regression or missing case is a failure, what cannot be told is an error, never a skip."""
    from xml.etree import ElementTree

    rows = [row for row in report.rows if row.can_fail]
    failed = sum(row.verdict in FAILED for row in rows)
    unknown = sum(row.verdict in UNKNOWN for row in rows)
    nothing = not rows
    suite = ElementTree.Element(
        "testsuite",
        name="adaptbench gate",
        tests=str(len(rows) + nothing),
        failures=str(failed),
        errors=str(unknown + nothing),
        skipped="0",
    )
    for row in rows:
        case = ElementTree.SubElement(suite, "testcase", classname=_xml(row.case), name=f"{row.metric} ({row.rule})")
        message = _xml(f"{figures(row)}: {row.reason}")
        if row.verdict in FAILED:
            ElementTree.SubElement(case, "failure", type=row.verdict.value, message=message)
        elif row.verdict in UNKNOWN:
            ElementTree.SubElement(case, "error", type=row.verdict.value, message=message)
        else:
            ElementTree.SubElement(case, "system-out").text = message
    if nothing:
        case = ElementTree.SubElement(suite, "testcase", classname="*", name="comparisons")
        ElementTree.SubElement(case, "error", type="not comparable", message=headline(report))
    ElementTree.SubElement(suite, "system-out").text = _xml("\n".join([*report.notes, headline(report)]))
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True)


def _xml(text: str) -> str:
    """The text without the control characters that XML 1.0 forbids."""
    return "".join(character for character in text if character >= " " or character in "\n\t")


def as_github(report: GateReport) -> str:
    """Workflow commands that GitHub shows as annotations; the headline comes last."""
    levels = dict.fromkeys(FAILED, "error") | dict.fromkeys(UNKNOWN, "warning")
    levels[RowVerdict.IMPROVEMENT] = "notice"
    lines = [
        f"::{levels[row.verdict]} title={_property(f'{row.verdict.value}: {row.metric}')}::"
        f"{_message(f'{row.case}: {figures(row)}: {row.reason}')}"
        for row in report.rows
        if row.verdict in levels
    ]
    lines.extend(f"::notice title=adaptbench gate::{_message(note)}" for note in report.notes)
    level = {0: "notice", 1: "error", 3: "warning"}[report.exit_code]
    lines.append(f"::{level} title=adaptbench gate::{_message(headline(report))}")
    return "\n".join(lines)


def _message(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")


FORMATS: dict[str, Callable[[GateReport], str]] = {
    "text": as_text,
    "json": as_json,
    "junit": as_junit,
    "github": as_github,
}


def render(report: GateReport, form: str = "text", *, verbose: bool = True) -> str:
    """A report in one of `FORMATS`.

    Args:
        report: of `compare`. form: its name. verbose: text names what passed, too; the other forms always do.

    Raises:
        UsageError: no such format.
    """
    if form not in FORMATS:
        raise UsageError(
            f"no format is called '{form}'.", todo=f"{did_you_mean(form, FORMATS)}Formats are: {', '.join(FORMATS)}."
        )
    return as_text(report, verbose) if form == "text" else FORMATS[form](report)
