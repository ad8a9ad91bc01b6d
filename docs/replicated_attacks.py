"""The section on attacks of docs/replication.md: each paper's figure, ours with interval and n, what deviates.

`docs/replication_page.py` puts it there; a test recomputes figures of it from a run directory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from adaptbench.results.baseline import Baseline
    from adaptbench.results.statistics import Estimate

FILE = "replicate-attacks.json"
HEAD = """
Each attack on its paper's own kind of target, ours: CIFAR-10, shipped weights, eight-bit pictures, executed MACs. A
figure in MACs is not one in joules or in seconds: such rows are “not comparable” and say what ours is. “Up to” is of
the best single picture, so it is held against ours. The trapezoid's scale has a floor, half of the last exit's share of
the cost: a net that saves little when clean cannot lose 90 % of its efficacy by it, even where every picture is taken
to the last exit. Pictures are the first of the test split; n says how many, and
intervals are 95 % over them. Attacks, their settings and what they deviate in stand in the recipes of their names.
Provenance as above; [memory] is a figure that we remember and could not look up.
"""

Record = dict[str, Any]


def number(value: float, digits: int = 1) -> str:
    return f"{value:.{digits}f}".replace("-", "−")


def percent(estimate: Estimate, digits: int = 1) -> str:
    told = f"{number(100 * estimate.value, digits)} %"
    if estimate.ci is None:
        return told
    return told + f" [{number(100 * estimate.ci[0], digits)}, {number(100 * estimate.ci[1], digits)}]"


@dataclass(frozen=True)
class Found:
    """A figure of ours. told: in words. value: what a bar is held against. n: pictures."""

    told: str
    value: float
    n: int


class Side:
    """A committed run: cases by model and condition, paired rows."""

    def __init__(self, kept: Baseline) -> None:
        self.kept = kept
        self.cases = {(c["model"], c["condition"]): c for c in kept.cases}

    def case(self, model: str, condition: str) -> Record:
        return self.cases[model, condition]

    def macs(self, model: str, condition: str, like: str = "") -> np.ndarray:
        """(n,) of a case; with `like`, of the inputs that both have."""
        own = self.kept.samples(self.case(model, condition)["evaluation"])
        assert own is not None
        if not like:
            return own.macs
        other = self.kept.samples(self.case(model, like)["evaluation"])
        assert other is not None
        return own.macs[np.isin(own.sample_id, other.sample_id)]

    def pair(self, model: str, condition: str) -> tuple[np.ndarray, np.ndarray]:
        """(n,) clean and attacked MACs, the same inputs."""
        return self.macs(model, "clean", condition), self.macs(model, condition)


def recovery(model: str, condition: str) -> Callable[[Side], Found]:
    def of(side: Side) -> Found:
        from adaptbench.results.metrics import recovery as recovered

        case = side.case(model, condition)
        estimate = recovered(*side.pair(model, condition), case["macs_max"])
        assert estimate is not None
        return Found(f"{percent(estimate)} of the saving", estimate.value, case["n"])

    return of


def best_input(model: str, condition: str) -> Callable[[Side], Found]:
    """The largest recovery of one input, its dearest path being the whole net's."""

    def of(side: Side) -> Found:
        case, (before, after) = side.case(model, condition), side.pair(model, condition)
        room = before < case["macs_max"]
        best = float(((after - before)[room] / (case["macs_max"] - before)[room]).max())
        return Found(f"{number(100 * best)} % on the best picture", best, case["n"])

    return of


def exit_area(side: Side, model: str) -> tuple[np.ndarray, np.ndarray]:
    """(K,) cumulative MACs of the exits of a chain, and what an input that leaves there adds to the trapezoid area."""
    from adaptbench.results.metrics import efficacy_trapezoid

    told = side.kept.manifest["models"][model]
    costs = np.cumsum(np.add(told["node_macs"], told["policy_macs"]))
    return costs, np.array([efficacy_trapezoid([k], costs.tolist()).value for k in range(len(costs))])


