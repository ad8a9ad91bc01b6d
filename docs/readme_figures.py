"""Write the README's figures and the table of docs/results.md from committed summaries; a test holds them together.

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
ATTACKED = SOURCE.with_name("audit-fashion-mnist.json")
GATED = SOURCE.with_name("audit-fashion-mnist-gates.json")
"""Of gated nets `standard` is another attack since standard-2; of all others it crafts the same bytes."""
RESULTS = ROOT / "docs" / "results.md"
ATTACK = "standard"
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
        "([summary](../reports/published/fashion-mnist.json)); attacks on the first images of the test set, "
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


def few(document: dict[str, Any], attacked: dict[str, Any]) -> str:
    """Four rows: what each system saves, by count and by clock, and what an attacker takes back of it."""
    models = list(document["manifest"]["models"])
    clean = {(c["model"], c["batch_size"]): c for c in document["cases"] if c["condition"] == "clean"}
    gated = json.loads(GATED.read_text(encoding="utf-8"))
    worst = {c["model"]: c for c in [*attacked["cases"], *gated["cases"]] if c["condition"] == ATTACK}
    plain = clean["static", None]
    shown = sorted({size for _, size in clean if size})
    shown = [shown[0], shown[-1]]
    sizes = " | ".join(f"time saved, batch {size}" for size in shown)
    lines = [
        f"| | accuracy (plain net {percent(plain['accuracy'])}) | MACs of the plain net | {sizes} | taken back |",
        "|---|---|---|---|---|---|",
    ]
    for model in models:
        timed = [clean[model, size] for size in shown]
        cells = [percent(timed[0]["accuracy"]), percent(_share(timed[0]))]
        cells += [with_interval(c, "saving_time") for c in timed] + [with_interval(worst[model], "recovery")]
        lines.append(f"| {model} | {' | '.join(cells)} |")
    return "\n".join(lines)


def headline(document: dict[str, Any], attacked: dict[str, Any]) -> str:
    """One result in one sentence, its figures from the same rows as the table."""
    clean = {(c["model"], c["batch_size"]): c for c in document["cases"] if c["condition"] == "clean"}
    sizes = sorted({size for _, size in clean if size})
    model = "softmax-threshold"
    first, last = clean[model, sizes[0]], clean[model, sizes[-1]]
    worst = next(c for c in attacked["cases"] if (c["model"], c["condition"]) == (model, ATTACK))
    reads = {name: percent(case["accuracy"]) for name, case in (("ours", first), ("plain", clean["static", None]))}
    operations = {name: percent(_share(case), 0) for name, case in (("clean", first), ("attacked", worst))}
    saved = [f"{percent(case['saving_time'], 0)} {{}}at batch {case['batch_size']}" for case in (first, last)]
    return (
        f"Early exits on Fashion-MNIST read {reads['ours']} with {operations['clean']} of the plain net's operations "
        f"(it reads {reads['plain']}). On one CPU thread that is {saved[0].format('less time ')} and "
        f"{saved[1].format('')}. An attacker who may change each pixel by 8/255 drives the operations up to "
        f"{operations['attacked']}."
    )


def _between(text: str, name: str, body: str) -> str:
    start, end = f"<!-- {name}: start -->", f"<!-- {name}: end -->"
    before, rest = text.split(start)
    _, after = rest.split(end)
    return f"{before}{start}\n{body}\n{end}{after}"


def readme(text: str, document: dict[str, Any], attacked: dict[str, Any]) -> str:
    for name, body in (("headline", headline(document, attacked)), ("few", few(document, attacked))):
        text = _between(text, name, body)
    return text


def results(text: str, document: dict[str, Any]) -> str:
    return _between(text, "figures", figures(document))


def main() -> None:
    document, attacked = (json.loads(place.read_text(encoding="utf-8")) for place in (SOURCE, ATTACKED))
    place = ROOT / "README.md"
    place.write_text(readme(place.read_text(encoding="utf-8"), document, attacked), encoding="utf-8")
    RESULTS.write_text(results(RESULTS.read_text(encoding="utf-8"), document), encoding="utf-8")
    sys.stdout.write("README.md and docs/results.md are up to date\n")


if __name__ == "__main__":
    main()
