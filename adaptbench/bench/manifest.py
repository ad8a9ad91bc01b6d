"""What the manifest says of models, conditions and data."""

from __future__ import annotations

from typing import Any

from adaptbench.adaptive import DecisionGraph, GatedNetwork
from adaptbench.bench.plan import Plan
from adaptbench.experiment.keys import digest_of, model_hash, split_hash
from adaptbench.results.quality import WORDS
from adaptbench.zoo.loading import Loaded


def describe_models(plan: Plan) -> dict[str, Any]:
    """Shape, paths, costs and cards of the suite's models, by name."""
    return {name: _model(plan.models[name]) for name in plan.suite.suite.labels}


def describe_references(plan: Plan) -> dict[str, Any]:
    """The same of what the models are held against."""
    return {name: _model(loaded) for name, loaded in plan.models.items() if name not in plan.suite.suite.labels}


def _model(loaded: Loaded) -> dict[str, Any]:
    model = loaded.model
    metered = model.meter is not None
    return {
        "title": loaded.name,
        "summary": loaded.title,
        "cite": loaded.cite,
        "shape": model.shape,
        "node_names": list(model.node_names),
        "exit_names": list(model.exit_names),
        "node_macs": None if metered else list(model.node_macs),
        "policy_macs": _policy_macs(model),
        "min_macs": None if metered else model.min_macs,
        "max_macs": None if metered else model.max_macs,
        "macs_full": None if metered else model.macs_full,
        "policy": model.policy_name,
        "card": _card(loaded),
        "uncounted": list(model.uncounted),
        "cost_unit": model.meter.unit if model.meter is not None else "macs",
        **({} if model.meter is None else {"readings": model.meter.readings}),
    }


def _card(loaded: Loaded) -> dict[str, Any]:
    """What it is, and the accuracy or mIoU of its last exit, before the cards of weights and policy."""
    parts = loaded.card.get("weights", {}).values()
    told: dict[str, dict[str, float]] = {
        metric: next((card[f"{metric}_test"] for card in reversed(parts) if f"{metric}_test" in card), {})
        for metric in WORDS
    }
    return {
        "what": loaded.title,
        **({"source": loaded.cite} if loaded.cite else {}),
        **{metric: list(exits.values())[-1] for metric, exits in told.items() if exits},
        **loaded.card,
    }


def _policy_macs(model: object) -> list[int]:
    if isinstance(model, DecisionGraph):
        return list(model.policy_macs)
    return [model.gate_macs] if isinstance(model, GatedNetwork) else []


def describe_conditions(plan: Plan) -> dict[str, Any]:
    """Threat model, settings and deviations, by condition id."""
    described: dict[str, Any] = {}
    for condition in plan.suite.suite.conditions:
        attack = plan.attacks.get(condition.id)
        if attack is None:
            described[condition.id] = {
                "title": "clean",
                "summary": "inputs as they are",
                "kind": "clean",
                "access": "none",
                "cite": "",
                "settings": {},
                "sha256": None,
                "versions": {},
                "deviates": [],
            }
        else:
            described[condition.id] = {
                "title": condition.id,
                "summary": attack.title,
                "kind": attack.kind,
                "access": attack.access,
                "cite": attack.cite,
                "settings": attack.settings,
                "sha256": attack_hash(plan, condition.id),
                "versions": attack.versions,
                "deviates": list(attack.deviates),
            }
    return described


def attack_hash(plan: Plan, condition: str) -> str | None:
    """What an attack does, with its surrogate's weights and crafting pictures; None for clean inputs.

    Equal only for equal attacks.
    """
    attack = plan.attacks.get(condition)
    if attack is None:
        return None
    other = plan.surrogates.get(attack.surrogate or "")
    beside = [] if other is None else [model_hash(other)]
    if attack.needs_crafting and plan.crafting is not None:
        beside.append(split_hash(plan.crafting))
    return digest_of([attack.sha256, *beside]) if beside else attack.sha256


def describe_data(plan: Plan) -> dict[str, Any]:
    """Size, hash and class names, by data set."""
    split = plan.split
    return {
        split.name: {
            "n": len(split),
            "split": split.role,
            "sha256": split.sha256,
            "shape": list(split.shape),
            "n_classes": len(split.class_names),
            "class_names": list(split.class_names),
        }
    }