def efficacy_lost(model: str, condition: str) -> Callable[[Side], Found]:
    """1 − attacked / clean trapezoid efficacy, the same inputs."""

    def of(side: Side) -> Found:
        from adaptbench.results.statistics import ratio_of_means

        costs, area = exit_area(side, model)
        before, after = (area[np.searchsorted(costs, macs)] for macs in side.pair(model, condition))
        lost = ratio_of_means(before, after).map(lambda ratio: 1 - ratio)
        case = side.case(model, condition)
        last = float((side.macs(model, condition) == costs[-1]).mean())
        told = f"−{percent(lost)}: {number(before.mean(), 3)} → {number(after.mean(), 3)} (trapezoid, whose floor is "
        told += (
            f"{number(area[-1], 3)} here); step {number(case['efficacy_step'], 3)}; {number(100 * last, 0)} % of the "
        )
        return Found(f"{told}pictures at the last exit", lost.value, case["n"])

    return of


def increase(model: str, condition: str) -> Callable[[Side], Found]:
    def of(side: Side) -> Found:
        from adaptbench.results.metrics import increase as raised

        case, (before, after) = side.case(model, condition), side.pair(model, condition)
        estimate, best = raised(before, after), float((after / before - 1).max())
        room = case["macs_max"] / before.mean() - 1
        told = (
            f"+{percent(estimate)} MACs on average, +{number(100 * best)} % on the best picture; the dearest path is "
        )
        return Found(f"{told}+{number(100 * room)} % of the clean mean", estimate.value, case["n"])

    return of


def ratio(model: str, condition: str) -> Callable[[Side], Found]:
    def of(side: Side) -> Found:
        from adaptbench.results.statistics import ratio_of_means

        case, estimate = side.case(model, condition), ratio_of_means(*side.pair(model, condition))
        assert estimate.ci is not None
        low, high = estimate.ci
        told = f"{number(estimate.value, 2)} [{number(low, 2)}, {number(high, 2)}] × the MACs"
        return Found(told, estimate.value, case["n"])

    return of


def density(model: str, condition: str) -> Callable[[Side], Found]:
    """Modelled: no MAC here skips zeros."""

    def of(side: Side) -> Found:
        case, (before, after) = side.case(model, condition), side.pair(model, condition)
        told = case["craft_details"]
        was, now = told["activation_density_clean"], told["activation_density"]
        cost = number(100 * (after.mean() / before.mean() - 1))
        words = f"density {number(100 * was)} → {number(100 * now)} % (modelled); its own MACs {cost} %"
        return Found(words, now / was - 1, case["n"])

    return of


def gain_over(model: str, condition: str, other: str) -> Callable[[Side], Found]:
    """Points of recovery more than another attack on the inputs that both saw, paired."""

    def of(side: Side) -> Found:
        from adaptbench.results.statistics import difference_of_means

        one, two = side.macs(model, condition, other), side.macs(model, other, condition)
        case = side.case(model, condition)
        before = side.macs(model, "clean", condition)[: len(one)]
        room = float(case["macs_max"] - before.mean())
        gain = difference_of_means(two / room, one / room)
        return Found(f"{percent(gain).replace(' %', '')} points beside {other}", gain.value, len(one))

    return of


@dataclass(frozen=True)
class Claim:
    """A row.

    Args:
        attack, target: in words. published: the paper's figure. source: its provenance tag, or "target".
        ours: finds it. at_least: the bar; None where the two are not comparable. why: what deviates.
    """

    attack: str
    target: str
    published: str
    source: str
    ours: Callable[[Side], Found]
    at_least: float | None
    why: str


