"""Write docs/replication.md from the committed studies; a test holds the page and the summaries together.

python docs/replication_page.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adaptbench.results.baseline import Baseline

ROOT = Path(__file__).parent.parent
PUBLISHED = ROOT / "reports" / "published"
PAGE = ROOT / "docs" / "replication.md"
GATES = "replicate-gates.json"
ATTACKS = "replicate-attacks.json"

HEAD = """# Replication

Written by `python docs/replication_page.py` from the committed studies; do not edit. Each study is one command, from
shipped checkpoints; data sets are read from `ADAPTBENCH_DATA`.
"""

RULES = """
## Rules

They hold for every figure: policies are fitted on one part of the calibration split and chosen on the other; a
hash of everything fitted and chosen is taken before test labels are opened; the chosen points of the policies in bold
were then executed, and every sample's way, answer and MACs compared with the log. A saving and the accuracy lost for it
are one point and get one verdict. A point is *non-inferior* within a margin where calibration shows, with 95 %
confidence, that it loses less; the cheapest such point is chosen there, and its saving counts only where the interval
on test bears it out. A saving at a drop counts only where the drop was kept on test. The oracle picks one node's
answer by the label: policies that answer with several nodes at once can do better. “Ours” against a published figure
is the replicated rule unless the claim says otherwise; where the two figures measure different things, the verdict is
“not comparable”. Provenance: [abs] abstract or venue page, [xls] the authors' spreadsheet, [code] their
repository, [2nd] a secondary source.
"""

PUBLISHED_GATES = (
    (
        "SkipNet, ResNet-38 / 74 / 110, hybrid RL",
        "92.75 / 92.77 / 93.30",
        "70.27 / 52.34 / 49.53 % (blocks, gates free)",
        "[code]",
    ),
    ("BlockDrop, ResNet-110", "93.6", "31 % of the blocks (16.93 of 54), planner apart", "[code]"),
)

GATES_DEVIATE = """
Both start from the plain net's weights and are trained on, net and gates, for {skipnet} and {blockdrop} epochs; the
plain net is not, so part of what they keep comes from there. Deviations of the short recipe: a straight-through phase
holds the gates to {gate_rate:.0%} and {plan_rate:.0%} of the blocks, one shift of all margins corrects what is missed;
for BlockDrop it takes the place of the curriculum, and its planner starts from the trained ResNet-8; the reward for
skipping is α = {gate_alpha} (SkipNet, paper 0.1), the bound on drawn plans α = {plan_alpha} (BlockDrop, released 0.8).
The recipe `full` keeps the papers' curriculum and both α."""

Record = dict[str, Any]


def number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def span(interval: list[float] | None, digits: int = 2) -> str:
    return "" if interval is None else f" [{number(interval[0], digits)}, {number(interval[1], digits)}]"


def published(record: Record) -> list[str]:
    from adaptbench.results.studies import decimals, judged, loss_of, stated

    lines = ["| claim | published | read from | ours | verdict | why |", "|---|---|---|---|---|---|"]
    for figure in record["published"]:
        value, interval, said = judged(record, figure)
        digits = decimals(figure)
        theirs = number(stated(figure), digits)
        if figure.get("points_lost") is not None:
            theirs += f" for {number(figure['points_lost'])} points"
        source = "target" if figure["target"] else figure["provenance"]
        ours = number(value, digits) + span(interval)
        lost, about = loss_of(record, figure)
        if lost is not None:
            ours += f" for {number(lost)}{span(about)} points"
        cells = [figure["claim"], theirs, source, ours, said, figure.get("unlike") or figure["why"]]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def chosen(record: Record, graph: Record) -> list[str]:
    drops = [point["drop"] for point in next(iter(graph["policies"].values()))["chosen"]]
    heads = [f"for −{100 * d:g} points" for d in drops]
    asked = not record.get("upgraded")  # a study from before had no non-inferior point to choose
    if asked:
        heads.append(f"non-inferior within {100 * graph['margin']:g}")
    lines = ["| policy | area, % | " + " | ".join(heads) + " |", "|---|---|" + "---|" * len(heads)]
    ranked = sorted(graph["policies"].items(), key=lambda item: -(item[1]["area"] or 0))
    for name, found in ranked:
        cells = [f"{number(p['drop_points'])} at {number(p['speedup'])} ×" for p in found["chosen"]]
        if asked:
            cells.append(non_inferior(found))
        strong = f"**{name}**" if name in (record["paper"], record["ours"]) else name
        area = found["area"]
        lines.append(f"| {strong} | {number(None if area is None else 100 * area)} | " + " | ".join(cells) + " |")
    return lines


