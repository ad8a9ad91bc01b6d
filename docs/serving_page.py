"""Write the figures of docs/serving.md from the committed run of suites/serving.yaml; a test holds the two together.

python docs/serving_page.py
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "reports" / "published" / "serving.json"
PAGE = ROOT / "docs" / "serving.md"
BEGIN, END = "<!-- figures: written by docs/serving_page.py -->", "<!-- end of figures -->"
DEFENCES = {"none": "none", "budget": "hard budget"}
Row = dict[str, Any]


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    head = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    return [*head, *(f"| {' | '.join(row)} |" for row in rows)]


def ms(seconds: float) -> str:
    return f"{1e3 * seconds:.1f}"


def p99(row: Row) -> str:
    ends = row["simulated_p99_s_ci"]
    return ms(row["simulated_p99_s"]) + ("" if ends is None else f" [{ms(ends[0])}, {ms(ends[1])}]")


def attacked(record: Row) -> str:
    return next(label for label, model in record["models"].items() if model["hostile_macs_mean"] is not None)


def harm(record: Row) -> list[str]:
    titles = ("arrivals", "mode", "hostile", "defence", "p99, ms", "in time", "the honest's p99",
              "goodput lost, points", "accuracy lost, points")  # fmt: skip
    return table(
        titles,
        [
            (
                row["arrivals"],
                row["mode"],
                f"{100 * row['share']:.0f} %",
                DEFENCES[row["defence"]],
                p99(row),
                f"{100 * row['simulated_goodput']:.1f} %",
                f"{row['simulated_benign_p99_ratio']:.2f} ×",
                f"{100 * row['simulated_benign_goodput_lost']:.1f}",
                f"{100 * row['simulated_benign_accuracy_lost']:.1f}",
            )
            for row in record["streams"]
            if row["model"] == attacked(record) and (row["share"] or row["defence"] == "none")
        ],
    )


def clean(record: Row) -> list[str]:
    return table(
        ("net", "arrivals", "mode", "requests a second", "median, ms", "p99, ms", "MACs a request"),
        [
            (
                row["model"],
                row["arrivals"],
                row["mode"],
                f"{row['rate_rps']:.0f}",
                ms(row["simulated_p50_s"]),
                p99(row),
                f"{row['simulated_macs'] / 1e3:.1f} k",
            )
            for row in record["streams"]
            if not row["share"] and row["defence"] == "none"
        ],
    )


def provisions(record: Row) -> list[str]:
    return table(
        ("net", "requests a second", "replicas", "largest batch", "p99, ms"),
        [
            (
                row["model"],
                f"{row['rate_rps']:.0f}",
                "none holds it" if row["replicas"] is None else str(row["replicas"]),
                "–" if row["replicas"] is None else str(row["max_batch"]),
                "–" if row["replicas"] is None else ms(row["simulated_p99_s"]),
            )
            for row in record["provisions"]
        ],
    )


def apart(row: Row, name: str, told: str = "simulated") -> str:
    return f"{100 * (row[f'{told}_{name}'] / row[f'measured_{name}'] - 1):+.0f} %".replace("-", "−")


def called(row: Row) -> str:
    hostile = f", {100 * row['share']:.0f} % hostile" if row["share"] else ""
    return f"{row['model']}, {row['mode']}{hostile}"


def checks(record: Row) -> list[str]:
    own = "simulated_with_its_calls"
    titles = ("real run", "clock", "mean measured, ms", "mean simulated, ms", "apart", "p99 measured, ms",
              "p99 simulated, ms", "apart", "with its own calls: mean, p99", "within 10 %")  # fmt: skip
    return table(
        titles,
        [
            (
                called(row),
                row["clock"],
                ms(row["measured_mean_s"]),
                ms(row["simulated_mean_s"]),
                apart(row, "mean_s"),
                ms(row["measured_p99_s"]),
                ms(row["simulated_p99_s"]),
                apart(row, "p99_s"),
                f"{apart(row, 'mean_s', own)}, {apart(row, 'p99_s', own)}",
                "yes" if row["within"] else "no",
            )
            for row in record["checks"]
        ],
    )


def reasons(record: Row) -> list[str]:
    far = [row for row in record["checks"] if not row["within"]]
    told = [f"- {called(row)}, {row['clock']} clock: {row['reason'].replace('-', '−')}." for row in far]
    return ["", "Where they are further apart, the run says why:", "", *told] if far else []


def figures(record: Row) -> str:
    from adaptbench.report.serving_page import sentences

    held = {clock: [row["within"] for row in record["checks"] if row["clock"] == clock] for clock in ("cpu", "wall")}
    counted = " and ".join(f"{sum(of)} of {len(of)} by the {clock} clock" for clock, of in held.items() if of)
    device, threads = record["device"]["cpu"], record["device"]["threads"]
    joules = record["streams"][0]["simulated_energy_j_missing"]
    parts = [
        [
            f"`{record['command']}`, [summary](../reports/published/serving.json), {device}, "
            f"{threads} thread{'' if threads == 1 else 's'}, revision `{record['git']['revision'][:12]}`; seconds of "
            f"the {record['clock']} clock. The objective is {ms(record['objective_p99_s'])} ms for 99 of 100 requests."
        ],
        [f"- {' '.join(part for part in pair if part)}" for pair in sentences(record)],
        [
            f"What the honest pay, simulated, on {attacked(record)}: against the same requests on the same arrivals "
            "with nobody hostile and no budget. Intervals are 95 % over repeats."
        ],
        harm(record),
        ["With nobody hostile, simulated:"],
        clean(record),
        [f"Joules a request: none, because {joules}." if joules else "Joules a request: on the page of the run."],
        ["The cheapest provision for clean Poisson arrivals, simulated:"],
        provisions(record),
        [f"Mean and p99 of the simulation are within 10 % of the real run in {counted}."],
        [*checks(record), *reasons(record)],
    ]
    return "\n\n".join("\n".join(part) for part in parts)


def page(text: str, record: Row) -> str:
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{figures(record)}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    from adaptbench.results.serving import ServingRun

    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), ServingRun.read(SOURCE)), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE}\n")
