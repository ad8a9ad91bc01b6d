"""An audit as text: the table, what cannot be trusted, where it lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adaptbench.auditing.grounds import PICTURES, TEXT, Ground, ground_told, size
from adaptbench.report import words

Summary = Mapping[str, Any]
_MARK = {"ok": "ok    ", "doubt": "doubt ", "cannot be trusted": "NOT   "}
_TITLES = ("accuracy", "MACs/sample", "of full", "p99", "CVaR 5 %", "attacker takes back", "of the dearest seen")


def table(summary: Summary) -> str:
    """Conditions with what they cost."""
    figures = summary["figures"]
    rows = [
        [_named(name, condition, summary), *_cells(condition, figures)]
        for name, condition in figures["conditions"].items()
    ]
    head = [summary["model"]["name"], *_TITLES]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(columns)
        ).rstrip()
        for columns in (list(zip(row, widths, strict=True)) for row in [head, *rows])
    )


def _named(name: str, condition: Mapping[str, Any], summary: Summary) -> str:
    described = summary["conditions"][name]
    told = f"  {name} {size(summary, described.get('eps'), described.get('share'))}".rstrip()
    return f"{told} (control)" if condition["kind"] == "control" else told


def _cells(condition: Mapping[str, Any], figures: Mapping[str, Any]) -> list[str]:
    mean = condition["macs_mean"]["value"]
    return [
        words.percent(condition["accuracy"]["value"]),
        words.macs(mean),
        words.percent(mean / figures["macs_full"], 0),
        words.macs(condition["macs_p99"]["value"]),
        words.macs(condition["macs_cvar"]),
        share(condition["recovery"]),
        share(condition["recovery_seen"]),
    ]


def share(estimate: Mapping[str, Any] | None) -> str:
    """An estimate in per cent with its interval."""
    if estimate is None:
        return words.DASH
    return f"{words.percent(estimate['value'])} {words.interval((estimate['low'], estimate['high']))}".rstrip()


def checks(found: Sequence[Mapping[str, Any]], *, all_of_them: bool = False) -> list[str]:
    """A line a check; those that are fine are counted, unless all are asked for."""
    shown = [c for c in found if all_of_them or c["level"] != "ok"]
    fine = sum(c["level"] == "ok" for c in found)
    lines = [f"{words.plural(fine, 'check')} of {len(found)} found nothing"]
    return lines + [f"  {_MARK[c['level']]}{c['name']}: {c['seen']}" for c in shown]


def whole(summary: Summary) -> str:
    """What ``print(audit)`` gives."""
    data, figures, ground = summary["data"], summary["figures"], ground_told(summary)
    heading = (
        f"audit · {summary['model']['name']} under {summary['model']['policy']} · {data['name']}, "
        f"{words.count(figures['n'])} test {_many(ground)} · {_reach(summary)}"
    )
    return "\n".join([heading, "", table(summary), "", *checks(summary["checks"])])


def _many(ground: Ground) -> str:
    return "images" if ground is PICTURES else ground.many


def _reach(summary: Summary) -> str:
    told = size(summary, summary["eps"], summary.get("share"))
    return told if ground_told(summary) is TEXT else f"eps {told}"
