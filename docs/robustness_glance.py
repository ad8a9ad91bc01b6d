"""What of docs/robustness.md one looks for first: which figure to cite, what was aimed at, and what an input costs.

Tables for docs/robustness_page.py, from the same committed runs.
"""

from __future__ import annotations

from robustness_page import ANSWERS, AUDITS, KEPT, OF_FREE, TEN_TIMES, Record, _macs, _read, called, within

CITED = {
    ("fashion-mnist", "softmax-threshold"): "audit-fashion-mnist",
    ("fashion-mnist", "learned-cascade"): "audit-fashion-mnist",
    ("fashion-mnist", "dag-selection"): "audit-fashion-mnist",
    ("fashion-mnist", "skipnet"): "audit-fashion-mnist-gates",
    ("cifar10", "sdn"): "audit-cifar10-exits",
    ("cifar10", "learned-cascade"): "audit-cifar10-exits",
    ("cifar10", "dag-selection"): "audit-cifar10-exits",
    ("cifar10", "sdn:exact-budget(budget=0.5)"): "audit-cifar10-exact-budget",
    ("cifar10", "skipnet-rnn"): "standard-2-skipnet-rnn-1000",
    ("cifar10", "blockdrop"): "standard-3-blockdrop",
}
"""The run that a system's figure under today's `standard` is of."""
LEAST = {
    ("cifar10", "sdn"): 0.95,
    ("cifar10", "learned-cascade"): 0.90,
    ("cifar10", "dag-selection"): 0.90,
    ("cifar10", "skipnet-rnn"): 0.90,
}
"""What `standard` is to take back, of the pictures of `CITED`."""
FIRST = {"softmax-threshold": 0.837, "learned-cascade": 0.833, "dag-selection": 0.76, "skipnet": 0.82}
"""Of Fashion-MNIST's first 150 test images; what an independent trial of up to 13 objectives found, rounded for two."""
NOISE, SIGNS = 0.05, 0.10
MORE = 1.0
"""Points that ten times the steps may add."""
UNIVERSAL = 0.40
MINUTES = 45.0


def _one(document: Record, model: str, condition: str) -> Record:
    found: Record = next(c for c in document["cases"] if (c["model"], c["condition"]) == (model, condition))
    return found


def _count(n: int) -> str:
    return f"{n:,}".replace(",", " ")


