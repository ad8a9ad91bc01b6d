"""The policy of an audited net, kept in its bundle: fitted again elsewhere, its digits may be others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptbench.adaptive import AdaptiveModel, DecisionGraph, Policy
from adaptbench.errors import AdaptBenchError, PolicyError
from adaptbench.experiment.keys import model_hash
from adaptbench.registry import POLICIES
from adaptbench.zoo import checkpoints

POLICY = f"policy{checkpoints.SUFFIX}"
"""In the bundle, in the zoo's format: tensors, and beside them a card with the settings."""


@dataclass(frozen=True, slots=True)
class Held:
    """A policy read back.

    Args:
        policy: None where it cannot be read. holds: it is the one that the summary speaks of. seen: in a sentence.
    """

    policy: Policy | None
    holds: bool
    seen: str


def keep(bundle: Path, model: AdaptiveModel, card: Mapping[str, Any]) -> dict[str, str] | None:
    """Write the policy that an audit put a net under.

    Args:
        card: what is known of its fit.

    Returns:
        For the summary: its registered name and the SHA-256 of its tensors. None where it cannot be rebuilt from its
        settings and tensors to the same hash, or where no registry has its class: whoever verifies brings it along.
    """
    place = bundle / POLICY
    for old in (place, checkpoints.card_path(place)):
        old.unlink(missing_ok=True)  # of an audit that lay here before
    if not isinstance(model, DecisionGraph) or (name := _registered(model.policy)) is None:
        return None
    described = {"policy": name, "settings": model.policy.describe(), **card}
    try:
        digest = checkpoints.save(place, model.policy.state_dict(), described)
        same = model_hash(model.under(_read(place))) == model_hash(model)
    except AdaptBenchError:
        same = False
    if not same:
        for half in (place, checkpoints.card_path(place)):
            half.unlink(missing_ok=True)
        return None
    return {"name": name, "sha256": digest}


def _registered(policy: Policy) -> str | None:
    for entry in POLICIES:
        if entry.name == policy.name and POLICIES.load(entry.name) is type(policy):
            return entry.name
    return None


def _read(place: Path) -> Policy:
    tensors, card = checkpoints.load(place)
    name, settings = card.get("policy"), card.get("settings")
    if not isinstance(name, str) or not isinstance(settings, dict):
        raise PolicyError(
            f"{checkpoints.card_path(place).name} names no policy with settings.", todo="Take the bundle as it was."
        )
    try:
        policy: Policy = POLICIES.load(name).from_state(settings, tensors)
    except AdaptBenchError:
        raise
    except (TypeError, ValueError, ArithmeticError, LookupError, RuntimeError) as error:
        said = " ".join(str(error).split())[:200]
        raise PolicyError(
            f"{place.name} does not hold a '{name}': {said}", todo="Take the bundle as it was."
        ) from error
    return policy.requires_grad_(False)


def read(bundle: Path, told: Mapping[str, str]) -> Held:
    """The policy that lies in a bundle.

    Args:
        told: of `keep`, as the summary has it.
    """
    place = bundle / POLICY
    try:
        policy = _read(place)
        _, card = checkpoints.load(place)
    except AdaptBenchError as error:
        return Held(None, False, error.seen)
    if card["sha256"] != told["sha256"] or card["policy"] != told["name"]:
        other = f"{POLICY} holds a '{card['policy']}', SHA-256 {card['sha256']}"
        return Held(policy, False, f"{other}; the audited one was a '{told['name']}', SHA-256 {told['sha256']}")
    seen = f"a '{told['name']}' as it was fitted then, SHA-256 {told['sha256']}; nothing is fitted again"
    return Held(policy, True, seen)
