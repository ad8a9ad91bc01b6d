"""Flat case records for the summary: identity, the deterministic part, the timed part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd

from adaptbench.adaptive import AdaptiveModel, DecisionGraph
from adaptbench.bench.manifest import attack_hash
from adaptbench.bench.measuring import Timing
from adaptbench.bench.plan import Evaluation, Plan
from adaptbench.bench.transfers import attack_sha256, surrogate_of
from adaptbench.experiment.failures import Failures
from adaptbench.experiment.measuring import windows_of
from adaptbench.experiment.progress import Progress
from adaptbench.registry import METERS
from adaptbench.results.identity import mixed_id
from adaptbench.results.metrics import AGAINST_CLEAN, CostBounds, MeteredBounds, summarise
from adaptbench.results.neighbours import neighbour_figures
from adaptbench.results.schema import FIGURES, METERED_COLUMNS
from adaptbench.results.timing import not_timed, summarise_windows
from adaptbench.results.writer import RunWriter


def case_records(
    plan: Plan,
    writer: RunWriter,
    timing: Timing,
    device: str,
    progress: Progress,
    failures: Failures,
) -> list[dict[str, Any]]:
    """One record a case, in plan order; an evaluation timed at two batch sizes makes two, a failed one is null."""
    windows = windows_of(writer, timing.keys)
    references = [e for e in plan.evaluations if e.kind == "reference"]
    whole: dict[str, int | None] = {e.split.name: e.model.macs_full for e in references if e.loaded.name == "static"}
    cache: dict[str, pd.DataFrame] = {}

    def samples(evaluation: Evaluation) -> pd.DataFrame:
        if evaluation.id not in cache:
            cache.clear() if len(cache) > 4 else None
            frames = [writer.load(key).samples for key in plan.chunk_keys(evaluation)]
            cache[evaluation.id] = pd.concat([f for f in frames if f is not None], ignore_index=True)
        return cache[evaluation.id]

    seen = _dearest_seen(plan, samples, failures)
    hashes = {id_: attack_hash(plan, id_) for id_ in plan.attacks}

    def of(evaluation: Evaluation) -> list[dict[str, Any]]:
        reference = plan.clean_of(evaluation)
        without = reference is not None and reference.id in failures
        clean = None if reference is None or without else samples(reference)
        cell = writer.record(evaluation.key)
        bounds = _with_seen(cost_bounds(evaluation.model), seen.get(evaluation.loaded.name), cell["details"])
        if evaluation.kind == "reference":  # a smaller plain net is held against the static net too, not against itself
            bounds = replace(bounds, macs_full=whole.get(evaluation.split.name, bounds.macs_full))
        base = {
            **_identity(evaluation, device),
            **surrogate_of(plan, evaluation),
            **summarise(samples(evaluation), clean, bounds, seed=evaluation.seed),
            "craft_s": cell["craft_s"],
            "craft_s_missing": "nothing was crafted",
            "inputs_sha256": cell["inputs_sha256"],
            "crafted": cell["crafted"],
            "uncounted": list(evaluation.model.uncounted),
            "craft_details": cell["details"],
            "attack_sha256": attack_sha256(evaluation, hashes),
            "attack_versions": evaluation.attack.versions if evaluation.attack else {},
        }
        if without:
            base = _without_clean(base)
        timed = timing.cases.get(evaluation.id, [])
        if not timed:
            return [
                base
                | {"case": evaluation.id, "batch_size": None, "mode": None}
                | not_timed("this case is not timed by the suite")
            ]
        by_size = []
        for size, mode, case, static in timed:
            who = {"case": case, "batch_size": size, "mode": mode}
            if case in failures:
                reason = _failed(failures, case)
                by_size.append({**base, **who, **not_timed(reason), "failed": reason})
                continue
            seconds = summarise_windows(
                windows,
                case,
                static,
                macs=timing.inputs[case].macs,
                macs_mean=timing.inputs[case].macs_mean,
                macs_full=float("nan") if bounds.macs_full is None else bounds.macs_full,
                energy_meters=timing.energy_meters,
                no_energy=_no_energy(plan),
            )
            if timing.mixed.get(case):
                seconds["neighbours"] = _neighbours(windows, case, size, timing, failures)
            by_size.append({**base, **who, **seconds})
        return by_size

    records: list[dict[str, Any]] = []
    for i, evaluation in enumerate(plan.evaluations):
        own: list[dict[str, Any]] = []
        if evaluation.id not in failures:
            with failures.instead(evaluation.id):
                own = of(evaluation)
        records += own or _nothing(evaluation, device, timing, failures)
        progress.advance(i + 1)
    return records


def _neighbours(
    windows: pd.DataFrame, case: str, size: int, timing: Timing, failures: Failures
) -> list[dict[str, Any]]:
    asked = {k: mixed_id(case, k) for k in timing.mixed[case]}
    reasons = {k: _failed(failures, name) for k, name in asked.items() if name in failures}
    macs = {k: mean for k, mean in timing.mixed[case].items() if k not in reasons and mean is not None}
    return neighbour_figures(windows, case, size, macs, reasons)


def _with_seen(bounds: CostBounds, seen: float | None, details: dict[str, Any]) -> CostBounds:
    """Bounds with the dearest input of the run; of a metered cost with its noise, too."""
    if bounds.metered is None:
        return replace(bounds, seen=None if seen is None else int(seen))
    noise = details.get("meter_standard_error")
    return replace(bounds, metered=replace(bounds.metered, seen=seen, noise=noise))


def _dearest_seen(plan: Plan, samples: Callable[[Evaluation], pd.DataFrame], failures: Failures) -> dict[str, float]:
    """Model → cost of its dearest input in this run, in MACs or as it is metered; all conditions, seeds and knobs."""
    seen: dict[str, float] = {}
    for evaluation in plan.evaluations:
        if evaluation.id not in failures:
            with failures.instead(evaluation.id):
                name = evaluation.loaded.name
                meter = evaluation.model.meter
                column = "macs" if meter is None else METERED_COLUMNS[meter.unit]
                seen[name] = max(seen.get(name, 0), float(samples(evaluation)[column].max()))
    return seen


def _failed(failures: Failures, case: str) -> str:
    return f"this case failed: {failures.by_case[case].reason}"


def _nothing(evaluation: Evaluation, device: str, timing: Timing, failures: Failures) -> list[dict[str, Any]]:
    """Records of an evaluation that failed: every figure null, with the reason."""
    reason = _failed(failures, evaluation.id)
    blank = {**_identity(evaluation, device), "n": 0, "failed": reason, **{f"{f}_missing": reason for f in FIGURES}}
    if evaluation.source is not None:
        blank["surrogate"] = evaluation.source.loaded.name
    timed = timing.cases.get(evaluation.id)
    if not timed:
        return [{**blank, "case": evaluation.id, "batch_size": None, "mode": None}]
    return [{**blank, "case": one.case, "batch_size": one.size, "mode": one.mode} for one in timed]


def _without_clean(record: dict[str, Any]) -> dict[str, Any]:
    """The record of an attack whose clean case failed: nothing is told against it."""
    for name in (*AGAINST_CLEAN, "at_ceiling"):
        record[name] = None
        record[f"{name}_missing"] = "the clean case of this model failed"
        record.pop(f"{name}_ci", None)
    return record


def _no_energy(plan: Plan) -> str:
    """Why a suite without an energy meter for single cases has no joules."""
    measure = plan.suite.suite.measure
    whole = [name for name in (measure.meters if measure else []) if METERS.load(name).whole_run]
    return f"{', '.join(whole)}: of the whole run, not of single cases" if whole else "no energy meter was asked for"


def _identity(evaluation: Evaluation, device: str) -> dict[str, Any]:
    return {
        "evaluation": evaluation.id,
        "model": evaluation.loaded.name,
        "net": evaluation.entry.net,
        "policy": evaluation.policy,
        "policy_settings": evaluation.entry.settings,
        "defence": evaluation.entry.defence,
        "defence_settings": evaluation.entry.defence_settings,
        "knob": evaluation.knob,
        "knob_value": evaluation.knob_value,
        "data": evaluation.split.name,
        "condition": evaluation.condition.id,
        "kind": evaluation.kind,
        "device": device,
        "seed": evaluation.seed,
    }


def cost_bounds(model: AdaptiveModel) -> CostBounds:
    """What a model can cost; an exit has one cost where the graph is a chain."""
    if model.meter is not None:
        known = MeteredBounds(model.meter.unit, getattr(model, "plain_cost", None))
        return CostBounds(None, None, None, model.exit_names, metered=known)
    exit_macs = None
    if isinstance(model, DecisionGraph) and model.structure.is_chain:
        visit = [a + b for a, b in zip(model.node_macs, model.policy_macs, strict=True)]
        exit_macs = tuple(sum(visit[: k + 1]) + leave for k, leave in enumerate(model.predict_macs))
    budget, no_budget = _budget(model)
    return CostBounds(
        model.min_macs, model.max_macs, model.macs_full, model.exit_names, exit_macs, budget=budget, no_budget=no_budget
    )


def _budget(model: AdaptiveModel) -> tuple[float | None, str]:
    """The mean cost that a policy was asked to keep, in MACs; or None, and why."""
    policy = model.policy if isinstance(model, DecisionGraph) else None
    budget, unit = getattr(policy, "budget", None), getattr(policy, "cost_unit", "macs")
    if isinstance(budget, bool) or not isinstance(budget, int | float):
        return None, "the policy has no budget"
    return (float(budget), "") if unit == "macs" else (None, f"the policy's budget is in {unit}, not in MACs")
