"""What a study writes down of a net and of each policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adaptbench.adaptive import DecisionGraph
from adaptbench.adaptive.topology import cheapest_ways
from adaptbench.results.statistics import Estimate
from adaptbench.study import compare
from adaptbench.study.members import Choice, Family, Member, Outcome
from adaptbench.study.schema import Study


def node_records(model: DecisionGraph, correct: np.ndarray, on_calibration: np.ndarray) -> dict[str, Any]:
    """Each node on its own, the reference among them.

    Args:
        model: the net. correct, on_calibration: (N, V) bool, of always leaving there, on test and on calibration.
    """
    return {
        "reference_accuracy": float(correct[:, model.reference[-1]].mean()),
        "nodes": [
            {
                "name": name,
                "macs": model.node_macs[v],
                "alone_macs": _alone(model, v),
                "accuracy_test": float(correct[:, v].mean()),
                "accuracy_calibration": float(on_calibration[:, v].mean(dtype=np.float32)),
            }
            for v, name in enumerate(model.node_names)
        ],
        "successors": [list(ways) for ways in model.structure.successors],
    }


def _alone(model: DecisionGraph, node: int) -> int:
    """MACs of a node and of all that it reads."""
    macs, at = 0, node
    while at >= 0:
        macs += model.node_macs[at]
        at = model.reads[at]
    return macs


def oracle_record(model: DecisionGraph, correct: np.ndarray, agreement: np.ndarray) -> dict[str, Any]:
    """What looking at the label would save, and how often more computing makes an answer wrong.

    Args:
        model: the net. correct: (N, V) bool, on test. agreement: (N, V) bool, with the reference's answer.
    """
    ways = cheapest_ways(model.structure.successors, model.node_macs)
    costs = [sum(model.node_macs[v] for v in way) for way in ways]
    macs, accuracy = compare.oracle_macs(correct, costs)
    agreeing, _ = compare.oracle_macs(agreement, costs)
    return {
        "oracle": {"macs": macs, "accuracy": accuracy, "agreement_macs": agreeing},
        "dominance_violations": compare.overthinking(correct),
    }


@dataclass(frozen=True, slots=True)
class Sheet:
    """Turns outcomes into records; the same yardstick for every policy of a graph.

    Args:
        spec: of the study. full: MACs of the reference. oracle: mean MACs of the oracle.
        reference: (N,) bool, where the reference is right. nodes: of the graph. n_fitting: samples that fits have.
    """

    spec: Study
    full: float
    oracle: float
    reference: np.ndarray
    nodes: int
    n_fitting: int

    def policy(
        self,
        family: Family,
        chosen: Choice,
        outcomes: Sequence[Outcome],
        curve: compare.Curve,
        settings: Mapping[float, Outcome],
    ) -> dict[str, Any]:
        """A policy's family, curve, chosen points and settings shown one by one."""
        accuracy = float(self.reference.mean())
        return {
            "fit_s": family.fit_s,
            "members": len(family.members),
            "curve": [
                {
                    "setting": m.setting,
                    "cost_share": o.macs_mean / self.full,
                    "accuracy": o.accuracy,
                    "choosing_cost_share": m.chosen_on.macs_mean / self.full,
                    "choosing_accuracy": m.chosen_on.accuracy,
                    "corner": i in family.corners,
                }
                for i, (m, o) in enumerate(zip(family.members, outcomes, strict=True))
            ],
            "area": curve.area(float(curve.macs[0]), self.full),
            "area_from": float(curve.macs[0]) / self.full,
            "cost_at_drop": {
                str(d): None if (c := curve.cost_at(accuracy - d)) is None else c / self.full for d in self.spec.drops
            },
            "chosen": [
                {"drop": d, "setting": family.members[i].setting, "policy": family.members[i].policy.describe()}
                | self._point(outcomes[i])
                for d, i in chosen.drops.items()
            ],
            **self._non_inferior(family, chosen.non_inferior, outcomes),
            "settings": [{"setting": v} | self._point(o) for v, o in settings.items()],
        }

    def _non_inferior(self, family: Family, index: int | None, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        """The cheapest point whose loss on calibration is below the margin, and whether test shows that, too."""
        if index is None:
            reason = "on calibration, no member's loss is below the margin with 95 % confidence"
            return {"non_inferior": None, "non_inferior_missing": reason}
        member, point = family.members[index], self._point(outcomes[index])
        held = bool(point["drop_points_ci"][1] <= 100 * self.spec.margin)
        told = {"margin": self.spec.margin, "setting": member.setting, "policy": member.policy.describe()}
        return {"non_inferior": told | {"choosing_loss_bound": member.loss_bound, "held": held} | point}

    def _point(self, outcome: Outcome) -> dict[str, Any]:
        lost = compare.drop(self.reference, outcome.correct)
        return {
            "macs_mean": outcome.macs_mean,
            "cost_share": outcome.macs_mean / self.full,
            "speedup": self.full / outcome.macs_mean,
            "accuracy": outcome.accuracy,
            "drop_points": 100 * lost.value,
            "drop_points_ci": [100 * lost.low, 100 * lost.high],
            "oracle_share": compare.oracle_share(outcome.macs_mean, self.full, self.oracle),
            "exits": np.bincount(outcome.exit.numpy(), minlength=self.nodes).tolist(),
        }

    def budget_errors(self, families: Mapping[str, Family], outcomes: Mapping[str, list[Outcome]]) -> dict[str, Any]:
        """Realised mean cost on test against the budget asked, by a mixture of corners and by the policy itself.

        What chance alone makes of the latter, one standard error: s·√(1/n + 1/m) over the budget, with s the standard
        deviation of a sample's cost, n samples behind the policy's table of costs and m test samples.
        """
        errors: dict[str, Any] = {}
        for name, family in families.items():
            corners = [(family.members[i].chosen_on.macs_mean, outcomes[name][i].macs_mean) for i in family.corners]
            asked = [budget * self.full for budget in self.spec.budgets]
            realised = [compare.mixed_cost(corners, macs) for macs in asked]
            own = by_chance = None
            if family.members[0].policy.knob == "budget":
                pairs = [(m, o) for m, o in zip(family.members, outcomes[name], strict=True) if m.setting]
                own = [[m.setting / self.full, o.macs_mean / m.setting - 1] for m, o in pairs if m.setting]
                by_chance = [
                    float(o.macs.std() * np.sqrt(1 / self._behind(m) + 1 / len(o.macs)) / m.setting)
                    for m, o in pairs
                    if m.setting
                ]
            errors[name] = {
                "mixture": [None if r is None else r / a - 1 for r, a in zip(realised, asked, strict=True)],
                "own": own,
                "own_by_chance": by_chance,
            }
        return errors

    def _behind(self, member: Member) -> int:
        """Calibration samples that a policy's costs were estimated on."""
        return int(getattr(member.policy, "fitted_on", self.n_fitting))

    def at_budgets(self, curves: Mapping[str, compare.Curve]) -> list[dict[str, Any]]:
        """Accuracy at equal realised cost; how far ours is ahead of each policy, and each policy of the paper's."""
        rows = []
        ours, paper = curves.get(self.spec.ours), curves.get(self.spec.paper)  # either may have failed
        for name, curve in curves.items():
            for budget in self.spec.budgets:
                macs = budget * self.full
                here = curve.at(macs)
                behind = None if ours is None else compare.gain(ours, curve, macs)
                ahead = None if paper is None else compare.gain(curve, paper, macs)
                rows.append(
                    {
                        "policy": name,
                        "budget": budget,
                        "accuracy": None if here is None else float(here.mean()),
                        **_ahead("ours_ahead_points", behind, self.spec.ours, name, curves),
                        **_ahead("over_paper_points", ahead, self.spec.paper, name, curves),
                    }
                )
        return rows


def _ahead(
    figure: str, gained: Estimate | None, other: str, name: str, curves: Mapping[str, compare.Curve]
) -> dict[str, Any]:
    """Points that one curve is ahead of another at one cost, or why there are none."""
    if gained is not None:
        return {figure: 100 * gained.value, f"{figure}_ci": [100 * gained.low, 100 * gained.high]}
    either = f"{name} or {other}" if name != other else name
    why = f"the curve of {either} does not reach down to this budget" if other in curves else f"{other} is left out"
    return {figure: None, f"{figure}_ci": None, f"{figure}_missing": why}
