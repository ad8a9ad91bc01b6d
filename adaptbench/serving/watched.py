"""What the gate of a file watches, held against its cases."""

from __future__ import annotations

from collections.abc import Iterator

from adaptbench.experiment.watched import as_written, check_rules
from adaptbench.results.gate_rules import OF_SERVING
from adaptbench.results.serving import DEFENDED, KINDS, PLAIN, PROVISION, STREAM_FIGURES
from adaptbench.serving.nets import ServingPlan
from adaptbench.serving.planner import plan_id
from adaptbench.serving.scenes import BUDGET, NO_DEFENCE, case_id
from adaptbench.serving.schema import Serving


def check_watched(plan: ServingPlan) -> None:
    """Refuse patterns of the gate that name nothing, and rules that no figure falls under.

    Raises:
        SuiteError: with file, line and rule.
    """
    spec = plan.loaded.serving
    cases = list(cases_of(spec))
    having = {case["case"]: ("replicas",) if case["kind"] == PROVISION else STREAM_FIGURES for case in cases}
    names = [*KINDS, *_names(spec), *as_written(plan.loaded, Serving, _names)]
    check_rules(plan.loaded, spec.gate, cases, names, OF_SERVING, having)


def cases_of(spec: Serving) -> Iterator[dict[str, str]]:
    """Every case of a file, where nothing fails."""
    shares = [0.0, *(spec.hostile.shares if spec.hostile is not None else [])]
    defences = [NO_DEFENCE, *([BUDGET] if spec.hostile is not None and spec.hostile.budget is not None else [])]
    for label in spec.labels:
        for arrivals in spec.arrivals:
            for mode in spec.batching.modes:
                for share in shares:
                    for defence in defences:
                        kind = PLAIN if defence == NO_DEFENCE else DEFENDED
                        yield {
                            "case": case_id(label, arrivals.id, mode, share, defence),
                            "kind": kind,
                            "model": label,
                            "condition": arrivals.id,
                        }
        for load in spec.planner.loads if spec.planner is not None else []:
            yield {
                "case": plan_id(label, spec.batching.modes[0], load),
                "kind": PROVISION,
                "model": label,
                "condition": PROVISION,
            }


def _names(spec: Serving) -> list[str]:
    return [*spec.labels, *(arrivals.id for arrivals in spec.arrivals)]