def non_inferior(found: Record) -> str:
    point = found["non_inferior"]
    if point is None:
        return "none shown"
    lost = f"{number(point['drop_points'])}{span(point['drop_points_ci'])}"
    return f"{lost} at {number(point['speedup'])} ×" + ("" if point["held"] else ", not borne out")


def executed(graph: Record) -> str:
    from adaptbench.results.studies import executed_points

    ran = executed_points(graph)
    differing, ties = sum(e["differing"] for e in ran), sum(e["ties"] for e in ran)
    n = f"{graph['n_test']:,}".replace(",", " ")
    return f"{len(ran)} points executed on {n} samples each: {differing} differ, {ties} ties."


def resplits(graph: Record) -> list[str]:
    if not graph["resplits"]:
        return []
    lines = ["", "| rule | ε, points | broken | mean drop, points | speed-up |", "|---|---|---|---|---|"]
    lines += [
        f"| {row['policy']} | {100 * row['epsilon']:g} | {row['broken']} of {row['count']} | "
        f"{number(row['drop_points'])} | {number(row['speedup'])} |"
        for row in graph["resplits"]
        if row["count"]
    ]
    return lines


def budgets_met(graph: Record) -> list[str]:
    """How close policies that take a budget came to each of theirs."""
    lines = []
    for name, found in graph["budget_error"].items():
        if not found["own"]:
            continue
        errors = [100 * abs(error) for _, error in found["own"]]
        share, worst = max(found["own"], key=lambda pair: abs(pair[1]))
        said = (
            f"{name} at its own {len(errors)} budgets: {sum(e <= 1 for e in errors)} met within 1 %, the furthest off "
            f"by {number(100 * worst, 1)} % (asked for {number(100 * share, 0)} % of the full cost)."
        )
        if by_chance := found.get("own_by_chance"):
            at = max(range(len(errors)), key=errors.__getitem__)
            within = sum(e <= 200 * chance + 1e-3 for e, chance in zip(errors, by_chance, strict=True))
            said += (
                f" Of that, the samples' own scatter makes {number(100 * by_chance[at], 1)} % (one standard error, "
                f"from calibration and test); {within} lie within two of theirs."
            )
        lines += ["", said]
    return lines


def in_mode(row: Record) -> str:
    """How a timed case's batches were executed, unless survivors of a batch stayed together."""
    return "" if row.get("mode") in (None, "compacted") else f", {row['mode']}"


def clock(graph: Record) -> list[str]:
    if not graph["wall_clock"]:
        return []
    lines = ["", "| point | batch | speed-up of the net | harness included | by MACs |", "|---|---|---|---|---|"]
    for row in graph["wall_clock"]:
        net = "–" if row.get("net_speedup") is None else number(row["net_speedup"]) + span(row["net_speedup_ci"])
        lines.append(
            f"| {row['point']} | {row['batch_size']}{in_mode(row)} | {net} | "
            f"{number(row['speedup'])}{span(row['speedup_ci'])} | {number(row['macs_speedup'])} |"
        )
    return lines


def streams(graph: Record) -> list[str]:
    """Policies with state: what the loop holds, what a flood of dear inputs does, what the bandit regrets."""
    if not (found := graph.get("online")):
        return []
    loop, bandit = found["closed-loop"], found["uee-ucb"]
    settled = ", ".join("never" if sample is None else str(sample) for sample in loop["settling_samples"])
    n = graph["n_test"]
    return [
        "",
        f"Over {len(found['orders'])} shuffles of the test stream: a closed loop on {loop['base']} with a budget of "
        f"{number(100 * loop['budget_share'], 0)} % spends {number(100 * loop['cost_share']['mean'])} % at "
        f"{number(100 * loop['accuracy']['mean'])} % right; overshoot {number(100 * loop['overshoot']['mean'], 0)} %, "
        f"steady error {number(100 * loop['steady_error']['mean'], 1)} %; means over blocks of "
        f"{loop['block']} samples stay within 5 % of the budget from sample {settled} on. "
        "A flood of the dearest inputs "
        f"({number(100 * loop['flood_share'], 0)} % of the stream) costs all others "
        f"{number(loop['flood_accuracy_lost_points'])} points under the loop; without it the budget is overspent by "
        f"{number(100 * (loop['flood_cost_of_budget_open'] - 1), 1)} %. UEE-UCB (μ = {bandit['mu']:g}): "
        f"{number(100 * bandit['accuracy']['mean'])} % at "
        f"{number(100 * bandit['cost_share']['mean'], 1)} % of the cost, "
        f"regret {number(bandit['regret']['mean'], 0)} after {n} samples.",
    ]


