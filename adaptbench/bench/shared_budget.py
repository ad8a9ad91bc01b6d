"""What a shared budget of work does to the crafted inputs of a run, and to the honest ones beside them."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adaptbench.adaptive import DecisionGraph
from adaptbench.adaptive.model import frozen
from adaptbench.bench.evaluate import as_input, sample_seeds
from adaptbench.bench.plan import Evaluation, Plan, make_plan
from adaptbench.bench.suite import load_suite
from adaptbench.defences.shared_budget import Shared, Ways, shared_stream, ways_of
from adaptbench.errors import RunError, UsageError
from adaptbench.experiment.options import Options
from adaptbench.results.statistics import mean
from adaptbench.results.store import Run

SHARES = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5)
_CHUNK = 500
_BURSTS = 20
_OFTEN_ENOUGH = 0.995
"""Of the rows: decisions nearer to a tie than rounding may fall the other way."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """How a shared budget is provided for.

    Args:
        headroom: the refill an input, as a multiple of what a clean input costs on average.
        burst: what the bucket holds, in refills. It begins full: streams are at least twenty bursts long, in as many
            passes over the samples as that takes.
        shares: of the traffic that are the attacker's. orders: shuffles of the stream, one figure each.

    Raises:
        UsageError: numbers that make no bucket.
    """

    headroom: float = 1.2
    burst: float = 50.0
    shares: Sequence[float] = SHARES
    orders: int = 10

    def __post_init__(self) -> None:
        if not self.headroom > 0 or not self.burst >= 1 or self.orders < 2:
            raise UsageError(
                f"headroom={self.headroom:g}, burst={self.burst:g}, orders={self.orders} make no bucket.",
                todo="Give a headroom above 0, a burst of at least 1, and 2 orders or more.",
            )
        if not self.shares or any(not 0 <= share < 1 for share in self.shares):
            raise UsageError(f"shares {list(self.shares)} are not in [0, 1).", todo="Write --shares 0,0.1,0.5.")


def shared_budgets(run: Run, bucket: Bucket, options: Options) -> list[dict[str, Any]]:
    """One row for each attack of a run on a net that decides by a policy, and for each share of the traffic.

    The nets are loaded again and must do to the run's own pictures what its rows say. An estimate is
    {value, low, high}, over orders of the stream (95 %).

    Args:
        options: where data and checkpoints are.

    Raises:
        RunError: nothing in it applies, or a net is not the one that the rows are of.
        UsageError: the bucket cannot pay for the entry node of a net.
    """
    plan = _plan_of(run, options)
    rows: list[dict[str, Any]] = []
    for evaluation in plan.evaluations:
        model = evaluation.model
        if evaluation.kind == "attack" and isinstance(model, DecisionGraph) and model.structure.deciders:
            rows += _of_attack(run, evaluation, model, bucket)
    if not rows:
        raise RunError(
            f"{run.path}: no attack in it is on a net that decides by a policy.",
            why="A budget forces exits; gates and plain nets have none.",
            todo="Run a suite with a multi-exit net or a cascade, and an attack.",
        )
    return rows


def _plan_of(run: Run, options: Options) -> Plan:
    """What the run did, laid out again from the suite that lies in its manifest."""
    told = run.manifest["suite"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{Path(told['name']).name}.yaml"
        file.write_text(told["text"], encoding="utf-8")
        suite = load_suite(str(file), told.get("overrides") or ())
        limit = told.get("limit")
        return make_plan(
            suite,
            Options(limit=limit, data_root=options.data_root, download=options.download, zoo=options.zoo),
        )


def _of_attack(run: Run, evaluation: Evaluation, model: DecisionGraph, bucket: Bucket) -> list[dict[str, Any]]:
    case = next((c for c in run.cases if c["evaluation"] == evaluation.id), None)
    if case is None or case.get("failed") or not case.get("crafted"):
        return []
    split, x_adv = evaluation.split, torch.from_numpy(run.crafted(case["crafted"])["x_adv"])
    stored = run.samples([evaluation.id])
    if stored["sample_id"].tolist() != split.ids.tolist():
        raise _another(run, evaluation, "its pictures are of other samples")
    seeds = sample_seeds(split.ids, evaluation.seed)
    spent = _in_chunks(lambda x, s: model.infer(x, seeds=s).macs, x_adv, seeds)
    same = (spent.numpy() == stored["macs"].to_numpy()).mean()
    if same < _OFTEN_ENOUGH:
        raise _another(run, evaluation, f"{1 - same:.1%} of its rows say other MACs than the net spends")
    clean, attacked = (_ways(model, x, split.y, seeds) for x in (split.x, x_adv))
    per_input = float(clean.free_costs.mean())
    rate = bucket.headroom * per_input
    about = {
        "evaluation": evaluation.id,
        "model": evaluation.loaded.name,
        "condition": evaluation.condition.id,
        "seed": evaluation.seed,
        "n": len(split),
        "headroom": bucket.headroom,
        "burst": bucket.burst,
        "orders": bucket.orders,
        "rate_macs": rate,
        "capacity_macs": bucket.burst * rate,
        "macs_clean_mean": per_input,
        "macs_attacked_mean": float(attacked.free_costs.mean()),
        "macs_max": model.max_macs,
    }
    return [
        about | {"share": share} | _figures(clean, attacked, share, rate, bucket, model.max_macs)
        for share in bucket.shares
    ]


def _figures(clean: Ways, attacked: Ways, share: float, rate: float, bucket: Bucket, dearest: int) -> dict[str, Any]:
    """Estimates over orders; what the attacker gets is null where he sends nothing."""
    passes = max(1, math.ceil(_BURSTS * bucket.burst / len(clean)))
    runs = [
        shared_stream(clean, attacked, share=share, rate=rate, capacity=bucket.burst * rate, order=order, passes=passes)
        for order in range(bucket.orders)
    ]
    per_input = float(clean.free_costs.mean())

    def of(value: Any) -> dict[str, float] | None:
        values = [value(one) for one in runs]
        return None if None in values else _estimate(values)

    def gained(one: Shared) -> float | None:
        return None if one.attacker_macs is None else (one.attacker_macs - per_input) / (dearest - per_input)

    return {
        "benign_accuracy": of(lambda one: one.benign_accuracy),
        "benign_accuracy_lost": of(lambda one: one.benign_accuracy_free - one.benign_accuracy),
        "benign_forced": of(lambda one: one.benign_forced),
        "benign_macs_mean": of(lambda one: one.benign_macs),
        "attacker_macs_mean": of(lambda one: one.attacker_macs),
        "attacker_recovery": of(gained),
        "stream_macs_mean": of(lambda one: one.stream_macs),
        "stream_macs_free_mean": of(lambda one: one.stream_macs_free),
    }


def _estimate(values: Sequence[float]) -> dict[str, float]:
    if len(set(values)) == 1:
        return {"value": values[0], "low": values[0], "high": values[0]}
    found = mean(values)
    return {"value": float(found.value), "low": float(found.low), "high": float(found.high)}


@torch.no_grad()
def _ways(model: DecisionGraph, x: Tensor, labels: Tensor, seeds: Tensor) -> Ways:
    with frozen(model):
        logits = _in_chunks(lambda part, _: model.dense_logits(part).float(), x, seeds)
    costs = torch.tensor([a + b for a, b in zip(model.node_macs, model.policy_macs, strict=True)])
    return ways_of(model.policy, model.structure, logits, labels, costs, seeds)


def _in_chunks(call: Any, x: Tensor, seeds: Tensor) -> Tensor:
    parts = [(as_input(x[i : i + _CHUNK], "cpu"), seeds[i : i + _CHUNK]) for i in range(0, len(x), _CHUNK)]
    return torch.cat([call(*part) for part in parts])


def _another(run: Run, evaluation: Evaluation, what: str) -> RunError:
    return RunError(
        f"{run.path}: {evaluation.id}: {what}.",
        why="What one net's pictures cost another net is no figure of this run.",
        todo="Name the --zoo and --data-root that the run was made with, or run the suite again.",
    )