def cite() -> list[str]:
    """A row a system: its figure under today's standard."""
    lines = [
        "| data | system | attack | n | MACs, clean | takes back | up to the dearest seen | right, clean | attacked |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (data, model), name in CITED.items():
        document = _read(name)
        clean, case = (_one(document, model, which) for which in ("clean", "standard"))
        cells = [
            data,
            model,
            called(case, document["manifest"]),
            _count(case["n"]),
            f"{clean['macs_mean'] / 1e6:.2f} M",
            within(case),
            within(case, "recovery_seen"),
            *(f"{100 * one['accuracy']:.1f} %" for one in (clean, case)),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def aimed() -> list[str]:
    """What the attacks and the controls were to do, what was measured, and whether it held."""
    lines = ["| aimed at | measured | held |", "|---|---|---|"]
    for (data, model), least in LEAST.items():
        case = _one(_read(CITED[data, model]), model, "standard")
        lines.append(
            _row(
                f"`standard` takes back ≥ {100 * least:.0f} % of {data}'s {model}, n = {_count(case['n'])}",
                within(case),
                case["recovery"] >= least,
            )
        )
    firsts = {m: _read(n) for n in TEN_TIMES if "fashion" in n for m in _read(n)["manifest"]["models"]}
    for model, least in FIRST.items():
        case = _one(firsts[model], model, "standard")
        claim = f"of fashion-mnist's {model}, the first {case['n']}, ≥ {100 * least:.1f} %"
        lines.append(_row(claim, within(case), case["recovery"] >= least))
    lines += [_ten_times("exits, cascades and DAGs", False), _ten_times("gates", True)]
    lines += [_kept(), _universal()]
    lines += [_control("noise", "uniform noise", NOISE), _control("noise-sign", "random-sign noise", SIGNS)]
    lines += [_minutes("exits, cascades and DAGs", False), _minutes("gates", True)]
    return lines


def _row(claim: str, measured: str, held: bool | str) -> str:
    verdict = held if isinstance(held, str) else "yes" if held else "no"
    return f"| {claim} | {measured} | {verdict} |"


def _gated(document: Record, model: str) -> bool:
    return str(document["manifest"]["models"][model]["shape"]) == "gated"


def _ten_times(called_so: str, gated: bool) -> str:
    """The most that ten times the steps add to any system of a kind; a system from the last run that has it."""
    added: dict[str, float] = {}
    for document in map(_read, TEN_TIMES):
        (data,) = document["manifest"]["data"]
        for model in document["manifest"]["models"]:
            if _gated(document, model) == gated:
                short, long = (_one(document, model, which) for which in ("standard", "exhaustive"))
                added[f"{data}/{model}"] = 100 * (long["recovery"] - short["recovery"])
    worst = max(added, key=added.__getitem__)
    return _row(
        f"ten times the steps add at most {MORE:.0f} point on {called_so}",
        f"at most {added[worst]:.1f} ({worst})",
        added[worst] <= MORE,
    )


def _kept() -> str:
    """The least that `standard-kept` takes back of what the free attack does."""
    shares: dict[str, float] = {}
    answers: list[float] = []
    for model, free, bound in KEPT:
        first, second = _read(free), _read(bound)
        (data,) = second["manifest"]["data"]
        sides = ((first, "clean"), (first, "standard"), (second, "standard-kept"))
        clean, open_, closed = (_macs(document["samples"][f"{data}/{model}/{which}"]) for document, which in sides)
        ids = open_.keys() & closed.keys()
        base = sum(clean[i] for i in ids)
        shares[f"{data}/{model}"] = (sum(closed[i] for i in ids) - base) / (sum(open_[i] for i in ids) - base)
        answers.append(_one(second, model, "standard-kept")["label_kept"])
    worst = min(shares, key=shares.__getitem__)
    return _row(
        f"`standard-kept` keeps ≥ {100 * ANSWERS:.0f} % of the answers at ≥ {100 * OF_FREE:.0f} % of the free recovery",
        f"≥ {100 * min(answers):.0f} % kept; at least {100 * shares[worst]:.1f} % ({worst})",
        shares[worst] >= OF_FREE and min(answers) >= ANSWERS,
    )


def _universal() -> str:
    case = _one(_read("audit-cifar10-exits"), "sdn", "deepsloth-universal")
    claim = f"one change for all takes back ≥ {100 * UNIVERSAL:.0f} % of cifar10's sdn (`deepsloth-universal`)"
    return _row(claim, within(case), case["recovery"] >= UNIVERSAL)


def _control(condition: str, called_so: str, most: float) -> str:
    """Which systems a control of equal norm takes back more of than it should; each from its cited run's data."""
    over, seen = [], 0
    for (data, model), name in CITED.items():
        runs = [n for n in (name, *AUDITS) if n == name or data.replace("10", "") in n]
        cases = (
            c
            for n in runs
            for c in _read(n)["cases"]
            if (c["data"], c["model"], c["condition"]) == (data, model, condition)
        )
        case = max(cases, key=lambda c: c["n"])
        seen += 1
        if case["recovery"] > most:
            over.append(f"{data}/{model.partition(':')[2] or model} {100 * case['recovery']:.1f} %")
    told = f"more on {len(over)} of {seen}: {', '.join(over)}" if over else f"on all {seen}"
    return _row(f"{called_so} of equal norm takes back ≤ {100 * most:.0f} %", told, not over)


def _minutes(called_so: str, gated: bool) -> str:
    """The longest craft of `standard` of a thousand pictures; one thread, so that half of it is two cores'."""
    spent = {}
    for (data, model), name in CITED.items():
        document = _read(name)
        if _gated(document, model) == gated:
            case = _one(document, model, "standard")
            spent[f"{data}/{model}"] = case["craft_s"] / case["n"] * 1000 / 60
    worst = max(spent, key=spent.__getitem__)
    return _row(
        f"`standard` on 1 000 pictures in ≤ {MINUTES:.0f} minutes of two cores, {called_so}",
        f"at most {spent[worst]:.0f} minutes of one thread on a busy machine ({worst})",
        "yes" if spent[worst] <= MINUTES else "not shown by these runs; see below",
    )


def costs() -> list[str]:
    """Seconds an input of every white- and black-box recipe, by system; the quickest of the runs that have it."""
    systems = [model for data, model in CITED if data == "cifar10"]
    least: dict[str, dict[str, float]] = {}
    for name in AUDITS:
        document = _read(name)
        for case in document["cases"]:
            if case["kind"] != "attack" or case["data"] != "cifar10" or not case.get("craft_s"):
                continue
            row = least.setdefault(_recipe(case, document["manifest"]), {})
            spent = case["craft_s"] / case["n"]
            row[case["model"]] = min(spent, row.get(case["model"], spent))
    lines = [
        "| s an input | " + " | ".join(model.partition(":")[2] or model for model in systems) + " |",
        "|---|" + "---|" * len(systems),
    ]
    for name in sorted(least, key=lambda n: max(least[n].values())):
        cells = [f"{least[name][m]:.2g}" if m in least[name] else "–" for m in systems]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _recipe(case: Record, manifest: Record) -> str:
    return called(case, manifest).split(" ")[0] if case["condition"] == "standard" else str(case["condition"])


def tails() -> list[str]:
    """What the dearest inputs cost, clean and attacked, and how many are over a budget."""
    lines = [
        "| data | system | condition | mean | 99th percentile | mean of the dearest 5 % | over the budget |",
        "|---|---|---|---|---|---|---|",
    ]
    for (data, model), name in CITED.items():
        document = _read(name)
        for condition in ("clean", "standard"):
            case = _one(document, model, condition)
            over = "–" if case["macs_budget"] is None else within(case, "budget_violation")
            cells = [f"{case[key] / 1e6:.2f} M" for key in ("macs_mean", "macs_p99", "macs_cvar")]
            lines.append(f"| {' | '.join([data, model, called(case, document['manifest']), *cells, over])} |")
    return lines
