"""What an audit found, as a document: ``summary.json``, from which its page and its words are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adaptbench.auditing import plain
from adaptbench.auditing.evidence import evidence
from adaptbench.auditing.findings import Check
from adaptbench.auditing.grounds import Ground, ground_of, told_reach
from adaptbench.auditing.target import Target
from adaptbench.bench.plan import Plan
from adaptbench.bench.records import cost_bounds
from adaptbench.data.base import DataSet
from adaptbench.errors import RunError
from adaptbench.experiment.keys import model_hash
from adaptbench.results.audits import audit_figures, tried
from adaptbench.results.schema import Record
from adaptbench.results.store import Run

SCHEMA = 1


def summary_of(
    plan: Plan,
    run: Run,
    target: Target,
    before: Sequence[Check],
    reach: Mapping[str, float],
    seed: int,
    *,
    own: DataSet | None,
) -> Record:
    """The whole of it.

    Args:
        plan: that was run. run: of the bench. target: as it was named. before: checks that were made beforehand.
        reach: how far attacks went, by the setting that says it. seed: of everything drawn.
        own: inputs that were handed over, and have no name.

    Raises:
        RunError: the clean inputs could not be run.
    """
    (label,) = plan.suite.suite.labels
    ground = ground_of(plan.split.x)
    loaded, entry = plan.models[label], plan.suite.suite.models[0]
    skipped = [{"condition": condition, "reason": reason} for _, condition, reason in plan.skipped]
    conditions = tried(run.cases)
    clean = next((c for c in conditions if c.kind == "clean"), None)
    if clean is None:
        reason = next(str(case["failed"]) for case in run.cases if case["kind"] == "clean")
        raise RunError(
            f"the clean {ground.many} could not be run: {reason}",
            todo="Mend the net; its traceback lies in run/failures.",
        )
    figures = audit_figures(run.samples(), conditions, cost_bounds(loaded.model), seed=seed)
    after, how = evidence(run, figures, skipped, ground), told_reach(loaded.model, reach)
    told = run.manifest["conditions"]
    return {
        "schema": SCHEMA,
        "kind": "audit",
        "versions": run.manifest["versions"],
        "model": {
            "name": label,
            "net": target.name,
            "title": loaded.title,
            "spec": target.spec,
            "source": target.source,
            "policy": loaded.model.policy_name,
            "asked_policy": None if entry.policy is None else {entry.policy: entry.settings},
            "asked_defence": None if entry.defence is None else {entry.defence: entry.defence_settings},
            "kept_policy": None,
            "shape": loaded.model.shape,
            "sha256": model_hash(loaded.model),
            "min_macs": loaded.model.min_macs,
            "max_macs": loaded.model.max_macs,
            "macs_full": loaded.model.macs_full,
            "uncounted": list(loaded.model.uncounted),
        },
        "data": {
            "name": plan.split.name,
            "spec": plan.suite.suite.data,
            "split": plan.split.role,
            "n": len(plan.split),
            "sha256": plan.split.sha256,
            "classes": list(plan.split.class_names),
            "stored": own is not None,
        },
        "ground": ground.kind,
        **how,
        "seed": seed,
        "chunk": plan.suite.suite.chunk,
        "conditions": {c.condition: _condition(told[c.condition], ground, how["range"]) for c in conditions},
        "figures": figures,
        "checks": [check.as_dict() for check in [*before, *after]],
        "skipped": skipped,
        "not_tried": plain.not_tried([c.condition for c in conditions], ground),
    }


def _condition(described: Mapping[str, Any], ground: Ground, within: Sequence[float] | None) -> Record:
    settings = described["settings"]
    eps, share = settings.get("eps"), settings.get("share")
    if within is not None and eps is None and ground.bounds(settings):
        eps = share * (within[1] - within[0])
    kept = {name: described[name] for name in ("kind", "access", "summary", "cite", "sha256", "deviates", "settings")}
    bounds = {"eps": eps if isinstance(eps, int | float) else None}
    return kept | bounds | ({"share": share} if ground.bounds(settings) and share is not None else {})