def noise(graph: Record) -> list[str]:
    if not graph["gradient_noise"]:
        return []
    ratios = [f"{number(row['ratio'], 1)} × (λ = {row['price']:g})" for row in graph["gradient_noise"]]
    return ["", f"Variance of REINFORCE's gradient over the exact gradient's: {', '.join(ratios)}."]


def budgets(record: Record, graph: Record) -> list[str]:
    """Accuracy of the main policies at equal realised cost, and the best of all others."""
    main = [name for name in dict.fromkeys([record["paper"], record["ours"]]) if name in graph["policies"]]
    by = {(row["policy"], row["budget"]): row for row in graph["at_budget"]}
    asked = graph["budgets"]
    lines = [
        "",
        "| accuracy, %, at cost | " + " | ".join(f"{100 * b:g} %" for b in asked) + " |",
        "|---|" + "---|" * len(asked),
    ]
    for name in main:
        cells = [number(None if (a := by[name, b]["accuracy"]) is None else 100 * a) for b in asked]
        lines.append(f"| **{name}** | " + " | ".join(cells) + " |")
    best = []
    for b in asked:
        rest = [(row["accuracy"], p) for (p, at), row in by.items() if at == b and p not in main and row["accuracy"]]
        accuracy, who = max(rest) if rest else (None, "")
        best.append("–" if accuracy is None else f"{number(100 * accuracy)} {who}")
    lines.append("| best of the others | " + " | ".join(best) + " |")
    return [*lines, *beside_rules(record, graph)]


def beside_rules(record: Record, graph: Record) -> list[str]:
    """How far ours is ahead of the rule that is best at each budget, paired, and at how many that is beyond chance."""
    claims = [claim.get("ours") or {} for claim in record["published"]]
    here = [o for o in claims if o.get("figure") == "budgets_ahead" and record["graphs"].get(o["graph"]) is graph]
    against = next((o["against"] for o in here if o["policy"] == record["ours"]), [])
    cells, behind, ahead = [], 0, 0
    for b in graph["budgets"] if against else ():
        rows = [r for r in graph["at_budget"] if r["policy"] in against and r["budget"] == b]
        rows = [r for r in rows if r["accuracy"] is not None and r["ours_ahead_points_ci"]]
        if not rows:
            cells.append("–")
            continue
        best = max(rows, key=lambda r: r["accuracy"])
        cells.append(f"{number(best['ours_ahead_points'])}{span(best['ours_ahead_points_ci'])} {best['policy']}")
        behind += best["ours_ahead_points_ci"][1] < 0
        ahead += best["ours_ahead_points_ci"][0] > 0
    if not cells:
        return []
    return [
        f"| {record['ours']} before the best rule, points | " + " | ".join(cells) + " |",
        "",
        f"The best rule is picked with the test labels. It is ahead beyond the interval at {behind} of {len(cells)} "
        f"budgets, {record['ours']} at {ahead}.",
        *flat_budgets(record, graph, against),
    ]


def flat_budgets(record: Record, graph: Record, against: list[str]) -> list[str]:
    """How many comparisons the budgets are: where both curves are flat one difference stands at several of them."""
    told = []
    for name in dict.fromkeys([record["paper"], record["ours"]]):
        pairs = []
        for b in graph["budgets"]:
            rows = {r["policy"]: r["accuracy"] for r in graph["at_budget"] if r["budget"] == b}
            rules = [rows[rule] for rule in against if rows.get(rule) is not None]
            if rules and rows.get(name) is not None:
                pairs.append((round(rows[name], 9), round(max(rules), 9)))
        differ = dict.fromkeys(pairs)
        if len(differ) < len(pairs):
            ahead, at = (sum(own >= best for own, best in asked) for asked in (differ, pairs))
            many = "one comparison" if len(differ) == 1 else f"{len(differ)} different comparisons"
            told.append(
                f"{name}'s {len(pairs)} budgets are {many}, and no rule is ahead of it at {ahead} of {len(differ)} "
                f"({at} of {len(pairs)} budgets)"
            )
    if not told:
        return []
    return ["", f"Where both curves are flat, one difference stands at several budgets: {'; '.join(told)}."]


