"""Write the README's figures from a committed summary; a test holds README and summary together.

python docs/readme_figures.py
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "reports" / "published" / "fashion-mnist.json"
START, END = "<!-- figures: start -->", "<!-- figures: end -->"
CLAIMS_START, CLAIMS_END = "<!-- claims: start -->", "<!-- claims: end -->"
CLAIMS = (
    ("dag-selection", "cheaper at less than one point (top-1 here, ImageNet top-5 in the paper)"),
    ("dag-selection", "cheaper at less than one point of top-5"),
    ("dag-selection", "share of the oracle's saving, non-inferior within one point"),
    ("learned-cascade", "CIFAR-10, cost at the accuracy of the best member (ours, non-inferior within one point)"),
    ("learned-cascade", "CIFAR-10, exact-budget on the same ladder, non-inferior within one point"),
    ("softmax-threshold", "CIFAR-10, published rule at ε = 1 %"),
    ("softmax-threshold", "CIFAR-10, six exits, re-splits that break the promised ε = 1 %"),
    ("eenet", "CIFAR-10, budgets of 7 at which no rule-based policy is ahead of EENet's scheduler in our settings"),
    ("eenet", "CIFAR-10, budgets of 7 at which no rule-based policy is ahead of ours"),
)
# Asked of both gated nets.
GATED_SHARE = 0.65

Record = dict[str, Any]


def percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f} %".replace("-", "−")


def with_interval(record: Record | None, name: str) -> str:
    if record is None or record.get(name) is None:
        return "–"
    if record.get(f"{name}_ci") is None:
        return percent(record[name])
    low, high = (f"{100 * end:.1f}".replace("-", "−") for end in record[f"{name}_ci"])
    return f"{percent(record[name])} [{low}, {high}]"


def figures(document: dict[str, Any]) -> str:
    cases: dict[str, Record] = {}
    for case in document["cases"]:
        cases.setdefault(case["evaluation"], case)
    manifest = document["manifest"]
    models = list(manifest["models"])
    data = next(iter(manifest["data"]))

    def case(model: str, condition: str) -> Record | None:
        return cases.get(f"{data}/{model}/{condition}")

    static = case("static", "clean")
    oracle = case("oracle", "clean")
    assert static is not None
    assert oracle is not None
    lines = [
        f"Fashion-MNIST, {static['n']:,} test images, `adaptbench run fashion-mnist` "
        "([summary](reports/published/fashion-mnist.json)); attacks on the first images of the test set, "
        "as many as stated. "
        f"The static net reads {percent(static['accuracy'])}.".replace(",000", " 000"),
        "",
        "| | softmax-threshold | learned-cascade | dag-selection | skipnet |",
        "|---|---|---|---|---|",
    ]
    assert models == ["softmax-threshold", "learned-cascade", "dag-selection", "skipnet"]
    rows: list[tuple[str, list[str]]] = [
        ("accuracy, clean", [with_interval(case(m, "clean"), "accuracy") for m in models]),
        ("MACs of the model's own static net", [percent(_share(case(m, "clean"))) for m in models]),
    ]
    for condition in dict.fromkeys(c["condition"] for c in document["cases"]):
        if condition != "clean":
            n = next((c["n"] for m in models if (c := case(m, condition))), 0)
            title = f"taken back by {condition} ({n:,} images{_asks(case, models, condition)})".replace(",", " ")
            rows.append((title, [with_interval(case(m, condition), "recovery") for m in models]))
    rows.append(("accuracy under ilfo", [percent((case(m, "ilfo") or {}).get("accuracy")) for m in models]))
    lines += [f"| {title} | {' | '.join(cells)} |" for title, cells in rows]
    dag = case("dag-selection", "clean")
    assert dag is not None
    # Schema 1 timed the harness with the nets.
    apart = ", nodes and policy, and in brackets the harness' share of the window" if document["schema"] > 1 else ""
    threads = manifest["device"]["threads"]
    captured = (static["macs_mean"] - dag["macs_mean"]) / (static["macs_mean"] - oracle["macs_mean"])
    lines += [
        "",
        "*Taken back* is the share of the head-room (dearest path minus clean mean) that an attacker recovers, "
        "with 95 % intervals. The oracle, which looks at the label, needs "
        f"{percent(_share(oracle))} of the static MACs; DAG selection captures "
        f"{percent(captured, 0)} of its saving.",
        "",
        f"Share of the MAC saving that the clock realises{apart}, clean inputs, "
        f"{manifest['device']['cpu']}, {threads} thread{'' if threads == 1 else 's'}:",
        "",
        "| batch | " + " | ".join(models) + " |",
        "|---|" + "---|" * len(models),
    ]
    sizes = sorted({c["batch_size"] for c in document["cases"] if c["batch_size"]})
    for size in sizes:
        timed = {c["model"]: c for c in document["cases"] if c["batch_size"] == size and c["condition"] == "clean"}
        cells = [with_interval(timed.get(m), "realised_saving_time") for m in models]
        if apart:
            cells = [
                f"{c} ({percent((timed.get(m) or {}).get('executor_share'), 0)})"
                for c, m in zip(cells, models, strict=True)
            ]
        lines.append(f"| {size} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _asks(case: Callable[[str, str], Record | None], models: list[str], condition: str) -> str:
    """What a control may ask: the attack that it stands beside asks as much."""
    found = next((c for m in models if (c := case(m, condition))), {})
    asks = found.get("kind") == "control" and found.get("queries_mean")
    return f"; control at equal queries: {asks:.0f}" if asks else ""


def _share(record: Record | None) -> float | None:
    return None if record is None else record["macs_mean"] / record["macs_full"]


def claims(folder: Path = SOURCE.parent) -> str:
    """Some claims of the committed studies; all of them stand on the page of replications."""
    from adaptbench.results.studies import decimals, judged, loss_of, read_study, stated

    lines = ["| study | claim | published or aimed at | ours | verdict |", "|---|---|---|---|---|"]
    for study, claim in CLAIMS:
        record = read_study(folder / f"replicate-{study}.json")
        (figure,) = (f for f in record["published"] if f["claim"] == claim)
        value, _, said = judged(record, figure)
        cells = ["–" if v is None else f"{v:.{decimals(figure)}f}" for v in (stated(figure), value)]
        for i, lost in enumerate((figure.get("points_lost"), loss_of(record, figure)[0])):
            cells[i] += "" if lost is None else f" for {lost:.2f} points".replace("-", "−")
        lines.append(f"| {study} | {claim} | {cells[0]} | {cells[1]} | {said} |")
    return "\n".join([*lines, *gates(folder)])


def gates(folder: Path) -> list[str]:
    """Gated nets against the plain net that they were made from, paired."""
    from adaptbench.results.baseline import Baseline

    kept = Baseline.load(folder / "replicate-gates.json")
    found = {c["model"]: kept.samples(c["evaluation"]) for c in kept.cases if c["condition"] == "clean"}
    lines = []
    for model in ("skipnet-rnn", "blockdrop"):
        lost = 100 * (found["static"].correct.mean() - found[model].correct.mean())
        share = found[model].macs.mean() / found["static"].macs.mean()
        said = "met" if share <= GATED_SHARE and lost <= 1 else "not met"
        claim = f"{model}, MACs of the plain net's, gates' included, at less than one point (here {lost:.2f})"
        lines.append(f"| gates | {claim} | {GATED_SHARE:.2f} | {share:.2f} | {said} |")
    return lines


def readme(text: str, document: dict[str, Any]) -> str:
    for start, end, body in ((START, END, figures(document)), (CLAIMS_START, CLAIMS_END, claims())):
        before, rest = text.split(start)
        _, after = rest.split(end)
        text = f"{before}{start}\n{body}\n{end}{after}"
    return text


def main() -> None:
    document = json.loads(SOURCE.read_text(encoding="utf-8"))
    place = ROOT / "README.md"
    place.write_text(readme(place.read_text(encoding="utf-8"), document), encoding="utf-8")
    sys.stdout.write("README.md is up to date\n")


if __name__ == "__main__":
    main()