SHORT = "the net is ours, of the short recipe"
MACS = "theirs is energy or time on a device, ours executed MACs"
SDN, ENTROPY, HALTS = "SDN ResNet-56", "SDN by entropy", "halting net"
LOST, RAISED, FOREIGN = "efficacy −90…100 %", "up to +2000 % / +1000 %", "CIFAR-100 for CIFAR-10"
BETTER = "better than attacks before it"
PATCH = "SlowFormer on A-ViT; ours on exits, 5 % of the area, 60 steps"
QUERIES = "best of 500 draws, as many queries"
ROWS = (
    ("ILFO", "SkipNet", "up to 100 %", "[abs]", best_input("skipnet-rnn", "ilfo"), 1.0, f"ResNet-56 for 110; {SHORT}"),
    ("ILFO", "SkipNet", "–", "", recovery("skipnet-rnn", "ilfo"), None, "no mean is published in what we have"),
    ("ILFO", HALTS, "up to 100 %", "[abs]", best_input("act", "ilfo"), 1.0, "halts by image, theirs by position"),
    ("ILFO", HALTS, "–", "", recovery("act", "ilfo"), None, "ours hardly depends on the picture"),
    ("ILFO, ponder cost", HALTS, "–", "", recovery("act", "ilfo-ponder"), None, "Σ (ρ_max − ρ)₊, from memory"),
    ("GradMDM", "SkipNet", BETTER, "[abs]", gain_over("skipnet-rnn", "gradmdm", "ilfo"), 0.0, "100 steps, ILFO 300"),
    ("GradMDM", "SkipNet", "–", "", recovery("skipnet-rnn", "gradmdm"), None, "by MACs; theirs counts blocks"),
    ("GradAuto", "SkipNet", BETTER, "[abs]", gain_over("skipnet-rnn", "gradauto", "ilfo"), 0.0, "distance bounded"),
    ("GradAuto", "SkipNet", "–", "", recovery("skipnet-rnn", "gradauto"), None, "by MACs; theirs counts blocks"),
    ("DeepSloth L∞", SDN, LOST, "[abs]", efficacy_lost("sdn", "deepsloth"), 0.9, SHORT),
    ("DeepSloth L2", SDN, LOST, "[abs]", efficacy_lost("sdn", "deepsloth-l2"), 0.9, "radius 0.35"),
    ("DeepSloth L1", SDN, LOST, "[abs]", efficacy_lost("sdn", "deepsloth-l1"), 0.9, "radius 8"),
    ("DeepSloth universal", SDN, "40 %", "target", recovery("sdn", "deepsloth-universal"), 0.4, "100 steps for 20"),
    ("DeepSloth L∞", SDN, "latency 1.5–5 ×", "[abs]", ratio("sdn", "deepsloth"), None, MACS),
    ("EREBA", "BlockDrop", RAISED, "[abs] / [2nd]", increase("blockdrop", "ereba"), None, MACS),
    ("EREBA", ENTROPY, RAISED, "[abs] / [2nd]", increase("sdn-entropy", "ereba"), None, MACS),
    ("EREBA", "BlockDrop", "beats chance", "target", gain_over("blockdrop", "ereba", "best-of-n"), 0.0, QUERIES),
    ("EREBA", ENTROPY, "beats chance", "target", gain_over("sdn-entropy", "ereba", "best-of-n"), 0.0, QUERIES),
    ("patch", SDN, "80 % at 2 % of the area", "[code]", recovery("sdn", "universal-patch"), None, PATCH),
    ("sponge", SDN, "a few % of energy", "[memory]", density("sdn", "sponge"), None, "theirs a modelled energy"),
    ("uniform colour", SDN, "denser activations", "[code]", density("sdn", "uniform-colour"), 0.0, "a control"),
    ("noise 8/255", SDN, "–", "", recovery("sdn", "noise"), None, "a control"),
    (FOREIGN, SDN, "–", "", recovery("sdn", "shift-cifar100"), None, "the attacker nobody hired"),
    (FOREIGN, "SkipNet", "–", "", recovery("skipnet-rnn", "shift-cifar100"), None, "as above"),
    (FOREIGN, "BlockDrop", "–", "", recovery("blockdrop", "shift-cifar100"), None, "as above"),
    (FOREIGN, HALTS, "–", "", recovery("act", "shift-cifar100"), None, "as above"),
)
CLAIMS = tuple(Claim(*row) for row in ROWS)


def verdict(claim: Claim, found: Found) -> str:
    if claim.at_least is None:
        return "not comparable" if claim.source else "stated"
    return "met" if found.value >= claim.at_least - 1e-9 else "not met"


def found(side: Side) -> Iterator[tuple[Claim, Found]]:
    """Claims with ours; one whose case is not in the run is left out."""
    for claim in CLAIMS:
        try:
            yield claim, claim.ours(side)
        except KeyError:
            continue


def section(kept: Baseline) -> list[str]:
    """Lines of the section."""
    suite, side = kept.manifest["suite"], Side(kept)
    device = kept.manifest["device"]
    spent = sum(case["craft_s"] or 0.0 for case in kept.cases)
    lines = [
        f"\n## Attacks: {suite['title']}",
        HEAD,
        f"`adaptbench run {suite['name']}`, [summary](../reports/published/{FILE}); {number(spent / 60, 0)} minutes of "
        f"crafting, threads: {device['threads']}, on a shared machine.",
        "",
        "| attack | target | published | read from | ours | n | verdict | what deviates |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for claim, ours in found(side):
        cells = [claim.attack, claim.target, claim.published, claim.source or "–", ours.told, str(ours.n)]
        lines.append(f"| {' | '.join([*cells, verdict(claim, ours), claim.why])} |")
    return lines