def study(record: Record, name: str) -> list[str]:
    from adaptbench.results.studies import StudyRun

    lines = [f"\n## {record['title']}\n", f"{record['cite']}.", ""]
    lines += [
        f"`{record['command'] or 'adaptbench run ' + record['name']}`, [summary](../reports/published/{name}).",
        *(f"{note}" for note in record["notes"]),
        "",
    ]
    if missing := StudyRun.incomplete(record):
        lines += ["Missing from this study:", "", *(f"- {reason}" for reason in missing), ""]
    if record["published"]:
        lines += published(record)
    for key, graph in record["graphs"].items():
        oracle = graph["oracle"]["macs"] / graph["macs_full"]
        lines += [
            f"\n### {graph['title'] or key}\n",
            f"Reference {number(100 * graph['reference_accuracy'])} % (top-{graph['top']}) at "
            f"{graph['macs_full'] / 1e6:.1f} M MACs; the oracle needs {number(100 * oracle, 1)} %. {executed(graph)}",
            "",
            *chosen(record, graph),
            *budgets(record, graph),
            *budgets_met(graph),
            *resplits(graph),
            *streams(graph),
            *noise(graph),
            *clock(graph),
        ]
    return lines


def gated(kept: Baseline, name: str) -> list[str]:
    """An ordinary suite's systems against the plain net they were made from, and against smaller plain nets."""
    from adaptbench.results.statistics import mean

    suite = kept.manifest["suite"]
    data = next(iter(kept.manifest["data"]))
    outcomes = {case["model"]: kept.samples(case["evaluation"]) for case in kept.cases if case["condition"] == "clean"}
    plain = outcomes["static"]
    models = list(dict.fromkeys(case["model"] for case in kept.cases if case["latency_s_per_sample"]))
    n = f"{len(plain):,}".replace(",", " ")
    lines = [
        f"\n## {suite['title']}\n",
        f"`adaptbench run {suite['name']}`, [summary](../reports/published/{name}); {n} images of {data}, paired.",
        "Gates' and planner's MACs are included; the published shares leave them out.",
        "",
        "| system | accuracy, % | points lost | share of the plain net's MACs |",
        "|---|---|---|---|",
    ]
    for model, found in outcomes.items():
        lost = mean(plain.correct.astype(float) - found.correct.astype(float)).map(lambda v: 100 * v)
        share = mean(found.macs / plain.macs.mean())
        lines.append(
            f"| {f'**{model}**' if model in models else model} | {number(100 * float(found.correct.mean()))} | "
            f"{number(lost.value)}{span(lost.ci)} | {number(share.value, 3)}{span(share.ci, 3)} |"
        )
    return [*lines, *gated_clock(kept, models)]


def gated_clock(kept: Baseline, models: list[str]) -> list[str]:
    """Seconds of the static net over the system's, from the windows: of nodes and policy, and harness included."""
    from adaptbench.results import timing
    from adaptbench.results.identity import static_id
    from adaptbench.results.statistics import paired_ratio

    windows = kept.windows()
    lines = [
        "",
        "| system | batch | speed-up of the net | harness included | MACs saved, timed inputs, % |",
        "|---|---|---|---|---|",
    ]
    for case in kept.cases:
        if case["condition"] != "clean" or case["model"] not in models or not case["batch_size"]:
            continue
        static = static_id(case["model"], case["batch_size"])
        net = timing.part_blocks(windows, case["case"], *timing.NET), timing.part_blocks(windows, static, "nodes")
        whole = tuple(timing.blocks(windows, name, timing.CLOCK) for name in (case["case"], static))
        cells = []
        for own, reference in (net, whole):
            if own is None or reference is None:
                cells.append("–")
            else:
                ratio = paired_ratio(*own.paired(reference))
                cells.append(number(ratio.value) + span(ratio.ci))
        saved = "–" if case["saving_macs"] is None else number(100 * case["saving_macs"], 1)
        lines.append(f"| {case['model']} | {case['batch_size']}{in_mode(case)} | {' | '.join(cells)} | {saved} |")
    return lines


def gates_apart() -> list[str]:
    """What the shipped gated nets deviate in, from their cards, and what the papers print."""
    zoo = ROOT / "adaptbench" / "zoo" / "shipped" / "cifar10"
    found = {
        name: json.loads((zoo / f"{part}.json").read_text(encoding="utf-8"))["settings"]
        for name, part in (("skipnet", "skipnet56-rnn"), ("blockdrop", "blockdrop56"))
    }
    epochs = {name: sum(phase["epochs"] for phase in settings["phases"]) for name, settings in found.items()}
    told = GATES_DEVIATE.format(**epochs, **(found["skipnet"] | found["blockdrop"])).replace("%", " %")
    lines = [told, "", "| published, CIFAR-10 | accuracy, % | cost | read from |", "|---|---|---|---|"]
    return lines + [f"| {' | '.join(row)} |" for row in PUBLISHED_GATES]


def one_screen(folder: Path) -> list[str]:
    """How many claims were met, a row a study, and each that was not, with its figures and the reason."""
    from adaptbench.results.baseline import Baseline
    from adaptbench.results.studies import StudyRun, decimals, stated
    from adaptbench.results.study_claims import Outcome, claims

    counted: list[tuple[str, list[str]]] = []
    missed: list[str] = []
    for file in sorted(folder.glob("replicate-*.json")):
        if file.name in (GATES, ATTACKS):
            continue
        record = StudyRun.read(file)
        found = claims(record)
        counted.append((record["title"], [str(claim.outcome) for claim in found]))
        for claim in (c for c in found if c.outcome is Outcome.NOT_MET):
            digits = decimals(claim.published)
            wanted, ours = number(stated(claim.published), digits), number(claim.value, digits) + span(claim.interval)
            why = claim.why or ("" if claim.said in ("worse", "not met") else claim.said)
            missed.append(f"| {claim.text} | {wanted} | {ours} | {why or '–'} |")
    if (folder / ATTACKS).exists():
        attacks = _attacks()
        side = attacks.Side(Baseline.load(folder / ATTACKS))
        told = [(claim, found, attacks.verdict(claim, found)) for claim, found in attacks.found(side)]
        counted.append(("Attacks on their papers' own kinds of target", [said for _, _, said in told]))
        for claim, found, said in told:
            if said == "not met":
                missed.append(f"| {claim.attack} on {claim.target} | {claim.published} | {found.told} | {claim.why} |")
    shown = ("met", "not met", "differs", "not comparable")
    lines = ["\n| study | " + " | ".join(shown) + " |", "|---|---|---|---|---|"]
    lines += [f"| {title} | {' | '.join(str(said.count(word)) for word in shown)} |" for title, said in counted]
    every = [word for _, said in counted for word in said]
    lines += [f"| **together** | {' | '.join(f'**{every.count(word)}**' for word in shown)} |"]
    lines += [
        "",
        "*Met*: a published figure reached within its rounding and our interval, or a target of ours reached.",
    ]
    lines += [
        "*Differs*: saves more and loses more, or less of both. Gated nets have a section and no claims of this kind."
    ]
    return [
        *lines,
        "",
        "What was not met (where no reason stands, we know of none):",
        "",
        "| claim | wanted | ours | why |",
        "|---|---|---|---|",
        *missed,
    ]


def _attacks() -> ModuleType:
    sys.path.insert(0, str(Path(__file__).parent))  # a script's own folder, for whoever loads it by its place
    import replicated_attacks

    return replicated_attacks


def page(folder: Path = PUBLISHED) -> str:
    from adaptbench.results.baseline import Baseline
    from adaptbench.results.studies import StudyRun

    lines = [HEAD, *one_screen(folder), RULES]
    for file in sorted(folder.glob("replicate-*.json")):
        if file.name == ATTACKS:
            continue
        if file.name == GATES:
            lines += gated(Baseline.load(file), file.name) + gates_apart()
        else:
            lines += study(StudyRun.read(file), file.name)
    if (folder / ATTACKS).exists():
        lines += _attacks().section(Baseline.load(folder / ATTACKS))
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"{PAGE.relative_to(ROOT)}\n")
